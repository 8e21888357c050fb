//! Endpoints of HTTP/2 that leave, refuse, allow little or break off.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;

use super::support::h2::{self as frames, Frame, H2Client, RawH2, request};
use super::support::h2_origin::{Desk, Exchange, H2Origin, answer};
use super::support::proxy::both_versions;
use super::support::{Backend, Client, Origin, Proxy, eventually};

/// A configuration with a cluster of HTTP/2 at `address`.
fn config(address: SocketAddr, cluster: &str) -> String {
    both_versions(address, &format!("protocol: http2, {cluster}"))
}

/// Takes the preface, and says its own.
fn shake(mut stream: TcpStream) -> Option<RawH2> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    let mut raw = RawH2 { stream };
    raw.send(frames::SETTINGS, 0, 0, &[]).ok()?;
    Some(raw)
}

/// The next frame that is not about settings, which are acknowledged.
fn next_frame(raw: &mut RawH2) -> Option<Frame> {
    loop {
        let frame = raw.next()?;
        if frame.kind != frames::SETTINGS {
            return Some(frame);
        }
        if frame.flags == 0 {
            let _ = raw.send(frames::SETTINGS, 1, 0, &[]);
        }
    }
}

/// Speaks HTTP/2 by hand: answers the first `most` requests with the lengths of their bodies, and
/// says by GOAWAY that it has not looked at the others. Returns those lengths.
fn serve_some(stream: TcpStream, most: usize) -> Vec<usize> {
    let mut answered = Vec::new();
    let Some(mut raw) = shake(stream) else { return answered };
    let (mut begun, mut last) = (0, u32::MAX);
    let mut lengths = HashMap::new();
    while let Some(frame) = next_frame(&mut raw) {
        if frame.stream > last || !matches!(frame.kind, frames::HEADERS | frames::DATA) {
            continue;
        }
        let length: &mut usize = lengths.entry(frame.stream).or_default();
        if frame.kind == frames::HEADERS {
            begun += 1;
            if begun == most {
                last = frame.stream;
                let payload = [last.to_be_bytes(), [0; 4]].concat();
                let _ = raw.send(frames::GOAWAY, 0, 0, &payload);
            }
        } else {
            *length += frame.payload.len();
        }
        if frame.flags & frames::END_STREAM != 0 {
            answered.push(*length);
            // `:status: 200` of the static table.
            let _ = raw.send(frames::HEADERS, frames::END_HEADERS, frame.stream, &[0x88]);
            let body = length.to_string();
            let _ = raw.send(frames::DATA, frames::END_STREAM, frame.stream, body.as_bytes());
        }
    }
    answered
}

/// Answers each request with `count` frames that say nothing, and the body `x` a moment later.
fn say_nothing(stream: TcpStream, count: &AtomicUsize) {
    let Some(mut raw) = shake(stream) else { return };
    while let Some(frame) = next_frame(&mut raw) {
        if frame.kind != frames::HEADERS {
            continue;
        }
        let id = frame.stream;
        let _ = raw.send(frames::HEADERS, frames::END_HEADERS, id, &[0x88]);
        for _ in 0..count.load(Ordering::SeqCst) {
            let _ = raw.send(frames::DATA, 0, id, b"");
        }
        std::thread::sleep(Duration::from_millis(20));
        let _ = raw.send(frames::DATA, frames::END_STREAM, id, b"x");
    }
}

/// How a response ends before its end, after `BEGINNING`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Finished,
    Reset,
    GoneAway,
    StreamCancelled,
    StreamResetWithoutError,
    /// The end of the stream, before the length that was announced.
    TooShort,
    /// More than was announced.
    TooLong,
}

const BEGINNING: &[u8] = b"the beginning";
const ANNOUNCED: usize = 20;

