//! From what rustls and webpki report to [`Fault`] and [`PathFault`].
//!
//! Every variant that they have today is named, except those of `PeerMisbehaved`, whose own names
//! become the text. Wildcards stand only where `#[non_exhaustive]` asks for one.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use rustls_pki_types::UnixTime;

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
        Error::InvalidEncryptedClientHello(_) => {
            Fault::PeerMisbehaved("invalid encrypted client hello".into())
        }
        Error::DecryptError => Fault::Undecryptable,
        Error::PeerSentOversizedRecord => Fault::RecordTooLong,
        Error::InconsistentKeys(_) => {
            Fault::LocalCertificate("the key does not match the certificate".into())
        }
        Error::UnsupportedNameType
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

/// What rustls itself finds wrong with a certificate. Our verifiers leave their own words, so that
/// this sees only signatures of the handshake and keys that do not suit them.
fn of_certificate(error: &CertificateError) -> Fault {
    #[allow(deprecated)]
    match error {
        CertificateError::BadEncoding => Fault::PeerCertificate("it cannot be read"),
        CertificateError::Expired => Fault::PeerCertificateExpired { since_s: 0 },
        CertificateError::ExpiredContext { time, not_after } => {
            Fault::PeerCertificateExpired { since_s: between(*not_after, *time) }
        }
        CertificateError::NotValidYet => Fault::PeerCertificateNotYetValid { for_s: 0 },
        CertificateError::NotValidYetContext { time, not_before } => {
            Fault::PeerCertificateNotYetValid { for_s: between(*time, *not_before) }
        }
        CertificateError::Revoked => Fault::PeerRevoked { serial: String::new() },
        CertificateError::UnhandledCriticalExtension => {
            Fault::PeerCertificate("it has an unknown critical extension")
        }
        CertificateError::UnknownIssuer => Fault::PeerUntrusted,
        CertificateError::UnknownRevocationStatus => {
            Fault::PeerCertificate("whether it is revoked is unknown")
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            Fault::PeerCertificate("the CRL of its issuer has expired")
        }
        CertificateError::BadSignature => {
            Fault::PeerMisbehaved("its signature of the handshake is wrong".into())
        }
        CertificateError::UnsupportedSignatureAlgorithm
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            Fault::PeerCertificate("its key or signature is of a kind that is not supported")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Fault::PeerCertificate("it is for another name")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Fault::PeerUsage(WRONG_PURPOSE)
        }
        CertificateError::InvalidOcspResponse => {
            Fault::PeerCertificate("its OCSP response is invalid")
        }
        CertificateError::ApplicationVerificationFailure => {
            Fault::PeerCertificate("it was refused")
        }
        CertificateError::Other(_) => Fault::PeerCertificate("it breaks a rule of X.509"),
        // `CertificateError` is non-exhaustive.
        _ => Fault::PeerCertificate("it was refused"),
    }
}

const WRONG_PURPOSE: &str = "its extendedKeyUsage is for another purpose";

/// Why webpki finds no path.
pub(crate) fn of_path(error: &webpki::Error) -> PathFault {
    use webpki::Error as E;
    #[allow(deprecated)]
    match error {
        E::CertExpired { time, not_after } => {
            PathFault::Expired { since_s: between(*not_after, *time) }
        }
        E::CertNotValidYet { time, not_before } => {
            PathFault::NotYetValid { for_s: between(*time, *not_before) }
        }
        E::CertNotValidForName(context) => PathFault::Name {
            expected: context.expected.to_str().into_owned(),
            found: match context.presented.as_slice() {
                [] => "no name".to_owned(),
                names => names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
            },
        },
        // A wrong signature is what an authority with a new key under its old name looks like.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => PathFault::Untrusted,
        E::CertRevoked => PathFault::Revoked,
        E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) => {
            PathFault::Usage(WRONG_PURPOSE)
        }
        E::EmptyEkuExtension => PathFault::Usage("its extendedKeyUsage is empty"),
        E::CaUsedAsEndEntity => PathFault::Usage("it is an authority's, not a workload's"),
        E::EndEntityUsedAsCa => PathFault::Certificate("its issuer is no authority"),
        E::PathLenConstraintViolated => {
            PathFault::Certificate("its path is longer than an issuer allows")
        }
        E::NameConstraintViolation => {
            PathFault::Certificate("an issuer's constraints forbid its name")
        }
        error => PathFault::Certificate(of_rule(error)),
    }
}

