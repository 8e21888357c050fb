//! Bodies: 64 KiB in the chunked coding, checked as they pass and stripped for HTTP/1.0.

use std::hint::black_box;
use std::ops::Range;

use ringway::http1::body::Body;
use ringway::http1::chunked::Chunked;

use super::Workload;

/// Payload of each body.
const PAYLOAD_BYTES: usize = 64 * 1024;

pub(super) fn all() -> Vec<Workload> {
    vec![
        check("chunked_check_1024", 1024),
        check("chunked_check_16", 16),
        strip("chunked_strip_1024", 1024),
    ]
}

/// A body in chunks of `chunk_bytes`, and where in it the framing stands.
fn wire(chunk_bytes: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut wire, mut framing) = (Vec::new(), Vec::new());
    for _ in 0..PAYLOAD_BYTES / chunk_bytes {
        let start = wire.len();
        wire.extend_from_slice(format!("{chunk_bytes:x}\r\n").as_bytes());
        framing.push(start..wire.len());
        wire.resize(wire.len() + chunk_bytes, b'x');
        framing.push(wire.len()..wire.len() + 2);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    (wire, framing)
}

fn check(name: &'static str, chunk_bytes: usize) -> Workload {
    let (wire, _) = wire(chunk_bytes);
    Workload::pure(name, move || {
        let mut body = black_box(Body::chunked());
        let taken = body.take(black_box(&wire));
        taken == Ok(wire.len()) && body.is_done()
    })
}

fn strip(name: &'static str, chunk_bytes: usize) -> Workload {
    let (wire, framing) = wire(chunk_bytes);
    let mut data = wire.clone();
    Workload::pure(name, move || {
        // The last time moved payload over the framing. To copy all of it anew would be most of
        // what is counted.
        for place in &framing {
            data[place.clone()].copy_from_slice(&wire[place.clone()]);
        }
        let advance = black_box(Chunked::new()).strip(black_box(&mut data));
        advance.is_ok_and(|advance| advance.at_trailers && advance.payload == PAYLOAD_BYTES)
    })
}
