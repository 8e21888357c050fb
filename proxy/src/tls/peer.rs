//! What a TLS handshake has told about the other side.

use std::fmt::Write;

use ringway_tls::{Alpn, CertificateDer, Session, SpiffeId};

use super::handshake::Side;

/// The other side of a TLS connection.
#[derive(Debug)]
pub struct TlsPeer {
    /// Where it is.
    pub side: Side,
    /// Its verified identity, in a mesh.
    pub identity: Option<SpiffeId>,
    /// The application protocol that was agreed on.
    pub alpn: Option<Alpn>,
    /// Its certificates as it sent them, the leaf first. Empty if it was not asked for any.
    pub chain: Box<[CertificateDer<'static>]>,
    /// SHA-256 of its leaf in hexadecimal; empty without one.
    pub fingerprint: Box<str>,
}

impl TlsPeer {
    /// What `session`, whose handshake is over, knows.
    #[must_use]
    pub fn of(session: &Session, side: Side) -> Self {
        let mut fingerprint = String::new();
        if let Some(digest) = session.peer_fingerprint() {
            for byte in digest {
                let _ = write!(fingerprint, "{byte:02x}");
            }
        }
        Self {
            side,
            identity: session.peer().cloned(),
            alpn: session.negotiated().alpn,
            chain: session.peer_chain().into(),
            fingerprint: fingerprint.into(),
        }
    }
}
