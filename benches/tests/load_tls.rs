//! The load over TLS: what was negotiated by the word of the other side, resumption, identities.

// The helpers below are part of the tests, but the lint does not see that.
#![allow(clippy::unwrap_used)]

mod peers;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use peers::{Peer, free_address, load, measured, report};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    NamedGroup, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;

const SHORT: [&str; 4] = ["-s", "1", "--warm-up", "0"];
const NAMED: [&str; 3] = ["--tls", "--sni", "a.test"];

/// A CA and what it signed: `ca.pem`, `a.test.pem` and `client.pem` with their keys.
fn certificates(folder: &Path, issuer: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, issuer);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
    for name in ["a.test", "client"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// nginx over TLS that does `what`, and the certificates it was given.
fn nginx(protocol: &str, what: &str) -> (Peer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), "CA");
    let server = "log_format tls '$ssl_session_reused $ssl_protocol $ssl_cipher $server_protocol';
        server { listen LISTEN ssl PROTOCOL; ssl_protocols TLSv1.2 TLSv1.3; access_log FILES/seen tls;
        ssl_certificate FILES/a.test.pem; ssl_certificate_key FILES/a.test.key; WHAT }";
    let server = server.replace("PROTOCOL", protocol).replace("WHAT", what);
    let copy = |to: &Path| {
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    (Peer::nginx(&server, copy), folder)
}

/// What nginx logged, which it does only after it has answered.
fn seen(nginx: &Peer, lines: usize) -> String {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = fs::read_to_string(nginx.folder().join("seen")).unwrap();
        if text.lines().count() >= lines || Instant::now() > deadline {
            return text;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The load with the CA of `folder`.
fn arguments(folder: &Path, more: &[&str]) -> Vec<String> {
    let ca = folder.join("ca.pem").to_str().unwrap().to_owned();
    let common = ["--rate", "200", "-c", "4"].iter().chain(&SHORT).chain(&NAMED).chain(more);
    common.map(ToString::to_string).chain(["--ca".to_owned(), ca]).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// OpenSSL as the server, which says what it negotiated. Its input is the answer.
#[test]
fn what_is_reported_is_what_openssl_negotiated() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), "CA");
    for (options, version, ours, theirs, group, groups) in [
        (
            &["--ciphers", "aes128", "--groups", "x25519"][..],
            "-tls1_3",
            "TLS13_AES_128_GCM_SHA256",
            "TLS_AES_128_GCM_SHA256",
            "X25519",
            "x25519",
        ),
        (
            &["--ciphers", "chacha20", "--groups", "p256,x25519"],
            "-tls1_3",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
            "secp256r1",
            "secp256r1:x25519",
        ),
        (
            &["--ciphers", "aes256"],
            "-tls1_2",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "X25519",
            "x25519:secp256r1:secp384r1",
        ),
    ] {
        let (found, said) = against_openssl(folder.path(), version, options);
        let handshake = &found["tls"][0];
        assert_eq!((&handshake["cipher"], &handshake["group"]), (&ours.into(), &group.into()));
        assert_eq!((&handshake["alpn"], &handshake["full"]), (&"http/1.1".into(), &1.into()));
        let protocol = if version == "-tls1_3" { "TLSv1_3" } else { "TLSv1_2" };
        assert_eq!(handshake["version"], protocol);
        assert!(said.contains(&format!("CIPHER is {theirs}\n")), "{said}");
        assert!(said.contains(&format!("Shared groups: {groups}\n")), "{said}");
        assert!(said.contains("ALPN protocols selected: http/1.1\n"), "{said}");
    }
}

