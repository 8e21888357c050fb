//! What the first bytes of a client say about its protocol. No socket, no clock.
//!
//! # Invariants
//! - What more bytes can not change is said at once: an opaque protocol is known by the first byte
//!   that HTTP would not have.
//! - A request line is one by its end, ` HTTP/1.`: a first word alone may be anybody's (`GET` is a
//!   command of memcached and of Redis).

use ringway_tls::hello::looks_like_tls;

use crate::limits::{DETECTED_BYTES_MAX, METHOD_BYTES_DETECTED_MAX};

/// What begins an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What ends the line that begins an HTTP/1 request, but for its minor version.
const VERSION: &[u8] = b" HTTP/1.";

/// A protocol, as far as it matters for what is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A request line of HTTP/1 (RFC 9112 section 3).
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// A handshake of TLS.
    Tls,
    /// Anything else.
    Opaque,
}

/// What `bytes`, the first of a connection, are; `None` while more could say so. Of
/// [`DETECTED_BYTES_MAX`] bytes there is always a verdict: what is a request line so far is taken
/// for one, so that HTTP refuses it as too long.
#[must_use]
pub fn of(bytes: &[u8]) -> Option<Verdict> {
    if looks_like_tls(bytes) == Some(true) {
        return Some(Verdict::Tls);
    }
    if PREFACE.starts_with(bytes) || bytes.starts_with(PREFACE) {
        return (bytes.len() >= PREFACE.len()).then_some(Verdict::Http2);
    }
    looks_like_tls(bytes)?;
    // Empty lines before a request are forgiven (RFC 9112 section 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let line = start.map_or(&[][..], |start| &bytes[start..]);
    let verdict = request_line(line);
    if verdict.is_none() && bytes.len() >= DETECTED_BYTES_MAX {
        let begun = line.contains(&b' ');
        return Some(if begun { Verdict::Http1 } else { Verdict::Opaque });
    }
    verdict
}

/// Whether `line` begins with a request line; `None` while it could.
fn request_line(line: &[u8]) -> Option<Verdict> {
    let method = line.iter().position(|byte| !is_token(*byte)).unwrap_or(line.len());
    if method > METHOD_BYTES_DETECTED_MAX {
        return Some(Verdict::Opaque);
    }
    if method == line.len() {
        return None;
    }
    if method == 0 || line[method] != b' ' {
        return Some(Verdict::Opaque);
    }
    let rest = &line[method + 1..];
    let target = rest.iter().position(|byte| !is_target(*byte)).unwrap_or(rest.len());
    if target == rest.len() {
        return None;
    }
    if target == 0 {
        return Some(Verdict::Opaque);
    }
    let version = &rest[target..];
    match version.get(VERSION.len()) {
        Some(minor) if version.starts_with(VERSION) && minor.is_ascii_digit() => {
            Some(Verdict::Http1)
        }
        None if VERSION.starts_with(version) => None,
        _ => Some(Verdict::Opaque),
    }
}

/// Whether a method may have it (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a request target may have it: what HTTP/1 would refuse for its form is left to it.
fn is_target(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&[u8], Option<Verdict>)]) {
        for (bytes, expected) in cases {
            assert_eq!(of(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn requests_are_known_by_their_first_line() {
        let http1 = Some(Verdict::Http1);
        check(&[
            (b"GET / HTTP/1.1\r\n", http1),
            (b"GET / HTTP/1.0", http1),
            (b"POST /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", http1),
            (b"OPTIONS * HTTP/1.1\r\n", http1),
            (b"CONNECT a:443 HTTP/1.1\r\n", http1),
            (b"VERSION-CONTROL http://a/ HTTP/1.1\r\n", http1),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", http1),
            (b"GET /caf\xc3\xa9 HTTP/1.1\r\n", http1),
            (b"PRI * HTTP/1.1\r\n", http1),
        ]);
    }

    #[test]
    fn what_may_become_a_request_is_waited_for() {
        let line = b"DELETE /a/b HTTP/1.1";
        for length in 0..line.len() {
            assert_eq!(of(&line[..length]), None, "{length}");
        }
        assert_eq!(of(line), Some(Verdict::Http1));
        check(&[(b"\r\n", None), (b"G", None), (b"get foo", None), (b"PRI * HTTP", None)]);
    }

    #[test]
    fn the_preface_of_http2_is_known_once_it_is_whole() {
        for length in 0..PREFACE.len() {
            assert_eq!(of(&PREFACE[..length]), None, "{length}");
        }
        assert_eq!(of(PREFACE), Some(Verdict::Http2));
        assert_eq!(of(&[PREFACE, b"\0\0\0\x04"].concat()), Some(Verdict::Http2));
        assert_eq!(of(b"PRI * HTTP/2.0\r\n\r\nXX"), Some(Verdict::Opaque));
    }

    #[test]
    fn other_protocols_are_opaque_as_soon_as_they_differ() {
        let opaque = Some(Verdict::Opaque);
        check(&[
            (b"get key\r\n", opaque),
            (b"*1\r\n$4\r\nPING\r\n", opaque),
            (b"EHLO example\r\n", opaque),
            (b"SSH-2.0-OpenSSH_9\r\n", opaque),
            (b"AMQP\0\0\x09\x01", opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", opaque),
            (b"\x10\x0c\0\x04MQTT", opaque),
            (b"GET /\r\n", opaque),
            (b"GET / HTTP/3", opaque),
            (b"GET / HTTP/1.x", opaque),
            (b"GET  / HTTP/1.1", opaque),
            (b" GET / HTTP/1.1", opaque),
            (b"HTTP/1.1 200 OK\r\n", opaque),
            (b"\x15\x03\x01\0\x02", opaque),
        ]);
    }

    #[test]
    fn tls_is_known_by_its_record_and_its_hello() {
        check(&[
            (b"\x16", None),
            (b"\x16\x03\x01\x02\x00\x01", Some(Verdict::Tls)),
            (b"\x16\x04\x01\x02\x00\x01", Some(Verdict::Opaque)),
        ]);
    }

    #[test]
    fn there_is_a_verdict_of_what_is_as_long_as_is_read() {
        let mut line = b"GET /".to_vec();
        line.resize(DETECTED_BYTES_MAX - 1, b'a');
        assert_eq!(of(&line), None);
        line.push(b'a');
        assert_eq!(of(&line), Some(Verdict::Http1));
        assert_eq!(of(&vec![b'\n'; DETECTED_BYTES_MAX]), Some(Verdict::Opaque));
        assert_eq!(of(&[b'A'; METHOD_BYTES_DETECTED_MAX + 1]), Some(Verdict::Opaque));
    }
}
