//! What the origin answers, by path.

use super::super::behaviour::Delay;
use super::*;
use crate::limits::HEADERS_MAX;

const AT_ONCE: Behaviour = Behaviour { delay: Delay::Fixed(Duration::ZERO), error_rate: 0.0 };

fn answer(variant: &Variant, request: &str) -> (String, Stream) {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let head = super::super::head::parse(request.as_bytes(), &mut fields).unwrap().unwrap();
    let mut out = Vec::new();
    let stream = render(&plan(&head, variant), variant, 7, &mut out);
    // One character per byte: bodies of the pattern are not UTF-8.
    (out.into_iter().map(char::from).collect(), stream)
}

fn v1() -> Variant {
    Variant::new("v1".to_owned(), None, false, AT_ONCE)
}

#[test]
fn root_names_its_variant() {
    let (text, stream) = answer(&v1(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("Content-Length: 14\r\n\r\nhello from v1\n"), "{text}");
    assert_eq!(stream, Stream::None);
}

#[test]
fn echo_repeats_request_line_and_fields_as_written() {
    let request = "GET /echo?q=1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n";
    let (text, _) = answer(&v1(), request);
    assert!(
        text.ends_with("variant: v1\nGET /echo?q=1 HTTP/1.1\nHost: a\nX-Forwarded-For: 10.0.0.1\n")
    );
}

#[test]
fn head_has_the_length_of_get_and_no_body() {
    for path in ["/", "/bytes/1000", "/echo", "/slow/1"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (text, stream) = answer(&v1(), &request);
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains("Content-Length: "), "{text}");
        assert_eq!(stream, Stream::None);
    }
}

#[test]
fn large_bodies_are_streamed_not_held() {
    let get = |path: &str| answer(&v1(), &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let (text, stream) = get("/bytes/1073741824");
    assert!(text.contains("Content-Length: 1073741824\r\n"));
    assert_eq!(stream, Stream::Bytes(1 << 30));
    let (text, stream) = get("/chunked/500");
    assert!(text.contains("Transfer-Encoding: chunked\r\n") && !text.contains("Length"));
    assert_eq!(stream, Stream::Chunks(500));
}

#[test]
fn statuses_without_body_have_neither_length_nor_text() {
    let (text, _) = answer(&v1(), "GET /status/204 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 204 ") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(!text.contains("Content-Length"), "{text}");
}

#[test]
fn an_old_client_gets_no_chunks_and_a_named_end() {
    let (text, stream) = answer(&v1(), "GET /chunked/10 HTTP/1.0\r\n\r\n");
    assert!(text.contains("Content-Length: 10\r\nConnection: close\r\n"), "{text}");
    assert_eq!(stream, Stream::Bytes(10));
}

#[test]
fn upload_reports_the_length_it_was_given() {
    let request = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n";
    assert!(answer(&v1(), request).0.ends_with("v1 received 7 bytes\n"));
}

#[test]
fn a_number_out_of_range_is_a_404_not_a_body() {
    for path in ["/bytes/1099511627777", "/bytes/x", "/status/99", "/chunked/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer(&v1(), &request).0.starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[test]
fn small_root_bodies_are_ready_and_large_ones_streamed() {
    let small = Variant::new("v".to_owned(), Some(1000), false, AT_ONCE);
    let (text, stream) = answer(&small, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!((body.chars().count(), stream), (1000, Stream::None));
    let large = Variant::new("v".to_owned(), Some(1 << 20), false, AT_ONCE);
    let (_, stream) = answer(&large, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(stream, Stream::Bytes(1 << 20));
}

#[test]
fn errors_on_purpose_answer_any_path() {
    let failing =
        Variant::new("v1".to_owned(), None, false, Behaviour { error_rate: 1.0, ..AT_ONCE });
    for path in ["/", "/bytes/1000", "/echo"] {
        let (text, _) = answer(&failing, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    }
}
