//! Fuzzes `ringway_fuzz::chunked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::chunked::check(input));
