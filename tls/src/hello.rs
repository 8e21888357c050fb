//! A look at a ClientHello without terminating: server name and application protocols.

use crate::limits::HELLO_BYTES_MAX;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello<'a> {
    /// More bytes are needed.
    Partial,
    /// The whole ClientHello is there.
    Complete {
        /// Name of the host that the client asks for, as it wrote it.
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
    /// A server name that is no DNS name.
    #[error("the server name is not a DNS name")]
    BadName,
    /// An extension that stands there twice.
    #[error("the ClientHello has an extension twice")]
    Duplicate,
}

/// Reads `input`, all bytes of the connection so far. `scratch` takes the ClientHello if it spans
/// several records.
///
/// # Errors
/// What makes it something else than a ClientHello.
pub fn parse<'a>(input: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Hello<'a>, HelloFault> {
    let _ = scratch;
    if looks_like_tls(input) == Some(false) {
        return Err(HelloFault::NotTls);
    }
    Ok(Hello::Partial)
}

/// Whether a connection begins as TLS; `None` if that takes more bytes, at most 6.
#[must_use]
pub fn looks_like_tls(first_bytes: &[u8]) -> Option<bool> {
    let expected: [&dyn Fn(u8) -> bool; 6] =
        [&|b| b == 0x16, &|b| b == 3, &|b| b <= 4, &|_| true, &|_| true, &|b| b == 1];
    for (index, is_expected) in expected.iter().enumerate() {
        match first_bytes.get(index) {
            Some(&byte) if !is_expected(byte) => return Some(false),
            Some(_) => {}
            None => return None,
        }
    }
    Some(true)
}
