//! Fuzzes `ringway_fuzz::response_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::response_head::check(input));
