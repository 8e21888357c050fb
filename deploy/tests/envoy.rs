//! Envoy as a second opinion: a sidecar and an Envoy, each on what `compile` writes for the same
//! workload, are sent the same requests; answers and what origins see are compared.
//!
//! # Invariants
//! - A difference is one of those in [`legal`], with its reason, or fails the test.
//! - Without Envoy the tests fail: nothing is skipped.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use ringway_router::{PathError, normalise_path};

#[path = "envoy/mutual.rs"]
mod mutual;
#[path = "envoy/requests.rs"]
mod requests;
#[path = "envoy/side.rs"]
mod side;

use requests::{Draw, Outcome, Request};
use side::{Origins, Proxy, Running, exchange, free_port};

const RINGWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ENVOY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Requests that are generated.
const REQUESTS: usize = 1500;

/// Writes the file of every workload of `mesh` for `proxy` to `folder`.
fn compile(mesh: &str, proxy: Proxy, folder: &Path, admin: SocketAddr) {
    let dir = folder.join("mesh.d");
    fs::create_dir_all(&dir).expect("a folder");
    fs::write(dir.join("mesh.yaml"), mesh).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-push"));
    command.arg("compile").arg("--dir").arg(&dir).arg("-o").arg(folder);
    command.arg("--certificates").arg(folder.join("../certs"));
    if proxy == Proxy::Envoy {
        command.args(["--format", "envoy", "--admin", &admin.to_string()]);
    }
    let ended = command.output().expect("it runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    for name in ["web", "shop"] {
        let file = folder.join(format!("{name}.json"));
        let Ok(text) = fs::read_to_string(&file) else { continue };
        // Several run on one host.
        let mut sidecar: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        sidecar["admin"] = "127.0.0.1:0".into();
        fs::write(&file, sidecar.to_string()).expect("written");
    }
}

/// Certificates of `workloads`, as `compile --certificates` finds them.
fn certificates(folder: &Path, workloads: &[&str]) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().expect("a key");
    let root = params.self_signed(&key).expect("a root").pem();
    let issuer = rcgen::Issuer::new(params, key);
    for workload in workloads {
        let mut params = rcgen::CertificateParams::default();
        let id = format!("spiffe://cluster.local/ns/default/sa/{workload}");
        let id = id.as_str().try_into().expect("an identity");
        params.subject_alt_names = vec![rcgen::SanType::URI(id)];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &issuer).expect("a leaf").pem();
        let folder = folder.join("certs").join(workload);
        fs::create_dir_all(&folder).expect("a folder");
        let files = [("tls.crt", leaf), ("tls.key", key.serialize_pem()), ("ca.crt", root.clone())];
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("written");
        }
    }
}

/// A sidecar and an Envoy of the workload `web` of `mesh.yaml`.
struct Pair {
    origins: Origins,
    port: u16,
    _running: [Running; 2],
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start() -> Pair {
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path(), &["web"]);
        let origins = Origins::default();
        let (main, alt) = (origins.start("main"), origins.start("alt"));
        let port = free_port(&[RINGWAY.into(), ENVOY.into()]);
        let start = |proxy: Proxy, ip: Ipv4Addr| {
            let mesh = include_str!("envoy/mesh.yaml")
                .replace("ADDRESS:PORT", &format!("{ip}:{port}"))
                .replace("\"MAIN\"", &format!("\"{main}\""))
                .replace("\"ALT\"", &format!("\"{alt}\""));
            let folder = folder.path().join(format!("{proxy:?}"));
            compile(&mesh, proxy, &folder, (ENVOY, free_port(&[ENVOY.into()])).into());
            proxy.start(&folder, "web", (ip, port).into())
        };
        let running = [start(Proxy::Ringway, RINGWAY), start(Proxy::Envoy, ENVOY)];
        Pair { origins, port, _running: running, _folder: folder }
    }

    /// What comes of a request that is sent through `proxy`; `None` if nothing does.
    fn ask(&self, proxy: Proxy, name: &str, bytes: impl Fn(&str) -> Vec<u8>) -> Option<Outcome> {
        let test = format!("{proxy:?}-{name}");
        let ip = match proxy {
            Proxy::Ringway => RINGWAY,
            Proxy::Envoy => ENVOY,
        };
        let answer = exchange((IpAddr::from(ip), self.port).into(), &bytes(&test))?;
        Some(Outcome::of(&answer, self.origins.seen(&test)))
    }

    fn both(&self, name: &str, bytes: impl Fn(&str) -> Vec<u8>) -> [Option<Outcome>; 2] {
        [Proxy::Ringway, Proxy::Envoy].map(|proxy| self.ask(proxy, name, &bytes))
    }
}

