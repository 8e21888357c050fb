//! Pairs of sessions in memory: handshakes, resumption, and peers that misbehave.

use std::time::Duration;

use rcgen::SerialNumber;

use super::*;
use crate::testing::{Authority, NOW, Pair, client, id, in_year, leaf, mesh, open_all, server};
use crate::{ClientTls, KeyPair, Peers, ServerTls, Trust};

mod hostile;
mod resume;

const A: &str = "spiffe://mesh.example/a";
const B: &str = "spiffe://mesh.example/b";

/// A server A and a client B that expects it, of one mesh.
fn members(root: &Authority) -> (ServerTls, ClientTls) {
    (server(root, A, Peers::Required(root.bundle())), mesh(root, Some(root.member(B)), A))
}

fn established() -> Pair {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut pair = Pair::new(&server, &client);
    pair.shake().expect("the handshake succeeds");
    pair
}

#[test]
fn two_members_of_a_mesh_shake_hands_and_talk() {
    let mut pair = established();
    assert_eq!(pair.server.peer(), Some(&id(B)));
    assert_eq!(pair.client.peer(), Some(&id(A)));
    assert_eq!(pair.send_to_server(b"ping"), b"ping");
    assert_eq!(pair.send_to_client(b"pong"), b"pong");
    let negotiated = pair.server.negotiated();
    assert_eq!(negotiated.version, "TLSv1.3");
    assert_eq!(negotiated.cipher, "TLS_AES_128_GCM_SHA256");
    assert_eq!(negotiated.group, "X25519MLKEM768");
    assert_eq!(negotiated.alpn, Some(Alpn::H2));
    assert_eq!(negotiated.server_name, Some("a.example"));
    assert!(!negotiated.resumed);
    assert_eq!(pair.client.peer_fingerprint(), Some(sha256(&pair.client.peer_chain()[0])));
}

/// Where the network cuts the bytes must not matter.
#[test]
fn a_handshake_is_split_invariant() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut pair = Pair::new(&server, &client);
    let (mut server_done, mut client_done) = (false, false);
    let (mut server_has, mut client_has) = (Vec::new(), Vec::new());
    let mut rounds = 0;
    pair.client.handshake(&mut [], &mut pair.to_server, NOW).expect("a hello is written");
    while !(server_done && client_done) {
        rounds += 1;
        assert!(rounds < 20_000, "the handshake does not end");
        step(
            &mut pair.server,
            &mut pair.to_server,
            &mut server_has,
            &mut pair.to_client,
            &mut server_done,
        );
        step(
            &mut pair.client,
            &mut pair.to_client,
            &mut client_has,
            &mut pair.to_server,
            &mut client_done,
        );
    }
    pair.to_client.splice(..0, client_has);
    assert_eq!(pair.send_to_client(b"pong"), b"pong");
    assert_eq!(pair.send_to_server(b"ping"), b"ping");
}

/// Moves one byte and lets the session look.
fn step(
    session: &mut Session,
    from: &mut Vec<u8>,
    has: &mut Vec<u8>,
    out: &mut Vec<u8>,
    done: &mut bool,
) {
    if *done || from.is_empty() {
        return;
    }
    has.push(from.remove(0));
    let advance = session.handshake(has, out, NOW).expect("it goes on");
    has.drain(..advance.consumed);
    *done = advance.step == Step::Established;
}

#[test]
fn data_behind_the_handshake_is_left_for_open() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut pair = Pair::new(&server, &client);
    let (mut hello, mut flight, mut finished) = (Vec::new(), Vec::new(), Vec::new());
    pair.client.handshake(&mut [], &mut hello, NOW).expect("a hello");
    pair.server.handshake(&mut hello, &mut flight, NOW).expect("a flight");
    pair.client.handshake(&mut flight, &mut finished, NOW).expect("the end");
    let length = finished.len();
    crate::testing::seal_all(&mut pair.client, b"early bird", &mut finished);
    let advance = pair.server.handshake(&mut finished, &mut pair.to_client, NOW).expect("done");
    assert_eq!(advance, Advance { consumed: length, step: Step::Established });
    finished.drain(..length);
    assert_eq!(open_all(&mut pair.server, &mut finished), b"early bird");
}

#[test]
fn data_is_sealed_as_far_as_it_fits() {
    let mut pair = established();
    let plain: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    for room in [0, 1, 60, 64, 93, 95, 96, 200, 16_384, 16_500, 20_000, 40_000, 110_000] {
        let mut sent = 0;
        let mut received = Vec::new();
        let mut rounds = 0;
        while sent < plain.len().min(room * 4) {
            let mut out = vec![0; room];
            let (taken, written) = pair.client.seal(&plain[sent..], &mut out).expect("it seals");
            assert!(written <= room && taken <= room);
            sent += taken;
            out.truncate(written);
            received.extend(open_all(&mut pair.server, &mut out));
            rounds += 1;
            if taken == 0 {
                assert!(room <= CONTROL_BYTES_MAX + RECORD_OVERHEAD_MAX, "{room} bytes for one");
                break;
            }
        }
        assert_eq!(received, plain[..sent], "{rounds} rounds of {room} bytes");
    }
    let plain = &plain[..RECORD_PLAIN_MAX];
    let mut out = vec![0; plain.len() + Session::seal_overhead(plain.len())];
    let (_, written) = pair.client.seal(plain, &mut out).expect("it seals");
    assert_eq!(written, plain.len() + 22, "one record");
}

