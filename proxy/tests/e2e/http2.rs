//! HTTP/2 with clients, HTTP/1.1 with endpoints.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use h2::Reason;

use crate::support::h2::{self as frames, H2Client, RawH2, get, read_all, read_body, request};
use crate::support::origin::{ok, pattern, unchunked};
use crate::support::pki::{Authority, Wanted};
use crate::support::{Backend, Origin, Proxy};

/// A proxy whose HTTP/2 listener `web` leads to `origin`.
fn proxy(backend: Backend, origin: &Origin) -> Proxy {
    proxy_with(backend, origin, "", "")
}

fn proxy_with(backend: Backend, origin: &Origin, listener: &str, rule: &str) -> Proxy {
    Proxy::start(backend, &config(origin, listener, rule))
}

fn config(origin: &Origin, listener: &str, rule: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: web, address: '127.0.0.1:0', protocol: http2, {listener}}}\n\
         routes:\n\
         - name: all\n  rules:\n  - {{backends: [{{cluster: origin}}], {rule}}}\n  \
           - {{matches: [{{path: {{exact: /own}}}}], respond: {{status: 200, body: hello}}}}\n\
         clusters:\n\
         - {{name: origin, endpoints: [{{address: '{}'}}]}}\n",
        origin.address
    )
}

fn curl(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "20"]).args(arguments);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

