//! A look at a ClientHello without terminating: server name and application protocols.
//!
//! ```text
//! record  ┌ 22 │ 3 x │ length ┬────────────────────┐ ┌ 22 │ 3 x │ length ┬───────┐
//! message                     │ 1 │ length (3) │ body ...                  ... end │
//! ```
//!
//! A message may be cut into records of any length, and records into reads of any length
//! (RFC 8446 section 5.1). The whole input so far is looked at anew each time: nothing is kept
//! between reads, and copied only when a message that spans records is complete.
//!
//! # Invariants
//! - Where reads and records cut the bytes does not change what is found.
//! - At most [`HELLO_BYTES_MAX`] bytes are waited for.
//! - A name that is found is a DNS name by the same rules that rustls applies when it terminates.
//!
//! # Not here
//! All other fields. Encrypted ClientHello: its outer name, which is found, is what may be routed
//! by.

use rustls_pki_types::{DnsName, IpAddr};

use crate::limits::{HELLO_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_PLAIN_MAX};

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Type and length of a handshake message.
const MESSAGE_HEADER_BYTES: usize = 4;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello<'a> {
    /// More bytes are needed.
    Partial,
    /// The whole ClientHello is there.
    Complete {
        /// Name of the host that the client asks for, as it wrote it but for a dot at the end. An
        /// address, which RFC 6066 section 3 forbids, counts as no name.
        sni: Option<&'a str>,
        /// `h2` is among the application protocols.
        offers_h2: bool,
        /// `http/1.1` is among the application protocols.
        offers_http11: bool,
        /// Bytes of the records that make up the ClientHello.
        length: usize,
    },
}

/// Why the bytes are no ClientHello that can be routed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloFault {
    /// The bytes are no TLS handshake.
    #[error("not a TLS ClientHello")]
    NotTls,
    /// Longer than 16 KiB.
    #[error("the ClientHello is longer than {HELLO_BYTES_MAX} bytes")]
    TooLong,
    /// Lengths that do not fit into each other.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// A server name that is neither DNS name nor address.
    #[error("the server name is not a DNS name")]
    BadName,
    /// Two server names, or an extension that is looked at and stands there twice.
    #[error("the ClientHello has two server names or two lists of protocols")]
    Duplicate,
}

/// Reads `input`, all bytes of the connection so far. `scratch` takes the message if it spans
/// several records.
///
/// # Errors
/// What makes it something else than a ClientHello.
pub fn parse<'a>(input: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Hello<'a>, HelloFault> {
    match looks_like_tls(input) {
        Some(true) => {}
        Some(false) => return Err(HelloFault::NotTls),
        // What else is wrong with a header is said once it is known to be one.
        None => return Ok(Hello::Partial),
    }
    let Some(message) = Message::find(input)? else { return Ok(Hello::Partial) };
    let bytes = if message.spans {
        scratch.clear();
        let mut rest = &input[..message.length];
        while let Some((payload, after)) = split_record(rest)? {
            scratch.extend_from_slice(payload);
            rest = after;
        }
        scratch.as_slice()
    } else {
        &input[RECORD_HEADER_BYTES..message.length]
    };
    let body = &bytes[MESSAGE_HEADER_BYTES..];
    read_body(&mut Reader(body), message.length)
}

/// Whether a connection begins as TLS: a handshake record with a ClientHello, of whatever version
/// 3.x (RFC 5246 appendix E.1); `None` if that takes more bytes, at most 6.
#[must_use]
pub fn looks_like_tls(first_bytes: &[u8]) -> Option<bool> {
    for (index, &byte) in first_bytes.iter().take(6).enumerate() {
        let is_expected = match index {
            0 => byte == HANDSHAKE_RECORD,
            1 => byte == 3,
            5 => byte == CLIENT_HELLO,
            _ => true,
        };
        if !is_expected {
            return Some(false);
        }
    }
    (first_bytes.len() >= 6).then_some(true)
}

/// Where a complete message is.
struct Message {
    /// Bytes of its records.
    length: usize,
    /// It is in more than one record.
    spans: bool,
}

impl Message {
    /// Walks over the records until they hold a whole message; `None` if they do not yet.
    fn find(input: &[u8]) -> Result<Option<Message>, HelloFault> {
        let mut header = [0; MESSAGE_HEADER_BYTES];
        let (mut rest, mut held, mut records) = (input, 0, 0);
        loop {
            let begun = input.len() - rest.len();
            if begun + peek_length(rest) > HELLO_BYTES_MAX {
                return Err(HelloFault::TooLong);
            }
            let Some((payload, after)) = split_record(rest)? else { return Ok(None) };
            for (byte, slot) in payload.iter().zip(header.iter_mut().skip(held)) {
                *slot = *byte;
            }
            held += payload.len();
            records += 1;
            rest = after;
            if held < MESSAGE_HEADER_BYTES {
                continue;
            }
            let [kind, high, middle, low] = header;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let length = length + MESSAGE_HEADER_BYTES;
            if kind != CLIENT_HELLO {
                return Err(HelloFault::NotTls);
            }
            if length > HELLO_BYTES_MAX {
                return Err(HelloFault::TooLong);
            }
            if held > length {
                // A second message in the same record: nothing may follow a ClientHello.
                return Err(HelloFault::Malformed);
            }
            if held == length {
                return Ok(Some(Message { length: input.len() - rest.len(), spans: records > 1 }));
            }
        }
    }
}

