//! Fuzzes `ringway_push_fuzz::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway_push_fuzz::frames::check(input));
