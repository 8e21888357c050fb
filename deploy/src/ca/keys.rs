//! Private keys: made, kept in files beside the store, and wiped from memory.
//!
//! They are not in the store because its records are listed, watched and copied by more people than
//! may sign, and because the root's key can then be carried away: with `keys/ROOT.key` gone the
//! authority goes on issuing until its issuer is at half its life.
//!
//! # Invariants
//! - A key is on disk before the record that needs it; a key without a record is removed when the
//!   authority is opened.
//! - Files have mode 0600 in a folder of mode 0700; they are made under another name and renamed.
//! - No key is printed: `Debug` shows that there is one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::{Zeroize, Zeroizing};

use super::fault::CaFault;

/// A private key or token in text, wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text itself, for a file or the peer that it is for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key pair that signs, wiped when it is dropped. aws-lc wipes its own copy.
#[derive(Debug)]
pub(crate) struct SigningKey(KeyPair);

impl SigningKey {
    /// A new one for ECDSA P-256.
    pub(crate) fn generate() -> Result<SigningKey, CaFault> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        pair.map(SigningKey).map_err(|error| CaFault::Sign(error.to_string()))
    }

    pub(crate) fn from_pem(pem: &Secret) -> Result<SigningKey, CaFault> {
        let pair = KeyPair::from_pem(pem.expose());
        pair.map(SigningKey).map_err(|error| CaFault::Sign(error.to_string()))
    }

    pub(crate) fn pem(&self) -> Secret {
        Secret::new(self.0.serialize_pem())
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for SigningKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl rcgen::SigningKey for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// Random bytes of the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], CaFault> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let got = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
        filled += got.map_err(|error| CaFault::Sign(format!("no random bytes: {error}")))?;
    }
    Ok(bytes)
}

/// Where the keys of roots and issuers are.
#[derive(Debug)]
pub enum Keys {
    /// Files in a folder.
    Folder(PathBuf),
    /// Memory, for tests and the `dev` profile.
    Memory(Mutex<BTreeMap<String, Secret>>),
}

impl Keys {
    /// Keys in the folder `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`CaFault::Key`] with what the system says.
    pub fn folder(path: &Path) -> Result<Keys, CaFault> {
        if !path.is_dir() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(path).map_err(fault("make the folder", path))?;
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fault("guard", path))?;
        Ok(Keys::Folder(path.to_owned()))
    }

    /// Keys in memory.
    #[must_use]
    pub fn memory() -> Keys {
        Keys::Memory(Mutex::new(BTreeMap::new()))
    }

    /// Keeps the key `name`, on disk when it returns.
    pub(crate) fn put(&self, name: &str, key: &Secret) -> Result<(), CaFault> {
        match self {
            Keys::Folder(folder) => write(folder, name, key),
            Keys::Memory(keys) => {
                let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
                keys.insert(name.to_owned(), key.clone());
                Ok(())
            }
        }
    }

    pub(crate) fn load(&self, name: &str) -> Result<Secret, CaFault> {
        match self {
            Keys::Folder(folder) => {
                let path = file(folder, name);
                let text = fs::read_to_string(&path).map_err(fault("read the key", &path))?;
                Ok(Secret::new(text))
            }
            Keys::Memory(keys) => {
                let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
                let found = keys.get(name).cloned();
                found.ok_or_else(|| CaFault::Key {
                    doing: "read the key",
                    path: PathBuf::from(name),
                    text: "not there".to_owned(),
                })
            }
        }
    }

    /// Removes the key, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), CaFault> {
        match self {
            Keys::Folder(folder) => {
                for path in [file(folder, name), unfinished(folder, name)] {
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(fault("remove the key", &path)(error));
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
                Ok(())
            }
            Keys::Memory(keys) => {
                keys.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Ok(())
            }
        }
    }

    /// Names of all keys, those included that a killed process has not finished.
    pub(crate) fn names(&self) -> Result<Vec<String>, CaFault> {
        let mut names = Vec::new();
        match self {
            Keys::Folder(folder) => {
                for entry in fs::read_dir(folder).map_err(fault("list", folder))? {
                    let name = entry.map_err(fault("list", folder))?.file_name();
                    let name = name.to_str().unwrap_or_default();
                    let name = name.strip_suffix(".key").or(name.strip_suffix(".new"));
                    names.extend(name.map(str::to_owned));
                }
            }
            Keys::Memory(keys) => {
                let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
                names.extend(keys.keys().cloned());
            }
        }
        Ok(names)
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.key"))
}

fn unfinished(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.new"))
}

fn write(folder: &Path, name: &str, key: &Secret) -> Result<(), CaFault> {
    let path = file(folder, name);
    let new = unfinished(folder, name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut opened = options.open(&new).map_err(fault("make the key", &new))?;
    opened.write_all(key.expose().as_bytes()).map_err(fault("write the key", &new))?;
    opened.sync_all().map_err(fault("write the key", &new))?;
    fs::rename(&new, &path).map_err(fault("name the key", &path))?;
    let folder_file = File::open(folder).map_err(fault("open", folder))?;
    folder_file.sync_all().map_err(fault("write to disk", folder))
}

fn fault(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CaFault {
    let path = path.to_owned();
    move |error| CaFault::Key { doing, path, text: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_readable_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys = Keys::folder(&path).unwrap();
        let key = SigningKey::generate().unwrap().pem();
        keys.put("root", &key).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("root.key")), 0o600);
        assert_eq!(keys.load("root").unwrap(), key);
        assert_eq!(keys.names().unwrap(), ["root"]);
        fs::write(path.join("half.new"), "").unwrap();
        assert!(keys.names().unwrap().contains(&"half".to_owned()));
        for name in ["root", "half", "half"] {
            keys.remove(name).unwrap();
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        assert!(keys.load("root").unwrap_err().to_string().contains("root.key"));
    }

    #[test]
    fn no_key_is_printed() {
        let key = SigningKey::generate().unwrap();
        let pem = key.pem();
        let middle = pem.expose().lines().nth(1).unwrap().to_owned();
        let keys = Keys::memory();
        keys.put("root", &pem).unwrap();
        for printed in [format!("{pem:?}"), format!("{key:?}"), format!("{keys:?}")] {
            assert!(!printed.contains(&middle), "{printed}");
        }
    }
}
