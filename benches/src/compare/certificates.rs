//! Throw-away certificates for the TLS scenarios: one authority, P-256 leaves for both sides.
//!
//! ```text
//! ca.crt                             the authority, trusted by both sides
//! server.crt, server.key, server.pem the proxy's, for `bench.example`; .pem is both in one file
//! client.crt, client.key             the load's, where TLS is mutual
//! ```
//!
//! # Invariants
//! - Every proxy has the same: a chain of one leaf, ECDSA with P-256, as the goals say.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::scenario::Tls;
use crate::{
    error::Error,
    load::{Cipher, Group, Terms, Trust},
};

/// The name that the proxies' certificate is for.
pub(super) const NAME: &str = "bench.example";

/// The folder with the files.
#[derive(Debug)]
pub(super) struct Certificates(PathBuf);

impl Certificates {
    /// Makes them in `folder`, which peers that drop their privileges have to be able to read.
    pub(super) fn make(folder: PathBuf) -> Result<Self, Error> {
        let failed = |error: rcgen::Error| Error::Usage(format!("make a certificate: {error}"));
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "ringway-bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?)
            .map_err(failed)?;
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).map_err(Error::io(format!("write {name}")))
        };
        write("ca.crt", &issuer.pem())?;
        let usages = [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ];
        for (side, usage) in usages {
            let mut params = CertificateParams::new(vec![NAME.to_owned()]).map_err(failed)?;
            params.distinguished_name.push(DnType::CommonName, side);
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().map_err(failed)?;
            let leaf = params.signed_by(&key, &issuer).map_err(failed)?.pem();
            write(&format!("{side}.crt"), &leaf)?;
            write(&format!("{side}.key"), &key.serialize_pem())?;
            write(&format!("{side}.pem"), &(leaf + &key.serialize_pem()))?;
        }
        Ok(Self(folder))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// What the load agrees to: the same key exchange and cipher with everybody.
    pub(super) fn terms(&self, tls: Tls) -> Terms {
        let file = |name: &str| self.0.join(name);
        Terms {
            trust: Trust::Ca(file("ca.crt")),
            name: Some(NAME.to_owned()),
            identity: tls.mutual.then(|| (file("client.crt"), file("client.key"))),
            resumes: tls.resumes,
            groups: vec![Group::X25519],
            ciphers: vec![Cipher::Aes128],
        }
    }
}
