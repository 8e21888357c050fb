//! TLS with programs of others: openssl, nginx and HAProxy, as clients and as servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::mutual_tls::{SHOP, WEB, far_config};
use crate::support::peers::{Files, Program};
use crate::support::{Backend, Origin, Proxy, free_address};

/// A proxy that speaks mutual TLS to `address`, where `SHOP` is expected.
fn towards(backend: Backend, identity: &str, address: SocketAddr) -> Proxy {
    Proxy::start(
        backend,
        &format!(
            "{identity}\
         listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
         routes: [{{name: all, rules: [{{backends: [{{cluster: far}}]}}]}}]\n\
         clusters: [{{name: far, identity: '{SHOP}', endpoints: [{{address: '{address}'}}]}}]\n"
        ),
    )
}

/// What openssl prints when it is given `input` and then waits for the server to end.
fn s_client(address: SocketAddr, arguments: &[&str], input: &[u8]) -> String {
    typed(address, &[arguments, &["-ign_eof"]].concat(), &[input])
}

/// The same with input that is typed piece by piece: a letter alone on a line is a command.
fn typed(address: SocketAddr, arguments: &[&str], pieces: &[&[u8]]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for (nth, piece) in pieces.iter().enumerate() {
        if nth > 0 || pieces.len() > 1 {
            std::thread::sleep(Duration::from_millis(300));
        }
        // It may have ended already.
        let _ = stdin.write_all(piece);
    }
    let ends_by_itself = arguments.contains(&"-ign_eof");
    if ends_by_itself {
        drop(stdin);
    } else {
        std::mem::forget(stdin);
    }
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

on_both_backends! {
    fn openssl_as_client_is_served_when_it_is_a_member(backend: Backend) {
        let files = Files::new();
        files.member("web", WEB);
        files.member("shop", SHOP);
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &far_config(&files.identity("shop"), &origin, "strict"));
        let address = proxy.address("web");
        let (crt, key, ca) = (files.path("web.crt"), files.path("web.key"), files.path("ca.crt"));
        let member = ["-CAfile", &ca, "-cert", &crt, "-key", &key, "-tls1_3"];
        let text = s_client(address, &member, REQUEST);
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        // An orderly end: openssl complains of any other.
        assert!(!text.contains("unexpected eof"), "{text}");
        // Key updates in both directions, asked for by the letter K at the start of a line.
        let text = typed(address, &member, &[b"k\n", b"K\n", b"K\n", REQUEST]);
        assert_eq!(text.matches("KEYUPDATE").count(), 3, "{text}");
        assert!(text.contains("HTTP/1.1 200"), "{text}");
        let strangers = s_client(address, &["-CAfile", &ca], REQUEST);
        assert!(strangers.contains("certificate required"), "{strangers}");
        let old = s_client(address, &["-CAfile", &ca, "-tls1_2"], REQUEST);
        assert!(old.contains("protocol version"), "{old}");
        assert_eq!(proxy.metric("ringway_panics_total"), 0.0);
        assert!(proxy.metric("ringway_tls_failures_total{side=\"downstream\"") >= 2.0);
    }

    fn openssl_as_server_is_called_when_it_is_who_is_expected(backend: Backend) {
        let files = Files::new();
        files.member("web", WEB);
        files.member("shop", SHOP);
        files.member("other", WEB);
        for (name, status) in [("shop", 200), ("other", 503)] {
            let address = free_address();
            let _server = Program::start(
                address,
                Command::new("openssl")
                    .args(["s_server", "-accept", &address.to_string(), "-www", "-Verify", "1"])
                    .args(["-cert", &files.path(&format!("{name}.crt"))])
                    .args(["-key", &files.path(&format!("{name}.key"))])
                    .args(["-CAfile", &files.path("ca.crt")]),
            );
            let proxy = towards(backend, &files.identity("web"), address);
            let response = proxy.client("web").get("/");
            assert_eq!(response.status, status, "{name}: {}", response.text());
            if status == 200 {
                assert!(response.text().contains("TLSv1.3"), "{}", response.text());
            }
        }
    }

    fn nginx_is_a_member_on_either_side(backend: Backend) {
        let files = Files::new();
        files.member("web", WEB);
        files.member("shop", SHOP);
        let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
        std::fs::write(files.folder.path().join("large"), &large).unwrap();
        let server = files.nginx(
            "server { listen LISTEN ssl; ssl_certificate FILES/shop.crt;\n\
             ssl_certificate_key FILES/shop.key; ssl_client_certificate FILES/ca.crt;\n\
             ssl_verify_client on; ssl_protocols TLSv1.3; root FILES; }\n",
        );
        let near = towards(backend, &files.identity("web"), server.address);
        let mut client = near.client("web");
        for _ in 0..3 {
            assert!(client.get("/large").body == large, "the bytes arrive as they were");
        }
        near.counts("ringway_upstream_opened_total", 1.0);
        drop(server);

        let origin = Origin::echo();
        let far = Proxy::start(backend, &far_config(&files.identity("shop"), &origin, "strict"));
        let client = files.nginx(&format!(
            "server {{ listen LISTEN; location / {{ proxy_pass https://{};\n\
             proxy_ssl_certificate FILES/web.crt; proxy_ssl_certificate_key FILES/web.key;\n\
             proxy_ssl_trusted_certificate FILES/ca.crt; proxy_ssl_verify on;\n\
             proxy_ssl_name peer.example; proxy_ssl_protocols TLSv1.3; proxy_http_version 1.1;\n\
             proxy_set_header Connection ''; }} }}\n",
            far.address("web")
        ));
        let mut through = crate::support::Client::connect(client.address);
        let seen = through.get("/");
        assert_eq!(seen.status, 200, "{}", seen.text());
        assert!(seen.text().contains(&format!("URI={WEB}")), "{}", seen.text());
    }

    fn haproxy_is_a_member_on_either_side(backend: Backend) {
        let files = Files::new();
        files.member("web", WEB);
        files.member("shop", SHOP);
        let origin = Origin::echo();
        let server = files.haproxy(&format!(
            "frontend f\n  bind LISTEN ssl crt FILES/shop.pem ca-file FILES/ca.crt verify required \
             ssl-min-ver TLSv1.3\n  default_backend b\nbackend b\n  server s {}\n",
            origin.address
        ));
        let near = towards(backend, &files.identity("web"), server.address);
        let mut client = near.client("web");
        for _ in 0..20 {
            assert_eq!(client.get("/").status, 200);
        }
        drop(server);

        let far = Proxy::start(backend, &far_config(&files.identity("shop"), &origin, "strict"));
        let peer = files.haproxy(&format!(
            "frontend f\n  bind LISTEN\n  default_backend b\nbackend b\n  \
             server s {} ssl crt FILES/web.pem ca-file FILES/ca.crt verify required\n",
            far.address("web")
        ));
        let mut through = crate::support::Client::connect(peer.address);
        for _ in 0..20 {
            let seen = through.get("/");
            assert_eq!(seen.status, 200, "{}", seen.text());
            assert!(seen.text().contains(&format!("URI={WEB}")), "{}", seen.text());
        }
    }

    fn tls_1_2_is_spoken_only_where_the_file_allows_it(backend: Backend) {
        let files = Files::new();
        files.member("shop", SHOP);
        let origin = Origin::echo();
        let config = |version: &str| format!(
            "listeners:\n\
             - name: web\n  address: '127.0.0.1:0'\n  tls:\n    min_version: '{version}'\n    \
               certificates: [{{certificate: {}, key: {}}}]\n\
             routes: [{{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}]\n\
             clusters: [{{name: origin, endpoints: [{{address: '{}'}}]}}]\n",
            files.path("shop.crt"), files.path("shop.key"), origin.address
        );
        let proxy = Proxy::start(backend, &config("1.2"));
        let ca = files.path("ca.crt");
        let arguments = ["-CAfile", &ca, "-servername", "peer.example", "-tls1_2"];
        let text = s_client(proxy.address("web"), &arguments, REQUEST);
        assert!(text.contains("HTTP/1.1 200 OK") && text.contains("TLSv1.2"), "{text}");
        // Renegotiation, asked for by the letter R, is refused; nothing is lost of the proxy.
        let text = typed(proxy.address("web"), &arguments, &[b"R\n", REQUEST]);
        assert!(text.contains("RENEGOTIATING") && text.contains("no renegotiation"), "{text}");
        assert!(!text.contains("HTTP/1.1 200 OK"), "{text}");
        for version in ["-tls1", "-tls1_1"] {
            let old = [&arguments[..4], &[version, "-cipher", "ALL:@SECLEVEL=0"]].concat();
            let text = s_client(proxy.address("web"), &old, REQUEST);
            assert!(!text.contains("HTTP/1.1 200 OK"), "{version}: {text}");
        }
        proxy.reload(&config("1.3"));
        let text = s_client(proxy.address("web"), &arguments, REQUEST);
        assert!(!text.contains("HTTP/1.1 200 OK"), "{text}");
        assert_eq!(proxy.metric("ringway_panics_total"), 0.0);
    }

    fn early_data_is_refused_and_the_request_comes_after_the_handshake(backend: Backend) {
        let files = Files::new();
        files.member("web", WEB);
        files.member("shop", SHOP);
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &far_config(&files.identity("shop"), &origin, "strict"));
        let (crt, key, ca) = (files.path("web.crt"), files.path("web.key"), files.path("ca.crt"));
        let (session, early) = (files.path("session"), files.put("early", "GET /early HTTP/1.1\r\n"));
        let member = ["-CAfile", &ca, "-cert", &crt, "-key", &key];
        let first = s_client(proxy.address("web"), &[&member[..], &["-sess_out", &session]].concat(), REQUEST);
        assert!(first.contains("HTTP/1.1 200 OK"), "{first}");
        let again = [&member[..], &["-sess_in", &session, "-early_data", &early]].concat();
        let second = s_client(proxy.address("web"), &again, REQUEST);
        assert!(!second.contains("Early data was accepted"), "{second}");
        assert!(origin.heads().iter().all(|head| !head.contains("/early")));
    }

    fn a_connection_cut_in_the_middle_of_a_record_is_an_error_and_not_an_end(backend: Backend) {
        let files = Files::new();
        files.member("web", WEB);
        files.member("shop", SHOP);
        // Passes bytes on to the shop until so many have come back, and then ends both.
        let origin = Origin::http(|_, _| {
            let body = vec![b'x'; 200_000];
            [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), body].concat()
        });
        let far = Proxy::start(backend, &far_config(&files.identity("shop"), &origin, "strict"));
        let far_address = far.address("raw");
        let cutter = Origin::connections(move |down, _| {
            let up = TcpStream::connect(far_address).unwrap();
            let (mut from, mut to) = (down.try_clone().unwrap(), up.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let mut down_again = down;
            let mut limited = up.take(50_000);
            let _ = std::io::copy(&mut limited, &mut down_again);
            down_again.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let near = towards(backend, &files.identity("web"), cutter.address);
        let mut client = near.client("web");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut got = Vec::new();
        let end = client.stream.read_to_end(&mut got);
        let whole = got.ends_with(b"0\r\n\r\n");
        assert!(!whole, "a body that was cut does not look whole: {end:?}");
    }
}