/// Which rule of X.509 is broken.
fn of_rule(error: &webpki::Error) -> &'static str {
    use webpki::Error as E;
    #[allow(deprecated)]
    match error {
        E::CertDistrusted => "it is distrusted",
        E::SignatureAlgorithmMismatch => "it names two signature algorithms",
        E::UnsupportedSignatureAlgorithm
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKey
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "a key or signature is of a kind that is not supported"
        }
        E::UnsupportedCriticalExtension => "it has an unknown critical extension",
        E::UnsupportedCertVersion => "it is not of version 3",
        E::InvalidCertValidity => "its validity ends before it begins",
        E::InvalidSerialNumber => "its serial number is invalid",
        E::BadDer
        | E::BadDerTime
        | E::TrailingData(_)
        | E::ExtensionValueInvalid
        | E::MalformedExtensions
        | E::MalformedDnsIdentifier
        | E::UnsupportedNameType => "it cannot be read",
        E::MalformedNameConstraint | E::InvalidNetworkMaskConstraint => {
            "an issuer's name constraints cannot be read"
        }
        E::MaximumNameConstraintComparisonsExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumSignatureChecksExceeded => "its path takes too long to verify",
        E::CrlExpired { .. } => "the CRL of its issuer has expired",
        E::UnknownRevocationStatus => "whether it is revoked is unknown",
        E::InvalidCrlNumber
        | E::InvalidCrlSignatureForPublicKey
        | E::IssuerNotCrlSigner
        | E::UnsupportedCrlIssuingDistributionPoint
        | E::UnsupportedCrlVersion
        | E::UnsupportedDeltaCrl
        | E::UnsupportedIndirectCrl
        | E::UnsupportedRevocationReason
        | E::UnsupportedRevocationReasonsPartitioning
        | E::UnsupportedCrlSignatureAlgorithm
        | E::UnsupportedCrlSignatureAlgorithmContext(_)
        | E::UnsupportedCrlSignatureAlgorithmForPublicKey
        | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            "the CRL of its issuer cannot be used"
        }
        // `webpki::Error` is non-exhaustive, and `of_path` took the rest.
        _ => "it breaks a rule of X.509",
    }
}

/// The name in `DnsName("a.example")`, as webpki writes what is presented.
fn quoted(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

fn between(earlier: UnixTime, later: UnixTime) -> u64 {
    later.as_secs().saturating_sub(earlier.as_secs())
}

/// An alert in the words of RFC 8446 section 6, and whether it is about our certificate.
fn of_alert(alert: AlertDescription) -> Fault {
    use AlertDescription as A;
    match alert {
        A::BadCertificate => Fault::PeerRefusedCertificate("bad_certificate"),
        A::UnsupportedCertificate => Fault::PeerRefusedCertificate("unsupported_certificate"),
        A::CertificateRevoked => Fault::PeerRefusedCertificate("certificate_revoked"),
        A::CertificateExpired => Fault::PeerRefusedCertificate("certificate_expired"),
        A::CertificateUnknown => Fault::PeerRefusedCertificate("certificate_unknown"),
        A::UnknownCA => Fault::PeerRefusedCertificate("unknown_ca"),
        A::AccessDenied => Fault::PeerRefusedCertificate("access_denied"),
        A::NoCertificate => Fault::PeerRefusedCertificate("no_certificate"),
        A::CertificateRequired => Fault::PeerRefusedCertificate("certificate_required"),
        A::CertificateUnobtainable => Fault::PeerRefusedCertificate("certificate_unobtainable"),
        A::BadCertificateStatusResponse => {
            Fault::PeerRefusedCertificate("bad_certificate_status_response")
        }
        A::BadCertificateHashValue => Fault::PeerRefusedCertificate("bad_certificate_hash_value"),
        A::CloseNotify => Fault::PeerAlert("close_notify"),
        A::UnexpectedMessage => Fault::PeerAlert("unexpected_message"),
        A::BadRecordMac => Fault::PeerAlert("bad_record_mac"),
        A::DecryptionFailed => Fault::PeerAlert("decryption_failed"),
        A::RecordOverflow => Fault::PeerAlert("record_overflow"),
        A::DecompressionFailure => Fault::PeerAlert("decompression_failure"),
        A::HandshakeFailure => Fault::PeerAlert("handshake_failure"),
        A::IllegalParameter => Fault::PeerAlert("illegal_parameter"),
        A::DecodeError => Fault::PeerAlert("decode_error"),
        A::DecryptError => Fault::PeerAlert("decrypt_error"),
        A::ExportRestriction => Fault::PeerAlert("export_restriction"),
        A::ProtocolVersion => Fault::PeerAlert("protocol_version"),
        A::InsufficientSecurity => Fault::PeerAlert("insufficient_security"),
        A::InternalError => Fault::PeerAlert("internal_error"),
        A::InappropriateFallback => Fault::PeerAlert("inappropriate_fallback"),
        A::UserCanceled => Fault::PeerAlert("user_canceled"),
        A::NoRenegotiation => Fault::PeerAlert("no_renegotiation"),
        A::MissingExtension => Fault::PeerAlert("missing_extension"),
        A::UnsupportedExtension => Fault::PeerAlert("unsupported_extension"),
        A::UnrecognisedName => Fault::PeerAlert("unrecognized_name"),
        A::UnknownPSKIdentity => Fault::PeerAlert("unknown_psk_identity"),
        A::NoApplicationProtocol => Fault::PeerAlert("no_application_protocol"),
        A::EncryptedClientHelloRequired => Fault::PeerAlert("ech_required"),
        // `AlertDescription` is non-exhaustive, and has `Unknown`.
        _ => Fault::PeerAlert("an unknown alert"),
    }
}

fn of_incompatible(error: &PeerIncompatible) -> &'static str {
    use PeerIncompatible as P;
    match error {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::Tls13RequiredForQuic => "no protocol version in common",
        P::NoCipherSuitesInCommon => "no cipher suite in common",
        P::NoKxGroupsInCommon
        | P::NamedGroupsExtensionRequired
        | P::KeyShareExtensionRequired
        | P::NoEcPointFormatsInCommon
        | P::EcPointsExtensionRequired
        | P::UncompressedEcPointsRequired => "no key exchange group in common",
        P::NoSignatureSchemesInCommon | P::SignatureAlgorithmsExtensionRequired => {
            "no signature scheme in common that a certificate has a key for"
        }
        P::NoCertificateRequestSignatureSchemesInCommon => {
            "no signature scheme in common for our certificate"
        }
        P::ExtendedMasterSecretExtensionRequired => "it lacks the extended master secret",
        P::NullCompressionRequired => "it insists on compression",
        P::IncorrectCertificateTypeExtension | P::UnsolicitedCertificateTypeExtension => {
            "another type of certificate"
        }
        P::ServerSentHelloRetryRequestWithUnknownExtension => {
            "an unknown extension in its retry request"
        }
        P::ServerRejectedEncryptedClientHello(_) => "it refused the encrypted hello",
        // `PeerIncompatible` is non-exhaustive.
        _ => "nothing in common",
    }
}

