//! Two layers that talk in memory.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as Key, KeyUsagePurpose, SanType,
};
use ringway_tls::{
    Bundle, ClientSettings, ClientTls, KeyPair, Peers, ServerName, ServerSettings, ServerTls,
    SpiffeId, Step, Trust, UnixTime,
};

use super::*;
use crate::recorder::Shard;
use crate::tls::handshake::Side;

const ID: &str = "spiffe://t.example/a";

/// An established client and server.
fn pair() -> (Box<Layer>, Box<Layer>) {
    let (client, server, ticket) = pair_and_ticket();
    let mut block = client.take_partial();
    assert!(block.push(&ticket));
    assert_eq!(client.look_into(block), Glimpse::Nothing);
    (client, server)
}

/// The same, and the ticket that the client has not received yet.
fn pair_and_ticket() -> (Box<Layer>, Box<Layer>, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = Key::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = Key::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap().pem();
    let member = KeyPair::parse(leaf.as_bytes(), key.serialize_pem().as_bytes(), None).unwrap();
    let member = Arc::new(member);
    let bundle = Arc::new(Bundle::parse(root.as_bytes(), &[]).unwrap());
    let server = ServerTls::build(&ServerSettings {
        certificates: &[Arc::clone(&member)],
        peers: Peers::Required(Arc::clone(&bundle)),
        tls12: false,
        alpn: &[],
        resumption: true,
    });
    let expected = [SpiffeId::parse(ID).unwrap()].into();
    let client = ClientTls::build(&ClientSettings {
        pair: Some(member),
        trust: Trust::Mesh { bundle, expected },
        tls12: false,
        alpn: Vec::new(),
        resumption: true,
    });
    let now = UnixTime::now();
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = client.unwrap().connect(name, now).unwrap();
    let mut server = server.unwrap().accept().unwrap();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut done = (false, false);
    while done != (true, true) {
        let mut out = Vec::new();
        if !done.0 {
            let advance = client.handshake(&mut to_client, &mut out, now).unwrap();
            to_client.drain(..advance.consumed);
            done.0 = advance.step == Step::Established;
        }
        to_server.append(&mut out);
        if !done.1 {
            let advance = server.handshake(&mut to_server, &mut out, now).unwrap();
            to_server.drain(..advance.consumed);
            done.1 = advance.step == Step::Established;
        }
        to_client.append(&mut out);
    }
    let layer = |session: Session, side, rest: &[u8]| {
        let peer = Rc::new(TlsPeer::of(&session, side));
        let mut block = Block::small();
        assert!(block.push(rest));
        let layer = Layer::new(session, peer, &Arc::new(Shard::default()));
        layer.take_rest(block).unwrap();
        layer
    };
    let server = layer(server, Side::Downstream, &to_server);
    (layer(client, Side::Upstream, &[]), server, to_client)
}

/// Seals all of `bytes` and gives what goes over the wire.
fn sealed(layer: &Layer, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in bytes.chunks(100_000) {
        let mut rest = Block::large();
        assert!(rest.push(part));
        while !rest.is_empty() {
            let block = layer.seal(rest).map_err(|(error, _)| error).unwrap();
            wire.extend_from_slice(block.data());
            let mut gone = block;
            gone.clear();
            rest = layer.sent(gone, true);
        }
    }
    wire
}

/// Receives `wire` in pieces of `piece` bytes at most, with blocks that `block` makes.
fn opened(layer: &Layer, wire: &[u8], piece: usize, block: impl Fn() -> Block) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = wire;
    let mut received = layer.before_receive(block());
    loop {
        match received {
            Received::More(mut into) => {
                if rest.is_empty() {
                    return plain;
                }
                let count = piece.min(rest.len()).min(into.spare());
                assert!(count > 0, "a block without room");
                assert!(into.push(&rest[..count]));
                rest = &rest[count..];
                received = layer.received(Arrival::Data(into));
            }
            Received::Over(Arrival::Data(data)) => {
                plain.extend_from_slice(data.data());
                received = layer.before_receive(block());
            }
            Received::Over(Arrival::End(_)) => return plain,
            Received::Over(Arrival::Silence(_)) => panic!("nobody was silent"),
            Received::Over(Arrival::Broken(error)) => panic!("{error}"),
        }
    }
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n % 251) as u8).collect()
}

