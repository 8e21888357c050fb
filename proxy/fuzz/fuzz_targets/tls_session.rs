//! Fuzzes `ringway_fuzz::tls_session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::tls_session::check(input));
