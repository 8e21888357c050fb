//! Peers that misbehave: what they send is refused, and nothing grows without bound.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::cipher::{AeadKey, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::unbuffered::ConnectionState;
use rustls::{ConnectionTrafficSecrets, ContentType};

use super::*;
use crate::{ClientSettings, Provider, Roots, ServerSettings};

/// A client after its handshake, of which only the keys are left: seals whatever a test wants.
struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    record: u64,
}

impl Sealer {
    fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        let sealed = self.encrypter.encrypt(message, self.record).expect("it seals").encode();
        self.record += 1;
        sealed
    }

    /// Many records of the same kind.
    fn seal_many(&mut self, typ: ContentType, payload: &[u8], count: usize) -> Vec<u8> {
        (0..count).flat_map(|_| self.seal(typ, payload)).collect()
    }
}

/// A server after its handshake with a client that becomes a [`Sealer`].
fn with_sealer(suite: &str) -> (Session, Sealer) {
    let root = Authority::new("root");
    let settings = ServerSettings {
        certificates: &[root.pair(&crate::testing::host(&["a.example"]))],
        peers: Peers::None,
        tls12: true,
        alpn: &[],
        resumption: false,
    };
    let server = ServerTls::build(&settings).expect("the settings are usable");
    let settings = ClientSettings {
        pair: None,
        trust: Trust::Roots(Arc::new(Roots::from_certificates([root.der.clone()]))),
        tls12: true,
        alpn: Vec::new(),
        resumption: false,
    };
    let provider = Provider::with(&[], &[suite]);
    let client = ClientTls::build_with(&settings, &provider).expect("the settings are usable");
    let mut config = client.config().clone();
    config.enable_secret_extraction = true;
    let client = ClientTls::of_config(Arc::new(config));
    let mut pair = Pair::new(&server, &client);
    pair.shake().expect("the handshake succeeds");
    let suite = pair.client.connection.common().negotiated_cipher_suite().expect("a suite");
    let Connection::Client(connection) = pair.client.connection else { panic!("a client") };
    #[allow(deprecated)]
    let secrets = connection.dangerous_extract_secrets().expect("secrets");
    let (record, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
        panic!("AES-256-GCM, whose key can be made")
    };
    let key: [u8; 32] = key.as_ref().try_into().expect("32 bytes");
    let key = AeadKey::from(key);
    let encrypter = match suite {
        rustls::SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        rustls::SupportedCipherSuite::Tls12(suite) => {
            suite.aead_alg.encrypter(key, &iv.as_ref()[..4], &iv.as_ref()[4..])
        }
    };
    (pair.server, Sealer { encrypter, record })
}

const NEW: &str = "TLS_AES_256_GCM_SHA384";
const OLD: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";

fn open(session: &mut Session, wire: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut plain = Vec::new();
    let mut wire = wire.to_vec();
    session.open(&mut wire, |bytes| plain.extend_from_slice(bytes)).map(|_| plain)
}

fn misbehaved(text: &str) -> Fault {
    Fault::PeerMisbehaved(text.into())
}

#[test]
fn records_without_data_are_limited_in_a_row() {
    let limit = usize::from(SILENT_RECORDS_MAX);
    for suite in [NEW, OLD] {
        let (mut server, mut sealer) = with_sealer(suite);
        let mut wire = sealer.seal_many(ContentType::ApplicationData, b"", limit);
        wire.extend(sealer.seal(ContentType::ApplicationData, b"data"));
        wire.extend(sealer.seal_many(ContentType::ApplicationData, b"", limit));
        assert_eq!(open(&mut server, &wire), Ok(b"data".to_vec()));
        let one_more = sealer.seal(ContentType::ApplicationData, b"");
        // rustls counts too, of the kinds that it knows.
        let fault = open(&mut server, &one_more).expect_err("one too many");
        assert!(matches!(fault, Fault::EmptyRecords | Fault::PeerMisbehaved(_)), "{fault}");
    }
}

