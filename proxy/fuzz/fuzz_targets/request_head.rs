//! Fuzzes `ringway_fuzz::request_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::request_head::check(input));
