//! Connections to the origin between requests: kept, watched, never trusted too far.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::support::http::Client;
use crate::support::origin::read_request;
use crate::support::{Backend, Origin, Proxy, eventually};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Different numbers below `below`, the same in every run.
fn spread(at: usize, below: u64) -> u64 {
    ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % below
}

/// An origin that closes a connection once it was idle for 1 to 20 ms after an answer, and keeps
/// the request ids that it has seen.
fn impatient(seen: Arc<Mutex<Vec<String>>>) -> Origin {
    Origin::connections(move |stream, number| {
        let mut reader = Client::over(stream);
        for turn in 0.. {
            let patience = match turn {
                0 => Duration::from_secs(10),
                _ => Duration::from_millis(1 + spread(number * 31 + turn, 20)),
            };
            reader.stream.set_read_timeout(Some(patience)).unwrap();
            let Some((head, _)) = read_request(&mut reader) else { return };
            seen.lock().unwrap().push(head.split(' ').nth(1).unwrap().to_owned());
            if reader.stream.write_all(OK).is_err() {
                return;
            }
        }
    })
}

/// Requests that one client sends to an [`impatient`] origin.
const REQUESTS: usize = 1000;

/// Has `clients` send [`REQUESTS`] each with pauses of up to 20 ms between some, and returns how
/// many were answered with another status than 200.
fn pester(proxy: &Proxy, clients: usize, request: impl Fn(usize) -> String + Sync) -> usize {
    let failures = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client_number in 0..clients {
            let (failures, request) = (&failures, &request);
            scope.spawn(move || {
                let mut client = proxy.client("web");
                for number in 0..REQUESTS {
                    let id = client_number * REQUESTS + number;
                    if number % 5 == 0 {
                        // The pause is the subject: it races with the origin's.
                        std::thread::sleep(Duration::from_micros(spread(id, 20_000)));
                    }
                    if client.send(request(id)).response().status != 200 {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    failures.into_inner()
}

on_both_backends! {
    fn no_get_fails_on_an_origin_that_closes_idle_connections_at_random(backend: Backend) {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let origin = impatient(Arc::clone(&seen));
        let proxy = Proxy::start(backend, &origin.config());
        let failures = pester(&proxy, 100, |id| format!("GET /{id} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(failures, 0, "of 100 000");
        assert!(origin.accepted() > 1000, "connections were closed: {}", origin.accepted());
        assert!(proxy.metric("ringway_upstream_reused_total") > 1000.0, "and used again");
    }

    fn no_post_is_sent_twice_to_an_origin_that_closes_idle_connections_at_random(backend: Backend) {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let origin = impatient(Arc::clone(&seen));
        let proxy = Proxy::start(backend, &origin.config());
        let failures = pester(&proxy, 4, |id| {
            format!("POST /{id} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        });
        let mut ids = seen.lock().unwrap().clone();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "none came twice");
        assert!(count + failures >= 4000, "{count} came, {failures} failed");
        assert!(failures < 40, "a connection is looked at before a POST: {failures} failed");
    }

    /// The connection dies when the request is on it already: a GET is sent once more, a POST not.
    fn a_request_lost_on_a_reused_connection_is_sent_again_if_that_does_no_harm(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            read_request(&mut reader).unwrap();
            reader.stream.write_all(OK).unwrap();
            // The second request on a connection is read and never answered.
            read_request(&mut reader);
        });
        let proxy = Proxy::start(backend, &origin.config());
        for (method, body, status, connections) in [
            ("GET", "", 200, 2),
            ("PUT", "abc", 200, 2),
            ("DELETE", "", 200, 2),
            ("POST", "abc", 502, 1),
            ("PATCH", "abc", 502, 1),
        ] {
            let before = origin.accepted();
            let mut client = proxy.client("web");
            // Whatever is pooled from before is a connection with one request behind it.
            assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
            let opened = origin.accepted() - before;
            let length = body.len();
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"));
            assert_eq!(client.response().status, status, "{method}");
            assert_eq!(origin.accepted() - before, opened + connections - 1, "{method}");
        }
    }

    fn a_fresh_connection_that_closes_without_an_answer_is_not_tried_again(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            read_request(&mut Client::over(stream));
        });
        let proxy = Proxy::start(backend, &origin.config());
        assert_eq!(proxy.client("web").get("/").status, 502);
        assert_eq!(origin.accepted(), 1);
        assert_eq!(proxy.metric("ringway_retries_total"), 0.0);
    }

    fn idle_connections_that_the_origin_closes_leave_the_pool(backend: Backend) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let origin = Origin::connections(move |stream, _| {
            let mut reader = Client::over(stream);
            read_request(&mut reader).unwrap();
            reader.stream.write_all(OK).unwrap();
            wait.lock().unwrap().recv().unwrap();
            reader.stream.shutdown(Shutdown::Write).unwrap();
            reader.rest();
        });
        let proxy = Proxy::start(backend, &origin.config());
        assert_eq!(proxy.client("web").get("/").status, 200);
        let idle = || proxy.metric("ringway_upstream_idle_connections");
        eventually("it is in the pool", || idle() == 1.0);
        go.send(()).unwrap();
        eventually("it has left", || idle() == 0.0);
        proxy.counts("ringway_upstream_closed_total", 1.0);
    }

    fn idle_connections_end_with_their_time_in_the_pool(backend: Backend) {
        let origin = Origin::echo();
        let config = origin.config().replace("'}]}", "'}], pool: {idle_timeout: 300ms}}");
        let proxy = Proxy::start(backend, &config);
        assert_eq!(proxy.client("web").get("/").status, 200);
        let idle = || proxy.metric("ringway_upstream_idle_connections");
        eventually("it is in the pool", || idle() == 1.0);
        eventually("it has left", || idle() == 0.0);
    }

    fn bytes_that_nobody_asked_for_never_answer_the_next_request(backend: Backend) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let (sent, done) = mpsc::channel();
        let origin = Origin::connections(move |stream, number| {
            let mut reader = Client::over(stream);
            while read_request(&mut reader).is_some() {
                reader.stream.write_all(OK).unwrap();
                if number == 0 {
                    wait.lock().unwrap().recv().unwrap();
                    reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").unwrap();
                    sent.send(()).unwrap();
                }
            }
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        assert_eq!(client.get("/").text(), "ok");
        go.send(()).unwrap();
        done.recv().unwrap();
        // Long before the pool looks by itself.
        assert_eq!(client.get("/").text(), "ok");
        assert_eq!(origin.accepted(), 2);
    }

    /// Where an error answers half a request the other half is of no use to anybody.
    fn an_error_that_outruns_its_request_ends_both_connections(backend: Backend) {
        let (seen, rest) = mpsc::channel();
        let origin = Origin::connections(move |stream, _| {
            let mut reader = Client::over(stream);
            reader.head_of_request();
            reader.stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
            seen.send(reader.rest_or_reset()).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        let response = client.response();
        assert_eq!((response.status, response.header("connection")), (403, Some("close")));
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(rest.recv().unwrap(), b"hello");
        assert_eq!(proxy.client("web").get("/").status, 403);
        assert_eq!(origin.accepted(), 2);
    }

    fn a_success_that_outruns_its_request_does_not_cut_it_short(backend: Backend) {
        let (seen, bodies) = mpsc::channel();
        let origin = Origin::connections(move |stream, _| {
            let mut reader = Client::over(stream);
            for _ in 0..2 {
                reader.head_of_request();
                reader.stream.write_all(OK).unwrap();
                seen.send(reader.take(10)).unwrap();
            }
        });
        let proxy = Proxy::start(backend, &origin.config());
        for _ in 0..2 {
            let mut client = proxy.client("web");
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
            let response = client.response();
            assert_eq!((response.status, response.header("connection")), (200, Some("close")));
            client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").finish();
            assert_eq!(bodies.recv().unwrap(), b"helloGET /", "ten bytes are the body, whatever they say");
            assert_eq!(client.rest(), b"");
        }
        assert_eq!(origin.accepted(), 1, "the connection was in step and used again");
    }
}