#[test]
fn alerts_are_limited() {
    const WARNING_USER_CANCELED: &[u8] = &[1, 90];
    let (mut server, mut sealer) = with_sealer(NEW);
    let wire = sealer.seal_many(ContentType::Alert, WARNING_USER_CANCELED, 100);
    let fault = misbehaved("too many warning alerts received");
    assert_eq!(open(&mut server, &wire), Err(fault));
    let (mut server, mut sealer) = with_sealer(NEW);
    let fatal = sealer.seal(ContentType::Alert, &[2, 80]);
    assert_eq!(open(&mut server, &fatal), Err(Fault::PeerAlert("internal_error")));
    assert_eq!(server.take_alert(&mut [0; CONTROL_BYTES_MAX]), 0, "an alert is not answered");
}

#[test]
fn renegotiation_is_refused_and_then_a_fault() {
    let (mut server, mut sealer) = with_sealer(OLD);
    let mut hello = vec![1, 0, 0, 43, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2c, 1, 0, 0, 0]);
    let wire = sealer.seal(ContentType::Handshake, &hello);
    assert_eq!(open(&mut server, &wire), Ok(Vec::new()));
    let owed = server.owed().len();
    assert!(owed > 0, "no_renegotiation");
    server.paid(1);
    assert_eq!(server.owed().len(), owed - 1);
    server.paid(owed);
    assert!(server.owed().is_empty());
    let again = sealer.seal(ContentType::Handshake, &hello);
    assert_eq!(open(&mut server, &again), Err(misbehaved("too many renegotiation requests")));
}

#[test]
fn a_second_hello_in_tls_13_is_a_fault() {
    let (mut server, mut sealer) = with_sealer(NEW);
    let mut hello = vec![1, 0, 0, 43, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 0x01, 1, 0, 0, 0]);
    let wire = sealer.seal(ContentType::Handshake, &hello);
    let fault = open(&mut server, &wire).expect_err("no renegotiation");
    assert_eq!(fault.label(), "peer_misbehaved");
    assert!(server.take_alert(&mut [0; CONTROL_BYTES_MAX]) > 0);
}

#[test]
fn key_updates_are_answered_once_and_limited() {
    let mut pair = established();
    let mut wire = Vec::new();
    let mut answered = 0;
    let fault = loop {
        refresh(&mut pair.client, &mut wire);
        let mut sent = std::mem::take(&mut wire);
        match pair.server.open(&mut sent, |_| {}) {
            Ok(_) => answered += 1,
            Err(fault) => break fault,
        }
        assert!(answered < 100, "no limit");
        assert!(pair.server.queued.len() <= CONTROL_BYTES_MAX);
    };
    assert_eq!(fault, misbehaved("too many key update requests"));
}

/// Lets rustls send a KeyUpdate.
fn refresh(session: &mut Session, wire: &mut Vec<u8>) {
    let Connection::Client(connection) = &mut session.connection else { panic!("a client") };
    match connection.process_tls_records(&mut []).state.expect("established") {
        ConnectionState::WriteTraffic(traffic) => {
            traffic.refresh_traffic_keys().expect("keys can be renewed");
        }
        state => panic!("{state:?}"),
    }
    crate::testing::seal_all(session, b"", wire);
    let mut queued = Vec::new();
    for _ in 0..3 {
        let _ = session.connection.step(&mut [], &mut queued, &mut |_| {});
    }
    wire.extend(queued);
}

