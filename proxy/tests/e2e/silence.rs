//! Peers that are gone are given up; peers that only do not read are waited for.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};

use crate::support::http::{Client, End};
use crate::support::origin::{ok, read_request};
use crate::support::pair::{Ends, PATIENCE, Pair, drain};
use crate::support::{Backend, Origin, Proxy};

const MIB: usize = 1024 * 1024;
/// Longer than a peer may be silent.
const PAUSE: Duration = Duration::from_secs(40);
/// By when a peer that is gone is surely given up.
const LATEST: Duration = Duration::from_secs(90);

/// From here on nothing reaches `stream`, not even what its kernel would answer by itself: its host
/// is gone for whoever is at the other end. (A filter of sockets that lets nothing pass,
/// `BPF_RET | BPF_K` with 0 bytes.)
fn vanish(stream: &TcpStream) {
    SockRef::from(stream).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
}

/// What is asked for: little enough to wait in the proxy's kernel, or more than that.
fn size_of(head: &str) -> Option<usize> {
    let sizes = [("/little", MIB), ("/much", 64 * MIB)];
    sizes.iter().find(|(path, _)| head.contains(path)).map(|(_, size)| *size)
}

/// Writes until the other side takes no more for a while. Returns how many bytes that was.
fn fill(stream: &mut TcpStream) -> u64 {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let piece = [7; 64 * 1024];
    let mut bytes = 0;
    while let Ok(count) = stream.write(&piece) {
        bytes += count as u64;
    }
    bytes
}

/// The client's end is reset, and not before a peer that answers could have.
fn is_reset(pair: &mut Pair, since: Instant) {
    pair.client.set_read_timeout(Some(LATEST)).unwrap();
    assert_eq!(drain(&mut pair.client).1, End::Reset);
    let took = since.elapsed();
    assert!(took > Duration::from_secs(25), "{took:?}");
}

on_both_backends! {
    fn a_reader_that_pauses_is_waited_for(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            let mut reader = Client::over(stream.try_clone().unwrap());
            stream.set_read_timeout(Some(LATEST)).unwrap();
            stream.set_write_timeout(Some(LATEST)).unwrap();
            let (head, _) = reader.head_of_request();
            if head.starts_with("POST") {
                std::thread::sleep(PAUSE);
                assert_eq!(reader.take(64 * MIB).len(), 64 * MIB);
                stream.write_all(&ok(b"all of it")).unwrap();
                return;
            }
            let size = size_of(&head).unwrap();
            // No other request shall come this way.
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
            stream.write_all(format!("{head}{size}\r\n\r\n").as_bytes()).unwrap();
            stream.write_all(&vec![7; size]).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let ends = Ends::start(backend);
        std::thread::scope(|scope| {
            for (path, size) in [("/little", MIB), ("/much", 64 * MIB)] {
                let mut client = proxy.client("web");
                scope.spawn(move || {
                    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    std::thread::sleep(PAUSE);
                    assert_eq!(client.response().body.len(), size, "{path}");
                });
            }
            let mut client = proxy.client("web");
            scope.spawn(move || {
                client.stream.set_write_timeout(Some(LATEST)).unwrap();
                client.stream.set_read_timeout(Some(LATEST)).unwrap();
                client.send(format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                    64 * MIB
                ));
                client.send(vec![7; 64 * MIB]);
                assert_eq!(client.response().body, b"all of it");
            });
            let mut pair = ends.connect();
            scope.spawn(move || {
                let bytes = fill(&mut pair.client);
                std::thread::sleep(PAUSE);
                pair.client.shutdown(Shutdown::Write).unwrap();
                pair.server.set_read_timeout(Some(4 * PATIENCE)).unwrap();
                assert_eq!(drain(&mut pair.server), (bytes, End::Finished));
            });
        });
        for proxy in [&proxy, &ends.proxy] {
            assert_eq!(proxy.metric("ringway_silent_peers_total"), 0.0);
        }
    }

    fn peers_that_are_gone_are_given_up(backend: Backend) {
        let last = Arc::new(Barrier::new(2));
        let heard = Arc::clone(&last);
        let origin = Origin::connections(move |mut stream, _| {
            let mut reader = Client::over(stream.try_clone().unwrap());
            let (head, _) = read_request(&mut reader).unwrap();
            if let Some(size) = size_of(&head) {
                let _ = stream.write_all(&ok(&vec![7; size]));
                return;
            }
            stream.write_all(&ok(b"the last word")).unwrap();
            heard.wait();
            vanish(&stream);
            heard.wait();
            std::thread::sleep(LATEST);
        });
        let proxy = Proxy::start(backend, &origin.config());
        let ends = Ends::start(backend);
        // Clients with bytes that they have not read, so that their window is closed: in the midst
        // of a response, and with one that is complete as far as the proxy is concerned.
        let gone = ["/much", "/little"].map(|path| {
            let mut gone = proxy.client("web");
            gone.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).head();
            gone
        });
        std::thread::sleep(Duration::from_millis(300));
        gone.iter().for_each(|gone| vanish(&gone.stream));
        std::thread::scope(|scope| {
            // An endpoint that answers one request and not the next.
            let mut client = proxy.client("web");
            client.stream.set_read_timeout(Some(LATEST)).unwrap();
            assert_eq!(client.get("/").body, b"the last word");
            // That too has been acknowledged by now: nothing of the endpoint's own is on the way.
            std::thread::sleep(Duration::from_millis(300));
            last.wait();
            last.wait();
            scope.spawn(move || {
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
                let response = client.response();
                assert_eq!(response.header("ringway-cause"), Some("upstream_stalled"));
                assert_eq!(response.status, 504);
            });
            // A tunnel that owes the endpoint nothing, and one that does.
            for owed in [&b""[..], b"x"] {
                let mut pair = ends.connect();
                pair.greet();
                std::thread::sleep(Duration::from_millis(300));
                vanish(&pair.server);
                scope.spawn(move || {
                    let since = Instant::now();
                    pair.client.write_all(owed).unwrap();
                    is_reset(&mut pair, since);
                });
            }
        });
        proxy.counts("ringway_failures_total{cause=\"client_stalled\"", 1.0);
        proxy.counts("ringway_failures_total{cause=\"upstream_stalled\"", 1.0);
        proxy.counts("ringway_silent_peers_total", 3.0);
        proxy.counts("ringway_downstream_connections", 0.0);
        ends.proxy.counts("ringway_failures_total{cause=\"upstream_stalled\"", 2.0);
        // The kernel finds a peer that owes nothing.
        ends.proxy.counts("ringway_silent_peers_total", 1.0);
    }
}
