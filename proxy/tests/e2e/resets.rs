//! RST stays RST and FIN stays FIN, whoever sends it and whatever the connection is doing.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::support::http::End;
use crate::support::pair::{
    Ends, Pair, drain, read_pattern, reset, write_pattern, write_until_broken,
};
use crate::support::{Backend, Origin, Proxy, eventually};

/// More than the sockets on the way hold: what is beyond this has been spliced.
const LONG: u64 = 16 * 1024 * 1024;

/// Calls `check` for a tunnel seen from the client's side, then for one from the endpoint's.
fn from_both_sides(backend: Backend, check: impl Fn(&Proxy, Pair)) {
    let ends = Ends::start(backend);
    let mut pair = ends.connect();
    pair.greet();
    check(&ends.proxy, pair);
    let mut pair = ends.connect();
    pair.greet();
    check(&ends.proxy, pair.swap());
}

fn read_error(stream: &mut std::net::TcpStream) -> ErrorKind {
    stream.read(&mut [0; 16]).expect_err("an error, not an end").kind()
}

on_both_backends! {
    fn a_reset_of_an_idle_tunnel_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            reset(&pair.client);
            assert_eq!(read_error(&mut pair.server), ErrorKind::ConnectionReset);
        });
    }

    fn a_reset_of_a_tunnel_silent_for_seconds_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            // By now both directions have given their buffers back and wait for readiness.
            std::thread::sleep(Duration::from_millis(1300));
            reset(&pair.client);
            assert_eq!(read_error(&mut pair.server), ErrorKind::ConnectionReset);
        });
    }

    fn a_sender_that_resets_while_bytes_are_copied_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |proxy, mut pair| {
            let spliced = proxy.metric("ringway_splice_bytes_total");
            for _ in 0..100 {
                pair.client.write_all(&[1; 500]).unwrap();
                pair.server.read_exact(&mut [0; 500]).unwrap();
            }
            pair.client.write_all(&[1; 500]).unwrap();
            reset(&pair.client);
            let (bytes, end) = drain(&mut pair.server);
            assert_eq!(end, End::Reset);
            assert!(bytes <= 500);
            assert_eq!(proxy.metric("ringway_splice_bytes_total"), spliced, "this was copied");
        });
    }

    fn a_sender_that_resets_while_bytes_are_spliced_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |proxy, mut pair| {
            let spliced = proxy.metric("ringway_splice_bytes_total");
            let mut sender = pair.client.try_clone().unwrap();
            let sending = std::thread::spawn(move || write_until_broken(&mut sender));
            read_pieces(&mut pair.server, LONG);
            reset(&pair.client);
            sending.join().unwrap();
            assert_eq!(drain(&mut pair.server).1, End::Reset);
            assert!(proxy.metric("ringway_splice_bytes_total") > spliced, "this was spliced");
        });
    }

    fn a_reader_that_resets_while_bytes_are_spliced_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            let mut sender = pair.client.try_clone().unwrap();
            let sending = std::thread::spawn(move || write_until_broken(&mut sender));
            read_pieces(&mut pair.server, LONG);
            reset(&pair.server);
            assert_eq!(sending.join().unwrap(), ErrorKind::ConnectionReset);
        });
    }

    fn a_stalled_reader_that_resets_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            let mut sender = pair.client.try_clone().unwrap();
            let sending = std::thread::spawn(move || write_until_broken(&mut sender));
            read_pieces(&mut pair.server, LONG);
            std::thread::sleep(Duration::from_millis(500));
            reset(&pair.server);
            assert_eq!(sending.join().unwrap(), ErrorKind::ConnectionReset);
        });
    }

    fn a_sender_that_resets_behind_a_stalled_reader_is_seen_before_the_reader_goes_on(
        backend: Backend
    ) {
        from_both_sides(backend, |proxy, mut pair| {
            let tunnels = proxy.metric("ringway_tunnels_total");
            let mut sender = pair.client.try_clone().unwrap();
            let sending = std::thread::spawn(move || write_until_broken(&mut sender));
            read_pieces(&mut pair.server, LONG);
            std::thread::sleep(Duration::from_millis(500));
            reset(&pair.client);
            sending.join().unwrap();
            eventually("the tunnel is given up", || {
                proxy.metric("ringway_tunnels_total") > tunnels
            });
            assert_eq!(drain(&mut pair.server).1, End::Reset);
        });
    }

    fn a_reset_after_a_half_close_is_seen_as_a_reset(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            pair.client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(pair.server.read(&mut [0; 16]).unwrap(), 0);
            reset(&pair.client);
            // Reading says "end" for ever after a FIN. The error is the socket's.
            eventually("the reset arrives", || {
                rustix::net::sockopt::socket_error(&pair.server).unwrap().is_err()
            });
        });
    }

    fn a_half_close_lets_the_other_direction_go_on(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            pair.client.write_all(b"question").unwrap();
            pair.client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(drain(&mut pair.server), (8, End::Finished));
            std::thread::sleep(Duration::from_millis(100));
            pair.server.write_all(b"a longer answer").unwrap();
            std::thread::sleep(Duration::from_millis(1500));
            pair.server.write_all(b", late").unwrap();
            pair.server.shutdown(Shutdown::Write).unwrap();
            assert_eq!(drain(&mut pair.client), (21, End::Finished));
        });
    }

    fn a_close_with_everything_read_is_an_end(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            drop(pair.client);
            assert_eq!(drain(&mut pair.server), (0, End::Finished));
        });
    }

    fn a_close_right_after_sending_delivers_every_byte_and_then_the_end(backend: Backend) {
        from_both_sides(backend, |_, mut pair| {
            let sending = std::thread::spawn(move || write_pattern(&mut { pair.client }, 7, LONG));
            // The reader begins late, when the sender has gone as far as it can.
            std::thread::sleep(Duration::from_millis(100));
            read_pattern(&mut pair.server, 7, LONG);
            sending.join().unwrap();
            assert_eq!(drain(&mut pair.server), (0, End::Finished));
        });
    }

    fn a_few_bytes_and_a_close_arrive_as_such(backend: Backend) {
        let ends = Ends::start(backend);
        for _ in 0..50 {
            let mut pair = ends.connect();
            pair.client.write_all(b"last words").unwrap();
            drop(pair.client);
            assert_eq!(drain(&mut pair.server), (10, End::Finished));
            let mut pair = ends.connect().swap();
            pair.client.write_all(b"last words").unwrap();
            drop(pair.client);
            assert_eq!(drain(&mut pair.server), (10, End::Finished));
        }
    }

    fn an_origin_that_resets_inside_a_body_breaks_the_clients_connection(backend: Backend) {
        for framing in ["Content-Length: 50000000", "Transfer-Encoding: chunked"] {
            let origin = Origin::connections(move |mut stream, _| {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                let chunk = [&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat();
                for _ in 0..40 {
                    stream.write_all(&chunk).unwrap();
                }
                std::thread::sleep(Duration::from_millis(100));
                reset(&stream);
            });
            let proxy = Proxy::start(backend, &origin.config());
            let mut client = proxy.client("web");
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.head().0, 200);
            assert_eq!(drain(&mut client.stream).1, End::Reset, "{framing}");
            proxy.counts("ringway_failures_total{cause=\"upstream_reset\"}", 1.0);
        }
    }

    fn an_origin_that_resets_before_it_answers_is_a_502(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            reset(&stream);
        });
        let proxy = Proxy::start(backend, &origin.config());
        let response = proxy.client("web").get("/");
        assert_eq!(response.status, 502);
        assert_eq!(response.header("ringway-cause"), Some("upstream_reset"));
    }

    fn a_client_that_resets_inside_a_response_ends_the_origins_connection(backend: Backend) {
        let (ended, end) = std::sync::mpsc::channel();
        let origin = Origin::connections(move |mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n").unwrap();
            ended.send(write_until_broken(&mut stream)).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.take(1_000_000);
        reset(&client.stream);
        end.recv_timeout(Duration::from_secs(5)).expect("the origin learns of it");
        eventually("it is counted", || {
            proxy.metric("ringway_failures_total{cause=\"client_reset\"}") == 1.0
        });
    }

    fn a_client_that_resets_while_the_origin_is_silent_ends_the_origins_connection(
        backend: Backend
    ) {
        let (ended, end) = std::sync::mpsc::channel();
        let origin = Origin::connections(move |mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf").unwrap();
            let _ = stream.read(&mut [0; 16]);
            ended.send(Instant::now()).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().0, 200);
        std::thread::sleep(Duration::from_millis(200));
        reset(&client.stream);
        end.recv_timeout(Duration::from_secs(5)).expect("the origin learns of it");
    }
}

/// Reads at least `count` bytes of anything.
fn read_pieces(stream: &mut std::net::TcpStream, count: u64) {
    let mut piece = vec![0; 64 * 1024];
    let mut bytes = 0;
    while bytes < count {
        bytes += stream.read(&mut piece).unwrap() as u64;
    }
}
