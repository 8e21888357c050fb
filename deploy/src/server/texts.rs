//! The texts of policies by their hashes, on disk: what a release names must be there for as long
//! as it can be rolled out or back to.
//!
//! # Invariants
//! - A file is written whole or not at all, and its name is the hash of its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringway_protocol::PolicyHash;
use serde::{Deserialize, Serialize};

/// A policy as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// What a sidecar must be able to do.
    pub requires: Vec<String>,
    /// The text that the hash is of.
    pub policy: String,
}

/// All texts that are known.
#[derive(Debug)]
pub struct Texts {
    folder: PathBuf,
    known: BTreeMap<PolicyHash, Text>,
}

impl Texts {
    /// The texts in `folder`, which is made if it is missing. Files that are not what they were
    /// written as are left out and logged.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(folder: &Path) -> io::Result<Texts> {
        fs::create_dir_all(folder)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let (Ok(hash), Some("json")) =
                (name.parse::<PolicyHash>(), path.extension().and_then(|kind| kind.to_str()))
            else {
                continue;
            };
            let text = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Text>(&bytes).ok())
                .filter(|text| PolicyHash::of(&text.policy) == hash);
            match text {
                Some(text) => _ = known.insert(hash, text),
                None => tracing::error!("{}: not what was written, left out", path.display()),
            }
        }
        Ok(Texts { folder: folder.to_owned(), known })
    }

    /// The text of a policy.
    #[must_use]
    pub fn get(&self, hash: &PolicyHash) -> Option<&Text> {
        self.known.get(hash)
    }

    /// Keeps a text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, text: Text) -> io::Result<PolicyHash> {
        let hash = PolicyHash::of(&text.policy);
        if self.known.contains_key(&hash) {
            return Ok(hash);
        }
        let path = self.path(&hash);
        let beside = path.with_extension("new");
        let bytes = serde_json::to_vec(&text).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.known.insert(hash, text);
        Ok(hash)
    }

    /// Forgets all but those in `named`. What cannot be removed stays on disk.
    pub fn keep_only(&mut self, named: &BTreeSet<PolicyHash>) {
        let gone: Vec<PolicyHash> =
            self.known.keys().filter(|hash| !named.contains(hash)).copied().collect();
        for hash in gone {
            self.known.remove(&hash);
            let _ = fs::remove_file(self.path(&hash));
        }
    }

    fn path(&self, hash: &PolicyHash) -> PathBuf {
        self.folder.join(format!("{hash}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(policy: &str) -> Text {
        Text { requires: vec!["http2".into()], policy: policy.into() }
    }

    #[test]
    fn texts_are_there_after_a_restart_and_damaged_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut texts = Texts::open(folder.path()).expect("an empty folder");
        let first = texts.put(text("one")).expect("room");
        let second = texts.put(text("two")).expect("room");
        fs::write(texts.path(&second), b"{\"requires\":[],\"policy\":\"tw0\"}").expect("damage");
        let texts = Texts::open(folder.path()).expect("a folder");
        assert_eq!(texts.get(&first), Some(&text("one")));
        assert_eq!(texts.get(&second), None);
    }

    #[test]
    fn what_no_release_names_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut texts = Texts::open(folder.path()).expect("an empty folder");
        let first = texts.put(text("one")).expect("room");
        let second = texts.put(text("two")).expect("room");
        texts.keep_only(&BTreeSet::from([first]));
        assert!(texts.get(&second).is_none());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
