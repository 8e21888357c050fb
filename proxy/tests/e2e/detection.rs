//! Listeners that find out what each client speaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::http::End;
use crate::support::pki::{Authority, Wanted};
use crate::support::tls::{self, TlsClient};
use crate::support::{Backend, Client, Origin, Proxy, free_address};

/// A server that greets and then repeats what it hears, as SMTP, FTP and MySQL begin.
fn greeting() -> Origin {
    Origin::connections(|mut stream, _| {
        if stream.write_all(b"220 ready\r\n").is_ok() {
            repeat(stream);
        }
    })
}

/// A server that repeats what it hears.
fn echo() -> Origin {
    Origin::connections(|stream, _| repeat(stream))
}

fn repeat(mut stream: TcpStream) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        if stream.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

fn config(http: &Origin, opaque: std::net::SocketAddr, more: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: any, address: '127.0.0.1:0', protocol: auto, cluster: opaque{more}}}\n\
         routes:\n\
         - {{name: all, rules: [{{backends: [{{cluster: http}}]}}]}}\n\
         clusters:\n\
         - {{name: http, endpoints: [{{address: '{}'}}]}}\n\
         - {{name: opaque, connect_timeout: 1s, endpoints: [{{address: '{opaque}'}}]}}\n",
        http.address
    )
}

fn found(proxy: &Proxy, protocol: &str, count: f64) {
    let name = format!("ringway_protocol_detected_total{{listener=\"any\",protocol=\"{protocol}\"");
    proxy.counts(&name, count);
}

/// Whether `client` is closed or reset within `patience`.
fn ends_within(client: &mut Client, patience: Duration) -> bool {
    client.stream.set_read_timeout(Some(patience)).unwrap();
    matches!(client.end(), End::Finished | End::Reset)
}

