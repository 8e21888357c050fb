//! ClientHellos, cut everywhere, and malformed ones.

use proptest::prelude::*;

use super::*;
use crate::testing::{Authority, NOW, client};
use crate::{ServerName, Trust};

fn u16s(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("it fits").to_be_bytes()
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16s(content.len()), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &vector16(&[&[HOST_NAME], &vector16(name)[..]].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> =
        protocols.iter().flat_map(|name| [&[name.len() as u8], *name].concat()).collect();
    extension(ALPN, &vector16(&list))
}

/// A ClientHello message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend_from_slice(&vector16(&extensions.concat()));
    with_header(&body)
}

fn with_header(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("it fits").to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], body].concat()
}

/// `message` in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1], &vector16(part)[..]].concat()).collect()
}

/// What is found, with the name as an owned text.
type Found = Result<Option<(Option<String>, bool, bool, usize)>, HelloFault>;

fn look(input: &[u8]) -> Found {
    let mut scratch = Vec::new();
    match parse(input, &mut scratch)? {
        Hello::Partial => Ok(None),
        Hello::Complete { sni, offers_h2, offers_http11, length } => {
            Ok(Some((sni.map(str::to_owned), offers_h2, offers_http11, length)))
        }
    }
}

fn look_at(extensions: &[Vec<u8>]) -> Result<Option<String>, HelloFault> {
    let found = look(&records(&message(extensions), RECORD_PLAIN_MAX))?;
    Ok(found.expect("it is complete").0)
}

#[test]
fn the_hello_of_rustls_is_read() {
    let root = Authority::new("root");
    let expected = [crate::testing::id("spiffe://mesh.example/a")].into();
    let tls = client(None, Trust::Mesh { bundle: root.bundle(), expected });
    let name = ServerName::try_from("A.example").expect("a name");
    let mut session = tls.connect(name, NOW).expect("a client can be made");
    let mut hello = Vec::new();
    session.handshake(&mut [], &mut hello, NOW).expect("a hello is written");
    assert!(hello.len() > 1400, "a post-quantum hello does not fit into one segment");
    let found = look(&hello).expect("it is one").expect("it is whole");
    assert_eq!(found, (Some("A.example".into()), true, true, hello.len()));
}

#[test]
fn cuts_by_reads_and_records_do_not_matter() {
    let message = message(&[
        extension(0x2a2a, &[]),
        server_name(b"svc.mesh.example"),
        alpn(&[b"\x1a\x1a", b"http/1.1", b"h2"]),
        extension(0xfe0d, &[0; 100]),
    ]);
    for size in 1..=message.len() {
        let wire = [records(&message, size), b"what follows".to_vec()].concat();
        let length = wire.len() - 12;
        for cut in 0..length {
            assert_eq!(look(&wire[..cut]), Ok(None), "records of {size}, cut at {cut}");
        }
        let whole = Ok(Some((Some("svc.mesh.example".into()), true, true, length)));
        assert_eq!(look(&wire[..length]), whole);
        assert_eq!(look(&wire), whole, "records of {size}");
    }
}

#[test]
fn a_hello_without_names_or_extensions_is_complete() {
    assert_eq!(look_at(&[]), Ok(None));
    let mut body = message(&[])[MESSAGE_HEADER_BYTES..].to_vec();
    body.truncate(body.len() - 2);
    let wire = records(&with_header(&body), RECORD_PLAIN_MAX);
    assert_eq!(look(&wire), Ok(Some((None, false, false, wire.len()))));
}

