//! Throw-away certificates for the TLS scenarios: one authority, P-256 leaves for both sides.
//!
//! ```text
//! ca.crt                             the authority, trusted by both sides
//! server.crt, server.key, server.pem the proxy's, for `bench.example`; .pem is both in one file
//! client.crt, client.key             the load's, where TLS is mutual
//! ```
//!
//! # Invariants
//! - Every proxy has the same: a chain of one leaf, ECDSA with P-256, as the goals say. Leaves have
//!   a SPIFFE id beside their name, for peers that ask for one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::ExtendedKeyUsagePurpose;

use super::scenario::Tls;
use crate::{
    authority::Authority,
    error::Error,
    load::{Cipher, Group, Terms, Trust},
};

/// The name that the proxies' certificate is for.
pub(super) const NAME: &str = "bench.example";
/// Longer than any comparison.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The folder with the files.
#[derive(Debug)]
pub(super) struct Certificates(PathBuf);

impl Certificates {
    /// Makes them in `folder`, which peers that drop their privileges have to be able to read.
    pub(super) fn make(folder: PathBuf) -> Result<Self, Error> {
        let authority = Authority::new(None)?;
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).map_err(Error::io(format!("write {name}")))
        };
        write("ca.crt", &authority.certificate)?;
        let usages = [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ];
        for (side, usage) in usages {
            let id = format!("spiffe://{NAME}/{side}");
            let leaf = authority.leaf(&id, &[NAME], &[usage], LIFE)?;
            write(&format!("{side}.crt"), &leaf.certificate)?;
            write(&format!("{side}.key"), &leaf.key)?;
            write(&format!("{side}.pem"), &(leaf.certificate + &leaf.key))?;
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
            groups: vec![if tls.hybrid { Group::X25519mlkem768 } else { Group::X25519 }],
            ciphers: vec![Cipher::Aes128],
        }
    }
}