#[test]
fn plaintext_is_the_same_wherever_the_wire_is_cut() {
    let (client, server) = pair();
    for count in [1, 100, 16_384, 16_385, 70_000] {
        let bytes = pattern(count);
        for piece in [1, 7, 1000, 16_406, 1 << 20] {
            if piece == 1 && count > 1000 {
                continue;
            }
            for block in [Block::small, Block::large] {
                let wire = sealed(&client, &bytes);
                assert!(opened(&server, &wire, piece, block) == bytes, "{count} by {piece}");
            }
        }
    }
}

#[test]
fn plaintext_goes_behind_what_the_caller_has_and_the_rest_waits() {
    let (client, server) = pair();
    let wire = sealed(&client, &pattern(16_384));
    let with_little_room = || {
        let mut block = Block::small();
        assert!(block.push(&vec![0; block.spare() - 1000]));
        block.consume(15_000);
        block
    };
    let mut block = with_little_room();
    let had = block.len();
    let Received::More(mut into) = server.before_receive(block) else { panic!("nothing came yet") };
    let mut rest = &wire[..];
    let data = loop {
        let count = rest.len().min(into.spare());
        assert!(into.push(&rest[..count]));
        rest = &rest[count..];
        match server.received(Arrival::Data(into)) {
            Received::More(next) => into = next,
            Received::Over(Arrival::Data(data)) => break data,
            Received::Over(_) => panic!("data"),
        }
    };
    assert_eq!(data.data()[had..], pattern(16_384)[..1000]);
    assert!(server.holds_plaintext());
    block = Block::small();
    let Received::Over(Arrival::Data(data)) = server.before_receive(block) else {
        panic!("it waits")
    };
    assert_eq!(data.data(), &pattern(16_384)[1000..]);
    assert!(!server.holds_plaintext());
}

#[test]
fn an_end_counts_only_when_the_peer_has_said_it() {
    let (client, server) = pair();
    let goodbye = client.goodbye_block().unwrap();
    assert!(client.goodbye_block().is_none(), "it is said once");
    let Received::More(mut into) = server.before_receive(Block::small()) else { panic!() };
    assert!(into.push(goodbye.data()));
    assert!(matches!(server.received(Arrival::Data(into)), Received::Over(Arrival::End(_))));
    let (_, server) = pair();
    let Received::More(into) = server.before_receive(Block::small()) else { panic!() };
    let Received::Over(Arrival::Broken(error)) = server.received(Arrival::End(into)) else {
        panic!("cut by anybody")
    };
    assert!(matches!(fault_of(&error), Some(Fault::Truncated)));
}

#[test]
fn what_did_not_go_can_be_sent_once_more() {
    let (client, _) = pair();
    let mut block = Block::small();
    assert!(block.push(b"GET / HTTP/1.1\r\n\r\n"));
    let wire = client.seal(block).map_err(|(error, _)| error).unwrap();
    let block = client.sent(wire, false);
    assert_eq!(block.data(), b"GET / HTTP/1.1\r\n\r\n");
    client.last_words(|_| panic!("a record was cut: nothing can follow"));
}

#[test]
fn part_of_a_record_outlives_a_rest_without_a_block() {
    let (client, server) = pair();
    let wire = sealed(&client, b"hello");
    let Received::More(mut into) = server.before_receive(Block::small()) else { panic!() };
    assert!(into.push(&wire[..10]));
    let Received::More(into) = server.received(Arrival::Data(into)) else { panic!("not whole") };
    let Received::Over(Arrival::Silence(block)) = server.received(Arrival::Silence(into)) else {
        panic!("silence")
    };
    assert!(block.is_empty());
    server.rest();
    assert_eq!(opened(&server, &wire[10..], 100, Block::small), b"hello");
}

#[test]
fn a_look_takes_tickets_out_of_the_way_and_keeps_data() {
    let (client, server, ticket) = pair_and_ticket();
    assert!(ticket.len() > 50, "there is a ticket");
    let mut block = client.take_partial();
    assert!(block.push(&ticket));
    assert_eq!(client.look_into(block), Glimpse::Nothing);
    let wire = sealed(&server, b"x");
    let mut block = client.take_partial();
    assert!(block.push(&wire));
    assert_eq!(client.look_into(block), Glimpse::Bytes);
    assert!(client.holds_plaintext());
}
