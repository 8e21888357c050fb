//! A set of certificate files that belong together, and what their bytes give.
//!
//! # Invariants
//! - What is returned was checked: a pair fits together and is in its validity, an identity leads
//!   to its bundle.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringway_tls::{Bundle, KeyPair, MaterialFault, Roots, UnixTime};
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use crate::limits::CREDENTIAL_FILE_BYTES_MAX;

/// Why something of the files cannot be used.
#[derive(Debug, Error)]
pub enum CredentialFault {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{path}: larger than the {CREDENTIAL_FILE_BYTES_MAX} bytes that are read of a file")]
    TooLarge {
        /// The file.
        path: String,
    },
    /// What the files say cannot be used.
    #[error("{files}: {fault}")]
    Material {
        /// The files.
        files: String,
        /// Why.
        fault: MaterialFault,
    },
    /// The system has no roots.
    #[error("the system has no root certificates (package ca-certificates?)")]
    NoSystemRoots,
    /// An object of the file cannot be made.
    #[error("{what}: {text}")]
    Unusable {
        /// A listener or cluster.
        what: String,
        /// Why.
        text: String,
    },
}

/// A set of files that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    /// Who this process is, and whom it trusts.
    Identity { certificate: PathBuf, key: PathBuf, bundle: PathBuf, revoked: Vec<PathBuf> },
    /// A certificate and its key.
    Pair { certificate: PathBuf, key: PathBuf, ocsp: Option<PathBuf> },
    /// Roots of a file.
    Roots(PathBuf),
    /// The system's roots.
    SystemRoots,
}

/// What a source gave.
#[derive(Clone)]
pub(super) enum Material {
    Identity(Arc<KeyPair>, Arc<Bundle>),
    Pair(Arc<KeyPair>),
    Roots(Arc<Roots>),
}

/// The bytes of a source's files, in the order of [`Source::files`]; of the system's roots, the
/// certificates.
pub(super) struct Bytes(Vec<Vec<u8>>);

impl Bytes {
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        for bytes in &self.0 {
            std::hash::Hash::hash(bytes, &mut hasher);
        }
        // 0 stands for nothing seen.
        std::hash::Hasher::finish(&hasher).max(1)
    }
}

impl Source {
    pub(super) fn files(&self) -> Vec<&Path> {
        match self {
            Self::Identity { certificate, key, bundle, revoked } => {
                let mut files: Vec<&Path> = vec![certificate, key, bundle];
                files.extend(revoked.iter().map(PathBuf::as_path));
                files
            }
            Self::Pair { certificate, key, ocsp } => {
                let mut files: Vec<&Path> = vec![certificate, key];
                files.extend(ocsp.as_deref());
                files
            }
            Self::Roots(file) => vec![file],
            Self::SystemRoots => Vec::new(),
        }
    }

    pub(super) fn read(&self) -> Result<Bytes, CredentialFault> {
        match self {
            Self::SystemRoots => system_roots().map(Bytes),
            _ => self.files().into_iter().map(read).collect::<Result<_, _>>().map(Bytes),
        }
    }

    /// The files, for an error.
    fn words(&self) -> String {
        let names: Vec<String> =
            self.files().iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    }

    pub(super) fn parse(&self, bytes: &Bytes, now: UnixTime) -> Result<Material, CredentialFault> {
        let material = |fault| CredentialFault::Material { files: self.words(), fault };
        match (self, bytes.0.as_slice()) {
            (Self::Identity { .. }, [certificate, key, bundle, revoked @ ..]) => {
                let pair = KeyPair::parse(certificate, key, None).map_err(material)?;
                let revoked: Vec<&[u8]> = revoked.iter().map(Vec::as_slice).collect();
                let bundle = Bundle::parse(bundle, &revoked).map_err(material)?;
                pair.as_identity().map_err(material)?;
                pair.check_validity(now).map_err(material)?;
                bundle.check(&pair, now).map_err(material)?;
                Ok(Material::Identity(Arc::new(pair), Arc::new(bundle)))
            }
            (Self::Pair { .. }, [certificate, key, ocsp @ ..]) => {
                let ocsp = ocsp.first().map(Vec::as_slice);
                let pair = KeyPair::parse(certificate, key, ocsp).map_err(material)?;
                pair.check_validity(now).map_err(material)?;
                Ok(Material::Pair(Arc::new(pair)))
            }
            (Self::Roots(_), [roots]) => {
                Ok(Material::Roots(Arc::new(Roots::parse(roots).map_err(material)?)))
            }
            (Self::SystemRoots, certificates) => {
                let certificates = certificates.iter().map(|der| der.clone().into());
                let roots = Roots::from_certificates(certificates);
                if roots.is_empty() {
                    return Err(CredentialFault::NoSystemRoots);
                }
                Ok(Material::Roots(Arc::new(roots)))
            }
            _ => Err(CredentialFault::Unusable {
                what: self.words(),
                text: "its files were not all read".into(),
            }),
        }
    }
}

/// The system's root certificates, in an order that is theirs.
fn system_roots() -> Result<Vec<Vec<u8>>, CredentialFault> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a root certificate of the system cannot be used");
    }
    let mut roots: Vec<Vec<u8>> = found.certs.iter().map(|root| root.to_vec()).collect();
    if roots.is_empty() {
        return Err(CredentialFault::NoSystemRoots);
    }
    roots.sort_unstable();
    Ok(roots)
}

/// Reads a file. What is no file is refused: a pipe would be waited for, a device has no end.
pub(in crate::control) fn read(path: &Path) -> Result<Vec<u8>, CredentialFault> {
    let shown = || path.display().to_string();
    let unreadable = |error| CredentialFault::Unreadable { path: shown(), error };
    let no_file = || unreadable(std::io::Error::other("it is no file"));
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
    let file = std::fs::File::from(fd);
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(no_file());
    }
    let mut bytes = Vec::new();
    file.take(CREDENTIAL_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CREDENTIAL_FILE_BYTES_MAX {
        return Err(CredentialFault::TooLarge { path: shown() });
    }
    Ok(bytes)
}
