//! Why a TLS connection failed: who is to blame, in words.
//!
//! The same words are the log text ([`Fault`]'s `Display`), the metric label ([`Fault::label`], a
//! closed set) and the cause that the application sees. `translate` turns what rustls reports into
//! them.
//!
//! # Not here
//! Faults of files ([`crate::material::MaterialFault`]).

mod translate;

use crate::spiffe::{SpiffeFault, SpiffeId};

pub(crate) use translate::{of_path, of_rustls};

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The other side of the connection, or what stands between.
    Peer,
    /// This process, its configuration or its certificate.
    Local,
}

/// Why a TLS connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The peer gave up, by an alert named as in RFC 8446 section 6.
    #[error("the peer sent {0}")]
    PeerAlert(&'static str),
    /// The peer gave up because of our certificate, by an alert that says so.
    #[error("the peer refused our certificate: it sent {0}")]
    PeerRefusedCertificate(&'static str),
    /// A certificate is required and none came.
    #[error("the peer has no certificate")]
    PeerNoCertificate,
    /// A certificate of the peer's chain is past its validity.
    #[error("the peer's certificate expired {} ago", duration_words(*.since_s))]
    PeerCertificateExpired {
        /// Seconds since its end.
        since_s: u64,
    },
    /// A certificate of the peer's chain is before its validity.
    #[error("the peer's certificate is not valid for another {}", duration_words(*.for_s))]
    PeerCertificateNotYetValid {
        /// Seconds until its beginning.
        for_s: u64,
    },
    /// No path to a root.
    #[error("the peer's certificate leads to no root of the bundle")]
    PeerUntrusted,
    /// On a CRL.
    #[error("the peer's certificate is revoked: serial {serial}")]
    PeerRevoked {
        /// Serial number of the leaf in hexadecimal digits; an issuer may be the one revoked.
        serial: String,
    },
    /// The certificate does not name exactly one workload.
    #[error("the peer's certificate {0}")]
    PeerSpiffe(IdentityFault),
    /// Another workload than expected.
    #[error("expected {expected}, peer is {found}")]
    PeerIdentity {
        /// The ids that would do, joined by `or`.
        expected: String,
        /// The id in the verified certificate.
        found: SpiffeId,
    },
    /// Another host than asked for.
    #[error("expected {expected}, the peer's certificate is for {found}")]
    PeerName {
        /// The name that was asked for.
        expected: String,
        /// The names in the certificate.
        found: String,
    },
    /// The certificate is not for this use.
    #[error("the peer's certificate may not be used for this: {0}")]
    PeerUsage(&'static str),
    /// The certificate breaks a rule of X.509.
    #[error("the peer's certificate is not acceptable: {0}")]
    PeerCertificate(&'static str),
    /// Nothing in common: version, cipher, group, signature or application protocol.
    #[error("the peer is not compatible: {0}")]
    PeerIncompatible(&'static str),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(String),
    /// The bytes are no TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// A record that its key does not open.
    #[error("a record of the peer cannot be decrypted")]
    Undecryptable,
    /// A record of more than 16 KiB and its overhead.
    #[error("the peer sent a record that is too long")]
    RecordTooLong,
    /// The peer closed before the handshake was over.
    #[error("the peer closed during the handshake")]
    Truncated,
    /// Many records in a row without data.
    #[error("the peer sent too many records without data")]
    EmptyRecords,
    /// The keys have been used as often as is safe.
    #[error("the keys of the connection are used up")]
    Exhausted,
    /// Our certificate cannot be used.
    #[error("our certificate cannot be used: {0}")]
    LocalCertificate(String),
    /// Something that should not happen.
    #[error("internal fault: {0}")]
    Internal(String),
}

/// Why a certificate does not name exactly one workload (X509-SVID section 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFault {
    /// No URI among its names.
    #[error("has no SPIFFE ID")]
    None,
    /// More than one URI among its names.
    #[error("has {0} URIs, a SPIFFE ID must be the only one")]
    Several(usize),
    /// A URI that is no SPIFFE ID.
    #[error("has no valid SPIFFE ID: {fault} in {uri:?}")]
    Invalid {
        /// The URI, at most 128 characters of it.
        uri: String,
        /// What is wrong with it.
        fault: SpiffeFault,
    },
    /// A trust domain is no workload.
    #[error("has the SPIFFE ID of a trust domain, not of a workload")]
    NoPath,
}

impl Fault {
    /// All labels.
    pub const LABELS: &'static [&'static str] = &[
        "peer_alert",
        "peer_refused_certificate",
        "peer_no_certificate",
        "peer_expired",
        "peer_not_yet_valid",
        "peer_untrusted",
        "peer_revoked",
        "peer_spiffe_id",
        "peer_identity",
        "peer_name",
        "peer_usage",
        "peer_certificate",
        "peer_incompatible",
        "peer_misbehaved",
        "not_tls",
        "undecryptable",
        "record_too_long",
        "truncated",
        "empty_records",
        "exhausted",
        "local_certificate",
        "internal",
    ];

    /// The label in metrics; one of [`Fault::LABELS`].
    #[must_use]
    pub fn label(&self) -> &'static str {
        Fault::LABELS[self.index()]
    }

    /// Place among [`Fault::LABELS`], for an array of counters.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Fault::PeerAlert(_) => 0,
            Fault::PeerRefusedCertificate(_) => 1,
            Fault::PeerNoCertificate => 2,
            Fault::PeerCertificateExpired { .. } => 3,
            Fault::PeerCertificateNotYetValid { .. } => 4,
            Fault::PeerUntrusted => 5,
            Fault::PeerRevoked { .. } => 6,
            Fault::PeerSpiffe(_) => 7,
            Fault::PeerIdentity { .. } => 8,
            Fault::PeerName { .. } => 9,
            Fault::PeerUsage(_) => 10,
            Fault::PeerCertificate(_) => 11,
            Fault::PeerIncompatible(_) => 12,
            Fault::PeerMisbehaved(_) => 13,
            Fault::NotTls => 14,
            Fault::Undecryptable => 15,
            Fault::RecordTooLong => 16,
            Fault::Truncated => 17,
            Fault::EmptyRecords => 18,
            Fault::Exhausted => 19,
            Fault::LocalCertificate(_) => 20,
            Fault::Internal(_) => 21,
        }
    }

    /// Whose fault it is. A peer that refuses our certificate is taken at its word.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Fault::PeerRefusedCertificate(_)
            | Fault::Exhausted
            | Fault::LocalCertificate(_)
            | Fault::Internal(_) => Blame::Local,
            Fault::PeerAlert(_)
            | Fault::PeerNoCertificate
            | Fault::PeerCertificateExpired { .. }
            | Fault::PeerCertificateNotYetValid { .. }
            | Fault::PeerUntrusted
            | Fault::PeerRevoked { .. }
            | Fault::PeerSpiffe(_)
            | Fault::PeerIdentity { .. }
            | Fault::PeerName { .. }
            | Fault::PeerUsage(_)
            | Fault::PeerCertificate(_)
            | Fault::PeerIncompatible(_)
            | Fault::PeerMisbehaved(_)
            | Fault::NotTls
            | Fault::Undecryptable
            | Fault::RecordTooLong
            | Fault::Truncated
            | Fault::EmptyRecords => Blame::Peer,
        }
    }
}

/// A duration for people, in its largest unit: `45 s`, `3 m`, `2 h`, `5 d`.
#[must_use]
pub fn duration_words(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        86_400.. => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