/// A message that cannot be read: one that no TLS peer sends means that the peer speaks something
/// else.
fn of_message(error: InvalidMessage) -> Fault {
    use InvalidMessage as M;
    match error {
        M::InvalidContentType | M::UnknownProtocolVersion => Fault::NotTls,
        M::MessageTooLarge => Fault::RecordTooLong,
        M::CertificatePayloadTooLarge
        | M::HandshakePayloadTooLarge
        | M::InvalidCcs
        | M::InvalidCertificateStatusType
        | M::InvalidCertRequest
        | M::InvalidDhParams
        | M::InvalidEmptyPayload
        | M::InvalidKeyUpdate
        | M::InvalidServerName
        | M::MessageTooShort
        | M::MissingData(_)
        | M::MissingKeyExchange
        | M::NoSignatureSchemes
        | M::TrailingData(_)
        | M::UnexpectedMessage(_)
        | M::UnsupportedCompression
        | M::UnsupportedCurveType
        | M::UnsupportedKeyExchangeAlgorithm(_)
        | M::EmptyTicketValue
        | M::IllegalEmptyList(_)
        | M::IllegalEmptyValue
        | M::DuplicateExtension(_)
        | M::PreSharedKeyIsNotFinalExtension
        | M::UnknownHelloRetryRequestExtension
        | M::UnknownCertificateExtension => Fault::PeerMisbehaved(words(&format!("{error:?}"))),
        // `InvalidMessage` is non-exhaustive.
        _ => Fault::PeerMisbehaved(words(&format!("{error:?}"))),
    }
}

/// `TooManyKeyUpdateRequests` as `too many key update requests`; what is no name stays as it is.
fn words(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 8);
    let mut after_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && after_lower {
            text.push(' ');
        }
        after_lower = letter.is_ascii_lowercase();
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls::PeerMisbehaved;

    use super::*;

    #[test]
    fn names_become_words() {
        let fault = of_rustls(&PeerMisbehaved::TooManyKeyUpdateRequests.into(), None);
        assert_eq!(fault.to_string(), "the peer broke the protocol: too many key update requests");
        assert_eq!(fault.label(), "peer_misbehaved");
    }

    #[test]
    fn an_alert_about_our_certificate_is_our_fault() {
        let fault = of_rustls(&Error::AlertReceived(AlertDescription::UnknownCA), None);
        assert_eq!(fault.to_string(), "the peer refused our certificate: it sent unknown_ca");
        assert_eq!(fault.blame(), crate::Blame::Local);
        let fault = of_rustls(&Error::AlertReceived(AlertDescription::DecodeError), None);
        assert_eq!(fault.to_string(), "the peer sent decode_error");
    }

    #[test]
    fn what_the_verifier_said_goes_before_what_rustls_says() {
        let error = Error::InvalidCertificate(CertificateError::NotValidForName);
        assert_eq!(of_rustls(&error, Some(Fault::PeerUntrusted)), Fault::PeerUntrusted);
    }
}
