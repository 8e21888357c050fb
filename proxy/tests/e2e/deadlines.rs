//! Waits that end when they should, and what moves is not cut: whoever waits for whom, over either
//! version.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use rustls::{ServerConnection, StreamOwned};

use crate::support::h2::{self as frames, H2Client, RawH2, get, request};
use crate::support::h2_origin::{H2Origin, answer};
use crate::support::http::{Client, End};
use crate::support::origin::{ok, pattern, unchunked};
use crate::support::pki::{Authority, Wanted};
use crate::support::process::connections;
use crate::support::proxy::both_versions;
use crate::support::{Backend, Origin, Proxy, eventually, tls};

const MIB: usize = 1024 * 1024;

/// Listeners `one` and `two` for the two versions, a rule with `rule`, and a cluster of HTTP/2.
fn to_http2(address: SocketAddr, rule: &str) -> String {
    both_versions(address, "protocol: http2").replace("rules: [{", &format!("rules: [{{{rule}, "))
}

/// How long `work` takes.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (work(), begun.elapsed())
}

on_both_backends! {
    fn an_endpoint_that_is_silent_after_an_upload_is_given_up(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |(request, respond), desk| {
            Box::pin(async move {
                desk.receive(request).await;
                std::future::pending::<()>().await;
                drop(respond);
            })
        });
        let proxy = Proxy::start(backend, &to_http2(origin.address, "timeout: 1s"));
        let mut old = proxy.client("one");
        old.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n").send([1; 1000]);
        std::thread::sleep(Duration::from_millis(100));
        let (response, took) = timed(|| old.send([1; 1000]).response());
        assert_eq!(response.status, 504);
        assert!(took < Duration::from_secs(5), "{took:?}");
        let mut new = H2Client::connect(proxy.address("two"));
        let (response, mut stream) = new.begin(request("POST", "/"), false);
        let (status, took) = timed(|| {
            new.run(async move {
                stream.send_data(Bytes::from(vec![1; 1000]), false).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.send_data(Bytes::from(vec![1; 1000]), true).unwrap();
                response.await.unwrap().status()
            })
        });
        assert_eq!(status, 504);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    fn an_upload_that_waits_for_its_endpoint_ends_with_its_client(backend: Backend) {
        let (seen, ended) = mpsc::channel();
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(0);
        let seen = Mutex::new(seen);
        let origin = H2Origin::http(builder, move |(request, respond), _| {
            let seen = seen.lock().unwrap().clone();
            Box::pin(async move {
                if request.method() == "GET" {
                    return answer(respond, 200, HeaderMap::new(), "".into(), None).await;
                }
                let reset = request.into_body().data().await.is_none_or(|data| data.is_err());
                seen.send(reset).unwrap();
                drop(respond);
            })
        });
        let proxy = Proxy::start(backend, &to_http2(origin.address, "idle_timeout: 5m"));
        let mut client = H2Client::connect(proxy.address("two"));
        // From here on the proxy knows the endpoint's window.
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        let (response, mut stream) = client.begin(request("POST", "/"), false);
        client.run(async {
            stream.send_data(Bytes::from(vec![1; 10_000]), false).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.send_reset(h2::Reason::CANCEL);
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
        drop(response);
        assert_eq!(ended.recv_timeout(Duration::from_secs(5)), Ok(true), "the endpoint is told");
        eventually("the stream ends", || proxy.metric("ringway_http2_streams_open") == 0.0);
    }

    fn a_call_whose_time_is_over_is_told_so_while_both_may_still_speak(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |(request, mut respond), _| {
            Box::pin(async move {
                let _open = request.into_body();
                let mut response = http::Response::new(());
                let kind = "application/grpc".parse().unwrap();
                response.headers_mut().insert("content-type", kind);
                let _stream = respond.send_response(response, false).unwrap();
                std::future::pending::<()>().await;
            })
        });
        let proxy = Proxy::start(backend, &to_http2(origin.address, "idle_timeout: 5m"));
        let mut client = H2Client::connect(proxy.address("two"));
        let call = request("POST", "/a.B/C").header("content-type", "application/grpc");
        let call = call.header("te", "trailers").header("grpc-timeout", "700m");
        let (response, mut stream) = client.begin(call, false);
        let trailers = client.run(async {
            stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert!(body.data().await.is_none(), "nothing was said");
            body.trailers().await.unwrap().unwrap()
        });
        assert_eq!(trailers["grpc-status"], "4", "DEADLINE_EXCEEDED");
    }

    fn an_upload_that_is_too_large_is_answered_and_never_repeated(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |(request, respond), desk| {
            Box::pin(async move {
                desk.receive(request).await;
                answer(respond, 200, HeaderMap::new(), "taken".into(), None).await;
            })
        });
        let proxy = Proxy::start(backend, &to_http2(origin.address, "max_request_body: 1500"));
        let mut client = H2Client::connect(proxy.address("two"));
        for _ in 0..20 {
            let (response, mut stream) = client.begin(request("POST", "/"), false);
            let status = client.run(async move {
                stream.send_data(Bytes::from(vec![1; 1000]), false).unwrap();
                tokio::task::yield_now().await;
                stream.send_data(Bytes::from(vec![1; 1000]), true).unwrap();
                response.await.unwrap().status()
            });
            assert_eq!(status, 413);
        }
        assert_eq!(origin.arrived().len(), 0);
    }

    fn data_behind_a_response_without_a_body_reaches_nobody(backend: Backend) {
        let origin = H2Origin::http(h2::server::Builder::new(), |(request, respond), _| {
            Box::pin(async move {
                let (status, body) = match request.uri().path() {
                    "/empty" => (204, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
                    _ => (200, "honest"),
                };
                answer(respond, status, HeaderMap::new(), body.into(), None).await;
            })
        });
        let proxy = Proxy::start(backend, &to_http2(origin.address, "idle_timeout: 5m"));
        let mut client = proxy.client("one");
        for _ in 0..20 {
            assert_eq!(client.get("/empty").status, 204);
            assert_eq!(client.get("/").text(), "honest");
        }
    }

    fn frames_that_are_longer_than_a_block_go_over_whole(backend: Backend) {
        const LONG: usize = 400_000;
        let long = "http2: {max_frame_size: 1MiB, stream_window: 1MiB, connection_window: 8MiB}";
        // Up, from a client of HTTP/2 to an endpoint of HTTP/1.1.
        let up = Origin::http(|_, body| ok(format!("{}", unchunked(body) == pattern(LONG)).as_bytes()));
        let config = both_versions(up.address, "").replace("name: two,", &format!("name: two, {long},"));
        let proxy = Proxy::start(backend, &config);
        let mut client = H2Client::connect(proxy.address("two"));
        for path in ["/", "/again"] {
            let answer = client.ask(request("POST", path), Some(&pattern(LONG))).unwrap();
            assert_eq!(answer.text(), "true");
        }
        // Down, from an endpoint of HTTP/2 to a client of HTTP/1.1.
        let down = H2Origin::http(h2::server::Builder::new(), |(_, respond), _| {
            Box::pin(answer(respond, 200, HeaderMap::new(), pattern(LONG).into(), None))
        });
        let proxy = Proxy::start(backend, &both_versions(down.address, &format!("protocol: http2, {long}")));
        let mut client = proxy.client("one");
        for path in ["/", "/again"] {
            assert!(client.get(path).body == pattern(LONG), "{path}");
        }
    }

    fn a_download_that_moves_may_take_longer_than_the_idle_time(backend: Backend) {
        let origin = Origin::http(|_, _| ok(&vec![7; 96 * MIB]));
        let rule = "rules: [{idle_timeout: 1s, ";
        let proxy = Proxy::start(backend, &origin.config().replace("rules: [{", rule));
        let mut client = proxy.client("web");
        assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").head().0, 200);
        for part in 0..48 {
            assert_eq!(client.take(2 * MIB).len(), 2 * MIB, "part {part}");
            std::thread::sleep(Duration::from_millis(70));
        }
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn a_client_that_breaks_the_protocol_and_stays_is_let_go(backend: Backend) {
        let origin = Origin::http(|_, _| ok(b"x"));
        let proxy = Proxy::start(backend, &both_versions(origin.address, ""));
        // At once, and after a second of silence.
        for pause in [0, 1500] {
            let mut raw = RawH2::connect(proxy.address("two"));
            raw.head(1, true, &get("/", &[])).unwrap();
            std::thread::sleep(Duration::from_millis(pause));
            raw.send(frames::DATA, 0, 0, b"on no stream").unwrap();
            assert!(raw.next_of(frames::GOAWAY).is_some());
            let own = raw.stream.local_addr().unwrap();
            eventually("its descriptor is closed", || {
                connections(proxy.pid()).iter().all(|(_, _, peer)| *peer != own)
            });
        }
    }

    fn a_client_in_the_midst_of_a_refused_upload_hears_of_it_at_once(backend: Backend) {
        let origin = Origin::connections(refuse);
        let proxy = Proxy::start(backend, &origin.config());
        for version in ["1.0", "1.1"] {
            let mut client = proxy.client("web");
            client.send(format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx"));
            let ((status, _), took) = timed(|| client.head());
            assert_eq!(status, 403);
            let (end, ended) = timed(|| client.end());
            assert_ne!(end, End::Open);
            assert!(took + ended < Duration::from_secs(6), "{took:?} and {ended:?}");
        }
    }

    fn a_record_in_two_parts_after_a_long_upload_is_one_answer(backend: Backend) {
        let far = TlsFar::new(|stream| {
            let mut request = vec![0; 4096];
            let mut whole = Vec::new();
            while !whole.ends_with(b"the end") {
                let count = stream.read(&mut request).unwrap();
                whole.extend_from_slice(&request[..count]);
            }
            stream.conn.writer().write_all(&ok(b"one answer")).unwrap();
            let mut wire = Vec::new();
            stream.conn.write_tls(&mut wire).unwrap();
            let (front, back) = wire.split_at(wire.len() / 2);
            stream.sock.write_all(front).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            stream.sock.write_all(back).unwrap();
            std::thread::sleep(Duration::from_secs(2));
        });
        let proxy = Proxy::start(backend, &far.config("idle_timeout: 1s, "));
        let mut client = proxy.client("web");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\n");
        // Three times as long as the endpoint may say nothing, were nothing moving.
        for part in 0..30 {
            std::thread::sleep(Duration::from_millis(100));
            client.send([b'0' + part]);
        }
        client.send("the end");
        assert_eq!(client.response().text(), "one answer");
    }

    fn a_connection_whose_endpoint_has_said_goodbye_is_not_used_again(backend: Backend) {
        let far = TlsFar::new(|stream| {
            let mut request = vec![0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.conn.writer().write_all(&ok(b"fine")).unwrap();
            stream.conn.send_close_notify();
            let mut wire = Vec::new();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut wire).unwrap();
            }
            // In one piece, and then nothing until the other side closes.
            stream.sock.write_all(&wire).unwrap();
            let _ = std::io::copy(&mut stream.sock, &mut std::io::sink());
        });
        let proxy = Proxy::start(backend, &far.config(""));
        let mut client = proxy.client("web");
        for round in 1..5 {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
            assert_eq!(client.response().text(), "fine", "round {round}");
            assert_eq!(far.origin.accepted(), round);
        }
    }
}

/// An endpoint that speaks TLS, and the authority that it is known by.
struct TlsFar {
    origin: Origin,
    folder: tempfile::TempDir,
}

impl TlsFar {
    fn new(
        serve: impl Fn(&mut StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new("outside");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), &authority.pem).unwrap();
        let config = tls::server_config(&authority.issue(&Wanted::server("far.example")));
        let origin = Origin::connections(move |tcp, _| serve(&mut tls::accept(&config, tcp)));
        Self { origin, folder }
    }

    fn config(&self, rule: &str) -> String {
        let roots = self.folder.path().join("roots.pem");
        let tls =
            format!("tls: {{server_name: far.example, trust_bundle: '{}'}}, ", roots.display());
        let config = self.origin.config().replace("rules: [{", &format!("rules: [{{{rule}"));
        config.replace("- {name: origin, ", &format!("- {{name: origin, {tls}"))
    }
}

/// Answers before the body has come, without a length, and closes.
fn refuse(stream: TcpStream, _: usize) {
    let mut stream = stream;
    let mut reader = Client::over(stream.try_clone().unwrap());
    reader.head_of_request();
    stream
        .write_all(
            b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        )
        .unwrap();
    std::thread::sleep(Duration::from_secs(20));
}
