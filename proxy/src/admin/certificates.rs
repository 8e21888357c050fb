//! `/certs`: the certificates in use, as JSON and for metrics.

use ringway_tls::CertificateInfo;
use serde_json::{Value, json};

use crate::control::credentials::Shown;
use crate::control::status::CredentialStatus;

/// What is in use, and why newer files are not.
#[must_use]
pub fn report(status: &CredentialStatus) -> Value {
    json!({
        "generation": status.generation,
        "taken": status.taken,
        "refused": status.refused,
        "problems": status.problems,
        "certificates": status.shown.iter().map(row).collect::<Value>(),
    })
}

/// One certificate.
fn row(shown: &Shown) -> Value {
    let Shown { name, certificate, depth } = shown;
    json!({
        "name": name,
        "depth": depth,
        "identity": certificate.spiffe.as_ref().map(ringway_tls::SpiffeId::as_str),
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "dns_names": certificate.dns_names,
        "addresses": certificate.addresses,
        "key": certificate.key,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "sha256": fingerprint(certificate),
    })
}

/// SHA-256 of a certificate in hexadecimal.
#[must_use]
pub fn fingerprint(certificate: &CertificateInfo) -> String {
    certificate.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}
