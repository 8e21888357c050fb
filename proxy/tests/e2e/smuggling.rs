//! Known ways to make two hops disagree about where a message ends, or about whom it is for.
//!
//! Every input has a name and a source: a section of RFC 9110 or 9112, a CVE or a paper. The papers
//! are Kettle, "HTTP Desync Attacks" (2019), "HTTP/1.1 Must Die" (2025); Linhart et al., "HTTP
//! Request Smuggling" (2005); Jabiyev et al., "T-Reqs" (2021); Wu, "Funky Chunks" (2025).

use std::io::Write;
use std::sync::mpsc;

use crate::support::http::Client;
use crate::support::origin::read_request;
use crate::support::{Backend, Origin, Proxy, eventually};

/// A request that must not reach the origin, and the status that answers it.
struct Refused {
    name: &'static str,
    source: &'static str,
    status: u16,
    wire: Vec<u8>,
}

/// What would be seen at the origin if the trick worked.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn refused(name: &'static str, source: &'static str, status: u16, wire: &[u8]) -> Refused {
    Refused { name, source, status, wire: wire.to_vec() }
}

/// A POST with these fields, each with its line end, and this body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
}

/// A POST in the chunked coding.
fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn two_framings() -> Vec<Refused> {
    let both = "RFC 9112 section 6.1";
    let end = format!("0\r\n\r\n{SMUGGLED}");
    let with = |fields: &str| post(fields, &end);
    let row = |name, source, fields: &str| refused(name, source, 400, &with(fields));
    vec![
        row("CL.TE", both, "Content-Length: 40\r\nTransfer-Encoding: chunked\r\n"),
        row("TE.CL", both, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        row("CL.0 with TE", both, "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        row("CL and TE after a tab", both, "Content-Length: 4\r\nTransfer-Encoding:\tchunked\r\n"),
        row("CL and TE in odd case", both, "content-length: 4\r\ntRANSFER-eNCODING: cHUNKED\r\n"),
        row(
            "TE with a blank before the colon",
            "RFC 9112 section 5.1",
            "Content-Length: 4\r\nTransfer-Encoding : chunked\r\n",
        ),
        row(
            "TE with a tab before the colon",
            "RFC 9112 section 5.1",
            "Content-Length: 4\r\nTransfer-Encoding\t: chunked\r\n",
        ),
        row(
            "TE with a blank before its name",
            "RFC 9112 section 5.2",
            "Content-Length: 4\r\n Transfer-Encoding: chunked\r\n",
        ),
        row(
            "TE on a folded line",
            "RFC 9112 section 5.2",
            "Content-Length: 4\r\nTransfer-Encoding:\r\n chunked\r\n",
        ),
        row(
            "TE behind a bare CR",
            "RFC 9112 section 2.2",
            "Content-Length: 4\r\nA: b\rTransfer-Encoding: chunked\r\n",
        ),
        row(
            "TE behind a bare LF",
            "RFC 9112 section 2.2",
            "Content-Length: 4\r\nA: b\nTransfer-Encoding: chunked\r\n",
        ),
        row(
            "TE with a vertical tab",
            "Kettle 2019",
            "Content-Length: 4\r\nTransfer-Encoding: \x0bchunked\r\n",
        ),
        row(
            "TE with a NUL",
            "RFC 9110 section 5.5",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\0\r\n",
        ),
    ]
}

fn transfer_codings() -> Vec<Refused> {
    let section = "RFC 9112 section 6.1";
    let end = format!("0\r\n\r\n{SMUGGLED}");
    let row = |name, status, value: &str| {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        refused(name, section, status, &post(&fields, &end))
    };
    vec![
        row("xchunked", 400, "xchunked"),
        row("chunk", 400, "chunk"),
        row("identity", 400, "identity"),
        row("chunked, identity", 400, "chunked, identity"),
        row("chunked, chunked", 400, "chunked, chunked"),
        row("identity, chunked", 501, "identity, chunked"),
        row("gzip, chunked", 501, "gzip, chunked"),
        row("chunked in quotes", 400, "\"chunked\""),
        row("chunked with a parameter", 400, "chunked;a=b"),
        row("an empty TE", 400, ""),
        row("a comma and chunked", 400, ",chunked"),
        row("two TE fields", 400, "chunked\r\nTransfer-Encoding: chunked"),
        row("two TE fields, one unknown", 400, "chunked\r\nTransfer-Encoding: cow"),
        refused(
            "TE in HTTP/1.0",
            section,
            400,
            format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{end}")
                .as_bytes(),
        ),
    ]
}

fn lengths() -> Vec<Refused> {
    let section = "RFC 9110 section 8.6";
    let row = |name, source, value: &str| {
        let fields = format!("Content-Length: {value}\r\n");
        refused(name, source, 400, &post(&fields, SMUGGLED))
    };
    vec![
        row("a list of equal lengths", section, "5, 5"),
        row("a list of two lengths", section, "5, 6"),
        row("two equal CL fields", section, "5\r\nContent-Length: 5"),
        row("two CL fields", section, "0\r\nContent-Length: 5"),
        row("CL with a plus sign", "CVE-2018-7159", "+5"),
        row("a negative CL", section, "-5"),
        row("CL of 2^64", "HAProxy 2.6 takes it for 0", "18446744073709551616"),
        row("CL of 2^64 + 5", "CVE-2021-40346 in kind", "18446744073709551621"),
        row("an empty CL", section, ""),
        row("CL in hexadecimal", section, "0x5"),
        row("CL with a blank inside", section, "0 5"),
        row("CL with an underscore", "CVE-2023-24580 in kind", "0_5"),
        row("CL with a fraction", section, "5.0"),
        row("CL with a vertical tab", "CVE-2019-16785 in kind", "5\x0b"),
    ]
}

fn lines() -> Vec<Refused> {
    let eol = "RFC 9112 section 2.2";
    let value = "RFC 9110 section 5.5";
    vec![
        refused("LF after the request line", eol, 400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
        refused("LF after a field", eol, 400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
        refused("LF for the empty line", eol, 400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
        refused("LF everywhere", eol, 400, b"GET / HTTP/1.1\nHost: a\n\n"),
        refused("LF before the request line", eol, 400, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("CR inside a value", eol, 400, b"GET / HTTP/1.1\r\nHost: a\r\nB: c\rd\r\n\r\n"),
        refused("CR inside a name", eol, 400, b"GET / HTTP/1.1\r\nHost: a\r\nB\rC: d\r\n\r\n"),
        refused("CR inside the request line", eol, 400, b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("CR CR LF", eol, 400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
        refused("NUL in a name", value, 400, b"GET / HTTP/1.1\r\nHost: a\r\nB\0: c\r\n\r\n"),
        refused("NUL in a value", value, 400, b"GET / HTTP/1.1\r\nHost: a\r\nB: c\0d\r\n\r\n"),
        refused("NUL in the target", value, 400, b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("DEL in a value", value, 400, b"GET / HTTP/1.1\r\nHost: a\r\nB: \x7f\r\n\r\n"),
        refused(
            "a folded value",
            "RFC 9112 section 5.2",
            400,
            b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n",
        ),
        refused(
            "a blank before the first field",
            "RFC 9112 section 2.2",
            400,
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        ),
        refused(
            "a blank before a colon",
            "RFC 9112 section 5.1",
            400,
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        ),
        refused(
            "a field without a colon",
            "RFC 9112 section 5",
            400,
            b"GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n",
        ),
        refused(
            "a field without a name",
            "RFC 9110 section 5.1",
            400,
            b"GET / HTTP/1.1\r\nHost: a\r\n: c\r\n\r\n",
        ),
        refused(
            "a name in quotes",
            "RFC 9110 section 5.1",
            400,
            b"GET / HTTP/1.1\r\nHost: a\r\n\"B\": c\r\n\r\n",
        ),
    ]
}

fn hosts() -> Vec<Refused> {
    let section = "RFC 9112 section 3.2";
    let row = |name, fields: &str| {
        refused(name, section, 400, format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes())
    };
    vec![
        row("no Host", ""),
        row("two Hosts", "Host: a\r\nHost: b\r\n"),
        row("two equal Hosts", "Host: a\r\nHost: a\r\n"),
        row("an empty Host", "Host:\r\n"),
        row("Host with user information", "Host: user@a\r\n"),
        row("Host with a list", "Host: a, b\r\n"),
        row("Host with a blank", "Host: a b\r\n"),
        row("Host with a path", "Host: a/b\r\n"),
        row("Host with a port that is none", "Host: a:8o\r\n"),
        row("Host with an escape", "Host: a%2eb\r\n"),
        row("Host with an open bracket", "Host: [::1\r\n"),
    ]
}

fn chunks() -> Vec<Refused> {
    let section = "RFC 9112 section 7.1";
    let row = |name, source, body: &str| refused(name, source, 400, &chunked(body));
    let with = |body: &str| format!("{body}{SMUGGLED}");
    vec![
        row("a chunk size with 0x", section, &with("0x5\r\nhello\r\n0\r\n\r\n")),
        row("a chunk size with a plus sign", section, &with("+5\r\nhello\r\n0\r\n\r\n")),
        row("a negative chunk size", section, &with("-5\r\nhello\r\n0\r\n\r\n")),
        row("a blank before a chunk size", section, &with(" 5\r\nhello\r\n0\r\n\r\n")),
        row("a blank after a chunk size", section, &with("5 \r\nhello\r\n0\r\n\r\n")),
        row("an empty chunk size", section, &with("\r\nhello\r\n0\r\n\r\n")),
        row(
            "a chunk size over 64 bits",
            "CVE-2013-2028 in kind",
            &with("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ),
        row("a chunk size of 2^64 - 1", section, &with("ffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        row("an underscore in a chunk size", section, &with("0_5\r\nhello\r\n0\r\n\r\n")),
        row("LF after a chunk size", "Wu 2025", &with("5\nhello\r\n0\r\n\r\n")),
        row("LF after chunk data", "Wu 2025", &with("5\r\nhello\n0\r\n\r\n")),
        row("CR after chunk data", "Wu 2025", &with("5\r\nhello\r0\r\n\r\n")),
        row("no line end after chunk data", "Wu 2025", &with("5\r\nhello0\r\n\r\n")),
        row(
            "two bytes for a line end after chunk data",
            "Wu 2025: two-byte TERM.CHUNK",
            &with("5\r\nhelloXX0\r\n\r\n"),
        ),
        row("more data than the chunk size", section, &with("5\r\nhello!\r\n0\r\n\r\n")),
        row(
            "LF inside a chunk extension",
            "Wu 2025: TERM.EXT",
            &with("5;\nxx\r\nhello\r\n0\r\n\r\n"),
        ),
        row(
            "CR inside a chunk extension",
            "Wu 2025: EXT.TERM",
            &with("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ),
        row(
            "NUL inside a chunk extension",
            "HAProxy, nginx and Envoy take it",
            &with("5;a\0b\r\nhello\r\n0\r\n\r\n"),
        ),
        row(
            "an open quote in a chunk extension",
            "Wu 2025",
            &with("5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        ),
        row(
            "an extension without a name",
            "RFC 9112 section 7.1.1",
            &with("5;\r\nhello\r\n0\r\n\r\n"),
        ),
        row("LF after the last chunk", "Wu 2025", &with("5\r\nhello\r\n0\n\r\n")),
        row("a tab instead of a semicolon", section, &with("5\ta\r\nhello\r\n0\r\n\r\n")),
    ]
}

fn request_lines() -> Vec<Refused> {
    let section = "RFC 9112 section 3";
    let row = |name, status, line: &str| {
        refused(name, section, status, format!("{line}\r\nHost: a\r\n\r\n").as_bytes())
    };
    vec![
        row("two blanks after the method", 400, "GET  / HTTP/1.1"),
        row("two blanks after the target", 400, "GET /  HTTP/1.1"),
        row("a tab after the method", 400, "GET\t/ HTTP/1.1"),
        row("a tab after the target", 400, "GET /\tHTTP/1.1"),
        row("a blank before the method", 400, " GET / HTTP/1.1"),
        row("a blank after the version", 400, "GET / HTTP/1.1 "),
        row("a blank in the target", 400, "GET /a b HTTP/1.1"),
        row("no version", 400, "GET /"),
        row("no target", 400, "GET HTTP/1.1"),
        row("HTTP/0.9", 505, "GET / HTTP/0.9"),
        row("HTTP/1.2", 505, "GET / HTTP/1.2"),
        row("HTTP/2.0", 505, "GET / HTTP/2.0"),
        row("HTTP/1.10", 400, "GET / HTTP/1.10"),
        row("HTTP/1,1", 400, "GET / HTTP/1,1"),
        row("a version in lower case", 400, "GET / http/1.1"),
        row("another protocol", 400, "GET / ICY/1.1"),
        row("a method that is no token", 400, "G(T / HTTP/1.1"),
        row("a target with a fragment", 400, "GET /a#b HTTP/1.1"),
        row("a target without a slash", 400, "GET a HTTP/1.1"),
        row("an asterisk for GET", 400, "GET * HTTP/1.1"),
        row("a target with user information", 400, "GET http://user@a/ HTTP/1.1"),
        row("a target of another scheme", 400, "GET ftp://a/ HTTP/1.1"),
        row("an encoded NUL", 400, "GET /a%00b HTTP/1.1"),
        row("half an escape", 400, "GET /a%2 HTTP/1.1"),
        row("more dots than segments", 400, "GET /../../etc HTTP/1.1"),
        row("CONNECT", 405, "CONNECT a:443 HTTP/1.1"),
        refused(
            "TRACE with a body",
            "RFC 9110 section 9.3.8",
            400,
            format!("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}")
                .as_bytes(),
        ),
        refused(
            "an expectation before 100-continue",
            "Kettle 2025: obfuscated Expect",
            417,
            &post("Expect: y 100-continue\r\nContent-Length: 5\r\n", SMUGGLED),
        ),
        refused(
            "the preface of HTTP/2",
            "RFC 9113 section 3.4",
            505,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
        refused(
            "a TLS handshake",
            "RFC 8446 section 5.1",
            400,
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
        ),
    ]
}

/// A request that reaches the origin once, in one meaning.
struct Cleaned {
    name: &'static str,
    source: &'static str,
    wire: Vec<u8>,
    /// In the head that the origin gets, in lower case, each exactly once.
    has: &'static [&'static str],
    /// Not in it.
    lacks: &'static [&'static str],
}

fn cleaned() -> Vec<Cleaned> {
    let connection = "RFC 9110 section 7.6.1";
    let row = |name, source, wire: Vec<u8>, has, lacks| Cleaned { name, source, wire, has, lacks };
    let length = SMUGGLED.len();
    vec![
        row("Connection names Content-Length", connection,
            post(&format!("Connection: content-length\r\nContent-Length: {length}\r\n"), SMUGGLED),
            &["\ncontent-length:"], &["\nconnection:"]),
        row("Connection names Transfer-Encoding", connection,
            post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
                &format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
            &["\ntransfer-encoding: chunked"], &["\nconnection:"]),
        row("Connection names Host", connection,
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host, close\r\n\r\n".to_vec(),
            &["\nhost: a\r"], &["\nconnection:"]),
        row("Connection names X-Forwarded-For", "Davison, Abusing hop-by-hop headers (2019)",
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: X-Forwarded-For\r\n\r\n".to_vec(),
            &["\nx-forwarded-for: 127.0.0.1\r"], &["1.1.1.1"]),
        row("an upgrade to h2c", "Bishop Fox, h2c smuggling (2020)",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n".to_vec(),
            &[], &["upgrade", "http2-settings", "h2c"]),
        row("an upgrade to h2c beside another", "Bishop Fox, h2c smuggling (2020)",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n".to_vec(),
            &[], &["upgrade", "h2c"]),
        row("an upgrade with a body on its way", "RFC 9110 section 7.8",
            post(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {length}\r\n"), SMUGGLED),
            &["\ncontent-length:"], &["upgrade"]),
        row("GET with a length", "RFC 9110 section 9.3.1",
            format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}").into_bytes(),
            &["\ncontent-length:"], &[]),
        row("GET in chunks", "RFC 9110 section 9.3.1",
            format!("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n").into_bytes(),
            &["\ntransfer-encoding: chunked"], &[]),
        row("HEAD with a length", "RFC 9110 section 9.3.2",
            format!("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}").into_bytes(),
            &["\ncontent-length:"], &[]),
        row("a length with leading zeros", "RFC 9110 section 8.6",
            post(&format!("Content-Length: 000{length}\r\n"), SMUGGLED),
            &["\ncontent-length: 3"], &["\ncontent-length: 0"]),
        row("TE after a tab", "RFC 9110 section 5.6.3",
            post("Transfer-Encoding:\tchunked\r\n", &format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
            &["\ntransfer-encoding: chunked"], &[]),
        row("TE with an underscore", "CVE-2024-1135 in kind",
            post(&format!("Transfer_Encoding: chunked\r\nContent-Length: {length}\r\n"), SMUGGLED),
            &["\ncontent-length:"], &["chunked"]),
        row("CL with an underscore", "nginx, underscores_in_headers",
            post(&format!("Content_Length: 0\r\nContent-Length: {length}\r\n"), SMUGGLED),
            &["\ncontent-length:"], &["content_length"]),
        row("an absolute target of another host", "RFC 9112 section 3.2.2",
            b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["get / http/1.1\r", "\nhost: b\r"], &["host: a\r"]),
        row("framing in trailers", "RFC 9110 section 6.5.1",
            chunked("1\r\nx\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"),
            &["\ntransfer-encoding: chunked"], &["content-length"]),
        row("dots in the path", "RFC 3986 section 5.2.4",
            b"GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["get /b http/1.1\r"], &[]),
        row("an encoded slash after two dots stays encoded", "RFC 3986 section 2.2",
            b"GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["get /a/..%2fb http/1.1\r"], &[]),
        row("Keep-Alive and Proxy-Connection", connection,
            b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: gzip\r\n\r\n".to_vec(),
            &[], &["keep-alive", "proxy-connection", "gzip"]),
    ]
}

on_both_backends! {
    fn a_request_with_two_meanings_never_reaches_the_origin(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let rows = [
            two_framings(), transfer_codings(), lengths(), lines(), hosts(), chunks(), request_lines(),
        ];
        for Refused { name, source, status, wire } in rows.into_iter().flatten() {
            let mut client = proxy.client("web");
            let answer = client.send(&wire).finish().rest();
            let answer = String::from_utf8_lossy(&answer);
            let context = format!("{name} ({source}): {answer}");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{context}");
            assert_eq!(answer.matches("Ringway-Cause").count(), 1, "one answer: {context}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{context}");
            assert_eq!(origin.heads(), [""; 0], "{context}");
        }
        assert_eq!(origin.accepted(), 0);
    }

    fn a_request_with_one_meaning_reaches_the_origin_once_and_in_that_meaning(backend: Backend) {
        let origin = Origin::http(|head, _| {
            let to_head = head.starts_with("HEAD ");
            let length = if to_head { "" } else { "Content-Length: 0\r\n" };
            format!("HTTP/1.1 200 OK\r\n{length}\r\n").into_bytes()
        });
        let proxy = Proxy::start(backend, &origin.config());
        for Cleaned { name, source, wire, has, lacks } in cleaned() {
            let before = origin.heads().len();
            let mut client = proxy.client("web");
            let answer = client.send(&wire).finish().rest();
            let answer = String::from_utf8_lossy(&answer);
            let seen = origin.heads().split_off(before);
            let context = format!("{name} ({source}): {answer} {seen:#?}");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{context}");
            assert_eq!(seen.len(), 1, "{context}");
            let head = seen[0].to_ascii_lowercase();
            for part in has {
                assert_eq!(head.matches(part).count(), 1, "{part:?} in {context}");
            }
            for part in lacks {
                assert!(!head.contains(part), "{part:?} in {context}");
            }
        }
    }

    /// The head and the first chunk are out when the fault comes: what the origin has got must
    /// not look whole.
    fn a_chunk_that_turns_out_broken_ends_the_request_at_the_origin_unfinished(backend: Backend) {
        let (seen, bytes) = mpsc::channel();
        let origin = Origin::connections(move |stream, _| {
            seen.send(Client::over(stream).rest()).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send(chunked("5\r\nhello\r\n"));
        eventually("the origin is connected", || origin.accepted() == 1);
        client.send(format!("0x0\r\n\r\n{SMUGGLED}"));
        assert_eq!(client.response().status, 400);
        let bytes = String::from_utf8(bytes.recv().unwrap()).unwrap();
        assert!(bytes.ends_with("\r\n\r\n5\r\nhello\r\n"), "{bytes}");
    }

    fn the_body_of_a_request_that_is_answered_here_is_not_the_next_request(backend: Backend) {
        let origin = Origin::echo();
        let config = origin.config().replace(
            "routes:\n",
            "routes:\n\
             - {name: here, hosts: [a], rules: [\n\
                {matches: [{path: {exact: /moved}}], redirect: {host: b}},\n\
                {matches: [{path: {exact: /said}}], respond: {body: hello}},\n\
                {matches: [{path: {exact: /nowhere}}], backends: [{cluster: origin, weight: 0}]}]}\n",
        );
        let proxy = Proxy::start(backend, &config);
        for (path, status) in [("/moved", 302), ("/said", 200), ("/nowhere", 500)] {
            let length = SMUGGLED.len();
            for body in [
                format!("Content-Length: {length}\r\n\r\n{SMUGGLED}"),
                format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
                // With a part missing the connection ends.
                format!("Content-Length: {}\r\n\r\n{SMUGGLED}", length + 1),
            ] {
                let mut client = proxy.client("web");
                client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}"));
                let response = client.response();
                assert_eq!(response.status, status, "{path}");
                if response.header("connection").is_none() {
                    assert!(client.get("/next").text().starts_with("GET /next "), "{path}");
                }
                client.finish();
                assert_eq!(client.rest(), b"", "{path}");
            }
        }
        assert!(!origin.heads().iter().any(|head| head.contains("/smuggled")));
        assert_eq!(origin.heads().len(), 6, "connections whose requests were whole go on");
    }

    fn a_response_with_two_meanings_is_a_502_and_its_connection_is_not_used_again(backend: Backend) {
        for (name, source, wire) in refused_responses() {
            let (_origin, proxy) = attacker(backend, wire.clone());
            let mut client = proxy.client("web");
            let answer = client.get("/attack");
            assert_eq!(answer.status, 502, "{name} ({source})");
            assert_eq!(answer.header("ringway-cause"), Some("upstream_malformed"), "{name}");
            assert_eq!(proxy.client("web").get("/next").text(), "next", "{name} ({source})");
        }
    }

    fn bytes_behind_a_response_answer_nobody(backend: Backend) {
        let extra = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        for (name, front) in [
            ("a second response", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("a body after 204", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("a body after 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n"),
            ("a response after chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ] {
            let (origin, proxy) = attacker(backend, format!("{front}{extra}").into_bytes());
            let mut client = proxy.client("web");
            client.get("/attack");
            assert_eq!(client.get("/next").text(), "next", "{name}");
            assert_eq!(origin.accepted(), 2, "{name}: the connection was not used again");
        }
        let (origin, proxy) = attacker(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        let mut client = proxy.client("web");
        client.send("HEAD /attack HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
        assert_eq!(client.get("/next").text(), "next", "a body after HEAD");
        assert_eq!(origin.accepted(), 2);
    }

    fn a_flood_of_interim_responses_is_a_502_after_a_few(backend: Backend) {
        let wire = b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n".repeat(1000);
        let (_origin, proxy) = attacker(backend, wire);
        let mut client = proxy.client("web");
        client.send("GET /attack HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut interim = 0;
        while client.head().0 == 103 {
            interim += 1;
        }
        assert!((1..20).contains(&interim), "{interim}");
        eventually("it is recorded", || {
            proxy.metric("ringway_failures_total{cause=\"upstream_malformed\"}") == 1.0
        });
        assert_eq!(proxy.client("web").get("/next").text(), "next");
    }

    fn fields_that_the_upstreams_connection_names_end_here(backend: Backend) {
        let wire = b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: max=5\r\n\
                     Proxy-Connection: x\r\nContent-Length: 2\r\nX-End: 2\r\n\r\nok";
        let (_origin, proxy) = attacker(backend, wire.to_vec());
        let response = proxy.client("web").get("/attack");
        assert_eq!(response.header("x-end"), Some("2"));
        for name in ["x-hop", "keep-alive", "proxy-connection", "connection"] {
            assert_eq!(response.header(name), None, "{name}");
        }
    }

    fn a_switch_of_protocols_that_was_asked_for_with_h2c_only_is_a_502(backend: Backend) {
        let wire = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        let (_origin, proxy) = attacker(backend, wire.to_vec());
        let mut client = proxy.client("web");
        client.send(
            "GET /attack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        );
        assert_eq!(client.response().status, 502);
    }
}

fn refused_responses() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let framing = "RFC 9112 section 6.3";
    let row = |name, source, wire: &str| (name, source, wire.as_bytes().to_vec());
    let mut rows = vec![
        row(
            "CL and TE",
            framing,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        row(
            "TE and CL",
            framing,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        row(
            "two CLs",
            framing,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        ),
        row("a list of CLs", framing, "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok"),
        row("a CL with a sign", framing, "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
        row(
            "a CL over 64 bits",
            framing,
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
        ),
        row("an empty CL", framing, "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok"),
        row(
            "an unknown coding",
            framing,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        row(
            "chunked twice",
            framing,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        row(
            "TE in HTTP/1.0",
            "RFC 9112 section 6.1",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        row(
            "a status of four digits",
            "RFC 9112 section 4",
            "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        row(
            "a status of two digits",
            "RFC 9112 section 4",
            "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        row(
            "a status below 100",
            "RFC 9110 section 15",
            "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        row(
            "a status with a sign",
            "RFC 9112 section 4",
            "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        row("a bare LF", "RFC 9112 section 2.2", "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok"),
        row("LF everywhere", "RFC 9112 section 2.2", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        row(
            "a bare CR in a value",
            "RFC 9112 section 2.2",
            "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 2\r\n\r\nok",
        ),
        row(
            "a folded field",
            "RFC 9112 section 5.2",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok",
        ),
        row(
            "a blank before a colon",
            "RFC 9112 section 5.1",
            "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        ),
        row(
            "a NUL in a value",
            "RFC 9110 section 5.5",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\nok",
        ),
        row(
            "another version",
            "RFC 9112 section 2.3",
            "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        row("HTTP/0.9", "RFC 9112 section 2.3", "hello\r\n\r\n"),
        row(
            "an empty line first",
            "RFC 9112 section 2.2",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        row(
            "101 without being asked",
            "RFC 9110 section 15.2.2",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
    ];
    rows.push((
        "too many fields",
        "design section 5",
        [b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(129), b"\r\n".to_vec()].concat(),
    ));
    rows
}

/// An origin that answers `/attack` with `wire` and goes on, and anything else with `next`; and a
/// proxy in front of it.
fn attacker(backend: Backend, wire: Vec<u8>) -> (Origin, Proxy) {
    let origin = Origin::connections(move |stream, _| {
        let mut reader = Client::over(stream);
        while let Some((head, _)) = read_request(&mut reader) {
            let attack = head.split(' ').nth(1) == Some("/attack");
            let next = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext";
            let answer = if attack { &wire[..] } else { &next[..] };
            if reader.stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start(backend, &origin.config());
    (origin, proxy)
}
