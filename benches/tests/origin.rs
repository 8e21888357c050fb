//! The origin over real sockets: order, framing, lengths, and the two body clients against it.

// The helpers below are part of the tests, but the lint does not see that.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringway-bench");

struct Origin {
    child: Child,
    http: SocketAddr,
    tcp: SocketAddr,
}

impl Origin {
    fn start() -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["origin", "--listen", "127.0.0.1:0", "--tcp-bytes", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || -> SocketAddr {
            let line = lines.next().unwrap().unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let (http, tcp) = (address(), address());
        Self { child, http, tcp }
    }

    /// Head and body of an answer over HTTP/2.
    fn curl_http2(&self, path: &str, options: &[&str]) -> String {
        let url = format!("http://{}{path}", self.http);
        let mut command = Command::new("curl");
        command.args(["-sSi", "--http2-prior-knowledge", &url]).args(options);
        command.output().unwrap().stdout.into_iter().map(char::from).collect()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends `text` and reads until the origin closes.
    fn exchange(&self, text: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).unwrap();
        read_all(stream)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes.into_iter().map(char::from).collect()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let text = Origin::start().exchange(
        "GET /first HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /chunked/2 HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let places: Vec<usize> =
        ["GET /first", "received 3 bytes", "2\r\n\u{0}\u{1}\r\n0\r\n\r\n", "GET /last"]
            .iter()
            .map(|part| text.find(part).unwrap_or_else(|| panic!("{part:?} in {text}")))
            .collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn a_request_that_comes_byte_by_byte_is_one_request() {
    let origin = Origin::start();
    let mut stream = origin.connect();
    stream.set_nodelay(true).unwrap();
    let request = "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
                   Connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(read_all(stream).ends_with("received 3 bytes\n"));
}

#[test]
fn trailers_follow_the_body_in_either_protocol() {
    let origin = Origin::start();
    let text = origin.exchange("GET /trailers/2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(text.contains("Trailer: x-body-bytes\r\n"), "{text}");
    let end = "2\r\n\u{0}\u{1}\r\n0\r\nx-body-bytes: 2\r\n\r\n";
    assert!(text.ends_with(end), "{text}");
    let text = origin.curl_http2("/trailers/2", &[]);
    assert!(text.ends_with("\r\n\r\n\u{0}\u{1}x-body-bytes: 2\r\n"), "{text}");
}

/// What HTTP/1.1 gets on the same address, HTTP/2 gets too.
#[test]
fn http2_is_told_from_http1_by_its_preface() {
    let origin = Origin::start();
    let root = origin.curl_http2("/", &[]);
    assert!(root.starts_with("HTTP/2 200") && root.ends_with("\r\n\r\nhello from v1\n"), "{root}");
    assert!(root.contains("content-length: 14\r\n"), "{root}");
    let echo = origin.curl_http2("/echo?q=1", &["-H", "X-Forwarded-For: 10.0.0.1"]);
    assert!(echo.contains("variant: v1\nGET /echo?q=1 HTTP/2\nhost: "), "{echo}");
    assert!(echo.contains("x-forwarded-for: 10.0.0.1\n"), "{echo}");
    let upload = origin.curl_http2("/upload", &["-d", "abc"]);
    assert!(upload.ends_with("v1 received 3 bytes\n"), "{upload}");
    assert!(origin.curl_http2("/status/503", &[]).starts_with("HTTP/2 503"));
    let head = origin.curl_http2("/bytes/1000", &["-I"]);
    assert!(head.ends_with("content-length: 1000\r\n\r\n"), "{head}");
    let bodiless = origin.curl_http2("/status/204", &[]);
    assert!(bodiless.ends_with("x-variant: v1\r\n\r\n"), "{bodiless}");
    assert!(origin.curl_http2("/bytes/5000000", &[]).len() > 5_000_000);
    // A preface that comes byte by byte is one all the same.
    let mut stream = origin.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "the origin's settings");
}

#[test]
fn a_client_that_waits_for_continue_gets_it_before_its_body() {
    let origin = Origin::start();
    let mut stream = origin.connect();
    let head = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
                Expect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    assert!(read_all(stream).ends_with("received 3 bytes\n"));
}

#[test]
fn ambiguous_framing_ends_the_connection_with_400() {
    let text = Origin::start().exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert!(text.starts_with("HTTP/1.1 400 ") && !text.contains("smuggled"), "{text}");
}

#[test]
fn an_endless_head_is_refused_with_431() {
    let origin = Origin::start();
    let mut stream = origin.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    // The origin may close before it has read all of this.
    let _ = stream.write_all(&vec![b'x'; 64 * 1024]);
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 431");
}

#[test]
fn both_clients_read_and_verify_whole_bodies() {
    let origin = Origin::start();
    for (client, target) in [("load-tcp", origin.tcp), ("load-http", origin.http)] {
        let target = target.to_string();
        let output = run(&[client, "--target", &target, "--bytes", "300001", "-c", "2", "-s", "1"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{client}: {text}");
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bodies = found["bodies"].as_u64().unwrap();
        assert!(bodies >= 2, "{client}: {text}");
        assert_eq!(found["bytes"].as_u64().unwrap(), bodies * 300_001);
        assert_eq!(found["errors"], 0);
    }
}

#[test]
fn a_client_without_an_origin_reports_errors_and_fails() {
    let output = run(&["load-tcp", "--target", "127.0.0.1:1", "-c", "1", "-s", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["errors"].as_u64().unwrap() > 0);
}

#[test]
fn a_taken_port_is_refused_by_name() {
    let origin = Origin::start();
    let output = run(&["origin", "--listen", &origin.http.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is in use"));
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    assert_eq!(run(&["origin"]).status.code(), Some(64));
    assert_eq!(run(&["compare", "--rounds", "none"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}