/// Answers each request with `BEGINNING`, and breaks off as `plan` says once told to: a length is
/// announced if its second half says so.
fn break_off(stream: TcpStream, plan: &Mutex<(Break, bool)>, told: &Mutex<Receiver<()>>) {
    let Some(mut raw) = shake(stream) else { return };
    while let Some(frame) = next_frame(&mut raw) {
        if frame.kind != frames::HEADERS {
            continue;
        }
        let (way, announced) = *plan.lock().unwrap();
        let length = ANNOUNCED.to_string();
        let mut head = vec![0x88];
        if announced {
            head.extend(frames::block(&[("content-length", &length)]));
        }
        let id = frame.stream;
        raw.send(frames::HEADERS, frames::END_HEADERS, id, &head).unwrap();
        raw.send(frames::DATA, 0, id, BEGINNING).unwrap();
        told.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        let reset = |reason: Reason| u32::from(reason).to_be_bytes();
        let sent = match way {
            Break::Finished => return,
            Break::Reset => return Client::over(raw.stream).reset(),
            Break::GoneAway => {
                let payload = [id.to_be_bytes(), reset(Reason::INTERNAL_ERROR)].concat();
                let _ = raw.send(frames::GOAWAY, 0, 0, &payload);
                return;
            }
            Break::StreamCancelled => raw.send(frames::RST_STREAM, 0, id, &reset(Reason::CANCEL)),
            Break::StreamResetWithoutError => {
                raw.send(frames::RST_STREAM, 0, id, &reset(Reason::NO_ERROR))
            }
            Break::TooShort => raw.send(frames::DATA, frames::END_STREAM, id, b""),
            Break::TooLong => raw.send(frames::DATA, frames::END_STREAM, id, &[b'x'; ANNOUNCED]),
        };
        sent.unwrap();
    }
}

/// Whether a client of HTTP/1.1 can tell that the rest of a body has not come.
fn is_in_part(head: &[(String, String)], body: &[u8]) -> bool {
    let named = |name: &str| head.iter().any(|field| field.0.eq_ignore_ascii_case(name));
    if named("content-length") {
        body.len() < ANNOUNCED
    } else {
        named("transfer-encoding") && !body.ends_with(b"0\r\n\r\n")
    }
}

/// Reads the request, and answers with its body.
async fn echo((request, respond): Exchange, desk: Desk) {
    if let Some(arrived) = desk.receive(request).await {
        answer(respond, 200, HeaderMap::new(), arrived.body.into(), None).await;
    }
}

