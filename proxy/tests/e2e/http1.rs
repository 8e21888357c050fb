//! HTTP/1.1 as its peers meet it: framing, versions, limits, early and late answers, fields.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::http::{Client, End};
use crate::support::origin::read_request;
use crate::support::{Backend, Origin, Proxy, eventually};

/// A configuration whose only rule has these further fields, and whose listener and cluster these.
fn config(origin: &Origin, rule: &str, listener: &str, cluster: &str) -> String {
    let address = origin.address;
    format!(
        "listeners:\n\
         - {{name: web, address: '127.0.0.1:0', {listener}}}\n\
         routes:\n\
         - {{name: all, rules: [{{backends: [{{cluster: origin}}], {rule}}}]}}\n\
         clusters:\n\
         - {{name: origin, endpoints: [{{address: '{address}'}}], {cluster}}}\n"
    )
}

/// An origin that gives `answer` to every request, byte for byte.
fn fixed(answer: impl Into<Vec<u8>>) -> Origin {
    let answer = answer.into();
    Origin::http(move |_, _| answer.clone())
}

/// An origin that reads one head per connection and never answers.
fn silent() -> Origin {
    Origin::connections(|stream, _| {
        let mut reader = Client::over(stream);
        reader.stream.set_read_timeout(None).unwrap();
        let mut sink = Vec::new();
        let _ = reader.stream.read_to_end(&mut sink);
    })
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// nginx with a configuration of its own, ended with the test.
struct Nginx {
    child: std::process::Child,
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// Serves its folder; `/count` answers nothing, with 204.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let address = crate::support::free_address();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; master_process off; {user} pid {path}/pid; error_log {path}/error.log;\n\
             events {{ }}\n\
             http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/p;\n\
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             server {{ listen {address}; root {path}; client_max_body_size 1m;\n\
             location = /nothing {{ return 204; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let child =
            Command::new("nginx").arg("-p").arg(&path).arg("-c").arg(&file).spawn().unwrap();
        eventually("nginx listens", || TcpStream::connect(address).is_ok());
        Self { child, address, folder }
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn config(&self) -> String {
        let address = self.address;
        format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
             routes: [{{name: all, rules: [{{backends: [{{cluster: nginx}}]}}]}}]\n\
             clusters: [{{name: nginx, endpoints: [{{address: '{address}'}}]}}]\n"
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

on_both_backends! {
    fn curl_gets_what_nginx_serves(backend: Backend) {
        let nginx = Nginx::start();
        let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        nginx.write("small", b"hello");
        nginx.write("large", &large);
        let proxy = Proxy::start(backend, &nginx.config());
        let url = |path: &str| format!("http://{}/{path}", proxy.address("web"));
        assert_eq!(curl(&[&url("small")]), "hello");
        assert_eq!(curl(&["--http1.0", &url("small")]), "hello");
        let file = proxy.folder().join("large");
        curl(&["-o", file.to_str().unwrap(), &url("large")]);
        assert!(std::fs::read(&file).unwrap() == large, "3 MB come over as they are");
        let head = curl(&["-I", &url("large")]);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 3000000\r\n"), "{head}");
        assert!(curl(&["-i", &url("nothing")]).starts_with("HTTP/1.1 204 No Content\r\n"));
        let part = curl(&["-i", "-r", "2-3", &url("small")]);
        assert!(part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\nll"), "{part}");
        let tag = head.lines().find(|line| line.starts_with("ETag")).unwrap().split_once(": ").unwrap();
        let condition = format!("If-None-Match: {}", tag.1.trim());
        let same = curl(&["-i", "-H", &condition, &url("large")]);
        assert!(same.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{same}");
        // Two at once on one connection, a 304 and a 204 among them.
        let many = curl(&[&url("small"), "-i", "-H", &condition, &url("large"), &url("nothing"), &url("small")]);
        assert_eq!(many.matches("HTTP/1.1 ").count(), 4, "{many}");
        let status = curl(&["-o", "/dev/null", "-w", "%{http_code}", "-T", file.to_str().unwrap(), &url("large")]);
        assert_eq!(status, "413", "nginx refuses 3 MB, early");
    }

    fn curl_uploads_after_100_continue(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            let (_, fields) = reader.head_of_request();
            assert!(fields.contains("expect: 100-continue"), "{fields}");
            let length = fields.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let sum: u64 = reader.take(length).iter().map(|&byte| u64::from(byte)).sum();
            let sum = sum.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sum}", sum.len());
            reader.stream.write_all(head.as_bytes()).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let file = proxy.folder().join("upload");
        std::fs::write(&file, vec![1u8; 2_000_000]).unwrap();
        let url = format!("http://{}/", proxy.address("web"));
        // curl would wait ten seconds for the 100.
        let arguments = ["--expect100-timeout", "10", "-H", "Expect: 100-continue", "-T"];
        let answer = curl(&[&arguments[..], &[file.to_str().unwrap(), &url]].concat());
        assert_eq!(answer, "2000000");
    }

    fn an_expectation_that_the_origin_declines_is_answered_without_the_body(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            reader.head_of_request();
            let _ = reader.stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
            reader.rest();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.header("connection")), (401, Some("close")));
        assert_eq!(client.finish().rest(), b"");
    }

    fn interim_responses_reach_clients_of_1_1_only(backend: Backend) {
        let origin = fixed(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        let edits = "response_headers: {add: {X-Added: '1'}}";
        let proxy = Proxy::start(backend, &config(&origin, edits, "", ""));
        let mut client = proxy.client("web");
        let hints = client.get("/");
        assert_eq!((hints.status, hints.header("link")), (103, Some("</a>")));
        assert_eq!(hints.header("x-added"), None, "edits are for the final response");
        let last = client.response();
        assert_eq!((last.status, last.text().as_str(), last.header("x-added")), (200, "ok", Some("1")));
        let mut old = proxy.client("web");
        let response = old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").response();
        assert_eq!(response.status, 200);
    }

    fn responses_without_a_body_leave_the_connection_in_step(backend: Backend) {
        let origin = Origin::http(|head, _| {
            let fields = match head.split(' ').nth(1).unwrap() {
                "/204" => "204 No Content\r\n",
                "/304" => "304 Not Modified\r\nContent-Length: 1000\r\n",
                "/205" => "205 Reset Content\r\nContent-Length: 0\r\n",
                "/chunked" => "200 OK\r\nTransfer-Encoding: chunked\r\n",
                _ => "200 OK\r\nContent-Length: 1000\r\n",
            };
            format!("HTTP/1.1 {fields}\r\n").into_bytes()
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for (method, path, status, length) in [
            ("HEAD", "/", 200, Some("1000")),
            ("GET", "/204", 204, None),
            ("GET", "/304", 304, Some("1000")),
            ("GET", "/205", 205, Some("0")),
            ("HEAD", "/chunked", 200, None),
            ("HEAD", "/304", 304, Some("1000")),
        ] {
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = client.response_to(method);
            assert_eq!((response.status, response.header("content-length")), (status, length), "{path}");
            assert_eq!(response.header("transfer-encoding"), None, "{path}");
        }
        assert_eq!(origin.accepted(), 1, "the origin's connection was kept all along");
    }

    fn http_1_0_clients_are_kept_if_they_ask_and_never_see_chunks(backend: Backend) {
        let origin = Origin::http(|head, _| match head.split(' ').nth(1).unwrap() {
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut once = proxy.client("web");
        let response = once.send("GET / HTTP/1.0\r\n\r\n").response();
        assert_eq!((response.text().as_str(), response.header("connection")), ("ok", Some("close")));
        assert_eq!(once.end(), End::Finished);
        let mut kept = proxy.client("web");
        for _ in 0..3 {
            kept.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n");
            assert_eq!(kept.response().header("connection"), Some("keep-alive"));
        }
        kept.send("GET /chunked HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = kept.response();
        assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("abc", None));
        assert_eq!(response.header("connection"), Some("close"));
        assert!(origin.heads()[0].contains("\r\nHost: origin\r\n"), "a host for those who name none");
        assert!(origin.heads().iter().all(|head| !head.contains("onnection")));
    }

    fn a_body_that_ends_with_the_connection_is_chunked_for_1_1_and_closed_for_1_0(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            read_request(&mut reader);
            reader.stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nab").unwrap();
            for _ in 0..1000 {
                reader.stream.write_all(&[b'x'; 1000]).unwrap();
            }
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!(response.header("transfer-encoding"), Some("chunked"));
            assert_eq!(response.body.len(), 1_000_002);
            assert!(response.body.starts_with(b"abx"));
        }
        let mut old = proxy.client("web");
        let response = old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response();
        assert_eq!(response.body.len(), 1_000_002);
        assert_eq!(response.header("connection"), Some("close"));
    }

    fn chunks_and_trailers_pass_both_ways(backend: Backend) {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                      3\r\nabc\r\n10;a=\"b\"\r\n0123456789abcdef\r\n0\r\nX-Sum: 5\r\nSet-Cookie: a\r\n\r\n";
        let (seen, bodies) = mpsc::channel();
        let origin = Origin::http(move |head, body| {
            seen.send((head.to_owned(), body.to_vec())).unwrap();
            answer.into()
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        let body = "4\r\nWiki\r\n5\r\npedia\r\n0\r\nX-Check: 1\r\nContent-Length: 3\r\n\r\n";
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        for dribbling in [false, true] {
            if dribbling { client.dribble(&request) } else { client.send(&request) };
            let response = client.response();
            assert_eq!(response.text(), "abc0123456789abcdef");
            assert_eq!(response.trailers, [("X-Sum".to_owned(), "5".to_owned())]);
            let (head, body) = bodies.recv().unwrap();
            assert!(head.contains("\r\nTE: trailers\r\n"), "{head}");
            assert_eq!(body, b"4\r\nWiki\r\n5\r\npedia\r\n0\r\nX-Check: 1\r\n\r\n");
        }
    }

    fn one_byte_at_a_time_is_as_good_as_all_at_once(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            while let Some((_, body)) = read_request(&mut reader) {
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-A: b\r\n\r\n");
                reader.dribble(head).dribble(body);
            }
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for _ in 0..2 {
            client.dribble("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
            assert_eq!(client.response().text(), "0123456789");
        }
        assert_eq!(origin.accepted(), 1);
    }

    fn a_client_that_has_finished_sending_still_gets_its_answers(backend: Backend) {
        let (go, wait) = mpsc::channel();
        let wait = std::sync::Mutex::new(wait);
        let origin = Origin::http(move |head, _| {
            wait.lock().unwrap().recv().unwrap();
            let path = head.split(' ').nth(1).unwrap();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).into_bytes()
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").finish();
        eventually("the first is at the origin", || origin.heads().len() == 1);
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(client.response().text(), "/1");
        assert_eq!(client.response().text(), "/2");
        assert_eq!(client.end(), End::Finished);
    }

    fn a_client_that_aborts_its_upload_aborts_it_at_the_origin(backend: Backend) {
        for reset in [false, true] {
            let (seen, ends) = mpsc::channel();
            let origin = Origin::connections(move |stream, _| {
                let mut reader = Client::over(stream);
                seen.send(reader.rest_or_reset()).unwrap();
            });
            let proxy = Proxy::start(backend, &origin.config());
            let mut client = proxy.client("web");
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello");
            eventually("the origin is connected", || origin.accepted() == 1);
            if reset {
                client.reset();
            } else {
                assert_eq!(client.finish().response().status, 400);
            }
            let got = ends.recv().unwrap();
            assert!(got.len() < 1000, "{got:?}");
            let cause = if reset { "client_reset" } else { "client_closed" };
            let metric = format!("ringway_failures_total{{cause=\"{cause}\"}}");
            eventually(cause, || proxy.metric(&metric) == 1.0);
        }
    }

    fn a_client_that_resets_while_it_waits_ends_the_exchange_at_the_origin(backend: Backend) {
        for wire in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000)),
        ] {
            let (seen, ends) = mpsc::channel();
            let origin = Origin::connections(move |stream, _| {
                let mut reader = Client::over(stream);
                read_request(&mut reader).unwrap();
                seen.send(()).unwrap();
                reader.rest_or_reset();
                seen.send(()).unwrap();
            });
            let proxy = Proxy::start(backend, &origin.config());
            let mut client = proxy.client("web");
            client.send(wire);
            ends.recv().unwrap();
            client.reset();
            ends.recv_timeout(Duration::from_secs(8)).expect("the origin's connection ends");
            eventually("it is recorded as what it was", || {
                proxy.metric("ringway_failures_total{cause=\"client_reset\"}") == 1.0
            });
            proxy.counts("ringway_failures_total", 1.0);
        }
    }

    fn a_response_that_is_cut_short_is_never_passed_off_as_whole(backend: Backend) {
        for front in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: ",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
        ] {
            let origin = Origin::connections(move |stream, _| {
                let mut reader = Client::over(stream);
                read_request(&mut reader).unwrap();
                reader.stream.write_all(front.as_bytes()).unwrap();
            });
            let proxy = Proxy::start(backend, &origin.config());
            let mut client = proxy.client("web");
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            if front.ends_with('X') {
                // Seen before anything has gone out.
                assert_eq!(client.response().status, 502);
            } else {
                assert_eq!(client.end(), End::Reset, "{front}");
            }
        }
    }

    fn an_origin_that_closes_or_resets_before_it_answers_is_a_502_and_the_client_stays(backend: Backend) {
        let origin = Origin::connections(|stream, number| {
            let mut reader = Client::over(stream);
            read_request(&mut reader).unwrap();
            if number % 2 == 1 {
                reader.reset();
            }
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for cause in ["upstream_closed", "upstream_reset"] {
            let response = client.get("/");
            assert_eq!((response.status, response.header("ringway-cause")), (502, Some(cause)));
            assert!(response.header("date").is_some());
            assert_eq!(response.header("connection"), None, "the request was read whole");
        }
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 502);
        assert_eq!(client.response().status, 502, "what was pipelined is answered too");
    }

    fn an_early_answer_reaches_a_client_that_is_still_sending(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            reader.head_of_request();
            reader.stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        let length = 8 << 20;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        for _ in 0..8 {
            client.send(vec![0; 1 << 20]);
        }
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        assert_eq!(response.header("connection"), Some("close"));
    }

    fn a_client_that_sends_a_mebibyte_before_it_reads_still_gets_the_413(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &config(&origin, "max_request_body: 1000", "", ""));
        let mut client = proxy.client("web");
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 20));
        client.send(vec![0; 1 << 20]);
        let response = client.response();
        assert_eq!(response.status, 413);
        assert_eq!(response.header("ringway-cause"), Some("request_body_too_large"));
        let mut client = proxy.client("web");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n");
        client.send(vec![0; 1 << 20]);
        assert_eq!(client.response().status, 413);
        assert_eq!(origin.heads(), [""; 0]);
    }

    fn chunks_count_against_the_limit_by_their_payload(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &config(&origin, "max_request_body: 1000", "", ""));
        let with = |last: usize| {
            let chunks = "1\r\nx\r\n".repeat(990);
            let rest = "y".repeat(last);
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{last:x}\r\n{rest}\r\n0\r\n\r\n")
        };
        let mut client = proxy.client("web");
        assert_eq!(client.send(with(10)).response().status, 200);
        let refused = client.send(with(11)).response();
        assert_eq!((refused.status, refused.header("connection")), (413, Some("close")));
        let mut client = proxy.client("web");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").send([0; 1000]);
        assert_eq!(client.response().status, 200);
        let body = "z".repeat(1001);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n{body}"));
        assert_eq!(client.response().status, 413);
        assert_eq!(client.get("/").status, 200, "the refused body was read whole: the connection stays");
    }

    fn an_origin_that_never_answers_is_a_504_at_the_rules_timeout(backend: Backend) {
        let origin = silent();
        let proxy = Proxy::start(backend, &config(&origin, "timeout: 300ms", "", ""));
        let mut client = proxy.client("web");
        for body in ["", "hello"] {
            let started = Instant::now();
            let length = body.len();
            client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"));
            let response = client.response();
            assert_eq!((response.status, response.header("ringway-cause")), (504, Some("upstream_timeout")));
            let took = started.elapsed();
            assert!(took > Duration::from_millis(290) && took < Duration::from_secs(3), "{took:?}");
        }
    }

    fn a_timeout_inside_the_response_breaks_it_off(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            read_request(&mut reader).unwrap();
            reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
            reader.rest_or_reset();
        });
        let proxy = Proxy::start(backend, &config(&origin, "timeout: 300ms", "", ""));
        let mut client = proxy.client("web");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.end(), End::Reset);
        proxy.counts("ringway_failures_total{cause=\"upstream_timeout\"}", 1.0);
    }

    fn the_idle_time_of_an_exchange_counts_both_directions(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &config(&origin, "idle_timeout: 1s", "", ""));
        let mut client = proxy.client("web");
        // The upload takes twice the idle time, the origin says nothing meanwhile.
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n");
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            client.send("x");
        }
        assert_eq!(client.response().status, 200);
    }

    fn a_client_that_stops_in_the_middle_of_its_upload_gets_a_408(backend: Backend) {
        for limit in ["idle_timeout: 300ms", "timeout: 300ms"] {
            let origin = silent();
            let proxy = Proxy::start(backend, &config(&origin, limit, "", ""));
            let mut client = proxy.client("web");
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhello");
            let response = client.response();
            assert_eq!((response.status, response.header("connection")), (408, Some("close")), "{limit}");
        }
    }

    fn a_client_that_never_finishes_its_head_gets_a_408(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &config(&origin, "", "head_timeout: 300ms", ""));
        let mut client = proxy.client("web");
        let started = Instant::now();
        let response = client.send("GET / HTTP/1.1\r\nHost: a\r\n").response();
        assert_eq!((response.status, response.header("ringway-cause")), (408, Some("request_timeout")));
        assert!(started.elapsed() > Duration::from_millis(290));
        // One that says nothing at all is closed without a word.
        assert_eq!(proxy.client("web").rest(), b"");
    }

    fn heads_beyond_their_limits_are_414_and_431(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let request = |path: usize, field: usize, fields: usize| {
            let path = "p".repeat(path);
            let field = "f".repeat(field);
            let fields = "A: b\r\n".repeat(fields);
            format!("GET /{path} HTTP/1.1\r\nHost: a\r\nF: {field}\r\n{fields}\r\n")
        };
        for (wire, status) in [
            (request(16_000, 10, 0), 200),
            (request(17_000, 10, 0), 414),
            (request(10, 60_000, 0), 200),
            (request(10, 66_000, 0), 431),
            (request(10, 10, 126), 200),
            (request(10, 10, 127), 431),
        ] {
            let mut client = proxy.client("web");
            let response = client.send(&wire).response();
            assert_eq!(response.status, status, "{} bytes", wire.len());
        }
        assert_eq!(origin.heads().len(), 3);
    }

    fn fields_keep_their_case_and_order(backend: Backend) {
        let origin = fixed("HTTP/1.1 299 Quite Fine\r\nX-oDD: 1\r\nset-COOKIE: a\r\nset-COOKIE: b\r\nContent-Length: 0\r\n\r\n");
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("GET /?Q=%41 HTTP/1.1\r\nhOST: a\r\nx-ONE: 1\r\nX-two:2  \r\nx-ONE:\t3\r\n\r\n");
        assert_eq!(client.line(), "HTTP/1.1 299 Quite Fine");
        for line in ["X-oDD: 1", "set-COOKIE: a", "set-COOKIE: b"] {
            assert_eq!(client.line(), line);
        }
        let head = &origin.heads()[0];
        assert!(head.starts_with("GET /?Q=%41 HTTP/1.1\r\nHost: a\r\nx-ONE: 1\r\nX-two: 2\r\nx-ONE: 3\r\n"), "{head}");
    }

    fn rules_edit_fields_rewrite_redirect_and_respond(backend: Backend) {
        let origin = Origin::http(|head, _| {
            let length = head.len();
            format!("HTTP/1.1 200 OK\r\nServer: o\r\nX-Old: 1\r\nContent-Length: {length}\r\n\r\n{head}").into_bytes()
        });
        let config = format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
             routes:\n\
             - name: all\n\
             \x20 rules:\n\
             \x20 - matches: [{{path: {{prefix: /api}}}}]\n\
             \x20   backends: [{{cluster: origin}}]\n\
             \x20   rewrite: {{host: inner, path: {{prefix: /v2}}}}\n\
             \x20   request_headers: {{remove: [cookie], set: {{X-Set: s}}, add: {{X-Add: a}}}}\n\
             \x20   response_headers: {{remove: [server], set: {{X-Old: '2'}}}}\n\
             \x20 - matches: [{{path: {{exact: /old}}}}]\n\
             \x20   redirect: {{scheme: https, host: new.example, status: 308}}\n\
             \x20 - matches: [{{path: {{exact: /said}}}}]\n\
             \x20   respond: {{status: 418, body: short, headers: {{X-Pot: tea}}}}\n\
             clusters: [{{name: origin, endpoints: [{{address: '{}'}}]}}]\n",
            origin.address
        );
        let proxy = Proxy::start(backend, &config);
        let mut client = proxy.client("web");
        client.send("GET /api/x?y=z HTTP/1.1\r\nHost: outer\r\nCookie: c\r\nX-Set: old\r\nX-Add: b\r\n\r\n");
        let response = client.response();
        let head = response.text();
        assert!(head.starts_with("GET /v2/x?y=z HTTP/1.1\r\nHost: inner\r\n"), "{head}");
        assert!(!head.contains("Cookie") && !head.contains("old"), "{head}");
        for line in ["\r\nX-Set: s\r\n", "\r\nX-Add: b\r\n", "\r\nX-Add: a\r\n", "\r\nX-Forwarded-Host: outer\r\n"] {
            assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
        }
        assert_eq!((response.header("server"), response.header("x-old")), (None, Some("2")));
        let moved = client.get("/old?q=1");
        assert_eq!((moved.status, moved.header("location")), (308, Some("https://new.example/old?q=1")));
        let said = client.get("/said");
        assert_eq!((said.status, said.text().as_str(), said.header("x-pot")), (418, "short", Some("tea")));
        assert!(said.header("date").is_some());
        let nowhere = client.get("/nowhere");
        assert_eq!((nowhere.status, nowhere.header("ringway-cause")), (404, Some("no_route")));
        client.send("HEAD /said HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response_to("HEAD").header("content-length"), Some("5"));
        assert_eq!(client.get("/said").status, 418, "HEAD had no body");
    }

    fn forwarding_fields_are_replaced_unless_the_peer_is_trusted(backend: Backend) {
        let origin = Origin::echo();
        let request = "GET / HTTP/1.1\r\nHost: a.b:1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
                       X-Forwarded-Host: c\r\nX-Request-Id: mine\r\nForwarded: for=9.9.9.9\r\n\r\n";
        let ask = |listener: &str| {
            let proxy = Proxy::start(backend, &config(&origin, "", listener, ""));
            proxy.client("web").send(request).response().text()
        };
        let head = ask("");
        for line in ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a.b:1"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
        assert!(!head.contains("9.9.9.9") && !head.contains("mine"), "{head}");
        let id = head.split("X-Request-Id: ").nth(1).unwrap().split("\r\n").next().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let head = ask("trusted_proxies: [127.0.0.0/8]");
        for line in [
            "X-Forwarded-For: 9.9.9.9, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: c",
            "X-Request-Id: mine", "Forwarded: for=9.9.9.9",
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
    }

    fn a_proxy_header_names_the_client_on_the_way_in_and_out(backend: Backend) {
        let v2 = |bytes: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), bytes].concat();
        let inward: [Vec<u8>; 2] = [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 80\r\n".to_vec(),
            v2(&[192, 0, 2, 7, 198, 51, 100, 1, 4, 210, 0, 80]),
        ];
        for (header, version) in inward.iter().zip(["v1", "v2"]) {
            let (seen, fronts) = mpsc::channel();
            let length = header.len();
            let origin = Origin::connections(move |stream, _| {
                let mut reader = Client::over(stream);
                let front = reader.take(length);
                let (line, fields) = reader.head_of_request();
                seen.send((front, line, fields)).unwrap();
                reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                reader.rest();
            });
            let out = format!("send_proxy_protocol: {version}");
            let config = config(&origin, "", "accept_proxy_protocol: true", &out);
            let proxy = Proxy::start(backend, &config);
            let mut client = proxy.client("web");
            client.dribble(header);
            for _ in 0..2 {
                assert_eq!(client.get("/").status, 200);
                let (front, line, fields) = fronts.recv().unwrap();
                assert_eq!(&front, header, "the same client, the same destination");
                assert_eq!(line, "GET / HTTP/1.1");
                assert!(fields.contains("x-forwarded-for: 192.0.2.7\n"), "{fields}");
            }
            assert_eq!(origin.accepted(), 2, "such a connection speaks for one client only");
            let mut bare = proxy.client("web");
            bare.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_ne!(bare.end(), End::Open, "no header, no service");
        }
    }

    fn max_forwards_is_counted_down_and_zero_goes_no_further(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for (line, seen) in [
            ("OPTIONS * HTTP/1.1", Some(("OPTIONS * ", "Max-Forwards: 4"))),
            ("OPTIONS http://b HTTP/1.1", Some(("OPTIONS * ", "Max-Forwards: 4"))),
            ("TRACE /a HTTP/1.1", Some(("TRACE /a ", "Max-Forwards: 4"))),
            ("GET /a HTTP/1.1", Some(("GET /a ", "Max-Forwards: 5"))),
        ] {
            let response = client.send(format!("{line}\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n")).response();
            let (first, field) = seen.unwrap();
            let head = response.text();
            assert!(head.starts_with(first) && head.contains(&format!("\r\n{field}\r\n")), "{head}");
        }
        for (method, status) in [("OPTIONS", 204), ("TRACE", 405)] {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"));
            assert_eq!(client.response().status, status);
        }
        assert_eq!(origin.heads().len(), 4);
    }

    fn every_exchange_is_counted_once(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            while let Some((head, _)) = read_request(&mut reader) {
                if head.contains("/close") {
                    return;
                }
                let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        let proxy = Proxy::start(backend, &config(&origin, "max_request_body: 100", "", ""));
        let mut client = proxy.client("web");
        client.get("/");
        client.get("/close");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n");
        client.send("hello\r\n0\r\n\r\n").response();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n").response();
        let mut broken = proxy.client("web");
        broken.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n").send("hellox").response();
        let requests = "ringway_route_requests_total{route=\"all\"";
        eventually("five are recorded", || proxy.metric(requests) == 5.0);
        proxy.counts("ringway_failures_total", 3.0);
    }
}