#[test]
fn a_closed_connection_says_so_once() {
    let mut pair = established();
    let mut out = [0; CONTROL_BYTES_MAX];
    let written = pair.client.close(&mut out);
    assert!(written > 0);
    assert_eq!(pair.client.close(&mut out.clone()), 0, "once");
    assert!(pair.client.seal(b"late", &mut [0; 200]).is_err());
    let opened = pair.server.open(&mut out[..written], |_| panic!("no data")).expect("it opens");
    assert_eq!(opened, Opened { consumed: written, closed: true });
    assert_eq!(pair.send_to_client(b"the other way is open"), b"the other way is open");
}

/// Before the handshake is over nothing vouches for an alert: close_notify is a warning like any.
#[test]
fn close_notify_before_the_handshake_is_over_closes_nothing() {
    let root = Authority::new("root");
    let (server, _) = members(&root);
    let mut session = server.accept().expect("a session");
    let mut once = [21, 3, 3, 0, 2, 1, 0];
    let advance = session.handshake(&mut once, &mut Vec::new(), NOW);
    assert_eq!(advance, Ok(Advance { consumed: 7, step: Step::NeedInput }));
    let mut often = [21, 3, 3, 0, 2, 1, 0].repeat(5);
    let fault = session.handshake(&mut often, &mut Vec::new(), NOW).err();
    assert_eq!(fault.map(|fault| fault.label()), Some("peer_misbehaved"));
}

/// Shakes hands between a server with `server` and a client with `client`; the words on both sides.
fn words(
    root: &Authority,
    server_pair: &std::sync::Arc<KeyPair>,
    client_pair: Option<std::sync::Arc<KeyPair>>,
    expected: &str,
) -> (String, String) {
    let settings = crate::ServerSettings {
        certificates: &[std::sync::Arc::clone(server_pair)],
        peers: Peers::Required(root.bundle()),
        tls12: false,
        alpn: &[],
        resumption: true,
    };
    let server = ServerTls::build(&settings).expect("the settings are usable");
    let trust = Trust::Mesh { bundle: root.bundle(), expected: [id(expected)].into() };
    let settings = crate::ClientSettings {
        pair: client_pair,
        trust,
        tls12: false,
        alpn: Vec::new(),
        resumption: true,
    };
    let client = ClientTls::build(&settings).expect("the settings are usable");
    let (server, client) = Pair::new(&server, &client).shake().expect_err("it fails");
    let text = |fault: Option<Fault>| fault.map(|fault| fault.to_string()).unwrap_or_default();
    (text(server), text(client))
}

#[test]
fn both_sides_have_words_for_a_refused_client() {
    let root = Authority::new("root");
    let a = root.member(A);
    let refused = |alert: &str| format!("the peer refused our certificate: it sent {alert}");
    let case = |params: &rcgen::CertificateParams| words(&root, &a, Some(root.pair(params)), A);
    let mut expired = leaf(B);
    in_year(&mut expired, 2025);
    assert_eq!(
        case(&expired),
        ("the peer's certificate expired 182 d ago".into(), refused("certificate_expired"))
    );
    let mut early = leaf(B);
    in_year(&mut early, 2027);
    assert_eq!(
        case(&early),
        (
            "the peer's certificate is not valid for another 184 d".into(),
            refused("certificate_expired")
        )
    );
    let mut two = leaf(B);
    two.subject_alt_names.extend(leaf(A).subject_alt_names);
    assert_eq!(
        case(&two),
        (
            "the peer's certificate has 2 URIs, a SPIFFE ID must be the only one".into(),
            refused("bad_certificate")
        )
    );
    let mut signer = leaf(B);
    signer.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign);
    assert_eq!(case(&signer).1, refused("unsupported_certificate"));
    let stranger = Authority::new("root").member(B);
    assert_eq!(
        words(&root, &a, Some(stranger), A),
        ("the peer's certificate leads to no root of the bundle".into(), refused("unknown_ca"))
    );
    assert_eq!(
        words(&root, &a, None, A),
        ("the peer has no certificate".into(), refused("certificate_required"))
    );
}

#[test]
fn both_sides_have_words_for_a_refused_server() {
    let root = Authority::new("root");
    let b = || Some(root.member(B));
    let refused = |alert: &str| format!("the peer refused our certificate: it sent {alert}");
    assert_eq!(
        words(&root, &root.member("spiffe://mesh.example/c"), b(), A),
        (refused("access_denied"), format!("expected {A}, peer is spiffe://mesh.example/c"))
    );
    let mut expired = leaf(A);
    in_year(&mut expired, 2025);
    assert_eq!(
        words(&root, &root.pair(&expired), b(), A),
        (refused("certificate_expired"), "the peer's certificate expired 182 d ago".into())
    );
    let mut revoked = leaf(A);
    revoked.serial_number = Some(SerialNumber::from(7));
    let bundle = root.bundle_with(&[&root.crl(&[7], 2026)]);
    let trust = Trust::Mesh { bundle, expected: [id(A)].into() };
    let client = client(b(), trust);
    let server = {
        let settings = crate::ServerSettings {
            certificates: &[root.pair(&revoked)],
            peers: Peers::None,
            tls12: false,
            alpn: &[],
            resumption: false,
        };
        ServerTls::build(&settings).expect("the settings are usable")
    };
    let faults = Pair::new(&server, &client).shake().expect_err("it is revoked");
    assert_eq!(
        faults,
        (
            Some(Fault::PeerRefusedCertificate("certificate_revoked")),
            Some(Fault::PeerRevoked { serial: "07".into() })
        )
    );
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 240, "{} bytes", size_of::<Session>());
}
