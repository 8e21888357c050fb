//! Request heads of HTTP/1 made ones of HTTP/2, and read back: nothing is added but what the proxy
//! says of its own, nothing that is about a connection crosses, and both versions say the same.

use http::Request;
use http::header::HeaderMap;
use ringway::http1::body::Body;
use ringway::http1::compose::{Hop, Line, request_to};
use ringway::http1::request::{self, Fields, RequestFault, RequestHead};
use ringway::http1::scan::Scanner;
use ringway::http2::head::StreamHead;
use ringway::http2::translate;
use ringway_router::HeaderEdits;

use super::wire::{self, Framing};

/// Fields that the proxy writes of its own.
const OWN: [&str; 8] = [
    "content-length",
    "forwarded",
    "max-forwards",
    "te",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];
/// What HTTP/2 does not have (RFC 9113 section 8.2.2).
const OF_A_CONNECTION: [&str; 6] =
    ["connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let Some(head) = wire::scan(input, Scanner::new) else { return };
    let mut fields = Fields::new_const();
    let Ok(parsed) = request::parse(head, &mut fields) else { return };
    let mut normal = Vec::new();
    let Some(path) = wire::sent_on(&parsed, &mut normal) else { return };
    for trusted in [false, true] {
        check_composed(&parsed, path, trusted);
    }
}

fn check_composed(parsed: &RequestHead<'_>, path: &str, trusted: bool) {
    let host = if parsed.host.is_empty() { "cluster" } else { parsed.host };
    let line = Line { path: path.as_bytes(), query: parsed.query, host };
    let mut sink = StreamHead::new(None);
    request_to(parsed, &line, &hop(trusted), &HeaderEdits::default(), &mut sink);
    let Ok(composed) = sink.finish() else { return };
    let Ok(request) = composed.into_request(HeaderMap::new(), trusted) else { return };

    let mut kept = HeaderMap::new();
    for (index, field) in parsed.fields.iter().enumerate() {
        if (parsed.dropped | parsed.forwarding) & (1 << index) == 0 {
            let name = field.name.to_ascii_lowercase();
            let name: http::HeaderName = name.parse().expect("a name that is carried");
            let value = http::HeaderValue::from_bytes(field.value).expect("it is carried, too");
            kept.append(name, value);
        }
    }
    assert_eq!(others(request.headers()), others(&kept));
    assert!(OF_A_CONNECTION.iter().all(|name| !request.headers().contains_key(*name)));
    assert!(request.headers().get_all("te").iter().all(|value| value == "trailers"));
    check_read_back(parsed, &line, request, trusted);
}

/// Fields that are passed on as they are.
fn others(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    for name in OWN {
        fields.remove(name);
    }
    fields
}

fn hop(trusted: bool) -> Hop<'static> {
    Hop { peer: "192.0.2.1", trusted, request_id: 1, secure: trusted, certificate: None }
}

/// As a client's stream, the request means what it meant, and goes on as it is.
fn check_read_back(parsed: &RequestHead<'_>, line: &Line<'_>, request: Request<()>, trusted: bool) {
    let (parts, ()) = request.into_parts();
    let cookie = translate::joined_cookie(&parts.headers);
    let ended = matches!(parsed.body, Body::Done);
    let mut fields = Fields::new_const();
    let again = match translate::request_head(&parts, cookie.as_deref(), ended, &mut fields) {
        Ok(again) => again,
        // With those that the proxy has added.
        Err(RequestFault::TooManyFields) => return,
        Err(fault) => panic!("what was composed is refused: {fault:?}"),
    };
    assert_eq!((again.method, again.host), (parsed.method, line.host));
    assert_eq!((again.path.as_bytes(), again.query), (line.path, line.query));
    assert_eq!(Framing::of(&again.body), Framing::of(&parsed.body));
    assert_eq!(again.max_forwards, parsed.max_forwards.map(|left| left - 1));
    assert_eq!(again.wants_trailers, parsed.wants_trailers);
    if again.max_forwards == Some(0) {
        return;
    }
    let mut sink = StreamHead::new(Some(&parts.uri));
    request_to(&again, line, &hop(trusted), &HeaderEdits::default(), &mut sink);
    let composed = sink.finish().expect("it was carried before");
    let next = composed.into_request(parts.headers.clone(), trusted).expect("as it was");
    assert_eq!((next.uri(), next.method()), (&parts.uri, &parts.method));
    assert_eq!(others(next.headers()), others(&parts.headers));
    for name in ["content-length", "te"] {
        assert_eq!(next.headers().get(name), parts.headers.get(name), "{name}");
    }
}
