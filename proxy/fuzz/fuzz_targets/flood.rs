//! Fuzzes `ringway_fuzz::flood`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::flood::check(input));