/// OpenSSL 3.0 has no hybrid of ML-KEM, so the other side is rustls.
#[test]
fn a_hybrid_key_exchange_is_negotiated_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), "CA");
    let file = |name: &str| folder.path().join(name);
    let certificate = CertificateDer::from_pem_file(file("a.test.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("a.test.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, listener.accept().unwrap().0);
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        // The load says goodbye before it closes, or this were an error.
        assert_eq!(stream.read(&mut [0; 1024]).unwrap(), 0);
        stream.conn.negotiated_key_exchange_group().unwrap().name()
    });
    let ca = file("ca.pem").to_str().unwrap().to_owned();
    let once = ["--rate", "1", "-c", "1", "--groups", "x25519mlkem768", "--ca", &ca];
    let found = measured(address, &[&NAMED[..], &SHORT, &once].concat());
    assert_eq!(server.join().unwrap(), NamedGroup::X25519MLKEM768);
    assert_eq!(found["tls"][0]["group"], "X25519MLKEM768");
}

/// One request; the report of the load and the words of the server.
fn against_openssl(folder: &Path, version: &str, options: &[&str]) -> (Value, String) {
    let address = free_address();
    let mut server = Command::new("openssl")
        .args(["s_server", version, "-naccept", "1", "-alpn", "http/1.1", "-cert", "a.test.pem"])
        .args(["-key", "a.test.key", "-accept", &address.to_string()])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = server.stdin.take().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line == "ACCEPT"));
    let reading = std::thread::spawn(move || {
        let mut said = String::new();
        for line in lines {
            if line.starts_with("GET / HTTP/1.1") {
                input.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
            said.push_str(&line);
            said.push('\n');
        }
        said
    });
    let more = [options, &["--rate", "1", "-c", "1"]].concat();
    let ca = folder.join("ca.pem");
    let common = [&NAMED[..], &SHORT, &["--ca", ca.to_str().unwrap()], &more].concat();
    let found = measured(address, &common);
    let said = reading.join().unwrap();
    server.wait().unwrap();
    (found, said)
}

#[test]
fn handshakes_are_resumed_only_if_asked_and_counted_as_the_server_counts_them() {
    for resumes in [false, true] {
        let (nginx, folder) = nginx("", "return 200 ok;");
        let more: &[&str] = if resumes { &["--resumption"] } else { &[] };
        let more = [&["--requests-per-connection", "1"], more].concat();
        let found = measured(nginx.address, &words(&arguments(folder.path(), &more)));
        let handshake = &found["tls"][0];
        let (full, resumed) = (handshake["full"].as_u64(), handshake["resumed"].as_u64());
        let (full, resumed) = (full.unwrap(), resumed.unwrap());
        assert_eq!(full + resumed, 200, "{found}");
        assert_eq!(resumed > 100, resumes, "{found}");
        let seen = seen(&nginx, 200);
        let reused = seen.lines().filter(|line| line.starts_with("r TLSv1.3 ")).count() as u64;
        assert_eq!((seen.lines().count(), reused), (200, resumed), "{seen}");
    }
}

#[test]
fn of_many_connections_at_once_all_but_the_first_are_resumed() {
    let (nginx, folder) = nginx("", "return 200 ok;");
    let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let more = ["--closed", "-c", "24", "--requests-per-connection", "1", "--resumption"];
    let arguments = [&more[..], &SHORT, &NAMED, &["--ca", &ca]].concat();
    let found = report(&load(nginx.address, &arguments));
    let handshake = &found["tls"][0];
    assert!(handshake["full"].as_u64().unwrap() <= 24, "{handshake}");
    assert!(handshake["resumed"].as_u64().unwrap() > 100, "{handshake}");
}

