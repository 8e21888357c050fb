//! Response heads and trailers of HTTP/1 made ones of HTTP/2: the same fields less what is about a
//! connection, and a length exactly where one is known.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ringway::http1::body::Body;
use ringway::http1::request::Fields;
use ringway::http1::response::{self, ResponseHead};
use ringway::http1::scan::Scanner;
use ringway::http2::translate;
use ringway::sys::block::Block;
use ringway_router::HeaderEdits;

use super::wire;

/// Fields that the proxy writes of its own.
const OWN: [&str; 2] = ["content-length", "date"];
/// What HTTP/2 does not have (RFC 9113 section 8.2.2).
const OF_A_CONNECTION: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    if let Some(section) = wire::scan(input, Scanner::trailers) {
        check_trailers(section);
    }
    let Some(head) = wire::scan(input, Scanner::new) else { return };
    // The fields of a head, as trailers.
    if let Some(first) = head.windows(2).position(|pair| pair == b"\r\n") {
        check_trailers(&head[first + 2..]);
    }
    for to_head in [false, true] {
        let mut fields = Fields::new_const();
        let Ok(parsed) = response::parse(head, &mut fields, to_head) else { return };
        check_response(&parsed);
        check_answer(head, &parsed, to_head);
    }
}

fn check_response(parsed: &ResponseHead<'_>) {
    let edits = HeaderEdits::default();
    let Ok(translated) = translate::response(parsed, DATE, &edits) else { return };
    let fields = translated.headers();
    assert_eq!(translated.status(), parsed.status);
    let mut kept = HeaderMap::new();
    for (index, field) in parsed.fields.iter().enumerate() {
        if parsed.dropped & (1 << index) == 0 {
            let name: HeaderName = field.name.parse().expect("a name that is carried");
            kept.append(name, HeaderValue::from_bytes(field.value).expect("it is carried, too"));
        }
    }
    assert_eq!(others(fields), others(&kept));
    assert!(OF_A_CONNECTION.iter().all(|name| !fields.contains_key(*name)));

    let length = match &parsed.body {
        _ if matches!(parsed.status, 100..200 | 204) => None,
        Body::Length(length) => Some(*length),
        Body::Done => parsed.claimed_length,
        _ => None,
    };
    let stated: Vec<_> = fields.get_all("content-length").iter().collect();
    assert_eq!(stated, length.map(HeaderValue::from).iter().collect::<Vec<_>>());
    assert!(parsed.status < 200 || fields.contains_key("date"));

    // From an endpoint of HTTP/2 it goes on as it is.
    let (status, given) = (translated.status(), fields.clone());
    let (parts, ()) = translated.into_parts();
    let passed = translate::pass_on(parts, DATE, &edits).expect("nothing is added");
    let mut expected = given;
    if !expected.contains_key("date") {
        expected.insert("date", HeaderValue::from_bytes(DATE).expect("a date is a value"));
    }
    assert_eq!((passed.status(), passed.headers()), (status, &expected));
}

/// Fields that are passed on as they are.
fn others(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    for name in OWN {
        fields.remove(name);
    }
    fields
}

/// An answer of ours is such a head and a body.
fn check_answer(head: &[u8], parsed: &ResponseHead<'_>, to_head: bool) {
    let with_body = [head, b"the body"].concat();
    let Ok((answer, body)) = translate::answer(&with_body, to_head) else { return };
    assert_eq!(&with_body[body..], b"the body");
    assert_eq!(answer.status(), parsed.status);
}

fn check_trailers(section: &[u8]) {
    let Ok(fields) = translate::trailers(section) else { return };
    let mut out = Block::large();
    assert!(translate::write_trailers(fields.as_ref(), &mut out), "they are short");
    let written = out.data().strip_prefix(b"0\r\n").expect("the last chunk");
    let again = translate::trailers(written).expect("what was written is a section");
    assert_eq!(again, fields);
    if let Some(fields) = fields {
        assert!(!fields.is_empty());
        assert!(OF_A_CONNECTION.iter().all(|name| !fields.contains_key(*name)));
        assert!(!fields.contains_key("content-length") && !fields.contains_key("host"));
        assert_eq!(translate::clean_trailers(fields.clone()), fields);
    }
}