#[test]
fn names_are_dns_names_or_refused() {
    let named = |name: &[u8]| look_at(&[server_name(name)]);
    assert_eq!(named(b"a.example"), Ok(Some("a.example".into())));
    assert_eq!(named(b"a.example."), Ok(Some("a.example".into())));
    assert_eq!(named(b"A_b-1.EXAMPLE"), Ok(Some("A_b-1.EXAMPLE".into())));
    assert_eq!(named(b"localhost"), Ok(Some("localhost".into())));
    assert_eq!(named(b"10.0.0.1"), Ok(None));
    assert_eq!(named(b"fd00::1"), Ok(None));
    let long = [b"a.".repeat(126), b"ab".to_vec()].concat();
    assert_eq!(named(&long[..253]).map(|name| name.map(|name| name.len())), Ok(Some(253)));
    for bad in [
        b"".as_slice(),
        b".",
        b"..",
        b".a",
        b"a..b",
        b"-a.example",
        b"a.example:443",
        b"*.example",
        b"a b",
        b"a\0.example",
        b"[fd00::1]",
        b"10.0.0.256",
        b"\xff",
        "ä.example".as_bytes(),
        &long,
        &[b'a'; 64],
        &[b'a'; 4000],
    ] {
        assert_eq!(named(bad), Err(HelloFault::BadName), "{:?}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn what_stands_there_twice_is_refused() {
    let (one, other) = (server_name(b"a.example"), server_name(b"b.example"));
    assert_eq!(look_at(&[one.clone(), other]), Err(HelloFault::Duplicate));
    assert_eq!(look_at(&[one.clone(), one]), Err(HelloFault::Duplicate));
    assert_eq!(look_at(&[alpn(&[b"h2"]), alpn(&[b"h2"])]), Err(HelloFault::Duplicate));
    let entry = [&[HOST_NAME], &vector16(b"a.example")[..]].concat();
    let two = extension(SERVER_NAME, &vector16(&entry.repeat(2)));
    assert_eq!(look_at(&[two]), Err(HelloFault::Duplicate));
    let other_kind = [&[9], &vector16(b"x")[..], &entry].concat();
    let with_another_kind = extension(SERVER_NAME, &vector16(&other_kind));
    assert_eq!(look_at(&[with_another_kind]), Ok(Some("a.example".into())));
}

#[test]
fn malformed_lists_are_refused() {
    for (case, content) in [
        ("empty extension", vec![]),
        ("empty list", vector16(&[])),
        ("list longer than its extension", vec![0, 9, 0]),
        ("list shorter than its extension", vec![0, 4, 0, 0, 1, b'a', 0]),
        ("name longer than its list", vec![0, 4, 0, 0, 2, b'a']),
        ("kind without a name", vec![0, 1, 0]),
    ] {
        let found = look_at(&[extension(SERVER_NAME, &content)]);
        assert_eq!(found, Err(HelloFault::Malformed), "{case}");
    }
    for (case, content) in [
        ("empty extension", vec![]),
        ("empty list", vector16(&[])),
        ("empty protocol", vec![0, 1, 0]),
        ("protocol longer than its list", vec![0, 2, 2, b'h']),
        ("list shorter than its extension", vec![0, 3, 2, b'h', b'2', 0]),
    ] {
        assert_eq!(look_at(&[extension(ALPN, &content)]), Err(HelloFault::Malformed), "{case}");
    }
}

#[test]
fn every_shortened_body_is_malformed() {
    let whole = message(&[server_name(b"a.example"), alpn(&[b"h2"])]);
    let body = &whole[MESSAGE_HEADER_BYTES..];
    let without_extensions = body.len() - 2 - 18 - 9;
    for length in 0..body.len() {
        let found = look(&records(&with_header(&body[..length]), RECORD_PLAIN_MAX));
        if length == without_extensions {
            assert!(found.is_ok(), "it ends before its extensions");
        } else if length == 0 {
            assert_eq!(found, Err(HelloFault::Malformed));
        } else {
            assert_eq!(found, Err(HelloFault::Malformed), "{length} bytes");
        }
    }
    let longer = [body, &[0]].concat();
    assert_eq!(look(&records(&with_header(&longer), 100)), Err(HelloFault::Malformed));
}

#[test]
fn what_is_no_client_hello_is_refused_by_its_first_bytes() {
    let hello = records(&message(&[]), RECORD_PLAIN_MAX);
    for length in 0..6 {
        assert_eq!(looks_like_tls(&hello[..length]), None);
    }
    assert_eq!(looks_like_tls(&hello), Some(true));
    let mut newer = hello.clone();
    newer[2] = 0xff;
    assert_eq!(looks_like_tls(&newer), Some(true), "the minor version is ignored");
    assert!(look(&newer).is_ok());
    for (index, byte) in [(0, 23), (0, b'G'), (1, 2), (5, 2)] {
        let mut other = hello.clone();
        other[index] = byte;
        assert_eq!(looks_like_tls(&other[..=index]), Some(false), "byte {index}");
        assert_eq!(look(&other[..=index]), Err(HelloFault::NotTls));
    }
    assert_eq!(looks_like_tls(b"GET / HTTP/1.1"), Some(false));
    assert_eq!(looks_like_tls(b"PRI * HTTP/2.0"), Some(false));
    assert_eq!(looks_like_tls(&[0x80, 0x2e, 1, 3, 1]), Some(false), "SSL 2");
}

#[test]
fn a_second_record_of_another_kind_or_an_empty_one_is_refused() {
    let message = message(&[server_name(b"a.example")]);
    let (front, back) = message.split_at(20);
    let alert = [records(front, 100), vec![21, 3, 3, 0, 2, 1, 0]].concat();
    assert_eq!(look(&alert), Err(HelloFault::NotTls));
    let empty = [records(front, 100), vec![22, 3, 3, 0, 0], records(back, 100)].concat();
    assert_eq!(look(&empty), Err(HelloFault::Malformed));
    let two = [&message[..], &message[..]].concat();
    assert_eq!(look(&records(&two, RECORD_PLAIN_MAX)), Err(HelloFault::Malformed));
}

#[test]
fn a_hello_is_limited_to_16_kib_with_its_headers() {
    let padded = |bytes: usize| {
        let empty = message(&[server_name(b"a.example"), extension(21, &[])]).len();
        message(&[server_name(b"a.example"), extension(21, &vec![0; bytes - empty])])
    };
    let at = records(&padded(HELLO_BYTES_MAX - 2 * RECORD_HEADER_BYTES), HELLO_BYTES_MAX / 2);
    assert_eq!(at.len(), HELLO_BYTES_MAX);
    assert!(matches!(look(&at), Ok(Some(_))));
    let past = records(&padded(HELLO_BYTES_MAX - 2 * RECORD_HEADER_BYTES + 1), HELLO_BYTES_MAX / 2);
    assert_eq!(look(&past), Err(HelloFault::TooLong));
    let announced = [22, 3, 1, 0, 4, CLIENT_HELLO, 0, 0x40, 0];
    assert_eq!(look(&announced), Err(HelloFault::TooLong), "known from the header");
    assert_eq!(look(&[22, 3, 1, 0x40, 0]), Ok(None), "perhaps it is no TLS");
    assert_eq!(look(&[22, 3, 1, 0x40, 0, CLIENT_HELLO]), Err(HelloFault::TooLong));
    let tiny = records(&padded(4000), 1);
    assert_eq!(look(&tiny), Err(HelloFault::TooLong), "records of a byte each");
}

proptest! {
    /// Where the records and the read are cut does not matter, for any hello.
    #[test]
    fn a_hello_is_split_invariant(
        host in proptest::option::of("[a-z]{1,10}(\\.[a-z]{1,10}){0,3}"),
        h2: bool,
        http11: bool,
        others in proptest::collection::vec((100..u16::MAX, proptest::collection::vec(0u8.., 0..60)), 0..6),
        size in 1usize..400,
        cut: prop::sample::Index,
    ) {
        let mut extensions: Vec<_> =
            others.iter().map(|(kind, content)| extension(*kind, content)).collect();
        extensions.extend(host.as_deref().map(|host| server_name(host.as_bytes())));
        let mut protocols: Vec<&[u8]> = vec![b"\x0a\x0a"];
        protocols.extend(h2.then_some(b"h2".as_slice()));
        protocols.extend(http11.then_some(b"http/1.1".as_slice()));
        extensions.insert(extensions.len() / 2, alpn(&protocols));
        let wire = records(&message(&extensions), size);
        let cut = cut.index(wire.len());
        prop_assert_eq!(look(&wire[..cut]), Ok(None));
        prop_assert_eq!(look(&wire), Ok(Some((host, h2, http11, wire.len()))));
    }

    /// Any bytes give a verdict, which more bytes do not take back.
    #[test]
    fn a_verdict_stands(mut bytes in proptest::collection::vec(0u8.., 0..300), as_hello: bool) {
        if as_hello && bytes.len() > 9 {
            bytes[..6].copy_from_slice(&[22, 3, 1, 0, 60, 1]);
            bytes[6..8].copy_from_slice(&[0, 0]);
        }
        let whole = look(&bytes);
        for cut in 0..bytes.len() {
            let found = look(&bytes[..cut]);
            prop_assert!(found == Ok(None) || found == whole, "cut at {}", cut);
        }
    }
}