#[test]
fn http2_and_grpc_go_over_tls_by_alpn() {
    let (nginx, folder) = nginx("http2", "return 200 ok;");
    let more = ["--http2", "--streams", "8", "--ciphers", "aes256"];
    let found = measured(nginx.address, &words(&arguments(folder.path(), &more)));
    let expected = serde_json::json!([{
        "version": "TLSv1_3", "cipher": "TLS13_AES_256_GCM_SHA384", "group": "X25519",
        "alpn": "h2", "full": 4, "resumed": 0,
    }]);
    assert_eq!((&found["tls"], &found["answered"]), (&expected, &200.into()));
    let seen = seen(&nginx, 200);
    let line = ". TLSv1.3 TLS_AES_256_GCM_SHA384 HTTP/2.0";
    assert_eq!(seen.lines().filter(|seen| *seen == line).count(), 200, "{seen}");
    let origin = Peer::origin(&[]);
    let passes = format!("location / {{ grpc_pass grpc://{}; }}", origin.address);
    let (nginx, folder) = self::nginx("http2", &passes);
    let call = ["--grpc", "/a.B/Echo", "--body-bytes", "100", "--streams", "8"];
    let found = measured(nginx.address, &words(&arguments(folder.path(), &call)));
    assert_eq!((&found["tls"][0]["alpn"], &found["answered"]), (&"h2".into(), &200.into()));
}

/// Large bodies in both directions, sealed records cut anywhere.
#[test]
fn bodies_of_any_size_pass() {
    let origin = Peer::origin(&[]);
    let passes = format!(
        "client_max_body_size 9m;
         location / {{ proxy_pass http://{}; proxy_buffering off; }}",
        origin.address
    );
    for (protocol, way) in [("", &[][..]), ("http2", &["--http2"])] {
        let (nginx, folder) = nginx(protocol, &passes);
        let sizes =
            [&["--path", "/bytes/3000000"][..], &["--path", "/upload", "--body-bytes", "3000000"]];
        for request in sizes {
            let slow = ["--rate", "20", "-c", "4"];
            let ca = folder.path().join("ca.pem");
            let trust = ["--ca", ca.to_str().unwrap()];
            let found = [&slow, request, way, &NAMED, &SHORT, &trust].concat();
            let found = measured(nginx.address, &found);
            assert_eq!(found["answered"], 20, "{found}");
        }
    }
}

#[test]
fn a_target_that_asks_for_a_certificate_gets_it() {
    let (nginx, folder) =
        nginx("", "ssl_client_certificate FILES/ca.pem; ssl_verify_client on; return 200 ok;");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("client.pem"), file("client.key"));
    let more = ["--cert", &certificate, "--key", &key];
    let found = measured(nginx.address, &words(&arguments(folder.path(), &more)));
    assert_eq!(found["answered"], 200);
    let output = load(nginx.address, &words(&arguments(folder.path(), &[])));
    let errors = &report(&output)["errors"];
    assert!(errors["status 400"].as_u64().is_some_and(|count| count > 0), "{errors}");
}

#[test]
fn a_failed_handshake_is_told_in_words() {
    let (nginx, folder) = nginx("", "return 200 ok;");
    let other = tempfile::tempdir().unwrap();
    certificates(other.path(), "another");
    let each = ["--requests-per-connection", "1"];
    let with = |more: &[&'static str]| [&each[..], more].concat();
    for (ca, more, kind) in [
        (other.path(), with(&[]), "TLS: invalid peer certificate: UnknownIssuer"),
        (folder.path(), with(&["--http2"]), "TLS: received fatal alert: NoApplicationProtocol"),
        (
            folder.path(),
            with(&["--groups", "x25519mlkem768"]),
            "TLS: received fatal alert: HandshakeFailure",
        ),
    ] {
        let output = load(nginx.address, &words(&arguments(ca, &more)));
        assert_eq!(report(&output)["errors"][kind], 200, "{}", report(&output));
    }
    // The same before the load begins.
    let output = load(nginx.address, &words(&arguments(folder.path(), &["--http2"])));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("NoApplicationProtocol"));
    // Whom to believe is said, never assumed.
    let output = load(nginx.address, &["--rate", "1", "--tls"]);
    assert_eq!(output.status.code(), Some(64));
    measured(nginx.address, &[&["--rate", "50", "--tls", "--insecure"], &SHORT[..]].concat());
}
