//! Clients and servers of control threads, met in memory.

use std::io::Write;

use rcgen::date_time_ymd;
use rustls::{ClientConnection, Connection, ServerConnection};
use rustls_pki_types::ServerName;

use super::*;
use crate::testing::{Authority, authority, leaf};

const PUSHER: &str = "spiffe://cluster.local/ringway/pusher";
const WEB: &str = "spiffe://cluster.local/ns/default/sa/web";

/// An authority that is good for as long as this code: control threads have the time of the host.
fn lasting() -> Authority {
    let mut params = authority("root");
    params.not_after = date_time_ymd(4000, 1, 1);
    Authority::with(params)
}

/// A member, whose chain holds the root, too.
fn member(authority: &Authority, id: &str) -> Arc<KeyPair> {
    let mut params = leaf(id);
    params.not_after = date_time_ymd(4000, 1, 1);
    let (chain, key) = authority.issue(&params);
    let chain = chain + &authority.pem;
    Arc::new(KeyPair::parse(chain.as_bytes(), key.as_bytes(), None).unwrap())
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// Connects the two in memory: who the server's client is, or why one of them refused.
fn meet(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<Option<SpiffeId>, Option<Fault>> {
    let name = ServerName::try_from("push.example").unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::clone(client), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(Arc::clone(server)).unwrap());
    client.writer().write_all(b"x").unwrap();
    for _ in 0..8 {
        for forth in [true, false] {
            let (from, to) =
                if forth { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut wire = Vec::new();
            while from.wants_write() {
                from.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                to.read_tls(&mut wire).unwrap();
                to.process_new_packets().map_err(|_| refusal())?;
            }
        }
    }
    assert!(!server.is_handshaking());
    Ok(peer(server.peer_certificates().unwrap_or_default()).unwrap())
}

#[test]
fn a_client_with_a_certificate_is_known_and_one_without_is_let_in() {
    let authority = lasting();
    let server = server(&member(&authority, PUSHER), &authority.bundle()).unwrap();
    let web = member(&authority, WEB);
    let known = client(Some(&web), &authority.bundle(), id(PUSHER)).unwrap();
    assert_eq!(meet(&known, &server), Ok(Some(id(WEB))));
    let unknown = client(None, &authority.bundle(), id(PUSHER)).unwrap();
    assert_eq!(meet(&unknown, &server), Ok(None));
}

#[test]
fn a_client_of_another_mesh_is_refused() {
    let (ours, theirs) = (lasting(), lasting());
    let server = server(&member(&ours, PUSHER), &ours.bundle()).unwrap();
    let web = member(&theirs, WEB);
    let client = client(Some(&web), &ours.bundle(), id(PUSHER)).unwrap();
    assert_eq!(meet(&client, &server), Err(Some(Fault::PeerUntrusted)));
}

#[test]
fn a_workload_is_not_the_pusher() {
    let authority = lasting();
    let server = server(&member(&authority, WEB), &authority.bundle()).unwrap();
    let expecting = client(None, &authority.bundle(), id(PUSHER)).unwrap();
    let refused = Err(Some(Fault::PeerIdentity { expected: PUSHER.into(), found: id(WEB) }));
    assert_eq!(meet(&expecting, &server), refused);
    let pinned = pinned_client(authority.bundle().roots()[0].sha256, "/ringway/pusher").unwrap();
    assert_eq!(meet(&pinned, &server), refused);
}

#[test]
fn a_pinned_root_is_enough_to_know_the_pusher_by() {
    let (ours, theirs) = (lasting(), lasting());
    let server = server(&member(&ours, PUSHER), &ours.bundle()).unwrap();
    let sha256 = |authority: &Authority| authority.bundle().roots()[0].sha256;
    let right = pinned_client(sha256(&ours), "/ringway/pusher").unwrap();
    assert_eq!(meet(&right, &server), Ok(None));
    let wrong = pinned_client(sha256(&theirs), "/ringway/pusher").unwrap();
    assert_eq!(meet(&wrong, &server), Err(Some(Fault::PeerUntrusted)));
}

#[test]
fn a_root_that_is_shown_but_did_not_sign_proves_nothing() {
    let (ours, theirs) = (lasting(), lasting());
    let mut params = leaf(PUSHER);
    params.not_after = date_time_ymd(4000, 1, 1);
    let (chain, key) = theirs.issue(&params);
    let chain = chain + &ours.pem;
    let forged = KeyPair::parse(chain.as_bytes(), key.as_bytes(), None).unwrap();
    let server = server(&Arc::new(forged), &theirs.bundle()).unwrap();
    let pinned = pinned_client(ours.bundle().roots()[0].sha256, "/ringway/pusher").unwrap();
    assert_eq!(meet(&pinned, &server), Err(Some(Fault::PeerUntrusted)));
}