/// Bytes of the record that begins `input`, as far as its header is there.
fn peek_length(input: &[u8]) -> usize {
    match input {
        [_, _, _, high, low, ..] => {
            RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => input.len(),
    }
}

/// The payload of a record and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// Splits off the first record; `None` if it is not whole.
fn split_record(input: &[u8]) -> Result<Option<Split<'_>>, HelloFault> {
    let [kind, major, _, _, _, rest @ ..] = input else { return Ok(None) };
    if (*kind, *major) != (HANDSHAKE_RECORD, 3) {
        return Err(HelloFault::NotTls);
    }
    let length = peek_length(input) - RECORD_HEADER_BYTES;
    if length == 0 || length > RECORD_PLAIN_MAX {
        // RFC 8446 section 5.1: no empty fragments of handshake messages.
        return Err(HelloFault::Malformed);
    }
    Ok(rest.split_at_checked(length))
}

/// RFC 8446 section 4.1.2.
fn read_body<'a>(body: &mut Reader<'a>, length: usize) -> Result<Hello<'a>, HelloFault> {
    body.take(2 + 32)?;
    if body.vector8()?.0.len() > 32 {
        return Err(HelloFault::Malformed);
    }
    let suites = body.vector16()?.0.len();
    if suites == 0 || suites % 2 != 0 || body.vector8()?.0.is_empty() {
        return Err(HelloFault::Malformed);
    }
    let (mut name, mut protocols) = (None, None);
    if !body.0.is_empty() {
        let mut extensions = body.vector16()?;
        while !extensions.0.is_empty() {
            let kind = extensions.number()?;
            let content = extensions.vector16()?;
            let seen = match kind {
                SERVER_NAME => name.replace(content).is_some(),
                ALPN => protocols.replace(content).is_some(),
                _ => false,
            };
            if seen {
                return Err(HelloFault::Duplicate);
            }
        }
    }
    if !body.0.is_empty() {
        return Err(HelloFault::Malformed);
    }
    let sni = name.map_or(Ok(None), read_name)?;
    let (offers_h2, offers_http11) = protocols.map_or(Ok((false, false)), read_protocols)?;
    Ok(Hello::Complete { sni, offers_h2, offers_http11, length })
}

/// RFC 6066 section 3: a list of names, of which there is one kind.
fn read_name(mut content: Reader<'_>) -> Result<Option<&str>, HelloFault> {
    let mut names = content.vector16()?;
    if names.0.is_empty() || !content.0.is_empty() {
        return Err(HelloFault::Malformed);
    }
    let mut host = None;
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vector16()?;
        if kind == HOST_NAME && host.replace(name.0).is_some() {
            return Err(HelloFault::Duplicate);
        }
    }
    let Some(host) = host else { return Ok(None) };
    let host = std::str::from_utf8(host).map_err(|_| HelloFault::BadName)?;
    if IpAddr::try_from(host).is_ok() {
        return Ok(None);
    }
    DnsName::try_from(host).map_err(|_| HelloFault::BadName)?;
    Ok(Some(host.strip_suffix('.').unwrap_or(host)))
}

/// RFC 7301 section 3.1: whether `h2` and `http/1.1` are in the list.
fn read_protocols(mut content: Reader<'_>) -> Result<(bool, bool), HelloFault> {
    let mut protocols = content.vector16()?;
    if protocols.0.is_empty() || !content.0.is_empty() {
        return Err(HelloFault::Malformed);
    }
    let (mut h2, mut http11) = (false, false);
    while !protocols.0.is_empty() {
        match protocols.vector8()?.0 {
            b"" => return Err(HelloFault::Malformed),
            b"h2" => h2 = true,
            b"http/1.1" => http11 = true,
            _ => {}
        }
    }
    Ok((h2, http11))
}

/// What is left of a structure.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloFault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloFault::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, HelloFault> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<Reader<'a>, HelloFault> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length).map(Reader)
    }

    fn vector16(&mut self) -> Result<Reader<'a>, HelloFault> {
        let length = usize::from(self.number()?);
        self.take(length).map(Reader)
    }
}

#[cfg(test)]
mod tests;
