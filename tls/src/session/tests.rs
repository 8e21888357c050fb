//! Pairs of sessions in memory.

use super::*;
use crate::testing::{Authority, Pair, client, id, server};
use crate::{Peers, Trust};

#[test]
fn two_members_of_a_mesh_shake_hands_and_talk() {
    let authority = Authority::new("root");
    let (a, b) = ("spiffe://mesh.example/a", "spiffe://mesh.example/b");
    let mut pair = Pair::new(
        &server(&authority, a, Peers::Required(authority.bundle())),
        &client(
            Some(authority.member(b)),
            Trust::Mesh { bundle: authority.bundle(), expected: [id(a)].into() },
        ),
    );
    pair.shake().expect("the handshake succeeds");
    assert_eq!(pair.server.peer().map(SpiffeId::as_str), Some(b));
    assert_eq!(pair.client.peer().map(SpiffeId::as_str), Some(a));
    assert_eq!(pair.send_to_server(b"ping"), b"ping");
    assert_eq!(pair.send_to_client(b"pong"), b"pong");
    let negotiated = pair.server.negotiated();
    assert_eq!(negotiated.version, "TLSv1.3");
    assert_eq!(negotiated.cipher, "TLS_AES_128_GCM_SHA256");
    assert_eq!(negotiated.group, "X25519MLKEM768");
    assert_eq!(negotiated.alpn, Some(Alpn::H2));
    assert_eq!(negotiated.server_name, Some("a.example"));
}
