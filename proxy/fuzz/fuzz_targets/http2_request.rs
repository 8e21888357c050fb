//! Fuzzes `ringway_fuzz::http2_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::http2_request::check(input));
