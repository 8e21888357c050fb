//! PROXY headers: the same at every cut, and written back with the same addresses.

use ringway::proxy_protocol::{HEADER_BYTES_MAX, Header, parse, write};
use ringway_router::ProxyProtocolVersion;

use super::cuts;

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let whole = parse(input);
    for cut in cuts(input) {
        match parse(&input[..cut]) {
            Ok(None) => {}
            Ok(header) => assert_eq!(whole, Ok(header), "cut at {cut}"),
            Err(_) => assert!(whole.is_err(), "cut at {cut}"),
        }
    }
    match whole {
        Ok(Some(header)) => check_header(input, header),
        Ok(None) => assert!(input.len() < HEADER_BYTES_MAX, "too long to wait for more"),
        Err(_) => {}
    }
}

fn check_header(input: &[u8], header: Header) {
    assert!((1..=HEADER_BYTES_MAX).contains(&header.length) && header.length <= input.len());
    assert_eq!(parse(&input[..header.length]), Ok(Some(header)));
    assert_eq!(parse(&input[..header.length - 1]), Ok(None));
    let Some((source, target)) = header.addresses else { return };
    assert_eq!(source.is_ipv4(), target.is_ipv4());
    for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
        let written = write(version, source, target);
        let again = Header { length: written.len(), addresses: header.addresses };
        assert_eq!(parse(&written), Ok(Some(again)));
    }
}
