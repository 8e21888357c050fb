//! HTTP/2 with programs of others on either side: nghttp2's, nginx, HAProxy and Envoy.

use std::path::Path;
use std::process::Command;

use http::HeaderMap;

use super::support::h2::{H2Client, request};
use super::support::h2_origin::{H2Origin, answer};
use super::support::origin::{pattern, unchunked};
use super::support::peers::{Files, Program, tools};
use super::support::proxy::both_versions;
use super::support::{Backend, Origin, Proxy, free_address};

/// A proxy for clients of either version with a cluster of HTTP/2 at `address`.
fn towards(backend: Backend, address: std::net::SocketAddr, cluster: &str) -> Proxy {
    Proxy::start(backend, &both_versions(address, &format!("protocol: http2, {cluster}")))
}

/// A proxy whose HTTP/2 listener leads to an origin that answers with what it is sent.
fn behind(backend: Backend) -> (Origin, Proxy) {
    let origin = Origin::http(|head, body| {
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = match head.starts_with("GET ") {
            true => pattern(1 << 20),
            false if is_chunked => unchunked(body),
            false => body.to_vec(),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Origin: 1\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    });
    let proxy = Proxy::start(
        backend,
        &format!(
            "listeners:\n- {{name: two, address: '127.0.0.1:0', protocol: http2}}\n\
             routes:\n- {{name: all, rules: [{{backends: [{{cluster: far}}]}}]}}\n\
             clusters:\n- {{name: far, endpoints: [{{address: '{}'}}]}}\n",
            origin.address
        ),
    );
    (origin, proxy)
}

/// What curl gets from `url`: whether it went well, and the body.
fn curl(arguments: &[&str], url: &str) -> Vec<u8> {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "20"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url} {arguments:?}: {error}");
    output.stdout
}

/// Gets and sends 1 MiB over both versions, to a server that has it as `/big` and echoes what is
/// posted to it, if it does that.
fn both_ways(proxy: &Proxy, folder: &Path, echoes: bool) {
    let file = folder.join("sent");
    std::fs::write(&file, pattern(1 << 20)).unwrap();
    let data = format!("@{}", file.display());
    for (listener, version) in [("one", "--http1.1"), ("two", "--http2-prior-knowledge")] {
        let url = format!("http://{}/big", proxy.address(listener));
        assert!(curl(&[version], &url) == pattern(1 << 20), "{listener}: down");
        let head = String::from_utf8(curl(&[version, "-I"], &url)).unwrap();
        assert!(head.contains(" 200"), "{listener}: {head}");
        if echoes {
            let sent = curl(&[version, "--data-binary", &data], &url);
            assert!(sent == pattern(1 << 20), "{listener}: up, {} bytes", sent.len());
        }
    }
    assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
}

/// Envoy between its port and `upstream`, HTTP/2 on both sides.
fn start_envoy(folder: &Path, upstream: std::net::SocketAddr) -> Program {
    let address = free_address();
    let socket = |address: std::net::SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    let (here, there) = (socket(address), socket(upstream));
    let extensions = "type.googleapis.com/envoy.extensions";
    let config = format!(
        "static_resources:\n  \
         listeners:\n  - name: http\n    address: {here}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": {extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: http\n          codec_type: HTTP2\n          route_config:\n            \
         virtual_hosts:\n            - {{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, \
         route: {{cluster: far}}}}]}}\n          http_filters:\n          \
         - name: envoy.filters.http.router\n            typed_config: {{\"@type\": \
         {extensions}.filters.http.router.v3.Router}}\n  \
         clusters:\n  - name: far\n    type: STATIC\n    connect_timeout: 5s\n    \
         typed_extension_protocol_options:\n      \
         envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
         \"@type\": {extensions}.upstreams.http.v3.HttpProtocolOptions\n        \
         explicit_http_config: {{http2_protocol_options: {{}}}}\n    load_assignment:\n      \
         cluster_name: far\n      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {there}}}}}]}}]\n"
    );
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(tools().join("bin/envoy"));
    command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c"]).arg(file);
    Program::start(address, &mut command)
}

/// HAProxy between its port and `upstream`, HTTP/2 on both sides.
fn haproxy_to(upstream: std::net::SocketAddr) -> String {
    format!(
        "frontend in\n  bind LISTEN proto h2\n  default_backend far\n\
         backend far\n  server far {upstream} proto h2\n"
    )
}

