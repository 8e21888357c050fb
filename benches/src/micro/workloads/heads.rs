//! Heads: found and parsed, of requests and responses; composed for the other side.

use std::hint::black_box;

use ringway::http1::body::Body;
use ringway::http1::compose::{self, Hop, Line, Persistence};
use ringway::http1::request::{self, Fields, RequestHead};
use ringway::http1::response::{self, ResponseHead};
use ringway::http1::scan::{Scan, Scanner};
use ringway::sys::block::Block;
use ringway_router::HeaderEdits;

use super::{Workload, kept};

const SMALL: &[u8] = b"GET /api/v1/users/42 HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    Accept: */*\r\n\
    \r\n";

const BROWSER: &[u8] = b"GET /catalogue/shoes/running?size=42&colour=blue&page=3 HTTP/1.1\r\n\
    Host: www.shop.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not?A_Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Referer: https://www.shop.example.com/catalogue/shoes\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: session=7f3c9a52e1d84b06; consent=all; theme=dark; basket=3%3A118%2C204%2C377\r\n\
    \r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Sat, 01 Nov 2025 12:00:00 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 512\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: private, max-age=60\r\n\
    ETag: \"5f2a-1b3c\"\r\n\
    Vary: Accept-Encoding\r\n\
    \r\n";

const PEER: &str = "192.0.2.17";
const REQUEST_ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

pub(super) fn all() -> Vec<Workload> {
    vec![
        Workload::pure("request_parse_small", || request_fields(SMALL) == 2),
        Workload::pure("request_parse_browser", || request_fields(BROWSER) == 12),
        Workload::pure("response_parse", || response_length(RESPONSE) == Some(512)),
        compose_request("request_compose_small", SMALL),
        compose_request("request_compose_browser", BROWSER),
        compose_response("response_compose"),
    ]
}

/// Where the head ends, as a connection finds it.
fn complete(wire: &[u8]) -> &[u8] {
    match Scanner::new().scan(black_box(wire)) {
        Ok(Scan::Complete { start, end }) => &wire[start..end],
        _ => panic!("the head is not complete"),
    }
}

/// Finds the head and parses it; 0 for one that has no route to take.
fn request_fields(wire: &[u8]) -> usize {
    let mut fields = Fields::new_const();
    match black_box(&request::parse(complete(wire), &mut fields)) {
        Ok(head) if !head.host.is_empty() && head.body.is_done() => head.fields.len(),
        _ => 0,
    }
}

/// Finds the head and parses it.
fn response_length(wire: &[u8]) -> Option<u64> {
    let mut fields = Fields::new_const();
    match black_box(&response::parse(complete(wire), &mut fields, false)) {
        Ok(ResponseHead { status: 200, body: Body::Length(length), .. }) => Some(*length),
        _ => None,
    }
}

/// The head for the endpoint of a client that is not trusted, on a route that edits nothing.
fn compose_request(name: &'static str, wire: &'static [u8]) -> Workload {
    let fields = kept(Fields::new_const());
    let head: RequestHead<'static> = request::parse(wire, fields).expect("the head is valid");
    let edits = HeaderEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };
    let mut out = Block::small();
    let write = move |out: &mut Block| {
        out.clear();
        let head = black_box(&head);
        let line = Line { path: head.path.as_bytes(), query: head.query, host: head.host };
        let hop = Hop {
            peer: PEER,
            trusted: false,
            request_id: black_box(REQUEST_ID),
            secure: false,
            certificate: None,
        };
        compose::request(head, &line, &hop, black_box(&edits), out).is_ok()
    };
    assert!(write(&mut out));
    let expected = out.len();
    assert_composed(out.data());
    Workload::pure(name, move || write(&mut out) && black_box(&out).len() == expected)
}

fn assert_composed(wire: &[u8]) {
    let mut fields = Fields::new_const();
    let head = request::parse(complete(wire), &mut fields).expect("it is a head");
    let value = |name: &str| {
        let named = head.fields.iter().find(|field| field.name == name);
        named.map(|field| String::from_utf8_lossy(field.value).into_owned())
    };
    assert_eq!(value("X-Forwarded-For").as_deref(), Some(PEER));
    assert_eq!(value("X-Request-Id"), Some(format!("{REQUEST_ID:032x}")));
}

/// The head for the client, on a route that edits nothing.
fn compose_response(name: &'static str) -> Workload {
    let fields = kept(Fields::new_const());
    let head: ResponseHead<'static> =
        response::parse(RESPONSE, fields, false).expect("the head is valid");
    let edits = HeaderEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };
    let mut out = Block::small();
    let write = move |out: &mut Block| {
        out.clear();
        let (head, open) = (black_box(&head), black_box(Persistence::Open));
        compose::response(head, &head.body, open, b"", black_box(&edits), out).is_ok()
    };
    assert!(write(&mut out));
    let expected = out.len();
    assert_eq!(response_length(out.data()), Some(512));
    Workload::pure(name, move || write(&mut out) && black_box(&out).len() == expected)
}
