//! Fuzzes `ringway_fuzz::client_hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::client_hello::check(input));