/// The names that requests bear, in order.
fn names(origin: &H2Origin) -> Vec<String> {
    let mut names: Vec<String> = origin
        .arrived()
        .iter()
        .map(|arrived| arrived.fields["x-id"].to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn named(count: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..count).map(|id| id.to_string()).collect();
    names.sort();
    names
}

/// Sends `count` requests at once, every second one with a body, and expects 200 for all of them.
fn all_are_answered(client: &mut H2Client, count: usize) {
    let mut open = Vec::new();
    for id in 0..count {
        let has_body = id % 2 == 1;
        let method = if has_body { "POST" } else { "GET" };
        let (response, mut stream) =
            client.begin(request(method, "/").header("x-id", id.to_string()), !has_body);
        if has_body {
            stream.send_data(Bytes::from(format!("body {id}")), true).unwrap();
        }
        open.push((id, response));
    }
    for (id, response) in open {
        let response = client.run(response).unwrap();
        assert_eq!(response.status(), 200, "request {id}");
        let body = client.run(super::support::h2::read_body(&mut response.into_body(), 1 << 20));
        let expected = if id % 2 == 1 { format!("body {id}") } else { String::new() };
        assert_eq!(String::from_utf8(body.unwrap()).unwrap(), expected);
    }
}

on_both_backends! {
    fn requests_that_a_leaving_endpoint_did_not_take_go_to_the_next_connection(backend: Backend) {
        let answered = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&answered);
        let origin = Origin::connections(move |stream, number| {
            let most = if number == 0 { 3 } else { usize::MAX };
            let lengths = serve_some(stream, most);
            seen.lock().unwrap().push(lengths);
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        // Each has a body of its own length, which is what it is known by at the other end.
        let mut open = Vec::new();
        for length in 0..20 {
            let (response, mut stream) = client.begin(request("PUT", "/"), length == 0);
            if length > 0 {
                stream.send_data(Bytes::from(vec![b'x'; length]), true).unwrap();
            }
            open.push((length, response));
        }
        for (length, response) in open {
            let answer = client.run(frames::read_all(response)).unwrap();
            assert_eq!((answer.status, answer.text()), (200, length.to_string()));
        }
        assert!(origin.accepted() <= 3, "{} connections", origin.accepted());
        assert!(proxy.metric("ringway_retries_total") >= 1.0);
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
        drop(proxy);
        eventually("all connections ended", || answered.lock().unwrap().len() == origin.accepted());
        let mut lengths = answered.lock().unwrap().concat();
        lengths.sort_unstable();
        assert_eq!(lengths, (0..20).collect::<Vec<_>>(), "each once");
    }

    fn bodies_of_older_clients_are_sent_once_more_too(backend: Backend) {
        let answered = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&answered);
        let origin = Origin::connections(move |stream, nth| {
            let lengths = serve_some(stream, if nth < 8 { 2 } else { usize::MAX });
            seen.lock().unwrap().push(lengths);
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let address = proxy.address("one");
        // Five at once, so that some meet a GOAWAY; each body has a length of its own.
        let ask = move |length: usize| {
            let mut client = Client::connect(address);
            let body = "x".repeat(length);
            let head = "PUT / HTTP/1.1\r\nHost: a\r\n";
            let stream = &mut client.stream;
            if length.is_multiple_of(2) {
                let text = format!("{head}Content-Length: {length}\r\n\r\n{body}");
                let (first, rest) = text.split_at(text.len() - length / 2);
                stream.write_all(first.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                stream.write_all(rest.as_bytes()).unwrap();
            } else {
                let text = format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n");
                stream.write_all(text.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                stream.write_all(b"0\r\nx-end: yes\r\n\r\n").unwrap();
            }
            let answer = client.response();
            assert_eq!((answer.status, answer.text()), (200, length.to_string()), "{length}");
        };
        for round in 0..8 {
            let lengths = (0..5).map(|nth| 1 + round * 5 + nth);
            let threads: Vec<_> =
                lengths.map(|length| std::thread::spawn(move || ask(length))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        assert!(proxy.metric("ringway_retries_total") >= 1.0);
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
        drop(proxy);
        eventually("all connections ended", || answered.lock().unwrap().len() == origin.accepted());
        let mut lengths = answered.lock().unwrap().concat();
        lengths.sort_unstable();
        assert_eq!(lengths, (1..=40).collect::<Vec<_>>(), "each once");
    }

    fn a_refused_request_is_sent_once_more(backend: Backend) {
        let origin = H2Origin::connections(h2::server::Builder::new(), |mut connection, desk| {
            Box::pin(async move {
                let mut refused = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let again = request.headers()["x-id"].to_str().unwrap().ends_with('3');
                    if again && refused < 2 {
                        refused += 1;
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    }
                    tokio::task::spawn_local(echo((request, respond), desk.clone()));
                }
            })
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        all_are_answered(&mut client, 20);
        assert_eq!(names(&origin), named(20));
        assert_eq!(proxy.metric("ringway_retries_total"), 2.0);
    }

    fn a_request_that_is_refused_for_ever_fails_with_its_cause(backend: Backend) {
        let origin = H2Origin::connections(h2::server::Builder::new(), |mut connection, _| {
            Box::pin(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
            })
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let answer = client.ask(request("GET", "/"), None).unwrap();
        assert_eq!((answer.status, answer.field("ringway-cause")), (502, Some("upstream_reset")));
        assert_eq!(proxy.metric("ringway_retries_total"), 2.0, "and then no more");
        assert_eq!(proxy.client("one").get("/").status, 502);
    }

    fn connections_are_opened_as_an_endpoint_allows_streams(backend: Backend) {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(2);
        let origin = H2Origin::http(builder, |exchange, desk| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                echo(exchange, desk).await;
            })
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        // Before it has said how many it allows, more may be on their way.
        assert_eq!(client.ask(request("GET", "/").header("x-id", "a"), None).unwrap().status, 200);
        all_are_answered(&mut client, 8);
        let opened = origin.accepted();
        assert!((2..=8).contains(&opened), "{opened} connections");
        all_are_answered(&mut client, 8);
        assert!(origin.accepted() <= opened + 4, "connections are used again");
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn small_windows_of_an_endpoint_are_kept_to(backend: Backend) {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(1024).initial_connection_window_size(65_535);
        let origin = H2Origin::http(builder, |exchange, desk| Box::pin(echo(exchange, desk)));
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let body = vec![b'z'; 300_000];
        let answer = client.ask(request("POST", "/").header("x-id", "1"), Some(&body)).unwrap();
        assert_eq!((answer.status, answer.body == body), (200, true));
    }

    fn an_endpoint_that_breaks_off_is_never_taken_for_whole(backend: Backend) {
        let origin = H2Origin::connections(h2::server::Builder::new(), |mut connection, _| {
            Box::pin(async move {
                let accepted = connection.accept().await;
                let Some(Ok((_, mut respond))) = accepted else { return };
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"the beginning"), false).unwrap();
                let moving = std::future::poll_fn(|context| connection.poll_closed(context));
                // Long enough for it to go out; then the connection is gone.
                let _ = tokio::time::timeout(Duration::from_millis(300), moving).await;
            })
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let error = client.ask(request("GET", "/"), None).unwrap_err();
        assert!(error.is_reset(), "{error:?}");
        let mut old = proxy.client("one");
        old.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let text = String::from_utf8_lossy(&old.rest_or_reset()).into_owned();
        assert!(text.contains("the beginning") && !text.ends_with("0\r\n\r\n"), "{text}");
        eventually("both are counted", || {
            proxy.metric("ringway_failures_total{cause=\"upstream_truncated\"") == 2.0
        });
    }

    fn frames_of_an_endpoint_that_say_nothing_are_borne_until_they_are_a_flood(backend: Backend) {
        let count = Arc::new(AtomicUsize::new(150));
        let current = Arc::clone(&count);
        let origin = Origin::connections(move |stream, _| say_nothing(stream, &current));
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let mut ask = || client.ask(request("GET", "/"), None);
        for _ in 0..4 {
            assert_eq!(ask().unwrap().body, b"x");
        }
        assert_eq!(origin.accepted(), 1, "it lives on");
        count.store(1000, Ordering::SeqCst);
        assert!(ask().unwrap_err().is_reset(), "its connection is given up");
        count.store(150, Ordering::SeqCst);
        assert_eq!(ask().unwrap().body, b"x");
        assert_eq!(origin.accepted(), 2, "by another one");
    }

    fn an_endpoint_that_does_not_begin_with_settings_is_given_up(backend: Backend) {
        let (tell, told) = std::sync::mpsc::channel();
        let tell = Mutex::new(tell);
        let origin = Origin::connections(move |mut stream, _| {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).unwrap();
            let mut raw = RawH2 { stream };
            let _ = raw.send(frames::PING, 0, 0, &[7; 8]);
            let _ = raw.send(frames::SETTINGS, 0, 0, b"");
            let goaway = raw.next_of(frames::GOAWAY).map(|frame| frames::code(&frame));
            tell.lock().unwrap().send(goaway).unwrap();
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let answer = client.ask(request("GET", "/"), None).unwrap();
        assert_eq!(answer.status, 502);
        assert_eq!(answer.field("ringway-cause"), Some("upstream_reset"));
        let goaway = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(goaway, Some(u32::from(Reason::PROTOCOL_ERROR)));
    }

    fn an_endpoint_that_complains_of_frames_is_no_reason_to_cut_clients(backend: Backend) {
        // The response has begun before it is reset: the client has its head.
        let begun = Arc::new(tokio::sync::Semaphore::new(0));
        let reset = Arc::clone(&begun);
        let origin = H2Origin::http(h2::server::Builder::new(), move |(_, mut respond), _| {
            let begun = Arc::clone(&reset);
            Box::pin(async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                begun.acquire().await.unwrap().forget();
                stream.send_reset(Reason::PROTOCOL_ERROR);
            })
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        for _ in 0..1100 {
            let (response, _) = client.begin(request("GET", "/"), true);
            let mut body = client.run(response).unwrap().into_body();
            begun.add_permits(1);
            let error = client.run(frames::read_body(&mut body, 1)).unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
        assert_eq!(proxy.metric("ringway_http2_connections_total"), 1.0);
    }

    fn whatever_breaks_off_a_response_leaves_it_in_part_and_the_client_connected(backend: Backend) {
        let plan = Arc::new(Mutex::new((Break::Finished, false)));
        let (tell, told) = std::sync::mpsc::channel();
        let (shared, told) = (Arc::clone(&plan), Mutex::new(told));
        let origin = Origin::connections(move |stream, _| break_off(stream, &shared, &told));
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let mut failures = 0.0;
        for (way, announced) in [
            (Break::StreamCancelled, false),
            (Break::StreamCancelled, true),
            (Break::StreamResetWithoutError, false),
            (Break::StreamResetWithoutError, true),
            (Break::TooShort, true),
            (Break::TooLong, true),
            (Break::Finished, false),
            (Break::Finished, true),
            (Break::Reset, false),
            (Break::Reset, true),
            (Break::GoneAway, false),
            (Break::GoneAway, true),
        ] {
            *plan.lock().unwrap() = (way, announced);
            let (response, _) = client.begin(request("GET", "/"), true);
            let mut body = client.run(response).unwrap().into_body();
            let beginning = client.run(frames::read_body(&mut body, BEGINNING.len())).unwrap();
            assert_eq!(beginning, BEGINNING, "{way:?}");
            tell.send(()).unwrap();
            let rest = client.run(frames::read_body(&mut body, usize::MAX));
            let error = rest.expect_err(&format!("{way:?} {announced}, over HTTP/2"));
            assert!(error.is_reset() && error.is_remote(), "{way:?}: {error:?}");

            let mut old = proxy.client("one");
            old.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (status, head) = old.head();
            assert_eq!(status, 200);
            let chunked = if announced { String::new() } else { old.line() };
            let beginning = old.take(BEGINNING.len());
            assert_eq!(beginning, BEGINNING, "{way:?} {chunked}");
            tell.send(()).unwrap();
            let body = [beginning, old.rest_or_reset()].concat();
            let text = String::from_utf8_lossy(&body);
            assert!(is_in_part(&head, &body), "{way:?} {announced}, over HTTP/1.1: {text}");
            failures += 2.0;
            eventually("both are counted", || {
                proxy.metric("ringway_failures_total{cause=\"upstream_") == failures
            });
        }
    }

    fn a_connection_that_is_idle_for_long_is_closed(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |exchange, desk| {
            Box::pin(echo(exchange, desk))
        });
        let proxy = Proxy::start(backend, &config(origin.address, "pool: {idle_timeout: 500ms}"));
        let mut client = H2Client::connect(proxy.address("two"));
        let ask = |client: &mut H2Client| {
            let asked = client.ask(request("GET", "/").header("x-id", "1"), None);
            assert_eq!(asked.unwrap().status, 200);
        };
        ask(&mut client);
        proxy.counts("ringway_upstream_closed_total", 1.0);
        ask(&mut client);
        assert_eq!(origin.accepted(), 2);
    }

    fn requests_of_many_clients_share_a_connection(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |exchange, desk| {
            Box::pin(echo(exchange, desk))
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        for _ in 0..10 {
            let mut client = H2Client::connect(proxy.address("two"));
            all_are_answered(&mut client, 4);
        }
        assert_eq!(origin.accepted(), 1);
    }
}
