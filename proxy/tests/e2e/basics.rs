//! The first things that anybody tries.

use crate::support::http::End;
use crate::support::{Backend, Origin, Proxy};

on_both_backends! {
    fn a_request_reaches_the_origin_and_its_answer_the_client(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for path in ["/", "/one?two=3", "/four"] {
            let response = client.get(path);
            assert_eq!(response.status, 200);
            assert!(response.text().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
        }
        assert_eq!(origin.accepted(), 1, "the connection to the origin is kept");
    }

    fn pipelined_requests_are_answered_in_order(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        let requests: String =
            (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(requests);
        for n in 0..50 {
            assert!(client.response().text().starts_with(&format!("GET /{n} ")));
        }
    }

    fn a_tunnel_carries_bytes_both_ways_until_both_have_finished(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("raw");
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut writer = client.stream.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || {
            std::io::Write::write_all(&mut writer, &bytes).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert!(client.rest() == sent, "the bytes come back as they were");
        writing.join().unwrap();
        assert_eq!(client.end(), End::Finished);
    }
}
