//! Endpoints of HTTP/2 that leave, refuse, allow little or break off.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;

use super::support::h2::{self as frames, H2Client, RawH2, request};
use super::support::h2_origin::{Desk, Exchange, H2Origin, answer};
use super::support::{Backend, Origin, Proxy, eventually};

fn config(address: SocketAddr, cluster: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: one, address: '127.0.0.1:0'}}\n\
         - {{name: two, address: '127.0.0.1:0', protocol: http2}}\n\
         routes:\n- {{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}\n\
         clusters:\n- {{name: origin, protocol: http2, endpoints: [{{address: '{address}'}}], \
         {cluster}}}\n"
    )
}

/// Speaks HTTP/2 by hand: answers the first `most` requests with 200 and nothing else, and says by
/// GOAWAY that it has not looked at the others. Returns how many it answered.
fn serve_some(mut stream: TcpStream, most: usize) -> usize {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).is_err() {
        return 0;
    }
    let mut raw = RawH2 { stream };
    let (mut begun, mut answered, mut last) = (0, 0, u32::MAX);
    let _ = raw.send(frames::SETTINGS, 0, 0, &[]);
    while let Some(frame) = raw.next() {
        if frame.kind == frames::SETTINGS && frame.flags == 0 {
            let _ = raw.send(frames::SETTINGS, 1, 0, &[]);
        }
        if frame.kind == frames::HEADERS && frame.stream <= last {
            begun += 1;
            if begun == most {
                last = frame.stream;
                let payload = [last.to_be_bytes(), [0; 4]].concat();
                let _ = raw.send(frames::GOAWAY, 0, 0, &payload);
            }
        }
        let is_work = matches!(frame.kind, frames::HEADERS | frames::DATA);
        if is_work && frame.flags & frames::END_STREAM != 0 && frame.stream <= last {
            answered += 1;
            // `:status: 200` of the static table.
            let flags = frames::END_HEADERS | frames::END_STREAM;
            let _ = raw.send(frames::HEADERS, flags, frame.stream, &[0x88]);
        }
    }
    answered
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
        let answered = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&answered);
        let origin = Origin::connections(move |stream, number| {
            let most = if number == 0 { 3 } else { usize::MAX };
            counter.fetch_add(serve_some(stream, most), Ordering::SeqCst);
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        let mut open = Vec::new();
        for id in 0..20 {
            let has_body = id % 2 == 1;
            let (response, mut stream) = client.begin(request("PUT", "/"), !has_body);
            if has_body {
                stream.send_data(Bytes::from_static(b"some bytes"), true).unwrap();
            }
            open.push(response);
        }
        for response in open {
            assert_eq!(client.run(response).unwrap().status(), 200);
        }
        assert!(origin.accepted() <= 3, "{} connections", origin.accepted());
        assert!(proxy.metric("ringway_retries_total") >= 1.0);
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
        drop(proxy);
        eventually("each was answered once", || answered.load(Ordering::SeqCst) == 20);
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

    fn an_endpoint_that_complains_of_frames_is_no_reason_to_cut_clients(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |(_, mut respond), _| {
            Box::pin(async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"some"), false).unwrap();
                // Long enough for it to go out.
                tokio::time::sleep(Duration::from_millis(1)).await;
                stream.send_reset(Reason::PROTOCOL_ERROR);
            })
        });
        let proxy = Proxy::start(backend, &config(origin.address, ""));
        let mut client = H2Client::connect(proxy.address("two"));
        for _ in 0..1100 {
            let answer = client.ask(request("GET", "/"), None);
            let reason = answer.err().and_then(|error| error.reason());
            assert!(reason.is_none_or(|reason| reason == Reason::INTERNAL_ERROR), "{reason:?}");
        }
        assert_eq!(proxy.metric("ringway_http2_connections_total"), 1.0);
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
