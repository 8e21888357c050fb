//! The files of a folder, read as one.
//!
//! # Invariants
//! - Equal hashes mean equal names and bytes; the order in which a file system lists does not show.
//! - What begins with a dot is not read: editors' copies, and the folders behind a ConfigMap. Links
//!   to files are followed, so that what a ConfigMap shows is.
//! - Folders in it are not entered.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::limits::{FILES_MAX, FOLDER_BYTES_MAX};

const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without the folder.
    pub name: String,
    /// Its text; `None` if it is not UTF-8.
    pub text: Option<String>,
}

/// The files of a folder, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// The files.
    pub files: Vec<File>,
    /// What looks as if it were to be read and is not, and why.
    pub unread: Vec<(String, &'static str)>,
    hash: [u8; 32],
}

/// Why a folder could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// More files than [`FILES_MAX`].
    #[error("more than the {FILES_MAX} files allowed")]
    Files,
    /// More bytes than [`FOLDER_BYTES_MAX`].
    #[error("more than the {FOLDER_BYTES_MAX} bytes allowed in all files")]
    Bytes,
}

impl Folder {
    /// Reads every `*.yaml`, `*.yml` and `*.json` of the folder `path`.
    ///
    /// # Errors
    /// Something cannot be read, or there is more than the limits allow.
    pub fn read(path: &Path) -> Result<Folder, ReadError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ReadError::Io { path, error }
        };
        let (mut names, mut unread) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let name = entry.map_err(failed(path))?.file_name();
            let file = path.join(&name);
            let shown = name.to_string_lossy().into_owned();
            if !is_read(&shown) {
                if !shown.starts_with('.') && holds_files(&file) {
                    unread.push((shown, "its files are not read: folders are not entered"));
                }
            } else if name.to_str().is_none() {
                unread.push((shown, "is not read: its name is not UTF-8"));
            } else if fs::metadata(&file).map_err(failed(&file))?.is_file() {
                names.push(shown);
            } else {
                unread.push((shown, "is not read: it is no file"));
            }
            if names.len() + unread.len() > FILES_MAX {
                return Err(ReadError::Files);
            }
        }
        names.sort_unstable();
        let (mut files, mut left) = (Vec::new(), FOLDER_BYTES_MAX);
        for name in names {
            let file = path.join(&name);
            let mut bytes = Vec::new();
            let opened = fs::File::open(&file).map_err(failed(&file))?;
            opened.take(left as u64 + 1).read_to_end(&mut bytes).map_err(failed(&file))?;
            left = left.checked_sub(bytes.len()).ok_or(ReadError::Bytes)?;
            files.push((name, bytes));
        }
        unread.sort_unstable();
        Ok(Folder::with_unread(files, unread))
    }

    /// A folder of these files.
    #[must_use]
    pub fn of(files: Vec<(String, Vec<u8>)>) -> Folder {
        Folder::with_unread(files, Vec::new())
    }

    fn with_unread(
        mut files: Vec<(String, Vec<u8>)>,
        unread: Vec<(String, &'static str)>,
    ) -> Folder {
        files.sort();
        let mut hasher = blake3::Hasher::new();
        for (name, bytes) in &files {
            hasher.update(blake3::hash(name.as_bytes()).as_bytes());
            hasher.update(blake3::hash(bytes).as_bytes());
        }
        for (name, why) in &unread {
            hasher.update(blake3::hash(name.as_bytes()).as_bytes());
            hasher.update(why.as_bytes());
        }
        let text = |(name, bytes)| File { name, text: String::from_utf8(bytes).ok() };
        let (hash, files) = (*hasher.finalize().as_bytes(), files.into_iter().map(text).collect());
        Folder { files, unread, hash }
    }

    /// BLAKE3 over names and bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files[at].text.as_deref()
    }
}

fn is_read(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    !name.starts_with('.') && ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

/// Whether `path` is a folder with something in it that would be read.
fn holds_files(path: &Path) -> bool {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.take(FILES_MAX).any(|entry| is_read(&entry.file_name().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_although_it_looks_so_is_said() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("team")).expect("a folder");
        fs::create_dir_all(folder.path().join("notes")).expect("a folder");
        fs::create_dir_all(folder.path().join("x.yaml")).expect("a folder");
        fs::write(folder.path().join("notes/a.md"), "").expect("written");
        let before = Folder::read(folder.path()).expect("it can be read");
        assert_eq!(before.unread, [("x.yaml".to_owned(), "is not read: it is no file")]);
        fs::write(folder.path().join("team/a.yaml"), "").expect("written");
        let odd = std::ffi::OsStr::from_bytes(b"a\xff.yaml");
        fs::write(folder.path().join(odd), "").expect("written");
        let after = Folder::read(folder.path()).expect("it can be read");
        let names: Vec<&str> = after.unread.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a\u{fffd}.yaml", "team", "x.yaml"]);
        assert_ne!(before.hash(), after.hash(), "it is said when it changes");
    }

    #[test]
    fn links_are_followed_and_hidden_things_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("..2026");
        fs::create_dir(&data).expect("a folder");
        fs::write(data.join("b.yaml"), "b: 1").expect("written");
        std::os::unix::fs::symlink("..2026", folder.path().join("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/b.yaml", folder.path().join("b.yaml")).expect("linked");
        fs::write(folder.path().join("a.json"), "{}").expect("written");
        fs::write(folder.path().join(".a.yaml.swp"), "no").expect("written");
        fs::write(folder.path().join(".hidden.yaml"), "no").expect("written");
        fs::write(folder.path().join("README.md"), "no").expect("written");
        fs::create_dir(folder.path().join("sub.yaml")).expect("a folder");
        let read = Folder::read(folder.path()).expect("it can be read");
        let names: Vec<&str> = read.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.json", "b.yaml"]);
        assert_eq!(read.text("b.yaml"), Some("b: 1"));
    }

    #[test]
    fn the_hash_tells_where_one_file_ends_and_the_next_begins() {
        let of = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).into()));
            Folder::of(files.collect()).hash()
        };
        assert_ne!(of(&[("a.yaml", "x"), ("b.yaml", "y")]), of(&[("a.yaml", "xb.yamly")]));
        assert_eq!(of(&[("a", "x"), ("b", "y")]), of(&[("b", "y"), ("a", "x")]));
    }

    #[test]
    fn one_byte_more_than_allowed_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = fs::File::create(folder.path().join("a.yaml")).expect("created");
        file.set_len(FOLDER_BYTES_MAX as u64).expect("grown");
        assert!(Folder::read(folder.path()).is_ok());
        file.set_len(FOLDER_BYTES_MAX as u64 + 1).expect("grown");
        assert!(matches!(Folder::read(folder.path()), Err(ReadError::Bytes)));
    }
}
