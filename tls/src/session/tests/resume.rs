//! Resumed sessions, and what must not resume.

use std::sync::Arc;

use super::*;
use crate::limits::TICKETS_MAX;
use crate::{ClientSettings, Provider, ServerSettings};

/// Shakes hands at `now` and lets the client read the ticket.
fn connect(server: &ServerTls, client: &ClientTls, now: UnixTime) -> Result<Pair, Fault> {
    let mut pair = Pair::at(server, client, now);
    pair.shake().map_err(|(server, client)| server.or(client).expect("a fault"))?;
    assert_eq!(pair.send_to_client(b"x"), b"x");
    Ok(pair)
}

fn is_resumed(server: &ServerTls, client: &ClientTls) -> bool {
    let pair = connect(server, client, NOW).expect("the handshake succeeds");
    assert_eq!(pair.server.negotiated().resumed, pair.client.negotiated().resumed);
    pair.server.negotiated().resumed
}

fn at(second: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(second))
}

fn server_settings<'a>(
    certificates: &'a [Arc<KeyPair>],
    root: &Authority,
    resumption: bool,
) -> ServerSettings<'a> {
    let peers = Peers::Required(root.bundle());
    ServerSettings { certificates, peers, tls12: true, alpn: &[], resumption }
}

fn client_settings(root: &Authority, pair: Arc<KeyPair>, resumption: bool) -> ClientSettings {
    let trust = Trust::Mesh { bundle: root.bundle(), expected: [id(A)].into() };
    ClientSettings { pair: Some(pair), trust, tls12: true, alpn: Vec::new(), resumption }
}

#[test]
fn a_second_connection_resumes_and_knows_its_peer() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let first = connect(&server, &client, NOW).expect("the handshake succeeds");
    assert!(!first.server.negotiated().resumed);
    for _ in 0..3 {
        let pair = connect(&server, &client, NOW).expect("the handshake succeeds");
        assert!(pair.server.negotiated().resumed);
        assert_eq!(pair.server.peer(), Some(&id(B)));
        assert_eq!(pair.client.peer(), Some(&id(A)));
        assert_eq!(pair.server.peer_chain(), first.server.peer_chain());
        assert_eq!(pair.server.negotiated().server_name, Some("a.example"));
        assert_eq!(pair.server.negotiated().group, "X25519MLKEM768", "forward secrecy stays");
    }
}

#[test]
fn a_new_configuration_takes_no_earlier_ticket() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    assert!(!is_resumed(&server, &client));
    assert!(is_resumed(&server.clone(), &client.clone()), "clones share keys and cache");
    assert!(!is_resumed(&server, &client.for_endpoint()), "a cache of its own");
    let (rotated, _) = members(&root);
    assert!(!is_resumed(&rotated, &client));
}

#[test]
fn resumption_is_off_where_either_side_has_it_off() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let pairs = [root.member(A)];
    let server_off = ServerTls::build(&server_settings(&pairs, &root, false)).expect("usable");
    let client_off = ClientTls::build(&client_settings(&root, root.member(B), false));
    let client_off = client_off.expect("usable");
    for (server, client) in [(&server_off, &client), (&server, &client_off)] {
        assert!(!is_resumed(server, client));
        assert!(!is_resumed(server, client));
    }
}

/// A ticket within its life whose peer has expired since is as good as none, and the full handshake
/// says why; on the server's side and on the client's.
#[test]
fn a_ticket_of_an_expired_peer_does_not_resume() {
    let root = Authority::new("root");
    for b_expires in [true, false] {
        let pair = |id: &str, days: u64| {
            let mut params = leaf(id);
            params.not_after = params.not_before + Duration::from_secs(days * 86_400);
            let end = u64::try_from(params.not_after.unix_timestamp()).expect("after 1970");
            (root.pair(&params), end)
        };
        let (a, end_a) = pair(A, if b_expires { 365 } else { 200 });
        let (b, end_b) = pair(B, if b_expires { 200 } else { 365 });
        let end = end_a.min(end_b);
        let server = ServerTls::build(&server_settings(&[a], &root, true)).expect("usable");
        let client = ClientTls::build(&client_settings(&root, b, true)).expect("usable");
        connect(&server, &client, at(end - 60)).expect("the handshake succeeds");
        let again = connect(&server, &client, at(end)).expect("the last second is valid");
        assert!(again.server.negotiated().resumed);
        let fault = connect(&server, &client, at(end + 1)).err();
        let expected = if b_expires {
            Fault::PeerCertificateExpired { since_s: 1 }
        } else {
            // The client refuses, and the server is told.
            Fault::PeerRefusedCertificate("certificate_expired")
        };
        assert_eq!(fault, Some(expected));
    }
}

#[test]
fn tls_12_resumes_by_ticket_too() {
    let root = Authority::new("root");
    let pairs = [root.member(A)];
    let server = ServerTls::build(&server_settings(&pairs, &root, true)).expect("usable");
    let old = Provider::with(&[], &["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
    let settings = client_settings(&root, root.member(B), true);
    let client = ClientTls::build_with(&settings, &old).expect("usable");
    assert!(!is_resumed(&server, &client));
    let pair = connect(&server, &client, NOW).expect("the handshake succeeds");
    assert!(pair.server.negotiated().resumed);
    assert_eq!(pair.server.negotiated().version, "TLSv1.2");
    assert_eq!((pair.server.peer(), pair.client.peer()), (Some(&id(B)), Some(&id(A))));
}

/// Connections that are made at once take their tickets at once and leave as many.
#[test]
fn a_client_keeps_few_tickets() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let count = TICKETS_MAX + 3;
    let mut pairs: Vec<Pair> = (0..count).map(|_| Pair::new(&server, &client)).collect();
    for pair in &mut pairs {
        pair.shake().expect("the handshake succeeds");
        assert_eq!(pair.send_to_client(b"x"), b"x");
    }
    let mut pairs: Vec<Pair> = (0..count).map(|_| Pair::new(&server, &client)).collect();
    let resumed = pairs.iter_mut().filter_map(|pair| {
        pair.shake().expect("the handshake succeeds");
        pair.server.negotiated().resumed.then_some(())
    });
    assert_eq!(resumed.count(), TICKETS_MAX);
}

#[test]
fn early_data_is_not_offered_for_our_tickets() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut config = client.config().clone();
    config.enable_early_data = true;
    let eager = ClientTls::of_config(Arc::new(config));
    connect(&server, &eager, NOW).expect("the handshake succeeds");
    let mut pair = Pair::new(&server, &eager);
    pair.client.handshake(&mut [], &mut pair.to_server, NOW).expect("a hello");
    // Extension 42 without content.
    assert!(!pair.to_server.windows(4).any(|window| window == [0, 42, 0, 0]));
    pair.shake().expect("the handshake succeeds");
    assert!(pair.server.negotiated().resumed);
}
