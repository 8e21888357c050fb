//! What must hold of everything that peers and files can send, one module for each entry.
//!
//! ```text
//! fuzz_targets/*.rs ──▶ check(input) ◀── ../tests/corpus.rs (replays the corpora)
//! ```
//! `check` panics when a property does not hold. Each property compares with something written
//! here, naively and in another way, or with the same code fed in other pieces.
//!
//! # Invariants
//! - `check` depends on its input alone: a file that failed once fails again.
//! - An input is the bytes as they would come, without a header of its own, so that a corpus is
//!   readable and can be written by hand.
//!
//! # Not here
//! Limits over 4 KiB, which a fuzzer reaches rarely: unit tests stand at each of them.

pub mod chunked;
pub mod client_hello;
pub mod config;
pub mod detection;
pub mod flood;
pub mod http2_request;
pub mod http2_response;
pub mod path;
pub mod proxy_protocol;
pub mod request_head;
pub mod response_head;
pub mod tls_session;
pub mod trailers;
mod wire;

/// A named property.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("chunked", chunked::check),
    ("client_hello", client_hello::check),
    ("config", config::check),
    ("detection", detection::check),
    ("flood", flood::check),
    ("http2_request", http2_request::check),
    ("http2_response", http2_response::check),
    ("path", path::check),
    ("proxy_protocol", proxy_protocol::check),
    ("request_head", request_head::check),
    ("response_head", response_head::check),
    ("tls_session", tls_session::check),
    ("trailers", trailers::check),
];

/// Where an input is cut in two: everywhere if it is short, otherwise in places that depend on its
/// bytes.
pub fn cuts(input: &[u8]) -> impl Iterator<Item = usize> + use<> {
    const ALL_UP_TO: usize = 128;
    const DRAWN: usize = 6;
    let length = input.len();
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let count = if length <= ALL_UP_TO { length + 1 } else { DRAWN };
    (0..count).map(move |index| {
        if length <= ALL_UP_TO {
            return index;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % (length + 1)
    })
}