/// Sends bodies of up to 4 MiB with trailers through a proxy, another program, and a proxy, to an
/// origin that answers with both. Every connection on the way is one of HTTP/2.
fn cross(backend: Backend, start: impl FnOnce(std::net::SocketAddr) -> Program) {
    let origin = H2Origin::http(h2::server::Builder::new(), |(request, respond), desk| {
        Box::pin(async move {
            let Some(got) = desk.receive(request).await else { return };
            answer(respond, 200, HeaderMap::new(), got.body.into(), Some(got.trailers)).await;
        })
    });
    let far = towards(backend, origin.address, "");
    let middle = start(far.address("two"));
    let near = towards(backend, middle.address, "");
    let mut client = H2Client::connect(near.address("two"));
    for length in [1, 16_384, 65_536, 1 << 20, 4 << 20] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", length.into());
        let body = pattern(length);
        let answer =
            client.ask_with(request("POST", "/big"), Some(&body), Some(trailers.clone())).unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, length));
        assert!(answer.body == body, "{length} bytes");
        assert_eq!(answer.trailers, Some(trailers), "after {length} bytes");
    }
    assert_eq!(origin.arrived().len(), 5, "each came once");
    for proxy in [near, far] {
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }
}

on_both_backends! {
    fn nghttpd_is_an_endpoint(backend: Backend) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("big"), pattern(1 << 20)).unwrap();
        let address = free_address();
        let mut command = Command::new("nghttpd");
        command
            .args(["--no-tls", "-a", "127.0.0.1", "--echo-upload", "--trailer", "x-sum: 7", "-d"])
            .arg(folder.path())
            .arg(address.port().to_string());
        let server = Program::start(address, &mut command);
        let proxy = towards(backend, server.address, "");
        both_ways(&proxy, folder.path(), true);
        let url = format!("http://{}/big", proxy.address("two"));
        let output = Command::new("nghttp").args(["-v", "--null-out", &url]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("x-sum: 7"), "trailers: {text}");
        let mut old = proxy.client("one");
        old.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n");
        let answer = old.response();
        assert!(answer.body == pattern(1 << 20), "{} bytes", answer.body.len());
        // The length that the server announces leaves no place for trailers in HTTP/1.1; the
        // connection goes on after the body.
        assert_eq!(answer.header("content-length"), Some("1048576"));
        assert!(old.get("/big").body == pattern(1 << 20), "the next one");
        let output = Command::new("h2load")
            .args(["-n", "2000", "-c", "4", "-m", "20", &url])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("2000 succeeded, 0 failed"), "{text}");
    }

    fn nginx_is_an_endpoint_by_alpn(backend: Backend) {
        let (origin, _far) = behind(backend);
        let files = Files::new();
        files.member("peer", "spiffe://mesh/peer");
        let server = files.nginx(&format!(
            "client_max_body_size 8m; server {{ listen LISTEN ssl http2;\n\
             ssl_certificate FILES/peer.crt; ssl_certificate_key FILES/peer.key;\n\
             add_header x-spoken $server_protocol/$ssl_server_name;\n\
             location / {{ proxy_pass http://{}; }} }}",
            origin.address
        ));
        let tls = format!(
            "tls: {{server_name: peer.example, trust_bundle: '{}'}}",
            files.path("ca.crt")
        );
        let proxy = towards(backend, server.address, &tls);
        both_ways(&proxy, files.folder.path(), true);
        for listener in ["one", "two"] {
            let version = if listener == "one" { "--http1.1" } else { "--http2-prior-knowledge" };
            let url = format!("http://{}/big", proxy.address(listener));
            let head = String::from_utf8(curl(&[version, "-I"], &url)).unwrap();
            let spoken = head.lines().find_map(|line| line.strip_prefix("x-spoken: "));
            assert_eq!(spoken, Some("HTTP/2.0/peer.example"), "{listener}: {head}");
        }
    }

    fn nginx_is_a_client_by_grpc_pass(backend: Backend) {
        let (_origin, proxy) = behind(backend);
        let files = Files::new();
        let server = files.nginx(&format!(
            "client_max_body_size 8m; server {{ listen LISTEN; \
             location / {{ grpc_pass grpc://{}; }} }}",
            proxy.address("two")
        ));
        let url = format!("http://{}/big", server.address);
        assert!(curl(&["--http1.1"], &url) == pattern(1 << 20));
        let file = files.folder.path().join("sent");
        std::fs::write(&file, pattern(4 << 20)).unwrap();
        let data = format!("@{}", file.display());
        let sent = curl(&["--http1.1", "-H", "Expect:", "--data-binary", &data], &url);
        assert!(sent == pattern(4 << 20), "{} bytes", sent.len());
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn members_are_known_by_their_certificates_and_nobody_else_is_served(backend: Backend) {
        let origin = Origin::echo();
        let files = Files::new();
        files.member("own", "spiffe://mesh/own");
        files.member("web", "spiffe://mesh/web");
        let config = |mtls: &str| {
            format!(
                "{}listeners:\n\
                 - {{name: two, address: '127.0.0.1:0', protocol: http2, mtls: {mtls}}}\n\
                 routes:\n- {{name: all, rules: [{{backends: [{{cluster: far}}]}}]}}\n\
                 clusters:\n- {{name: far, endpoints: [{{address: '{}'}}]}}\n",
                files.identity("own"),
                origin.address
            )
        };
        let proxy = Proxy::start(backend, &config("permissive"));
        let address = proxy.address("two");
        let resolve = format!("peer.example:{}:127.0.0.1", address.port());
        let (ca, certificate, key) =
            (files.path("ca.crt"), files.path("web.crt"), files.path("web.key"));
        let url = format!("https://peer.example:{}/", address.port());
        let stranger = ["--http2", "--resolve", &resolve, "--cacert", &ca];
        let member = [&stranger[..], &["--cert", &certificate, "--key", &key]].concat();
        let forged = "X-Forwarded-Client-Cert: URI=spiffe://mesh/forged";
        let seen = curl(&[&member[..], &["-H", forged]].concat(), &url);
        let seen = String::from_utf8(seen).unwrap().to_lowercase();
        assert!(seen.contains("uri=spiffe://mesh/web"), "{seen}");
        assert!(!seen.contains("forged"), "{seen}");

        // Who came in before the listener became strict is refused from then on.
        let mut plain = H2Client::connect(address);
        assert_eq!(plain.ask(request("GET", "/"), None).unwrap().status, 200);
        proxy.reload(&config("strict"));
        let served = origin.heads().len();
        let refused = plain.ask(request("GET", "/"), None);
        let cause = refused.ok().and_then(|answer| answer.field("ringway-cause").map(str::to_owned));
        assert_eq!(cause.as_deref(), Some("client_plaintext"));
        let output = Command::new("curl").args(stranger).arg("-sS").arg(&url).output().unwrap();
        assert!(!output.status.success(), "a client without a certificate");
        assert!(output.stdout.is_empty(), "and nothing is said to it");
        assert_eq!(origin.heads().len(), served, "neither came to the endpoint");
        let version = ["-o", "/dev/null", "-w", "%{http_version}"];
        assert_eq!(curl(&[&member[..], &version].concat(), &url), b"2");
    }

    fn haproxy_speaks_it_on_either_side(backend: Backend) {
        let (_origin, far) = behind(backend);
        let files = Files::new();
        let middle = files.haproxy(&haproxy_to(far.address("two")));
        let near = towards(backend, middle.address, "");
        both_ways(&near, files.folder.path(), true);
        assert_eq!(far.metric("ringway_failures_total"), 0.0);
    }

    fn long_bodies_and_trailers_cross_haproxy(backend: Backend) {
        let files = Files::new();
        cross(backend, |far| files.haproxy(&haproxy_to(far)));
    }

    fn envoy_speaks_it_on_either_side(backend: Backend) {
        let (_origin, far) = behind(backend);
        let folder = tempfile::tempdir().unwrap();
        let middle = start_envoy(folder.path(), far.address("two"));
        let near = towards(backend, middle.address, "");
        both_ways(&near, folder.path(), true);
        assert_eq!(far.metric("ringway_failures_total"), 0.0);
    }

    fn long_bodies_and_trailers_cross_envoy(backend: Backend) {
        let folder = tempfile::tempdir().unwrap();
        cross(backend, |far| start_envoy(folder.path(), far));
    }
}