#[test]
fn a_key_update_in_between_changes_nothing_for_the_application() {
    let mut pair = established();
    for round in 0..10u8 {
        let mut wire = Vec::new();
        refresh(&mut pair.client, &mut wire);
        crate::testing::seal_all(&mut pair.client, &[round; 100], &mut wire);
        assert_eq!(open_all(&mut pair.server, &mut wire), [round; 100]);
        assert_eq!(pair.send_to_client(&[round]), [round]);
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_by_its_header() {
    let mut pair = established();
    assert_eq!(pair.send_to_client(b"with the ticket"), b"with the ticket");
    let length = (RECORD_BYTES_MAX - RECORD_HEADER_BYTES + 1) as u16;
    let header = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
    assert_eq!(open(&mut pair.server, &header), Err(Fault::RecordTooLong));
    assert_eq!(alert_for(&mut pair), "decode_error");
}

/// RFC 8446 section 5.1: no more than 2^14 bytes, and record_overflow.
#[test]
fn a_record_in_plaintext_has_no_room_for_protection() {
    let root = Authority::new("root");
    let (server, _) = members(&root);
    for (length, expected) in [(RECORD_PLAIN_MAX, None), (RECORD_PLAIN_MAX + 1, Some(22))] {
        let mut session = server.accept().expect("a session");
        let mut header = [&[22, 3, 1][..], &(length as u16).to_be_bytes()].concat();
        let mut out = Vec::new();
        let fault = session.handshake(&mut header, &mut out, NOW).err();
        assert_eq!(fault, expected.map(|_| Fault::RecordTooLong));
        assert_eq!(out, expected.map_or(vec![], |alert| vec![21, 3, 3, 0, 2, 2, alert]));
    }
}

/// RFC 8446 section 5.2: however long the record itself may be.
#[test]
fn a_record_that_decrypts_to_too_much_is_refused() {
    for suite in [NEW, OLD] {
        for excess in [1, 300, 1500] {
            let (mut server, mut sealer) = with_sealer(suite);
            let wire = sealer.seal(ContentType::ApplicationData, &[7; RECORD_PLAIN_MAX]);
            assert_eq!(open(&mut server, &wire).map(|plain| plain.len()), Ok(RECORD_PLAIN_MAX));
            let much = vec![7; RECORD_PLAIN_MAX + excess];
            let wire = sealer.seal(ContentType::ApplicationData, &much);
            assert_eq!(open(&mut server, &wire), Err(Fault::RecordTooLong));
            let mut alert = [0; CONTROL_BYTES_MAX];
            assert!(server.take_alert(&mut alert) > 0, "record_overflow");
        }
    }
}

/// A message that goes on without end, before there are keys.
#[test]
fn a_message_that_is_too_long_is_answered_with_an_alert() {
    let root = Authority::new("root");
    let (server, _) = members(&root);
    let mut session = server.accept().expect("a session");
    // A ClientHello of 65535 bytes in records of 16 KiB, with as much behind it again.
    let mut wire = Vec::new();
    for _ in 0..5 {
        let body = if wire.is_empty() { vec![1, 0, 0xff, 0xff] } else { vec![0; 4] };
        wire.extend([22, 3, 1, 0x40, 0]);
        wire.extend(body);
        wire.extend([0; RECORD_PLAIN_MAX - 4]);
    }
    let mut out = Vec::new();
    let fault = session.handshake(&mut wire, &mut out, NOW).expect_err("too long");
    assert_eq!(fault.label(), "peer_misbehaved", "{fault}");
    assert_eq!(out, [21, 3, 3, 0, 2, 2, 50], "decode_error");
    // One that says so at once is refused at once.
    let mut session = server.accept().expect("a session");
    let (mut wire, mut out) = ([22, 3, 1, 0, 4, 1, 1, 0, 0], Vec::new());
    session.handshake(&mut wire, &mut out, NOW).expect_err("65536 bytes");
    assert_eq!(out, [21, 3, 3, 0, 2, 2, 50], "decode_error");
}

/// What the client is told by the server's alert.
fn alert_for(pair: &mut Pair) -> &'static str {
    let mut alert = [0; CONTROL_BYTES_MAX];
    let length = pair.server.take_alert(&mut alert);
    match open(&mut pair.client, &alert[..length]) {
        Err(Fault::PeerAlert(name)) => name,
        other => panic!("no alert: {other:?}"),
    }
}

/// Cut anywhere, a record is waited for; changed anywhere, it is refused.
#[test]
fn a_record_is_opened_whole_and_unchanged_or_not_at_all() {
    let mut pair = established();
    let mut wire = Vec::new();
    crate::testing::seal_all(&mut pair.client, b"some data", &mut wire);
    for cut in 0..wire.len() {
        let mut front = wire[..cut].to_vec();
        let opened = pair.server.open(&mut front, |_| panic!("cut at {cut}")).expect("it waits");
        assert_eq!(opened, Opened { consumed: 0, closed: false });
    }
    assert_eq!(open_all(&mut pair.server, &mut wire), b"some data");
    for at in RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + 9 + 17 {
        let mut pair = established();
        let mut wire = Vec::new();
        crate::testing::seal_all(&mut pair.client, b"some data", &mut wire);
        wire[at] ^= 1;
        assert_eq!(open(&mut pair.server, &wire), Err(Fault::Undecryptable), "byte {at}");
        assert!(pair.server.take_alert(&mut [0; CONTROL_BYTES_MAX]) > 0, "bad_record_mac");
        let after = open(&mut pair.server, b"").err();
        assert_eq!(after, Some(Fault::Undecryptable), "a fault stays");
        assert!(pair.server.seal(b"x", &mut [0; 200]).is_err());
        assert_eq!(pair.server.close(&mut [0; 200]), 0, "the alert was all");
    }
}

#[test]
fn a_handshake_cut_at_any_byte_waits() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut pair = Pair::new(&server, &client);
    let (mut hello, mut flight) = (Vec::new(), Vec::new());
    pair.client.handshake(&mut [], &mut hello, NOW).expect("a hello");
    for cut in 0..hello.len() {
        let mut session = server.accept().expect("a session");
        let mut out = Vec::new();
        let advance = session.handshake(&mut hello[..cut].to_vec(), &mut out, NOW);
        assert_eq!(advance, Ok(Advance { consumed: 0, step: Step::NeedInput }), "cut at {cut}");
        assert!(out.is_empty());
    }
    pair.server.handshake(&mut hello, &mut flight, NOW).expect("a flight");
    let mut reader = pair.client;
    let mut has = Vec::new();
    for (at, byte) in flight.iter().enumerate() {
        has.push(*byte);
        let advance = reader.handshake(&mut has, &mut Vec::new(), NOW).expect("it goes on");
        has.drain(..advance.consumed);
        let is_last = at + 1 == flight.len();
        assert_eq!(advance.step == Step::Established, is_last, "byte {at}");
    }
}

