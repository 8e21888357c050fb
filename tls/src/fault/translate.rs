//! From what rustls and webpki report to [`Fault`].
//!
//! Every variant that they have today is named, except those of `PeerMisbehaved`, whose own names
//! become the text. Wildcards stand only where `#[non_exhaustive]` asks for one.

use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, Error, InvalidMessage,
    PeerIncompatible,
};

use super::Fault;
use crate::verify::PathFault;

/// What rustls reported; `found` is what the verifier said in our words, which goes before.
pub(crate) fn of_rustls(error: &Error, found: Option<Fault>) -> Fault {
    if let Some(fault) = found {
        return fault;
    }
    match error {
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoCertificatesPresented => Fault::PeerNoCertificate,
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::PeerIncompatible(error) => Fault::PeerIncompatible(of_incompatible(error)),
        Error::NoApplicationProtocol => {
            Fault::PeerIncompatible("no application protocol in common")
        }
        Error::InvalidMessage(error) => of_message(*error),
        Error::PeerMisbehaved(error) => Fault::PeerMisbehaved(words(&format!("{error:?}"))),
        Error::InappropriateMessage { got_type, .. } => {
            Fault::PeerMisbehaved(format!("unexpected {}", words(&format!("{got_type:?}"))))
        }
        Error::InappropriateHandshakeMessage { got_type, .. } => {
            Fault::PeerMisbehaved(format!("unexpected {}", words(&format!("{got_type:?}"))))
        }
        Error::DecryptError => Fault::Undecryptable,
        Error::PeerSentOversizedRecord => Fault::RecordTooLong,
        Error::InconsistentKeys(_) => {
            Fault::LocalCertificate("the key does not match the certificate".into())
        }
        Error::InvalidEncryptedClientHello(_)
        | Error::UnsupportedNameType
        | Error::EncryptError
        | Error::InvalidCertRevocationList(_)
        | Error::General(_)
        | Error::FailedToGetCurrentTime
        | Error::FailedToGetRandomBytes
        | Error::HandshakeNotComplete
        | Error::BadMaxFragmentSize
        | Error::Other(_) => Fault::Internal(error.to_string()),
        // `Error` is non-exhaustive.
        _ => Fault::Internal(error.to_string()),
    }
}

/// A path that webpki refused, where no detail was at hand.
pub(crate) fn of_path(error: &webpki::Error) -> PathFault {
    let _ = error;
    PathFault::Untrusted
}

fn of_certificate(_error: &CertificateError) -> Fault {
    Fault::PeerUntrusted
}

fn of_alert(alert: AlertDescription) -> Fault {
    let _ = alert;
    Fault::PeerAlert("an alert")
}

fn of_incompatible(_error: &PeerIncompatible) -> &'static str {
    "nothing in common"
}

fn of_message(_error: InvalidMessage) -> Fault {
    Fault::NotTls
}

#[allow(dead_code)]
fn of_crl(_error: &CertRevocationListError) -> &'static str {
    "crl"
}

/// `TooManyKeyUpdateRequests` as `too many key update requests`.
fn words(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 8);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
