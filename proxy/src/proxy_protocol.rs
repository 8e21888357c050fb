//! The PROXY protocol, versions 1 and 2, both ways: who the client is, in front of its bytes
//! (the specification of HAProxy, `doc/proxy-protocol.txt`).
//!
//! # Invariants
//! - A listener that expects the header takes nothing else: a connection without one is refused,
//!   or anybody could claim to be anybody.
//! - Incomplete input is not an error; the header is at most [`HEADER_BYTES_MAX`] long.
//!
//! # Not here
//! Type-length-values: they are skipped. Who may send the header: that is a matter of who can
//! reach the listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringway_router::ProxyProtocolVersion;
use thiserror::Error;

/// Longest header: 16 bytes and the addresses and values that a sane sender puts behind them.
pub const HEADER_BYTES_MAX: usize = 16 + 2048;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1 (section 2.1 of the specification).
const LINE_BYTES_MAX: usize = 107;

/// Why the bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// Neither version.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// Version 1, malformed.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Version 2 with a command, version or length that is not known.
    #[error("the PROXY header is of an unknown kind")]
    Unknown,
}

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes.
    pub length: usize,
    /// Client and destination; `None` when the sender speaks for itself or does not say.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Reads a header at the front of `input`; `None` when more bytes are needed.
///
/// # Errors
/// When the bytes cannot become a header.
pub fn parse(input: &[u8]) -> Result<Option<Header>, HeaderFault> {
    let shown = input.len().min(SIGNATURE.len());
    if input[..shown] == SIGNATURE[..shown] {
        return if input.len() < 16 { Ok(None) } else { parse_v2(input) };
    }
    let shown = input.len().min(6);
    if input[..shown] != b"PROXY "[..shown] {
        return Err(HeaderFault::Missing);
    }
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    match memchr::memchr(b'\n', window) {
        Some(end) => parse_v1(&input[..=end]).map(Some),
        None if window.len() == LINE_BYTES_MAX => Err(HeaderFault::Malformed),
        None => Ok(None),
    }
}

fn parse_v1(line: &[u8]) -> Result<Header, HeaderFault> {
    let text = line.strip_suffix(b"\r\n").ok_or(HeaderFault::Malformed)?;
    let text = std::str::from_utf8(text).map_err(|_| HeaderFault::Malformed)?;
    let words: Vec<&str> = text.split(' ').collect();
    let header = |addresses| Ok(Header { length: line.len(), addresses });
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => header(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, source_port, target_port] => {
            let source = address(family, source, source_port)?;
            let target = address(family, target, target_port)?;
            header(Some((source, target)))
        }
        _ => Err(HeaderFault::Malformed),
    }
}

fn address(family: &str, address: &str, port: &str) -> Result<SocketAddr, HeaderFault> {
    let ip: IpAddr = if family == "TCP4" {
        address.parse::<Ipv4Addr>().map_err(|_| HeaderFault::Malformed)?.into()
    } else {
        address.parse::<Ipv6Addr>().map_err(|_| HeaderFault::Malformed)?.into()
    };
    let canonical = port == "0" || !port.starts_with(['0', '+']);
    let port = port.parse().ok().filter(|_| canonical).ok_or(HeaderFault::Malformed)?;
    Ok(SocketAddr::new(ip, port))
}

fn parse_v2(input: &[u8]) -> Result<Option<Header>, HeaderFault> {
    let (command, family) = (input[12], input[13]);
    let body_length = usize::from(u16::from_be_bytes([input[14], input[15]]));
    let length = 16 + body_length;
    if !matches!(command, 0x20 | 0x21) || length > HEADER_BYTES_MAX {
        return Err(HeaderFault::Unknown);
    }
    if input.len() < length {
        return Ok(None);
    }
    let body = &input[16..length];
    let addresses = match (command, family) {
        (0x20, _) => None,
        (_, 0x11) => Some(v2_addresses::<4>(body)?),
        (_, 0x21) => Some(v2_addresses::<16>(body)?),
        // Datagrams and sockets of the file system say nothing about a TCP client.
        _ => None,
    };
    Ok(Some(Header { length, addresses }))
}