/// Whatever of the other side's flight comes first, nothing of it is taken for a header, and nothing
/// that stands behind it is lost.
#[test]
fn a_handshake_in_two_reads_is_one_handshake() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut longest = 1;
    for cut in 1.. {
        longest = longest.max(shake_in_pieces(&server, &client, &[cut, usize::MAX]));
        if cut > longest {
            break;
        }
    }
}

proptest! {
    #[test]
    fn a_handshake_in_any_pieces_is_one_handshake(
        sizes in prop::collection::vec(1..800usize, 1..8),
    ) {
        let root = Authority::new("root");
        let (server, client) = members(&root);
        shake_in_pieces(&server, &client, &sizes);
    }
}

/// Each side gets what the other sends in pieces of `sizes`, again and again, and data right behind
/// the handshake. Returns how much the server gets.
fn shake_in_pieces(server: &ServerTls, client: &ClientTls, sizes: &[usize]) -> usize {
    let mut pair = Pair::new(server, client);
    let (mut hello, mut flight, mut answer) = (Vec::new(), Vec::new(), Vec::new());
    pair.client.handshake(&mut [], &mut hello, NOW).expect("a hello");
    let rest = in_pieces(&mut pair.server, hello, sizes, &mut flight);
    assert_eq!(rest, None, "the client has still something to say");
    in_pieces(&mut pair.client, flight, sizes, &mut answer).expect("established");
    crate::testing::seal_all(&mut pair.client, b"right behind", &mut answer);
    let length = answer.len();
    let rest = in_pieces(&mut pair.server, answer, sizes, &mut Vec::new());
    let mut rest = rest.unwrap_or_else(|| panic!("not established in pieces of {sizes:?}"));
    assert_eq!(open_all(&mut pair.server, &mut rest), b"right behind", "pieces of {sizes:?}");
    length
}

