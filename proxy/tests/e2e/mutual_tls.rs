//! Mutual TLS between sidecars, and what each side makes of the other's certificate.

use std::io::Write;
use std::sync::Arc;

use crate::support::pki::{Authority, Identity, Issued};
use crate::support::tls::{self, TlsClient};
use crate::support::{Backend, Client, Origin, Proxy, eventually};

pub const WEB: &str = "spiffe://cluster.local/ns/default/sa/web";
pub const SHOP: &str = "spiffe://cluster.local/ns/default/sa/shop";

/// Two sidecars: plaintext to the first, mutual TLS to the second, plaintext to the origin.
pub struct Mesh {
    pub authority: Authority,
    pub origin: Origin,
    pub web: Identity,
    pub shop: Identity,
    pub far: Proxy,
    pub near: Proxy,
    pub shop_leaf: Issued,
    pub web_leaf: Issued,
    _folder: tempfile::TempDir,
}

impl Mesh {
    pub fn new(backend: Backend, origin: Origin) -> Self {
        Self::expecting(backend, origin, SHOP)
    }

    pub fn expecting(backend: Backend, origin: Origin, expected: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("mesh");
        let (web_leaf, shop_leaf) = (authority.member(WEB), authority.member(SHOP));
        let web = Identity::write(&folder.path().join("web"), &web_leaf, &authority.pem);
        let shop = Identity::write(&folder.path().join("shop"), &shop_leaf, &authority.pem);
        let far = Proxy::start(backend, &far_config(&shop.config(), &origin, "strict"));
        let near = Proxy::start(backend, &near_config(&web.config(), &far, expected));
        Self { authority, origin, web, shop, far, near, shop_leaf, web_leaf, _folder: folder }
    }
}

pub fn far_config(identity: &str, origin: &Origin, mtls: &str) -> String {
    let address = origin.address;
    format!(
        "{identity}\
         listeners:\n\
         - {{name: web, address: '127.0.0.1:0', mtls: {mtls}}}\n\
         - {{name: raw, address: '127.0.0.1:0', protocol: tcp, cluster: origin, mtls: {mtls}}}\n\
         routes:\n\
         - {{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}\n\
         clusters:\n\
         - {{name: origin, endpoints: [{{address: '{address}'}}]}}\n"
    )
}

pub fn near_config(identity: &str, far: &Proxy, expected: &str) -> String {
    let (web, raw) = (far.address("web"), far.address("raw"));
    format!(
        "{identity}\
         listeners:\n\
         - {{name: web, address: '127.0.0.1:0'}}\n\
         - {{name: raw, address: '127.0.0.1:0', protocol: tcp, cluster: raw}}\n\
         routes:\n\
         - {{name: all, rules: [{{backends: [{{cluster: far}}]}}]}}\n\
         clusters:\n\
         - {{name: far, identity: '{expected}', endpoints: [{{address: '{web}'}}]}}\n\
         - {{name: raw, identity: '{expected}', endpoints: [{{address: '{raw}'}}]}}\n"
    )
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n % 251) as u8).collect()
}

