//! Upgrade: HTTP until 101, then bytes of another protocol (RFC 9110 section 7.8, RFC 6455).

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::http::{Client, End};
use crate::support::pair::{read_pattern, reset, write_pattern};
use crate::support::{Backend, Origin, Proxy, eventually};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An origin that switches, and hands the connection to `serve` with what it was asked.
fn switching(serve: impl Fn(Client, String) + Send + Sync + 'static) -> Origin {
    Origin::connections(move |stream, _| {
        let mut reader = Client::over(stream);
        let (_, fields) = reader.head_of_request();
        reader.stream.write_all(SWITCHED.as_bytes()).unwrap();
        serve(reader, fields);
    })
}

fn echo(mut reader: Client, _: String) {
    std::io::copy(&mut reader.stream.try_clone().unwrap(), &mut reader.stream).unwrap();
    reader.stream.shutdown(std::net::Shutdown::Write).unwrap();
}

/// A masked binary frame (RFC 6455 section 5.2) of this payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x82, 0xff];
    frame.extend((payload.len() as u64).to_be_bytes());
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client whose connection has been switched.
fn switched(proxy: &Proxy) -> Client {
    let mut client = proxy.client("web");
    client.send(HANDSHAKE);
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("connection"), Some("Upgrade"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

on_both_backends! {
    fn frames_pass_both_ways_after_the_switch(backend: Backend) {
        let (seen, requests) = mpsc::channel();
        let origin = switching(move |reader, fields| {
            seen.send(fields).unwrap();
            echo(reader, String::new());
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = switched(&proxy);
        let fields = requests.recv().unwrap();
        assert!(fields.contains("connection: Upgrade\nupgrade: websocket\n"), "{fields}");
        assert!(fields.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n"), "{fields}");
        for size in [0, 1, 1000, 70_000] {
            let frame = frame(&vec![7; size]);
            client.send(&frame);
            assert!(client.take(frame.len()) == frame, "{size} bytes");
        }
        client.finish();
        assert_eq!(client.rest(), b"");
        eventually("the tunnel is counted", || proxy.metric("ringway_tunnels_total") == 1.0);
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn frames_that_come_with_the_handshake_or_its_answer_are_not_lost(backend: Backend) {
        let origin = Origin::connections(|stream, _| {
            let mut reader = Client::over(stream);
            reader.head_of_request();
            reader.stream.write_all(format!("{SWITCHED}early").as_bytes()).unwrap();
            let sent = reader.take(4);
            reader.stream.write_all(&sent).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send(format!("{HANDSHAKE}ping"));
        assert_eq!(client.response().status, 101);
        assert_eq!(client.rest(), b"earlyping");
    }

    fn much_payload_is_spliced_both_ways_at_once(backend: Backend) {
        let bytes = 16 << 20;
        let (ready, go) = mpsc::channel();
        let origin = switching(move |mut reader, _| {
            // Both ends have read so far and no further when the patterns begin.
            assert_eq!(reader.take(2), b"go");
            ready.send(()).unwrap();
            let mut writer = reader.stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| write_pattern(&mut writer, 1, bytes));
                read_pattern(&mut reader.stream, 2, bytes);
            });
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = switched(&proxy);
        client.send("go");
        go.recv().unwrap();
        let mut writer = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| write_pattern(&mut writer, 2, bytes));
            read_pattern(&mut client.stream, 1, bytes);
        });
        assert_eq!(client.finish().end(), End::Finished);
        let spliced = proxy.metric("ringway_splice_bytes_total");
        assert!(spliced > 1.5 * bytes as f64, "{spliced} bytes were spliced");
    }

    fn a_silent_websocket_lives_on(backend: Backend) {
        let origin = switching(echo);
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = switched(&proxy);
        // Past the time after which a connection gives its block back: that is the subject.
        std::thread::sleep(Duration::from_millis(2500));
        client.send("hello");
        assert_eq!(client.take(5), b"hello");
    }

    fn a_silent_websocket_ends_at_the_rules_idle_time(backend: Backend) {
        let origin = switching(echo);
        let config = origin.config().replace("{cluster: origin}]}]", "{cluster: origin}], idle_timeout: 500ms}]");
        let proxy = Proxy::start(backend, &config);
        let mut client = switched(&proxy);
        assert_ne!(client.end(), End::Open);
    }

    fn a_reset_on_one_side_is_a_reset_on_the_other(backend: Backend) {
        let (seen, ends) = mpsc::channel();
        let origin = switching(move |mut reader, fields| {
            if fields.contains("x-reset: 1") {
                reset(&reader.stream);
            } else {
                seen.send(reader.end()).unwrap();
            }
        });
        let proxy = Proxy::start(backend, &origin.config());
        switched(&proxy).reset();
        assert_eq!(ends.recv().unwrap(), End::Reset);
        let mut client = proxy.client("web");
        client.send(HANDSHAKE.replace("Host: a", "Host: a\r\nX-Reset: 1"));
        assert_eq!(client.end(), End::Reset);
    }

    fn a_refused_switch_leaves_the_connection_to_http(backend: Backend) {
        let origin = Origin::http(|head, _| {
            let status = if head.contains("Upgrade: websocket") {
                "426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
            } else {
                "200 OK"
            };
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send(format!("{HANDSHAKE}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
        let refused = client.response();
        assert_eq!((refused.status, refused.header("upgrade")), (426, Some("websocket")));
        assert_eq!(client.response().status, 200, "what was pipelined is a request");
        assert_eq!(origin.heads().len(), 2);
    }
}