on_both_backends! {
    fn curl_is_served_by_prior_knowledge(backend: Backend) {
        let origin = Origin::echo();
        let proxy = proxy(backend, &origin);
        let url = format!("http://{}/a/../b?x=1", proxy.address("web"));
        let (good, text) = curl(&["--path-as-is", "--http2-prior-knowledge", &url]);
        assert!(good && text.starts_with("HTTP/2 200"), "{text}");
        assert!(text.contains("GET /b?x=1 HTTP/1.1"), "{text}");
        assert!(text.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{text}");
        let (good, text) = curl(&["--http2-prior-knowledge", "-d", "some body", &url]);
        assert!(good && text.ends_with("some body"), "{text}");
    }

    fn alpn_decides_between_the_versions_where_both_are_spoken(backend: Backend) {
        let authority = Authority::new("edge");
        let folder = tempfile::tempdir().unwrap();
        let issued = authority.issue(&Wanted::server("a.example"));
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("crt"), &issued.certificate).unwrap();
        std::fs::write(path("key"), &issued.key).unwrap();
        std::fs::write(path("roots"), &authority.pem).unwrap();
        let origin = Origin::echo();
        let pair = format!("{{certificate: {}, key: {}}}", path("crt"), path("key"));
        let listeners: String = ["auto", "http1", "http2"].iter().map(|protocol| format!(
            "- {{name: {protocol}, address: '127.0.0.1:0', protocol: {protocol}, \
             tls: {{certificates: [{pair}]}}}}\n"
        )).collect();
        let proxy = Proxy::start(backend, &format!(
            "listeners:\n{listeners}routes:\n\
             - {{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}\n\
             clusters:\n- {{name: origin, endpoints: [{{address: '{}'}}]}}\n",
            origin.address
        ));
        let ask = |listener: &str, version: &str| {
            let address = proxy.address(listener);
            let resolve = format!("a.example:{}:127.0.0.1", address.port());
            let url = format!("https://a.example:{}/", address.port());
            let roots = path("roots");
            curl(&[version, "--cacert", &roots, "--resolve", &resolve, &url])
        };
        for (listener, version, answer) in [
            ("auto", "--http2", "HTTP/2 200"),
            ("auto", "--http1.1", "HTTP/1.1 200"),
            ("http1", "--http2", "HTTP/1.1 200"),
            ("http2", "--http2", "HTTP/2 200"),
        ] {
            let (good, text) = ask(listener, version);
            assert!(good && text.starts_with(answer), "{listener} {version}: {text}");
            assert!(text.contains("X-Forwarded-Proto: https"), "{text}");
        }
        let (good, _) = ask("http2", "--http1.1");
        assert!(!good, "there is no HTTP/1.1 to agree on");
    }

    fn nghttp_and_h2load_get_every_answer(backend: Backend) {
        let origin = Origin::http(|_, _| ok(&pattern(3000)));
        let proxy = proxy(backend, &origin);
        let url = format!("http://{}/", proxy.address("web"));
        let output = Command::new("nghttp").args(["-s", "-m", "20", &url]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("200"), "{text}");
        // Fewer at once than the origin's queue of connections is long.
        let load = ["-n", "2000", "-c", "4", "-m", "25", &url];
        let output = Command::new("h2load").args(load).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("2000 succeeded, 0 failed, 0 errored"), "{text}");
        proxy.counts("ringway_downstream_closed_total", 5.0);
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn bodies_of_all_sizes_go_over_whole_both_ways(backend: Backend) {
        let origin = Origin::http(|head, body| {
            let chunked = head.to_ascii_lowercase().contains("transfer-encoding");
            if chunked { ok(&unchunked(body)) } else { ok(body) }
        });
        let proxy = proxy(backend, &origin);
        let mut client = H2Client::connect(proxy.address("web"));
        for size in [0, 1, 255, 16_383, 16_384, 70_000, 300_000, 4 << 20] {
            let body = pattern(size);
            for length in [true, false] {
                let mut ask = request("PUT", "/x");
                if length {
                    ask = ask.header("content-length", size);
                }
                let answer = client.ask(ask, Some(&body)).unwrap();
                assert_eq!((answer.status, answer.body.len()), (200, size), "length: {length}");
                assert!(answer.body == body, "{size} bytes, length: {length}");
            }
        }
        assert_eq!(origin.accepted(), 1, "the connection to the endpoint is used again");
    }

    fn trailers_go_over_both_ways_and_lose_what_may_not_stand_there(backend: Backend) {
        let origin = Origin::http(|_, body| {
            let seen = String::from_utf8_lossy(body).to_lowercase();
            assert!(seen.contains("x-sum: 7\r\n") && !seen.contains("authorization"), "{seen}");
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n\
              5\r\nhello\r\n0\r\nX-Check: 9\r\nContent-Length: 3\r\n\r\n"
                .to_vec()
        });
        let proxy = proxy(backend, &origin);
        let mut client = H2Client::connect(proxy.address("web"));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        trailers.insert("authorization", "x".parse().unwrap());
        let ask = request("POST", "/").header("te", "trailers");
        let answer = client.ask_with(ask, Some(b"body"), Some(trailers)).unwrap();
        assert_eq!(answer.text(), "hello");
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers.get("x-check").unwrap(), "9");
        assert_eq!(trailers.len(), 1);
        assert!(origin.heads()[0].contains("TE: trailers\r\n"));
    }

    fn fields_arrive_as_http_1_writes_them(backend: Backend) {
        let origin = Origin::echo();
        let proxy = proxy(backend, &origin);
        let mut client = H2Client::connect(proxy.address("web"));
        let ask = http::Request::get("http://shop.example:81/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-two", "1")
            .header("x-two", "2")
            .header("x-forwarded-for", "1.2.3.4");
        let head = client.ask(ask, None).unwrap().text();
        assert!(head.starts_with("GET /x HTTP/1.1\r\nHost: shop.example:81\r\n"), "{head}");
        assert_eq!(head.matches("\r\nHost:").count(), 1, "{head}");
        assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
        assert!(head.contains("x-two: 1\r\nx-two: 2\r\n"), "{head}");
        assert!(head.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    }

    fn answers_without_a_body_end_with_their_head(backend: Backend) {
        let origin = Origin::http(|head, _| match head {
            head if head.starts_with("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec(),
            head if head.contains("/204") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n".to_vec(),
        });
        let proxy = proxy(backend, &origin);
        let mut client = H2Client::connect(proxy.address("web"));
        for (method, path, status, length) in
            [("HEAD", "/", 200, Some("9")), ("GET", "/204", 204, None), ("GET", "/", 304, Some("9"))]
        {
            let (response, _) = client.begin(request(method, path), true);
            let response = client.run(response).unwrap();
            assert_eq!(response.status(), status);
            assert!(response.body().is_end_stream(), "{method} {path}");
            let named = response.headers().get("content-length").map(|v| v.to_str().unwrap());
            assert_eq!(named, length);
        }
    }

    fn interim_answers_come_before_the_final_one(backend: Backend) {
        let origin = Origin::http(|_, _| {
            let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
            [hints, ok(b"done")].concat()
        });
        let proxy = proxy(backend, &origin);
        let url = format!("http://{}/", proxy.address("web"));
        let (good, text) = curl(&["--http2-prior-knowledge", &url]);
        assert!(good && text.starts_with("HTTP/2 103"), "{text}");
        assert!(text.contains("link: </a>") && text.contains("HTTP/2 200"), "{text}");
        assert!(text.ends_with("done"), "{text}");
    }

    fn failures_are_answered_with_their_cause(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            // Takes what is put to it to the end, and closes on everything else.
            while bytes[..count].starts_with(b"PUT") {
                if stream.read(&mut [0; 4096]).map_or(true, |count| count == 0) {
                    return;
                }
            }
        });
        let proxy = proxy_with(backend, &origin, "", "max_request_body: 10B");
        let mut client = H2Client::connect(proxy.address("web"));
        let answer = client.ask(request("GET", "/own"), None).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        let answer = client.ask(request("GET", "/%zz"), None).unwrap();
        assert_eq!((answer.status, answer.field("ringway-cause")), (400, Some("request_malformed")));
        let answer = client.ask(request("GET", "/"), None).unwrap();
        assert_eq!((answer.status, answer.field("ringway-cause")), (502, Some("upstream_closed")));
        assert!(answer.field("connection").is_none());
        let answer = client.ask(request("PUT", "/"), Some(&[7; 11])).unwrap();
        assert_eq!(answer.field("ringway-cause"), Some("request_body_too_large"));
        let long = request("PUT", "/").header("content-length", 11);
        let answer = client.ask(long, Some(&[7; 11])).unwrap();
        assert_eq!(answer.status, 413);
        let connect = http::Request::builder().method("CONNECT").uri("test:80");
        let answer = client.ask(connect, None).unwrap();
        assert_eq!((answer.status, answer.field("ringway-cause")), (405, Some("connect_method")));
        let one = "ringway_failures_total{cause=\"request_body_too_large\"}";
        proxy.counts(one, 2.0);
    }

    fn a_response_that_breaks_off_is_a_reset_and_not_an_end(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        });
        let proxy = proxy(backend, &origin);
        let mut client = H2Client::connect(proxy.address("web"));
        let fault = client.ask(request("GET", "/"), None).unwrap_err();
        assert_eq!(fault.reason(), Some(Reason::INTERNAL_ERROR), "{fault}");
        let answer = client.ask(request("GET", "/own"), None).unwrap();
        assert_eq!(answer.status, 200, "the connection lives on");
        proxy.counts("ringway_failures_total{cause=\"upstream_truncated\"}", 1.0);
    }

    fn a_reset_by_the_client_closes_the_connection_to_the_endpoint(backend: Backend) {
        let (closed, saw) = mpsc::channel();
        let origin = Origin::connections(move |mut stream, _| {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
            let _ = closed.send(());
        });
        let proxy = proxy(backend, &origin);
        for body in [false, true] {
            let mut client = H2Client::connect(proxy.address("web"));
            let before = origin.accepted();
            let (response, mut stream) = client.begin(request("POST", "/"), !body);
            client.until("the request is under way", || origin.accepted() > before);
            stream.send_reset(Reason::CANCEL);
            drop(response);
            client.run(async { tokio::time::sleep(Duration::from_millis(20)).await });
            saw.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        proxy.counts("ringway_failures_total{cause=\"client_reset\"}", 2.0);
    }

    fn a_slow_reader_holds_up_no_other_stream_and_little_memory(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or(0);
            if head[..count].starts_with(b"GET /big") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
                let piece = vec![0; 1 << 16];
                for _ in 0..1 << 14 {
                    if stream.write_all(&piece).is_err() {
                        return;
                    }
                }
            }
            let _ = stream.write_all(&ok(b"small"));
        });
        let proxy = proxy(backend, &origin);
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(20_000).initial_connection_window_size(4 << 20);
        let mut client = H2Client::with(proxy.address("web"), &mut builder);
        proxy.settle();
        let before = proxy.resident_bytes();
        let mut held = Vec::new();
        for _ in 0..100 {
            let (response, _) = client.begin(request("GET", "/big"), true);
            held.push(client.run(response).unwrap());
        }
        for _ in 0..20 {
            let (response, _) = client.begin(request("GET", "/small"), true);
            let begun = Instant::now();
            let answer = client.run(read_all(response)).unwrap();
            assert_eq!(answer.text(), "small");
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        let grown = proxy.resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes for 100 stalled streams");
        // One that reads again gets on.
        let body = held[0].body_mut();
        let read = client.run(read_body(body, 1 << 20)).unwrap();
        assert!(read.len() >= 1 << 20);
    }

    fn an_upload_is_held_back_by_an_endpoint_that_does_not_read(backend: Backend) {
        let go = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&go);
        let origin = Origin::connections(move |mut stream, _| {
            while !seen.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut bytes = vec![0; 1 << 16];
            let mut tail = Vec::new();
            while !tail.ends_with(b"\r\n0\r\n\r\n") {
                let count = stream.read(&mut bytes).unwrap();
                assert!(count > 0);
                tail.extend_from_slice(&bytes[..count]);
                tail.drain(..tail.len().saturating_sub(16));
            }
            let _ = stream.write_all(&ok(b"got it"));
        });
        let proxy = proxy(backend, &origin);
        proxy.settle();
        let mut client = H2Client::connect(proxy.address("web"));
        let before = proxy.resident_bytes();
        let (response, mut stream) = client.begin(request("POST", "/"), false);
        let mut sent = 0;
        client.run(async {
            loop {
                stream.reserve_capacity(1 << 16);
                let more = std::future::poll_fn(|cx| stream.poll_capacity(cx));
                let Ok(room) = tokio::time::timeout(Duration::from_millis(500), more).await else {
                    break;
                };
                let room = room.unwrap().unwrap();
                stream.send_data(bytes::Bytes::from(vec![1; room]), false).unwrap();
                sent += room;
                assert!(sent < 32 << 20, "nothing holds it back");
            }
        });
        let grown = proxy.resident_bytes().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes, {sent} sent");
        go.store(true, Ordering::SeqCst);
        let body = bytes::Bytes::from(vec![2; 1 << 20]);
        let answer = client.run(async move {
            let sending = tokio::spawn(frames::send_all(stream, body, None));
            let answer = read_all(response).await.unwrap();
            sending.await.unwrap().unwrap();
            answer
        });
        assert_eq!(answer.text(), "got it");
    }

    fn a_drain_says_goaway_and_lets_streams_end(backend: Backend) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let asked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked);
        let origin = Origin::http(move |_, _| {
            seen.store(true, Ordering::SeqCst);
            wait.lock().unwrap().recv().unwrap();
            ok(b"late")
        });
        let text = format!("drain: {{delay: 100ms, timeout: 10s}}\n{}", config(&origin, "", ""));
        let mut proxy = Proxy::start(backend, &text);
        let mut client = H2Client::connect(proxy.address("web"));
        let mut idle = H2Client::connect(proxy.address("web"));
        let answer = idle.ask(request("GET", "/own"), None).unwrap();
        assert_eq!(answer.status, 200);
        let (response, _) = client.begin(request("GET", "/"), true);
        client.until("the request is under way", || asked.load(Ordering::SeqCst));
        proxy.signal("TERM");
        assert!(idle.ended().is_ok(), "an idle connection ends in order");
        go.send(()).unwrap();
        let answer = client.run(read_all(response)).unwrap();
        assert_eq!(answer.text(), "late");
        assert!(client.ended().is_ok());
        assert!(proxy.wait(Duration::from_secs(5)).success());
    }

    fn an_old_connection_is_told_to_leave(backend: Backend) {
        let origin = Origin::echo();
        let proxy = proxy_with(backend, &origin, "max_connection_age: 1s", "");
        let mut client = H2Client::connect(proxy.address("web"));
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        let begun = Instant::now();
        assert!(client.ended().is_ok());
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    fn a_silent_connection_is_closed_after_its_idle_time(backend: Backend) {
        let origin = Origin::echo();
        let proxy = proxy_with(backend, &origin, "idle_timeout: 300ms", "");
        let mut client = H2Client::connect(proxy.address("web"));
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        assert!(client.ended().is_ok());
        proxy.counts("ringway_downstream_closed_total", 1.0);
    }

    fn a_client_that_answers_no_ping_is_closed(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        });
        let proxy = proxy(backend, &origin);
        let mut raw = RawH2::connect(proxy.address("web"));
        raw.head(1, true, &get("/", &[])).unwrap();
        assert!(raw.next_of(frames::PING).is_some(), "it is asked whether it lives");
        let begun = Instant::now();
        while raw.next().is_some() {}
        assert!(begun.elapsed() < Duration::from_secs(6));
        proxy.counts("ringway_failures_total{cause=\"client_stalled\"}", 1.0);
    }

    fn limits_are_told_and_kept(backend: Backend) {
        let origin = Origin::http(|_, _| ok(b"x"));
        let limits = "http2: {max_concurrent_streams: 7, stream_window: 64KiB, \
                      max_frame_size: 32KiB, max_header_list_size: 2KiB, ping_interval: 1s, \
                      ping_timeout: 300ms}";
        let proxy = proxy_with(backend, &origin, limits, "");
        let mut raw = RawH2::connect(proxy.address("web"));
        let settings = raw.next_of(frames::SETTINGS).unwrap().payload;
        let told = |id: u16| {
            let found = settings.chunks(6).find(|entry| entry[..2] == id.to_be_bytes());
            found.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
        };
        assert_eq!([3, 4, 5, 6].map(told), [Some(7), Some(65_536), Some(32_768), Some(2048)]);
        let ping = raw.next_of(frames::PING).unwrap();
        assert_eq!(ping.flags, 0, "asked after a second");
        assert!(raw.next_of(frames::PING).is_none(), "and given up without an answer");
        let mut client = H2Client::connect(proxy.address("web"));
        let long = client.ask(request("GET", "/").header("x-long", "a".repeat(3000)), None);
        assert_eq!(long.unwrap().status, 431);
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
    }

    fn what_http_2_forbids_resets_the_stream_and_nothing_else(backend: Backend) {
        let origin = Origin::echo();
        let proxy = proxy(backend, &origin);
        for field in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "5"),
            ("proxy-connection", "x"),
            ("upgrade", "websocket"),
        ] {
            let mut raw = RawH2::connect(proxy.address("web"));
            raw.head(1, true, &get("/", &[field])).unwrap();
            let reset = raw.next_of(frames::RST_STREAM).unwrap();
            assert_eq!((reset.stream, frames::code(&reset)), (1, 1), "{field:?}");
            raw.head(3, true, &get("/own", &[])).unwrap();
            assert_eq!(raw.next_of(frames::HEADERS).unwrap().stream, 3);
        }
        // The h2 crate takes a name in upper case for a broken field section.
        let mut raw = RawH2::connect(proxy.address("web"));
        raw.head(1, true, &get("/", &[("X-Upper", "x")])).unwrap();
        assert!(raw.next_of(frames::GOAWAY).is_some());
        // A body that is not as long as its head says.
        let mut raw = RawH2::connect(proxy.address("web"));
        raw.head(1, false, &get("/", &[("content-length", "5")])).unwrap();
        raw.send(frames::DATA, frames::END_STREAM, 1, b"1234").unwrap();
        let reset = raw.next_of(frames::RST_STREAM).unwrap();
        assert_eq!((reset.stream, frames::code(&reset)), (1, 1));
        assert!(origin.heads().is_empty());
    }

    fn something_else_than_http_2_is_closed(backend: Backend) {
        let origin = Origin::echo();
        let proxy = proxy(backend, &origin);
        let mut client = proxy.client("web");
        client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1"), "{rest:?}");
        proxy.counts("ringway_failures_total{cause=\"request_malformed\"}", 1.0);
    }

    fn a_connection_that_died_in_the_pool_is_replaced(backend: Backend) {
        let origin = Origin::connections(|mut stream, number| {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(&ok(b"x"));
                if number == 0 {
                    // Takes the next request and closes without an answer.
                    let _ = stream.read(&mut bytes);
                    return;
                }
            }
        });
        let proxy = proxy(backend, &origin);
        let mut client = H2Client::connect(proxy.address("web"));
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        assert_eq!(origin.accepted(), 2);
        proxy.counts("ringway_retries_total", 1.0);
    }

    fn requests_of_either_version_reach_an_endpoint_of_http_2(backend: Backend) {
        let origin = Origin::echo();
        let far = proxy(backend, &origin);
        let near = Proxy::start(backend, &format!(
            "listeners:\n\
             - {{name: one, address: '127.0.0.1:0'}}\n\
             - {{name: two, address: '127.0.0.1:0', protocol: http2}}\n\
             routes:\n- {{name: all, rules: [{{backends: [{{cluster: far}}]}}]}}\n\
             clusters:\n- {{name: far, protocol: http2, endpoints: [{{address: '{}'}}]}}\n",
            far.address("web")
        ));
        let mut client = near.client("one");
        for path in ["/a?b=c", "/d"] {
            let answer = client.get(path);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        std::fs::write(&file, pattern(1 << 20)).unwrap();
        let data = format!("@{}", file.display());
        for (listener, version) in [("one", "--http1.1"), ("two", "--http2-prior-knowledge")] {
            let url = format!("http://{}/up", near.address(listener));
            for chunked in ["X-Chunked: no", "Transfer-Encoding: chunked"] {
                if version != "--http1.1" && chunked.starts_with("Transfer") {
                    continue;
                }
                let arguments =
                    ["-sS", version, "-H", chunked, "--data-binary", &data, "--max-time", "20", &url];
                let output = Command::new("curl").args(arguments).output().unwrap();
                assert!(output.status.success(), "{listener}: {output:?}");
                assert!(output.stdout.len() > 1 << 20, "{listener} {chunked}");
            }
        }
        near.counts("ringway_upstream_opened_total", 1.0);
        assert_eq!(near.metric("ringway_failures_total"), 0.0);
    }
}