/// Has `session` shake hands with `wire` in pieces. Returns what is behind the handshake once it is
/// over.
fn in_pieces(
    session: &mut Session,
    wire: Vec<u8>,
    sizes: &[usize],
    out: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    let (mut wire, mut has) = (wire, Vec::new());
    for size in sizes.iter().cycle() {
        if wire.is_empty() {
            return None;
        }
        has.extend(wire.drain(..wire.len().min(*size)));
        let advance = session.handshake(&mut has, out, NOW).unwrap_or_else(|fault| {
            panic!("{fault} in pieces of {sizes:?}");
        });
        has.drain(..advance.consumed);
        if advance.step == Step::Established {
            has.append(&mut wire);
            return Some(has);
        }
    }
    None
}

/// 32 records without data, which is what rustls allows, and the beginning of a message.
#[test]
fn a_message_begun_after_too_many_empty_records_is_a_fault_and_no_more() {
    for begun in [&[24][..], &[24, 0, 0, 1]] {
        let (mut server, mut sealer) = with_sealer(NEW);
        let mut wire = sealer.seal_many(ContentType::ApplicationData, b"", 32);
        wire.extend(sealer.seal(ContentType::Handshake, begun));
        wire.extend(sealer.seal(ContentType::Handshake, begun));
        let fault = open(&mut server, &wire).expect_err("too much of nothing");
        assert!(matches!(fault, Fault::EmptyRecords | Fault::PeerMisbehaved(_)), "{fault}");
    }
}

#[test]
fn what_is_no_tls_is_said_to_be_none() {
    let root = Authority::new("root");
    let (server, _) = members(&root);
    let first = |bytes: &[u8]| {
        let mut session = server.accept().expect("a session");
        let mut out = Vec::new();
        let fault = session.handshake(&mut bytes.to_vec(), &mut out, NOW).err();
        assert!(out.len() <= CONTROL_BYTES_MAX);
        fault
    };
    assert_eq!(first(b"GET / HTTP/1.1\r\n\r\n"), Some(Fault::NotTls));
    assert_eq!(first(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Fault::NotTls));
    assert_eq!(first(&[0x80, 0x2e, 1, 3, 1, 0, 0]), Some(Fault::NotTls));
    assert_eq!(first(&[0; 100]), Some(Fault::NotTls));
}

#[test]
fn a_handshake_message_in_fragments_is_bounded() {
    let root = Authority::new("root");
    let (server, _) = members(&root);
    // A ClientHello of 64 KiB, a byte in each record: the header promises what never comes.
    let mut session = server.accept().expect("a session");
    let mut wire = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
    let mut taken = 0;
    let fault = loop {
        wire.extend([22, 3, 1, 0, 1, 0].repeat(100));
        let mut out = Vec::new();
        match session.handshake(&mut wire, &mut out, NOW) {
            Ok(advance) => {
                wire.drain(..advance.consumed);
                taken += 1;
            }
            Err(fault) => break fault,
        }
        assert!(wire.len() <= HANDSHAKE_INPUT_MAX && taken < 1000, "no limit");
    };
    assert_eq!(fault.label(), "peer_misbehaved");
    let mut session = server.accept().expect("a session");
    let mut wire = [22, 3, 1, 0, 4, 1, 1, 0, 0];
    let fault = session.handshake(&mut wire, &mut Vec::new(), NOW).err();
    assert_eq!(fault, Some(misbehaved("handshake payload too large")));
}