/// Why a sidecar and an Envoy may differ on a request.
fn legal(request: &Request, ringway: &Outcome, envoy: &Outcome) -> Option<&'static str> {
    let normal = normalise_path(request.path.as_bytes(), &mut Vec::new());
    if normal == Err(PathError::AboveRoot) && ringway.status == 400 {
        return Some("for Envoy the root is above the root (RFC 3986 section 5.2.4 has it so)");
    }
    if *ringway == envoy.with_upper_case_escapes() {
        return Some("Envoy leaves the digits of an escape as they came");
    }
    None
}

#[test]
fn generated_requests_have_the_same_outcome() {
    let pair = Pair::start();
    let mut draw = Draw(6);
    let (mut differ, mut equal, mut rules) = (Vec::new(), 0, BTreeSet::new());
    for nth in 0..REQUESTS {
        let request = draw.request();
        let [ringway, envoy] = pair.both(&nth.to_string(), |test| request.bytes(test));
        let (Some(ringway), Some(envoy)) = (&ringway, &envoy) else {
            panic!("no answer to {request:?}: {ringway:?}, {envoy:?}");
        };
        rules.extend(ringway.rule());
        if ringway == envoy {
            equal += 1;
        } else if legal(&request, ringway, envoy).is_none() {
            differ.push(format!("{request:?}\n  ringway: {ringway:?}\n  envoy:   {envoy:?}"));
        }
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    assert!(equal > REQUESTS * 9 / 10, "only {equal} of {REQUESTS} are equal");
    assert!(rules.len() >= 18, "every rule was wanted by some request: {rules:?}");
}

/// What requests a sidecar refuses, and what Envoy does with them.
#[test]
fn paths_without_a_normal_form_are_refused_here_and_some_taken_by_envoy() {
    let pair = Pair::start();
    let expected = [
        // Origins read these in different ways; Envoy passes them on.
        ("/a%", 400, 200),
        ("/a%zz", 400, 200),
        ("/a\\b", 400, 200),
        ("/../p", 400, 200),
        ("/a%00", 400, 400),
        ("/a#b", 400, 400),
        ("/p\u{e9}", 400, 400),
        ("/a\u{7f}", 400, 400),
    ];
    let statuses = expected.map(|(path, _, _)| {
        let request = |test: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: a.deep.example\r\nX-Test: {test}\r\n\
                 Connection: close\r\n\r\n"
            )
            .into_bytes()
        };
        let [ringway, envoy] = pair.both(path, request);
        let status = |outcome: Option<Outcome>| outcome.map_or(0, |outcome| outcome.status);
        (path, status(ringway), status(envoy))
    });
    assert_eq!(statuses, expected);
}

#[test]
fn a_slow_origin_is_given_up_with_504_and_a_dead_one_with_503() {
    let pair = Pair::start();
    let request = |path: &'static str| {
        move |test: &str| {
            let head = "Host: main.example\r\nConnection: close\r\n";
            format!("GET {path} HTTP/1.1\r\n{head}X-Test: {test}\r\n\r\n").into_bytes()
        }
    };
    for (path, status) in [("/slow", 504), ("/gone", 503)] {
        for outcome in pair.both(path, request(path)) {
            assert_eq!(outcome.map(|outcome| outcome.status), Some(status), "{path}");
        }
    }
}
