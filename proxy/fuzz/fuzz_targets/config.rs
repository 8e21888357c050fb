//! Fuzzes `ringway_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::config::check(input));