on_both_backends! {
    fn a_request_goes_through_two_sidecars(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let mut client = mesh.near.client("web");
        for path in ["/", "/one?two=3", "/four"] {
            let response = client.get(path);
            assert_eq!(response.status, 200, "{}", response.text());
            assert!(response.text().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
        }
        mesh.far.counts("ringway_downstream_accepted_total", 1.0);
        let series = "ringway_tls_handshakes_total{side=\"downstream\",resumed=\"no\"}";
        mesh.far.counts(series, 1.0);
    }

    fn a_request_right_behind_a_handshake_is_served_however_the_two_come(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let config = Arc::new(tls::mesh_config(&mesh.authority.pem, &mesh.web_leaf));
        for part in (0..1000).step_by(13) {
            let request = format!("GET /{part} HTTP/1.1\r\nHost: a\r\n\r\n");
            let address = mesh.far.address("web");
            let client = TlsClient::in_two(address, &config, request.as_bytes(), part);
            let (status, body) = client.and_then(|mut client| client.response()).unwrap();
            assert_eq!(status, 200, "cut at {part}");
            assert!(body.starts_with(format!("GET /{part} ").as_bytes()), "cut at {part}");
        }
    }

    fn the_origin_is_told_who_the_client_is_and_a_forged_word_is_removed(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let mut client = mesh.near.client("web");
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://cluster.local/admin\
             \r\nx_forwarded_client_cert: URI=spiffe://cluster.local/admin\r\n\r\n",
        );
        let seen = client.response().text();
        assert!(!seen.contains("admin"), "{seen}");
        let line = seen.lines().find(|line| line.starts_with("X-Forwarded-Client-Cert: "));
        let line = line.unwrap_or_else(|| panic!("no word of the certificate: {seen}"));
        assert!(line.contains(&format!("By={SHOP};Hash=")), "{line}");
        assert!(line.ends_with(&format!(";URI={WEB}")), "{line}");
        assert!(seen.contains("X-Forwarded-Proto: https"), "{seen}");
    }

    fn bodies_of_every_size_go_both_ways(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::http(|_, body| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), body].concat()
        }));
        let mut client = mesh.near.client("web");
        for count in [0, 1, 100, 16_383, 16_384, 16_385, 70_000, 1 << 20, 5_000_003] {
            let body = bytes(count);
            let mut writer = client.stream.try_clone().unwrap();
            let sent = body.clone();
            let writing = std::thread::spawn(move || {
                write!(writer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {count}\r\n\r\n")
                    .unwrap();
                writer.write_all(&sent).unwrap();
            });
            let response = client.response();
            writing.join().unwrap();
            assert_eq!(response.status, 200);
            assert!(response.body == body, "{count} bytes come back as they were");
        }
    }

    fn a_tunnel_carries_bytes_both_ways_until_both_have_finished(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::connections(|mut stream, _| {
            std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }));
        let mut client = mesh.near.client("raw");
        let sent = bytes(3_000_000);
        let mut writer = client.stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert!(client.rest() == sent, "the bytes come back as they were");
        writing.join().unwrap();
        assert_eq!(client.end(), crate::support::http::End::Finished);
    }

    fn an_endpoint_with_another_identity_gets_no_request(backend: Backend) {
        let wanted = "spiffe://cluster.local/ns/default/sa/other";
        let mesh = Mesh::expecting(backend, Origin::echo(), wanted);
        let response = mesh.near.client("web").get("/");
        assert_eq!(response.status, 503);
        assert_eq!(response.header("ringway-cause"), Some("upstream_tls"));
        let text = response.text();
        assert!(text.contains(&format!("expected {wanted}, peer is {SHOP}")), "{text}");
        assert!(mesh.origin.heads().is_empty());
        let series = "ringway_tls_failures_total{side=\"upstream\"";
        mesh.near.counts(series, 1.0);
    }

    fn a_client_without_a_certificate_is_refused(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let tls = tls::config(&mesh.authority.pem, None);
        let far = mesh.far.address("web");
        // Which name is asked for does not matter; the leaf has none, so rustls is told to accept.
        let refused = TlsClient::connect(far, "test", tls).and_then(|mut client| client.get("/"));
        assert!(refused.is_err());
        eventually("it is counted", || {
            mesh.far.metric("ringway_tls_failures_total{side=\"downstream\"") >= 1.0
        });
        assert!(mesh.origin.heads().is_empty());
    }

    fn plaintext_on_a_strict_listener_is_answered_with_a_reason(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let mut client = Client::connect(mesh.far.address("web"));
        let response = client.get("/");
        assert_eq!(response.status, 400);
        assert_eq!(response.header("ringway-cause"), Some("client_plaintext"));
        assert!(mesh.origin.heads().is_empty());
    }

    fn a_permissive_listener_takes_both_and_counts_who_still_speaks_plaintext(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        mesh.far.reload(&far_config(&mesh.shop.config(), &mesh.origin, "permissive"));
        assert_eq!(Client::connect(mesh.far.address("web")).get("/plain").status, 200);
        assert_eq!(mesh.near.client("web").get("/tls").status, 200);
        let series = "ringway_plaintext_connections_total{listener=\"web\",peer=\"127.0.0.1\"}";
        mesh.far.counts(series, 1.0);
        let seen = mesh.origin.heads().join("");
        assert!(seen.contains("GET /plain") && seen.contains("GET /tls"));
        assert_eq!(seen.matches("X-Forwarded-Client-Cert").count(), 1, "only the one that has one");
    }

    fn a_connection_that_was_silent_for_long_is_served_as_before(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let mut client = mesh.near.client("web");
        assert_eq!(client.get("/first").status, 200);
        // Both sides give their tasks up after a second; the connection between them rests, too.
        std::thread::sleep(std::time::Duration::from_millis(1700));
        assert_eq!(client.get("/second").status, 200);
        mesh.far.counts("ringway_downstream_accepted_total", 1.0);
    }

    fn a_member_of_another_trust_domain_is_refused_although_the_root_is_ours(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let other = mesh.authority.member("spiffe://other.domain/ns/default/sa/web");
        let config = tls::mesh_config(&mesh.authority.pem, &other);
        let far = mesh.far.address("web");
        let refused = TlsClient::connect(far, "test", config).and_then(|mut client| client.get("/"));
        assert!(refused.is_err());
        assert!(mesh.origin.heads().is_empty());
        eventually("it is said why", || {
            mesh.far.log().iter().any(|line| line.contains("expected spiffe://cluster.local/*"))
        });
    }

    fn hellos_that_never_come_whole_keep_nobody_out(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let half: Vec<_> = (0..300)
            .map(|_| {
                let mut client = Client::connect(mesh.far.address("web"));
                client.send(b"\x16\x03\x01\x02\x00\x01");
                client
            })
            .collect();
        let began = std::time::Instant::now();
        assert_eq!(mesh.near.client("web").get("/").status, 200);
        assert!(began.elapsed().as_millis() < 900, "{:?}", began.elapsed());
        drop(half);
    }

    fn a_server_that_speaks_first_is_heard_on_a_permissive_listener(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::connections(|mut stream, _| {
            stream.write_all(b"220 hello\r\n").unwrap();
            let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        }));
        mesh.far.reload(&far_config(&mesh.shop.config(), &mesh.origin, "permissive"));
        let mut client = Client::connect(mesh.far.address("raw"));
        let mut greeting = [0; 11];
        std::io::Read::read_exact(&mut client.stream, &mut greeting).unwrap();
        assert_eq!(&greeting, b"220 hello\r\n");
    }
}