on_both_backends! {
    fn requests_are_routed_and_everything_else_goes_through(backend: Backend) {
        let (http, opaque) = (Origin::echo(), echo());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ""));
        let address = proxy.address("any");
        let url = format!("http://{address}/one");
        let body = Command::new("curl").args(["-s", &url]).output().unwrap().stdout;
        assert!(body.starts_with(b"GET /one HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&body));
        let mut client = proxy.client("any");
        for path in ["/two", "/three"] {
            assert_eq!(client.get(path).status, 200);
        }
        found(&proxy, "http1", 2.0);
        let first_words: [&[u8]; 4] =
            [b"*1\r\n$4\r\nPING\r\n", b"get key\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f", b"\x10\x0cMQTT"];
        for words in first_words {
            let mut client = proxy.client("any");
            client.send(words);
            assert_eq!(client.take(words.len()), words);
            client.send(b"GET / HTTP/1.1\r\n\r\n");
            assert_eq!(client.take(18), b"GET / HTTP/1.1\r\n\r\n", "once opaque, always opaque");
            client.finish();
            assert_eq!(client.end(), End::Finished);
        }
        found(&proxy, "opaque", 4.0);
        assert_eq!(opaque.accepted(), 4, "nobody was connected to in vain");
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn a_server_that_speaks_first_is_heard_at_once(backend: Backend) {
        let (http, opaque) = (Origin::echo(), greeting());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ""));
        for _ in 0..5 {
            let began = Instant::now();
            let mut client = proxy.client("any");
            assert_eq!(client.line(), "220 ready");
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            client.send("EHLO me\r\n");
            assert_eq!(client.line(), "EHLO me");
        }
        found(&proxy, "server_first", 5.0);
        assert_eq!(opaque.accepted(), 5, "the connection that was made ahead is used");
    }

    fn a_client_that_thinks_first_is_routed_all_the_same(backend: Backend) {
        let (http, opaque) = (Origin::echo(), echo());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ""));
        let mut client = proxy.client("any");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(opaque.accepted(), 1, "the server might have spoken first");
        client.dribble("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 200);
        found(&proxy, "http1", 1.0);
        // And one of another protocol uses the connection that is there.
        let mut client = proxy.client("any");
        std::thread::sleep(Duration::from_millis(300));
        client.send("PING\r\n");
        assert_eq!(client.line(), "PING");
        assert_eq!(opaque.accepted(), 2);
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn tls_that_is_not_ended_here_goes_by_its_name(backend: Backend) {
        let authority = Authority::new("edge");
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::echo();
        let ends = |name: &str| {
            let issued = authority.issue(&Wanted::server(name));
            let path = |end: &str| folder.path().join(format!("{name}.{end}"));
            std::fs::write(path("crt"), &issued.certificate).unwrap();
            std::fs::write(path("key"), &issued.key).unwrap();
            let pair =
                format!("{{certificate: {}, key: {}}}", path("crt").display(), path("key").display());
            let text = config(&origin, origin.address, &format!(", tls: {{certificates: [{pair}]}}"));
            Proxy::start(backend, &text)
        };
        let (named, other) = (ends("a.example"), ends("b.example"));
        let by_name = ", sni: [{hosts: [a.example], cluster: named}]";
        let text = config(&origin, other.address("any"), by_name);
        let named_cluster =
            format!("- {{name: named, endpoints: [{{address: '{}'}}]}}\n", named.address("any"));
        let proxy = Proxy::start(backend, &format!("{text}{named_cluster}"));
        let client = Arc::new(tls::config(&authority.pem, None));
        for name in ["a.example", "b.example"] {
            let mut client = TlsClient::with(proxy.address("any"), name, &client).unwrap();
            assert_eq!(client.get("/").unwrap().0, 200);
        }
        found(&proxy, "tls", 2.0);
        // Those that end TLS find HTTP inside of it, which no ALPN announced.
        found(&named, "http1", 1.0);
        found(&other, "http1", 1.0);
        let mut alpn = tls::config(&authority.pem, None);
        alpn.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = TlsClient::connect(named.address("any"), "a.example", alpn).unwrap();
        assert_eq!(client.get("/").unwrap().0, 200);
        found(&named, "http1", 2.0);
    }

    fn a_greeting_comes_through_tls_that_is_ended_here(backend: Backend) {
        let authority = Authority::new("edge");
        let folder = tempfile::tempdir().unwrap();
        let issued = authority.issue(&Wanted::server("a.example"));
        let path = |end: &str| folder.path().join(end);
        std::fs::write(path("crt"), &issued.certificate).unwrap();
        std::fs::write(path("key"), &issued.key).unwrap();
        let pair =
            format!("{{certificate: {}, key: {}}}", path("crt").display(), path("key").display());
        let (http, opaque) = (Origin::echo(), greeting());
        let more = format!(", tls: {{certificates: [{pair}]}}");
        let proxy = Proxy::start(backend, &config(&http, opaque.address, &more));
        let client = tls::config(&authority.pem, None);
        let mut client = TlsClient::connect(proxy.address("any"), "a.example", client).unwrap();
        let mut words = [0; 11];
        client.stream.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"220 ready\r\n");
        client.stream.write_all(b"EHLO me\r\n").unwrap();
        client.stream.read_exact(&mut words[..9]).unwrap();
        assert_eq!(&words[..9], b"EHLO me\r\n");
        found(&proxy, "server_first", 1.0);
    }

    fn what_stays_undecided_goes_through_at_its_deadline(backend: Backend) {
        let (http, opaque) = (Origin::echo(), echo());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ", head_timeout: 500ms"));
        let mut client = proxy.client("any");
        let began = Instant::now();
        client.send("LOGIN");
        assert_eq!(client.take(5), b"LOGIN");
        assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
        found(&proxy, "undecided", 1.0);
        // A client that says that this was all is not waited for.
        let mut client = proxy.client("any");
        client.send("BYE").finish();
        assert_eq!(client.rest(), b"BYE");
        found(&proxy, "opaque", 1.0);
    }

    fn a_line_without_end_is_answered_as_http_would(backend: Backend) {
        let (http, opaque) = (Origin::echo(), echo());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ""));
        let mut client = proxy.client("any");
        client.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000)));
        assert_eq!(client.response().status, 414);
        found(&proxy, "http1", 1.0);
        assert!(opaque.accepted() <= 1);
    }

    fn without_a_cluster_only_requests_are_served(backend: Backend) {
        let http = Origin::echo();
        let text = config(&http, http.address, "").replace(", cluster: opaque", "");
        let proxy = Proxy::start(backend, &text);
        let mut silent = proxy.client("any");
        for words in ["PING\r\n", "\0\0\0"] {
            let mut client = proxy.client("any");
            client.send(words);
            assert!(ends_within(&mut client, Duration::from_secs(5)));
        }
        proxy.counts("ringway_failures_total{cause=\"unknown_protocol\"", 2.0);
        assert_eq!(silent.get("/").status, 200);
    }

    fn a_cluster_that_is_down_costs_requests_nothing(backend: Backend) {
        let http = Origin::echo();
        let more = ", head_timeout: 1s";
        let proxy = Proxy::start(backend, &config(&http, free_address(), more));
        let mut patient = proxy.client("any");
        let mut waiting = proxy.client("any");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(patient.get("/").status, 200);
        // Who waits for a server that is not there is told soon, not after minutes.
        assert!(ends_within(&mut waiting, Duration::from_secs(10)));
        proxy.counts("ringway_failures_total{cause=\"connect_failed\"", 1.0);
    }

    fn silence_on_both_sides_ends_at_the_idle_timeout(backend: Backend) {
        let (http, opaque) = (Origin::echo(), echo());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ", idle_timeout: 1s"));
        let mut client = proxy.client("any");
        let began = Instant::now();
        assert!(ends_within(&mut client, Duration::from_secs(10)));
        assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
        proxy.counts("ringway_failures_total{cause=\"request_timeout\"", 1.0);
        crate::support::eventually("nothing is left", || {
            proxy.metric("ringway_upstream_opened_total")
                == proxy.metric("ringway_upstream_closed_total")
        });
    }

    fn clients_that_leave_unheard_leave_nothing(backend: Backend) {
        let (http, opaque) = (Origin::echo(), echo());
        let proxy = Proxy::start(backend, &config(&http, opaque.address, ""));
        for pause in [0, 10, 25, 60] {
            for _ in 0..10 {
                let client = TcpStream::connect(proxy.address("any")).unwrap();
                std::thread::sleep(Duration::from_millis(pause));
                client.shutdown(Shutdown::Both).unwrap();
            }
        }
        crate::support::eventually("all have ended", || {
            proxy.metric("ringway_downstream_closed_total") >= 40.0
                && proxy.metric("ringway_upstream_opened_total")
                    == proxy.metric("ringway_upstream_closed_total")
        });
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
        assert_eq!(proxy.metric("ringway_panics_total"), 0.0);
    }
}
