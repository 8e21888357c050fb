//! TLS sessions: whatever a peer sends that is not the other side of this handshake is not
//! accepted, ends in one fault that stays, and makes us send little.
//!
//! The input is taken twice: as the bytes that come, and as changes to a hello that is right (three
//! bytes each: where, and what to flip). Handshakes draw random numbers; the verdict does not
//! depend on them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ringway_tls::limits::{CONTROL_BYTES_MAX, RECORD_HEADER_BYTES};
use ringway_tls::{
    Advance, Bundle, ClientSettings, ClientTls, KeyPair, Peers, ServerName, ServerSettings,
    ServerTls, Session, Step, Trust, UnixTime,
};

/// Bytes that a session sends in one call at most: a hello or a flight of the server.
const SENT_MAX: usize = 4096;
/// 1 June 2027, within the validity of the certificates.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_811_808_000));

static SIDES: LazyLock<(ServerTls, ClientTls)> = LazyLock::new(|| {
    let bundle = Bundle::parse(include_bytes!("tls/root.pem"), &[]).expect("the root is usable");
    let bundle = Arc::new(bundle);
    let (chain, key) = (include_bytes!("tls/member.pem"), include_bytes!("tls/member.key"));
    let pair = Arc::new(KeyPair::parse(chain, key, None).expect("the pair is usable"));
    let expected = [pair.spiffe().expect("a member has an id").clone()].into();
    let server = ServerTls::build(&ServerSettings {
        certificates: &[Arc::clone(&pair)],
        peers: Peers::Required(Arc::clone(&bundle)),
        tls12: true,
        alpn: &[],
        resumption: true,
    });
    let client = ClientTls::build(&ClientSettings {
        pair: Some(pair),
        trust: Trust::Mesh { bundle, expected },
        tls12: true,
        alpn: Vec::new(),
        resumption: false,
    });
    (server.expect("the settings are usable"), client.expect("the settings are usable"))
});

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let (server, client) = &*SIDES;
    for piece in [input.len().max(1), 7] {
        feed(&mut server.accept().expect("a session"), input, piece);
        feed(&mut connect(client).0, input, piece);
    }
    check_changed_hello(input);
}

/// A client and its hello.
fn connect(client: &ClientTls) -> (Session, Vec<u8>) {
    let name = ServerName::try_from("a.example").expect("a name");
    let mut session = client.connect(name, NOW).expect("a session");
    let mut hello = Vec::new();
    session.handshake(&mut [], &mut hello, NOW).expect("a hello is written");
    assert!(!hello.is_empty() && hello.len() <= SENT_MAX);
    (session, hello)
}

/// Gives `input` to a session in pieces.
fn feed(session: &mut Session, input: &[u8], piece: usize) {
    let mut has = Vec::new();
    let mut sent = 0;
    for part in input.chunks(piece) {
        has.extend_from_slice(part);
        let mut out = Vec::new();
        let advance = session.handshake(&mut has, &mut out, NOW);
        sent += out.len();
        assert!(sent <= SENT_MAX, "{sent} bytes sent");
        match advance {
            Ok(Advance { consumed, step: Step::NeedInput }) => {
                has.drain(..consumed);
            }
            Ok(Advance { step: Step::Established, .. }) => panic!("accepted"),
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                let again = session.handshake(&mut has, &mut Vec::new(), NOW);
                assert_eq!(again, Err(fault), "a fault stays");
                assert_eq!(session.close(&mut [0; CONTROL_BYTES_MAX]), 0);
                break;
            }
        }
        assert!(session.peer().is_none());
    }
    assert!(session.open(&mut [], |_| panic!("data")).is_err());
}

/// Lets a server answer a hello that was changed on its way; the two must not both be satisfied.
fn check_changed_hello(input: &[u8]) {
    let (server, client) = &*SIDES;
    let (mut client, mut hello) = connect(client);
    let original = hello.clone();
    for change in input.chunks_exact(3).take(16) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
        // The header of a record is not protected.
        let body = hello.len() - RECORD_HEADER_BYTES;
        hello[RECORD_HEADER_BYTES + at % body] ^= change[2];
    }
    let is_changed = hello != original;
    let mut server = server.accept().expect("a session");
    let (mut flight, mut last) = (Vec::new(), Vec::new());
    match server.handshake(&mut hello, &mut flight, NOW) {
        Ok(advance) => hello.drain(..advance.consumed),
        // It may fail over what stands behind a hello that was made shorter.
        Err(_) => return assert!(flight.len() <= SENT_MAX),
    };
    assert!(flight.len() <= SENT_MAX);
    let ended = client.handshake(&mut flight, &mut last, NOW);
    assert!(last.len() <= SENT_MAX);
    hello.extend_from_slice(&last);
    let done = server.handshake(&mut hello, &mut Vec::new(), NOW);
    let is_accepted = matches!(done, Ok(Advance { step: Step::Established, .. }));
    assert_eq!(is_accepted, !is_changed, "{ended:?}, {done:?}");
}
