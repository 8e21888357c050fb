//! Certificates, roots and revocations that change while the proxy runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mutual_tls::{Mesh, SHOP, WEB, far_config, near_config};
use crate::support::pki::{Authority, Wanted};
use crate::support::tls::{self, TlsClient};
use crate::support::{Backend, Origin, Proxy, eventually};

/// How long rotations go on under load; `make soak` asks for ten minutes.
fn duration() -> Duration {
    let seconds = std::env::var("RINGWAY_ROTATION_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(6))
}

fn taken(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_certificates_taken_total")
}

/// Requests through `near` until told to stop: on a connection that is kept, and each on a new one.
fn load(near: &Proxy, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<(u64, Vec<String>)>> {
    let address = near.address("web");
    let spawn = |kept: bool| {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            let (mut done, mut failed) = (0, Vec::new());
            let mut client = crate::support::Client::connect(address);
            while !stop.load(Ordering::Relaxed) {
                if !kept {
                    client = crate::support::Client::connect(address);
                }
                let response = client.get("/");
                done += 1;
                if response.status != 200 {
                    failed.push(response.text());
                }
            }
            (done, failed)
        })
    };
    vec![spawn(true), spawn(false), spawn(false)]
}

on_both_backends! {
    fn leaves_and_roots_rotate_under_load_without_a_failed_request(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let stop = Arc::new(AtomicBool::new(false));
        let clients = load(&mesh.near, &stop);
        let rotations = AtomicU64::new(0);
        let end = Instant::now() + duration();
        let mut authority = &mesh.authority;
        let next = Authority::new("mesh of tomorrow");
        let settle = |before: f64, proxy: &Proxy| {
            eventually("the files are taken", || taken(proxy) > before);
        };
        let mut round = 0;
        while Instant::now() < end || round < 6 {
            match round % 6 {
                // Both roots are trusted by both before either leaf is of the new one.
                3 => {
                    let mut both = [&*mesh.authority.pem, &*next.pem];
                    if round % 12 > 6 {
                        both.reverse();
                    }
                    let both = both.concat();
                    for (identity, proxy) in [(&mesh.web, &mesh.near), (&mesh.shop, &mesh.far)] {
                        let before = taken(proxy);
                        identity.replace("ca.crt", &both);
                        settle(before, proxy);
                    }
                    let old = std::ptr::eq(authority, &mesh.authority);
                    authority = if old { &next } else { &mesh.authority };
                }
                _ => {
                    let pairs = [(&mesh.web, WEB, &mesh.near), (&mesh.shop, SHOP, &mesh.far)];
                    for (identity, id, proxy) in pairs {
                        let before = taken(proxy);
                        identity.rotate(&authority.member(id));
                        settle(before, proxy);
                    }
                }
            }
            rotations.fetch_add(1, Ordering::Relaxed);
            round += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        for client in clients {
            let (done, failed) = client.join().unwrap();
            assert!(failed.is_empty(), "{} of {done} failed: {}", failed.len(), failed[0]);
            total += done;
        }
        assert!(total > 100, "only {total} requests");
        assert_eq!(mesh.near.metric("ringway_tls_connections_cut_total"), 0.0);
        assert_eq!(mesh.far.metric("ringway_tls_connections_cut_total"), 0.0);
    }

    fn a_root_that_is_trusted_no_more_takes_its_connections_along(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let mut client = mesh.near.client("web");
        assert_eq!(client.get("/").status, 200);
        let other = Authority::new("another mesh");
        let before = taken(&mesh.far);
        mesh.shop.replace("ca.crt", &format!("{}{}", mesh.authority.pem, other.pem));
        eventually("both roots are taken", || taken(&mesh.far) > before);
        assert_eq!(mesh.far.metric("ringway_tls_connections_cut_total"), 0.0);
        let before = taken(&mesh.far);
        mesh.shop.rotate(&other.member(SHOP));
        mesh.shop.replace("ca.crt", &other.pem);
        eventually("the first root is gone", || {
            taken(&mesh.far) > before
                && mesh.far.metric("ringway_tls_connections_cut_total") >= 1.0
        });
        let refused = client.get("/");
        assert_eq!(refused.status, 503, "{}", refused.text());
    }

    fn a_pair_that_does_not_fit_changes_nothing_and_is_named(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let generation = mesh.far.metric("ringway_certificates_generation");
        mesh.shop.replace("tls.key", &mesh.authority.member(SHOP).key);
        eventually("it is refused", || {
            mesh.far.metric("ringway_certificates_refused_total") >= 1.0
        });
        let (status, ready) = mesh.far.admin("/ready");
        assert_eq!(status, 200, "the old pair serves");
        assert!(ready.contains("tls.key"), "{ready}");
        assert_eq!(mesh.far.metric("ringway_certificates_valid"), 0.0);
        assert_eq!(mesh.near.client("web").get("/").status, 200);
        mesh.shop.rotate(&mesh.authority.member(SHOP));
        eventually("the next pair is taken", || {
            mesh.far.metric("ringway_certificates_valid") >= 1.0
        });
        assert!(mesh.far.metric("ringway_certificates_generation") > generation);
    }

    fn files_that_cannot_be_used_change_nothing(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let stranger = Authority::new("stranger");
        let issue = |uris: &[&str], valid| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            mesh.authority.issue(&Wanted { uris, dns: Vec::new(), valid })
        };
        let whole = mesh.authority.member(SHOP);
        let mut half = whole.clone();
        half.certificate.truncate(half.certificate.len() / 2);
        let mut empty = whole.clone();
        empty.certificate.clear();
        let cases = [
            ("expired", issue(&[SHOP], (-7200, -3600))),
            ("not valid", issue(&[SHOP], (3600, 7200))),
            ("root", stranger.member(SHOP)),
            ("SPIFFE", issue(&[], (-3600, 3600))),
            ("SPIFFE", issue(&[SHOP, WEB], (-3600, 3600))),
            ("PEM", half),
            ("certificate", empty),
        ];
        for (word, issued) in cases {
            let refused = mesh.far.metric("ringway_certificates_refused_total");
            mesh.shop.rotate(&issued);
            eventually(word, || {
                mesh.far.metric("ringway_certificates_refused_total") > refused
                    && mesh.far.admin("/ready").1.contains(word)
            });
            assert_eq!(mesh.near.client("web").get("/").status, 200, "{word}");
        }
    }

    fn a_file_that_is_refused_leaves_the_certificates_of_the_running_one_alone(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let rejected = mesh.far.metric("ringway_config_rejected_total");
        let missing = mesh.shop.config().replace("tls.crt", "missing.crt");
        mesh.far.write_config(&far_config(&missing, &mesh.origin, "strict"));
        eventually("it is rejected", || {
            mesh.far.metric("ringway_config_rejected_total") > rejected
                && mesh.far.admin("/ready").1.contains("missing.crt")
        });
        assert_eq!(mesh.far.metric("ringway_certificates_valid"), 1.0, "those in use are");
        let before = taken(&mesh.far);
        mesh.shop.rotate(&mesh.authority.member(SHOP));
        eventually("the running one is rotated", || taken(&mesh.far) > before);
        assert_eq!(mesh.near.client("web").get("/").status, 200);
    }

    fn a_handshake_that_began_under_another_bundle_is_judged_by_the_new_one(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let config = Arc::new(tls::mesh_config(&mesh.authority.pem, &mesh.web_leaf));
        let name = rustls::pki_types::ServerName::try_from("test").unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut tcp = std::net::TcpStream::connect(mesh.far.address("web")).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        while client.wants_write() {
            client.write_tls(&mut tcp).unwrap();
        }
        // The server has answered under the first bundle; the certificate is still to come.
        while client.is_handshaking() && !client.wants_write() {
            client.read_tls(&mut tcp).unwrap();
            client.process_new_packets().unwrap();
        }
        let other = Authority::new("another mesh");
        let before = taken(&mesh.far);
        mesh.shop.rotate(&other.member(SHOP));
        mesh.shop.replace("ca.crt", &other.pem);
        eventually("the bundle is taken", || taken(&mesh.far) > before);
        let mut stream = rustls::StreamOwned::new(client, tcp);
        let asked = std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = [0; 12];
        let answered = asked.and_then(|()| std::io::Read::read_exact(&mut stream, &mut answer));
        assert!(answered.is_err(), "{answer:?}");
        assert!(mesh.origin.heads().is_empty());
    }

    fn a_revoked_client_is_cut_and_comes_in_no_more(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        mesh.shop.replace("ca.crl", &mesh.authority.revoke(1, &[]));
        mesh.far.reload(&far_config(&mesh.shop.config_with_revocations(), &mesh.origin, "strict"));
        let mut client = mesh.near.client("web");
        assert_eq!(client.get("/").status, 200);
        // One more that rests: it has been silent for more than a second.
        let mut resting = mesh.near.client("raw");
        resting.send("GET /raw HTTP/1.1\r\nHost: a\r\n\r\n");
        resting.response();
        mesh.shop.replace("ca.crl", &mesh.authority.revoke(2, &[&mesh.web_leaf.serial]));
        eventually("the connections are cut", || {
            mesh.far.metric("ringway_tls_connections_cut_total") >= 2.0
        });
        let refused = client.get("/");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("revoked"), "{}", refused.text());
        // A new certificate of the same client is as good as before.
        let before = taken(&mesh.near);
        mesh.web.rotate(&mesh.authority.member(WEB));
        eventually("it is taken", || taken(&mesh.near) > before);
        assert_eq!(mesh.near.client("web").get("/").status, 200);
    }

    fn a_connection_of_a_removed_listener_believes_the_newest_roots(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let both = near_config(&mesh.web.config(), &mesh.far, SHOP)
            .replace("- {name: raw, address", "- {name: old, address: '127.0.0.1:0'}\n- {name: raw, address");
        let near = Proxy::start(backend, &both);
        let mut kept = near.client("old");
        assert_eq!(kept.get("/").status, 200);
        near.reload(&near_config(&mesh.web.config(), &mesh.far, SHOP));
        assert_eq!(kept.get("/").status, 200, "what was connected is served on");
        let before = taken(&near);
        let other = Authority::new("another mesh");
        let pair = other.member(WEB);
        mesh.web.replace("ca.crt", &other.pem);
        mesh.web.rotate(&pair);
        eventually("the files are taken", || taken(&near) > before);
        for _ in 0..3 {
            let refused = kept.get("/");
            assert_eq!(refused.status, 503, "{}", refused.text());
            assert_eq!(refused.header("ringway-cause"), Some("upstream_tls"));
        }
    }

    fn a_pooled_connection_is_of_no_use_when_somebody_else_is_expected(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let mut client = mesh.near.client("web");
        assert_eq!(client.get("/").status, 200);
        let other = "spiffe://cluster.local/ns/default/sa/other";
        mesh.near.reload(&near_config(&mesh.web.config(), &mesh.far, other));
        let refused = client.get("/");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains(other), "{}", refused.text());
        mesh.near.reload(&near_config(&mesh.web.config(), &mesh.far, SHOP));
        assert_eq!(client.get("/").status, 200);
    }

    fn an_identity_that_goes_and_comes_back_with_other_roots_is_another(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let config = |identity: &str| far_config(identity, &mesh.origin, "strict");
        let first = tls::mesh_config(&mesh.authority.pem, &mesh.web_leaf);
        let mut kept = TlsClient::connect(mesh.far.address("web"), "test", first.clone()).unwrap();
        assert_eq!(kept.get("/").unwrap().0, 200);
        // Without an identity there is nothing to be strict about.
        mesh.far.reload(&config("").replace(", mtls: strict", ""));
        let other = Authority::new("another mesh");
        mesh.shop.replace("ca.crt", &other.pem);
        mesh.shop.rotate(&other.member(SHOP));
        mesh.far.reload(&config(&mesh.shop.config()));
        assert!(kept.get("/").is_err(), "a member of the mesh that was");
        let refused = TlsClient::connect(mesh.far.address("web"), "test", first)
            .and_then(|mut client| client.get("/"));
        assert!(refused.is_err());
        let welcome = tls::mesh_config(&other.pem, &other.member(WEB));
        let mut client = TlsClient::connect(mesh.far.address("web"), "test", welcome).unwrap();
        assert_eq!(client.get("/").unwrap().0, 200);
    }

    fn a_pipe_in_place_of_a_file_is_refused_and_waited_for_by_nobody(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let key = mesh.shop.folder.join("tls.key");
        std::fs::remove_file(&key).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
        eventually("it is named", || mesh.far.admin("/ready").1.contains("it is no file"));
        assert_eq!(mesh.near.client("web").get("/").status, 200);
        let before = taken(&mesh.far);
        std::fs::remove_file(&key).unwrap();
        mesh.shop.rotate(&mesh.authority.member(SHOP));
        eventually("the next ones are taken", || taken(&mesh.far) > before);
        assert_eq!(mesh.near.client("web").get("/").status, 200);
    }

    fn a_listener_becomes_strict_under_load_and_only_plaintext_is_turned_away(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        mesh.far.reload(&far_config(&mesh.shop.config(), &mesh.origin, "permissive"));
        let mut plain = crate::support::Client::connect(mesh.far.address("web"));
        assert_eq!(plain.get("/").status, 200);
        let stop = Arc::new(AtomicBool::new(false));
        let clients = load(&mesh.near, &stop);
        for mtls in ["strict", "permissive", "strict"] {
            std::thread::sleep(Duration::from_millis(300));
            mesh.far.reload(&far_config(&mesh.shop.config(), &mesh.origin, mtls));
        }
        let refused = plain.get("/");
        assert_eq!(refused.status, 400);
        assert_eq!(refused.header("ringway-cause"), Some("client_plaintext"));
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (done, failed) = client.join().unwrap();
            assert!(failed.is_empty(), "{} of {done} failed: {}", failed.len(), failed[0]);
        }
    }

    fn a_session_is_resumed_until_the_certificates_change(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let config = Arc::new(tls::mesh_config(&mesh.authority.pem, &mesh.web_leaf));
        let far = mesh.far.address("web");
        let series = "ringway_tls_handshakes_total{side=\"downstream\",resumed=\"yes\"}";
        for expected in [0.0, 1.0, 2.0] {
            let mut client = TlsClient::with(far, "test", &config).unwrap();
            assert_eq!(client.get("/").unwrap().0, 200);
            mesh.far.counts(series, expected);
        }
        let before = taken(&mesh.far);
        mesh.shop.rotate(&mesh.authority.member(SHOP));
        eventually("it is taken", || taken(&mesh.far) > before);
        let mut client = TlsClient::with(far, "test", &config).unwrap();
        assert_eq!(client.get("/").unwrap().0, 200);
        mesh.far.counts(series, 2.0);
    }

    fn a_certificate_with_a_quarter_of_its_life_left_is_warned_of(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let said = || mesh.far.log().iter().any(|line| line.contains("expires in"));
        assert!(!said());
        let uris = vec![SHOP.to_owned()];
        let old = Wanted { uris, dns: Vec::new(), valid: (-3600, 600) };
        let before = taken(&mesh.far);
        mesh.shop.rotate(&mesh.authority.issue(&old));
        eventually("it is taken", || taken(&mesh.far) > before);
        eventually("it is warned of", said);
    }

    fn a_client_is_told_why_it_is_refused_although_it_has_sent_its_request(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let stranger = Authority::new("stranger").member(WEB);
        let config = Arc::new(tls::mesh_config(&mesh.authority.pem, &stranger));
        for _ in 0..20 {
            let refused = TlsClient::with(mesh.far.address("web"), "test", &config)
                .and_then(|mut client| client.get("/"));
            let words = refused.unwrap_err().to_string();
            assert!(words.contains("UnknownCA") || words.contains("unknown"), "{words}");
        }
    }

    fn certificates_in_use_are_shown_with_their_expiry(backend: Backend) {
        let mesh = Mesh::new(backend, Origin::echo());
        let (_, certs) = mesh.far.admin("/certs");
        assert!(certs.contains(SHOP), "{certs}");
        let left = mesh.far.metric("ringway_certificate_not_after_timestamp_seconds{name=\"identity\"");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let left = left - now.as_secs_f64();
        assert!((80_000.0..90_000.0).contains(&left), "{left} s left of a day");
        let shown = std::process::Command::new(crate::support::proxy::binary())
            .arg("certs")
            .arg(mesh.far.config_path())
            .arg("--files")
            .output()
            .unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.status.success() && text.contains(&format!("identity: {SHOP}")), "{text}");
        assert!(text.contains("left") && text.contains("ECDSA P-256"), "{text}");
    }
}
