//! ClientHellos, looked at without terminating: where reads and records cut them changes nothing.

use ringway_tls::hello::{self, Hello, HelloFault};
use ringway_tls::limits::HELLO_BYTES_MAX;

use super::cuts;

/// What was found, with the name as an owned text.
type Found = Result<Option<(Option<String>, bool, bool, usize)>, HelloFault>;

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let whole = look(input);
    for cut in cuts(input) {
        let front = look(&input[..cut]);
        assert!(front == Ok(None) || front == whole, "cut at {cut}");
    }
    // The two agree on how TLS begins.
    match hello::looks_like_tls(input) {
        Some(false) => assert_eq!(whole, Err(HelloFault::NotTls)),
        Some(true) => assert_eq!(input[..2], [22, 3]),
        None => assert!(input.len() < 6 && !matches!(whole, Ok(Some(_)))),
    }
    let Ok(Some((name, h2, http11, length))) = whole else { return };
    assert!(length <= input.len() && length <= HELLO_BYTES_MAX);
    assert!(name.as_ref().is_none_or(|name| is_name(name)));
    // The message in other records, as long as their headers fit.
    let message = payload(&input[..length]);
    for size in [1, 5, 64, 16 << 10] {
        let wire = in_records(&message, size);
        if wire.len() <= HELLO_BYTES_MAX {
            let expected = Ok(Some((name.clone(), h2, http11, wire.len())));
            assert_eq!(look(&wire), expected, "records of {size}");
        }
    }
}

fn look(input: &[u8]) -> Found {
    let mut scratch = Vec::new();
    match hello::parse(input, &mut scratch)? {
        Hello::Partial => Ok(None),
        Hello::Complete { sni, offers_h2, offers_http11, length } => {
            Ok(Some((sni.map(str::to_owned), offers_h2, offers_http11, length)))
        }
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed)
}

fn payload(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = records {
        let (part, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(part);
        records = after;
    }
    message
}

fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("a record is short").to_be_bytes();
        [&[22, 3, 3][..], &length, part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}
