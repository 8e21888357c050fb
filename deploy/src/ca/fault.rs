//! Why a certificate was not issued or the authority not changed, by who is to blame.

use std::path::PathBuf;

use crate::store::StoreFault;

/// Any failure of the authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaFault {
    /// The peer asked for what it does not get.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The store failed or someone else was quicker.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// A private key cannot be read or written.
    #[error("{doing} {}: {text}", path.display())]
    Key {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        text: String,
    },
    /// A record is not what was written.
    #[error("the record {key} cannot be used: {text}")]
    Record {
        /// Its key.
        key: String,
        /// Why.
        text: String,
    },
    /// A key could not be made or used.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// There is no authority in the store yet.
    #[error("there is no authority in this state; `ringway-push run` makes one")]
    NoAuthority,
    /// Keys are there but no record of their authority: the state has been lost.
    #[error("there are keys of an authority but no state of it; restore the state from a copy")]
    StateLost,
    /// The store belongs to another mesh.
    #[error("the authority is that of {found}, not of {wanted}")]
    OtherTrustDomain {
        /// Trust domain in the store.
        found: String,
        /// Trust domain of the settings.
        wanted: String,
    },
    /// Lives that do not fit each other.
    #[error("{0}")]
    Lives(&'static str),
    /// The root ends before what it should sign.
    #[error("the root {root} ends too soon to sign an issuer; rotate the root")]
    RootEnds {
        /// Which root.
        root: String,
    },
    /// The operator asked for what makes no sense.
    #[error("{0}")]
    Input(String),
    /// More than a limit.
    #[error("{what}: more than {max}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The old root is out of the bundle already.
    #[error("too late to abort: the old root is out of the bundle")]
    TooLate,
}

/// What a peer did that it gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such token, or one that was revoked.
    #[error("the token is not known")]
    TokenUnknown,
    /// Past its time.
    #[error("the token expired {since_s} s ago")]
    TokenExpired {
        /// Seconds since its end.
        since_s: u64,
    },
    /// All its uses are taken.
    #[error("the token is used up")]
    TokenUsedUp,
    /// It is for other identities.
    #[error("the token is for {pattern}, not for {asked}")]
    TokenOtherIdentity {
        /// What it is for.
        pattern: String,
        /// What was asked for.
        asked: String,
    },
    /// Too many use the token at the same moment.
    #[error("the token is in use by too many at once")]
    TokenBusy,
    /// On the deny list.
    #[error("{subject} is denied: {reason}")]
    Denied {
        /// The identity or the serial number.
        subject: String,
        /// What the operator said.
        reason: String,
    },
    /// The certificate to be renewed is over: join again.
    #[error("the certificate expired {since_s} s ago; join again")]
    Expired {
        /// Seconds since its end.
        since_s: u64,
    },
    /// An identity that no workload can have.
    #[error("{0} is no identity of a workload of this mesh")]
    Identity(String),
    /// No identity was asked for and the token allows several.
    #[error("the token is for {0}: say which identity")]
    IdentityOpen(String),
    /// The signing request cannot be used.
    #[error("the signing request cannot be used: {0}")]
    Csr(&'static str),
    /// The peer's certificate cannot be read.
    #[error("the peer's certificate cannot be used: {0}")]
    Peer(&'static str),
    /// Too many unexpired certificates.
    #[error("{0} has too many unexpired certificates")]
    TooMany(String),
}

impl Refusal {
    /// The one word that the peer is told, which is also the label of the metric.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Refusal::TokenUnknown => "unknown",
            Refusal::TokenExpired { .. } | Refusal::Expired { .. } => "expired",
            Refusal::TokenUsedUp => "used-up",
            Refusal::TokenOtherIdentity { .. } => "other-identity",
            Refusal::TokenBusy | Refusal::TooMany(_) => "busy",
            Refusal::Denied { .. } => "denied",
            Refusal::Identity(_) | Refusal::IdentityOpen(_) => "identity",
            Refusal::Csr(_) => "csr",
            Refusal::Peer(_) => "certificate",
        }
    }
}
