//! Request heads, from the bytes of a client to the bytes for an upstream.
//!
//! A head that is accepted says where its body ends exactly once, and what is written from it is
//! understood in the same way by whoever reads it next.

use ringway::http1::body::Body;
use ringway::http1::compose::{self, Hop, Line};
use ringway::http1::request::{self, Fields, RequestHead};
use ringway::http1::scan::Scanner;
use ringway::limits::HEAD_FIELDS_MAX;
use ringway::sys::block::Block;
use ringway_router::HeaderEdits;

use super::wire::{self, Framing, NameValue};

/// Fields that are for one hop alone.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "content-length",
];
/// Fields that the proxy writes of its own.
const OWN: [&str; 12] = [
    "host",
    "max-forwards",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "forwarded",
];

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let Some(head) = wire::scan(input, Scanner::new) else { return };
    let mut fields = Fields::new_const();
    let Ok(parsed) = request::parse(head, &mut fields) else { return };
    let (line, stated) = wire::read(head);
    check_against_letters(&parsed, line, &stated);
    let mut normal = Vec::new();
    let Some(path) = wire::sent_on(&parsed, &mut normal) else { return };
    for trusted in [false, true] {
        check_composed(&parsed, path, trusted);
    }
}

fn check_against_letters(parsed: &RequestHead<'_>, line: &[u8], stated: &[NameValue<'_>]) {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    assert_eq!(words.len(), 3, "a request line is three words");
    assert_eq!(parsed.method.as_bytes(), words[0]);
    assert!(words[0].iter().all(|&byte| wire::is_token(byte)));
    assert!(words[1].iter().all(u8::is_ascii_graphic));
    let version: &[u8] = if parsed.is_http10 { b"HTTP/1.0" } else { b"HTTP/1.1" };
    assert_eq!(words[2], version);

    let given: Vec<NameValue<'_>> =
        parsed.fields.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(given, stated);
    assert_eq!(Framing::of(&parsed.body), Framing::stated(stated).unwrap_or(Framing::None));
    assert!(!parsed.is_http10 || !matches!(parsed.body, Body::Chunked(_)), "no coding in 1.0");
    let hosts = stated.iter().filter(|(name, _)| wire::is_one_of(name, &["host"]));
    assert!(hosts.count() <= 1, "two hosts");
    assert!(parsed.is_http10 || !parsed.host.is_empty());
}

fn check_composed(parsed: &RequestHead<'_>, path: &str, trusted: bool) {
    // HTTP/1.0 may come without a host; the name of the cluster stands in.
    let host = if parsed.host.is_empty() { "cluster" } else { parsed.host };
    let line = Line { path: path.as_bytes(), query: parsed.query, host };
    let hop = Hop { peer: "192.0.2.1", trusted, request_id: 1, secure: trusted, certificate: None };
    let mut out = Block::large();
    compose::request(parsed, &line, &hop, &HeaderEdits::default(), &mut out)
        .expect("a head of a few KiB fits");

    let written = wire::scan(out.data(), Scanner::new).expect("what was written is a head");
    assert_eq!(written.len(), out.len(), "something follows the head");
    let (first, fields) = wire::read(written);
    let target = [path, parsed.query.map_or("", |_| "?"), parsed.query.unwrap_or("")].concat();
    assert_eq!(first, format!("{} {target} HTTP/1.1", parsed.method).as_bytes());
    let front = 1 + usize::from(parsed.max_forwards.is_some());
    let kept = kept(parsed);
    wire::assert_only_own_added(&fields, &kept, &OWN, front);
    check_forwarding(&fields, trusted);

    if fields.len() <= HEAD_FIELDS_MAX {
        let mut again = Fields::new_const();
        let again = request::parse(written, &mut again).expect("what was written is understood");
        assert_same(parsed, &again);
        assert_eq!((again.path, again.host), (path, host));
    }
}

/// Fields that are passed on as they are.
fn kept<'a>(parsed: &RequestHead<'a>) -> Vec<NameValue<'a>> {
    let ends_here = parsed.dropped | parsed.forwarding;
    let mut kept = Vec::new();
    for (index, field) in parsed.fields.iter().enumerate() {
        if ends_here & (1 << index) != 0 {
            continue;
        }
        let name = field.name.as_bytes();
        assert!(!wire::is_one_of(name, &HOP_BY_HOP), "{} goes on", field.name);
        assert!(wire::is_clean(name) && wire::is_clean(field.value));
        kept.push((name, field.value));
    }
    kept
}

/// A client that is not trusted has no say about where it came from.
fn check_forwarding(fields: &[NameValue<'_>], trusted: bool) {
    let values = |wanted: &str| -> Vec<&[u8]> {
        let named = fields.iter().filter(|(name, _)| wire::is_one_of(name, &[wanted]));
        named.map(|(_, value)| *value).collect()
    };
    let from = values("x-forwarded-for");
    assert_eq!(from.len(), 1);
    assert!(from[0].ends_with(b"192.0.2.1"));
    assert_eq!(values("x-request-id").len(), 1);
    assert_eq!(values("x-forwarded-proto").len(), 1);
    assert!(values("x-forwarded-host").len() <= 1);
    if !trusted {
        assert_eq!(from[0], b"192.0.2.1");
        assert_eq!(values("x-request-id")[0], b"00000000000000000000000000000001");
        assert_eq!(values("x-forwarded-proto")[0], b"http");
        assert!(values("forwarded").is_empty());
    }
}

fn assert_same(parsed: &RequestHead<'_>, again: &RequestHead<'_>) {
    assert_eq!(again.method, parsed.method);
    assert_eq!(again.query, parsed.query);
    assert!(!again.is_http10);
    assert_eq!(Framing::of(&again.body), Framing::of(&parsed.body));
    assert_eq!(again.max_forwards, parsed.max_forwards.map(|left| left - 1));
    assert_eq!(again.upgrade, parsed.upgrade);
    assert_eq!(again.wants_trailers, parsed.wants_trailers && parsed.upgrade.is_none());
    assert!(again.keep_alive, "the upstream was told to close");
    let length = |head: &RequestHead<'_>| {
        head.fields.iter().any(|field| field.name.eq_ignore_ascii_case("content-length"))
    };
    assert_eq!(length(again), length(parsed), "a length appeared or went");
}
