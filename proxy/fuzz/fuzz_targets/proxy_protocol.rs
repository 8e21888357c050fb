//! Fuzzes `ringway_fuzz::proxy_protocol`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_fuzz::proxy_protocol::check(input));