#[test]
fn change_cipher_specs_and_empty_fragments_are_limited() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut pair = Pair::new(&server, &client);
    let (mut hello, mut flight) = (Vec::new(), Vec::new());
    pair.client.handshake(&mut [], &mut hello, NOW).expect("a hello");
    pair.server.handshake(&mut hello, &mut flight, NOW).expect("a flight");
    let mut wire = [20, 3, 3, 0, 1, 1].repeat(100);
    let fault = pair.server.handshake(&mut wire, &mut Vec::new(), NOW).err();
    assert_eq!(fault.map(|fault| fault.label()), Some("peer_misbehaved"));
    let mut session = server.accept().expect("a session");
    let mut wire = [22, 3, 1, 0, 0].repeat(100);
    let fault = session.handshake(&mut wire, &mut Vec::new(), NOW).err();
    assert_eq!(fault.map(|fault| fault.label()), Some("peer_misbehaved"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A handshake that was changed on its way does not succeed, and says little.
    #[test]
    fn a_changed_handshake_fails(
        at: prop::sample::Index,
        change in 1u8..,
        of_server: bool,
    ) {
        let root = Authority::new("root");
        let (server, client) = members(&root);
        let mut pair = Pair::new(&server, &client);
        let (mut hello, mut flight, mut last) = (Vec::new(), Vec::new(), Vec::new());
        pair.client.handshake(&mut [], &mut hello, NOW).expect("a hello");
        if !of_server {
            let at = at.index(hello.len());
            hello[at] ^= change;
        }
        let answer = pair.server.handshake(&mut hello, &mut flight, NOW);
        prop_assert!(flight.len() < 8192);
        if of_server {
            let at = at.index(flight.len());
            flight[at] ^= change;
        } else if answer.is_err() {
            return Ok(());
        }
        let ended = pair.client.handshake(&mut flight, &mut last, NOW);
        prop_assert!(last.len() < 8192);
        let done = pair.server.handshake(&mut last, &mut Vec::new(), NOW);
        let both = |advance: &Result<Advance, Fault>| {
            matches!(advance, Ok(Advance { step: Step::Established, .. }))
        };
        // The version of a record is not protected, and not looked at.
        prop_assert!(!(both(&ended) && both(&done)) || is_unprotected(of_server, at.index(5)));
    }
}

/// Bytes that a peer has to ignore: the version in the header of the first record.
fn is_unprotected(_of_server: bool, at: usize) -> bool {
    at < RECORD_HEADER_BYTES
}

/// rustls remembers where the pieces of a message are; the caller may come back with more, or seal
/// in between.
#[test]
fn a_message_in_pieces_may_come_in_several_reads() {
    let root = Authority::new("root");
    let (server, client) = members(&root);
    let mut pair = Pair::new(&server, &client);
    let mut hello = Vec::new();
    pair.client.handshake(&mut [], &mut hello, NOW).expect("a hello");
    let body = &hello[RECORD_HEADER_BYTES..];
    let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    for cut in [1, 3, 4, 5, 100, body.len() - 1] {
        let mut session = server.accept().expect("a session");
        let (mut wire, mut out) = (record(&body[..cut]), Vec::new());
        let advance = session.handshake(&mut wire, &mut out, NOW).expect("it waits");
        wire.drain(..advance.consumed);
        assert_eq!(
            session.handshake(&mut wire, &mut out, NOW).map(|a| a.step),
            Ok(Step::NeedInput)
        );
        wire.extend(record(&body[cut..]));
        session.handshake(&mut wire, &mut out, NOW).expect("it is whole");
        assert!(out.len() > 1000, "cut at {cut}: a flight goes out");
    }
}

#[test]
fn a_message_after_the_handshake_may_be_in_pieces_with_data_sealed_in_between() {
    let (mut server, mut sealer) = with_sealer(NEW);
    let key_update = [24, 0, 0, 1, 0];
    for cut in 1..3 {
        let front = sealer.seal(ContentType::Handshake, &key_update[..cut]);
        assert_eq!(open(&mut server, &front), Ok(Vec::new()));
        assert!(server.seal(b"in between", &mut [0; 200]).expect("it seals").0 > 0);
        let data = sealer.seal(ContentType::ApplicationData, b"x");
        let fault = open(&mut server, &data).expect_err("nothing may come in between");
        assert_eq!(fault.label(), "peer_misbehaved");
        (server, sealer) = with_sealer(NEW);
    }
    let front = sealer.seal(ContentType::Handshake, &key_update[..2]);
    assert_eq!(open(&mut server, &front), Ok(Vec::new()));
    assert!(server.seal(b"in between", &mut [0; 200]).expect("it seals").0 > 0);
    let back = sealer.seal(ContentType::Handshake, &key_update[2..]);
    assert_eq!(open(&mut server, &back), Ok(Vec::new()));
    assert!(server.held.is_empty());
    // Long fragments of a message that does not end.
    let (mut server, mut sealer) = with_sealer(NEW);
    let mut fragment = vec![4, 0, 0xff, 0xff];
    fragment.resize(RECORD_PLAIN_MAX, 0);
    let mut fault = None;
    for _ in 0..10 {
        let wire = sealer.seal(ContentType::Handshake, &fragment);
        fault = fault.or(open(&mut server, &wire).err());
        assert!(server.held.len() <= HELD_BYTES_MAX);
        fragment.fill(0);
    }
    assert_eq!(fault.map(|fault| fault.label()), Some("peer_misbehaved"));
    assert!(server.take_alert(&mut [0; CONTROL_BYTES_MAX]) > 0, "decode_error");
}

#[test]
fn an_alert_follows_a_fault_whatever_stands_behind_it() {
    let mut pair = established();
    assert_eq!(pair.send_to_client(b"with the ticket"), b"with the ticket");
    let mut wire = Vec::new();
    crate::testing::seal_all(&mut pair.client, b"one", &mut wire);
    wire[RECORD_HEADER_BYTES] ^= 1;
    crate::testing::seal_all(&mut pair.client, b"two", &mut wire);
    wire.extend([0; 100]);
    assert_eq!(open(&mut pair.server, &wire), Err(Fault::Undecryptable));
    let mut alert = [0; CONTROL_BYTES_MAX];
    let written = pair.server.take_alert(&mut alert);
    assert!(written > 0);
    let fault = open(&mut pair.client, &alert[..written]);
    assert_eq!(fault, Err(Fault::PeerAlert("bad_record_mac")));
}

/// A record that trickles in byte by byte is no flood of records.
#[test]
fn a_record_in_many_reads_is_one_record() {
    let mut pair = established();
    let mut wire = Vec::new();
    crate::testing::seal_all(&mut pair.client, &[7; 300], &mut wire);
    let (mut has, mut plain) = (Vec::new(), Vec::new());
    for byte in wire {
        has.push(byte);
        plain.extend(open_all(&mut pair.server, &mut has));
    }
    assert_eq!(plain, [7; 300]);
}

#[test]
fn input_that_was_not_consumed_may_not_go_away() {
    let root = Authority::new("root");
    let (server, _) = members(&root);
    let mut session = server.accept().expect("a session");
    // A whole record with the first byte of a message.
    let mut front = [22, 3, 1, 0, 1, 1];
    let advance = session.handshake(&mut front, &mut Vec::new(), NOW).expect("it waits");
    assert_eq!(advance.consumed, 0);
    let fault = session.handshake(&mut front[..3], &mut Vec::new(), NOW).err();
    assert_eq!(fault.map(|fault| fault.label()), Some("internal"));
}