fn v2_addresses<const N: usize>(body: &[u8]) -> Result<(SocketAddr, SocketAddr), HeaderFault>
where
    IpAddr: From<[u8; N]>,
{
    let source = body.first_chunk::<N>().ok_or(HeaderFault::Malformed)?;
    let target = body[N..].first_chunk::<N>().ok_or(HeaderFault::Malformed)?;
    let ports = body[2 * N..].first_chunk::<4>().ok_or(HeaderFault::Malformed)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Ok((
        SocketAddr::new(IpAddr::from(*source), port(0)),
        SocketAddr::new(IpAddr::from(*target), port(2)),
    ))
}

/// Writes the header that says `source` is the client of a connection to `target`.
#[must_use]
pub fn write(version: ProxyProtocolVersion, source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let (source, target) = same_family(source, target);
    match version {
        ProxyProtocolVersion::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), target.ip());
            let (from_port, to_port) = (source.port(), target.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        ProxyProtocolVersion::V2 => {
            let mut header = SIGNATURE.to_vec();
            let (family, length) = if source.is_ipv4() { (0x11, 12u16) } else { (0x21, 36) };
            header.extend([0x21, family]);
            header.extend(length.to_be_bytes());
            for address in [source, target] {
                match address.ip() {
                    IpAddr::V4(ip) => header.extend(ip.octets()),
                    IpAddr::V6(ip) => header.extend(ip.octets()),
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(target.port().to_be_bytes());
            header
        }
    }
}

/// The header has one family for both addresses: an IPv4 one is mapped when they differ.
fn same_family(source: SocketAddr, target: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    if source.is_ipv4() == target.is_ipv4() {
        (source, target)
    } else {
        (mapped(source), mapped(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_at_every_cut() {
        for (source, target) in [
            ("192.0.2.1:1234", "198.51.100.2:80"),
            ("[2001:db8::1]:1234", "[2001:db8::2]:80"),
            ("192.0.2.1:1234", "[2001:db8::2]:80"),
        ] {
            let (source, target) = (socket(source), socket(target));
            for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
                let wire = write(version, source, target);
                let expected =
                    Header { length: wire.len(), addresses: Some(same_family(source, target)) };
                let more = [&wire[..], b"GET /"].concat();
                assert_eq!(parse(&more), Ok(Some(expected)));
                for cut in 0..wire.len() {
                    assert_eq!(parse(&wire[..cut]), Ok(None), "cut at byte {cut}");
                }
            }
        }
    }

    #[test]
    fn a_sender_that_speaks_for_itself_names_nobody() {
        let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
        assert_eq!(parse(&local), Ok(Some(Header { length: 16, addresses: None })));
        let unknown = parse(b"PROXY UNKNOWN\r\n");
        assert_eq!(unknown, Ok(Some(Header { length: 15, addresses: None })));
    }

    #[test]
    fn anything_else_is_refused() {
        for (wire, fault) in [
            (&b"GET / HTTP/1.1\r\n"[..], HeaderFault::Missing),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", HeaderFault::Malformed),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", HeaderFault::Malformed),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", HeaderFault::Malformed),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", HeaderFault::Malformed),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", HeaderFault::Malformed),
            (b"PROXY TCP9 1.1.1.1 2.2.2.2 1 2\r\n", HeaderFault::Malformed),
        ] {
            assert_eq!(parse(wire), Err(fault), "{:?}", String::from_utf8_lossy(wire));
        }
        let long = [b"PROXY ".to_vec(), vec![b'a'; LINE_BYTES_MAX]].concat();
        assert_eq!(parse(&long), Err(HeaderFault::Malformed));
        let short = [&SIGNATURE[..], &[0x21, 0x11, 0, 4, 1, 1, 1, 1]].concat();
        assert_eq!(parse(&short), Err(HeaderFault::Malformed));
        let version = [&SIGNATURE[..], &[0x31, 0x11, 0, 0]].concat();
        assert_eq!(parse(&version), Err(HeaderFault::Unknown));
        let huge = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(parse(&huge), Err(HeaderFault::Unknown));
    }
}
