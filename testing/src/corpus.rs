//! The corpora of a crate's fuzz targets: what a fuzzer once reached is checked by every
//! `cargo test`.
//!
//! The properties are those of the fuzz targets; neither the fuzzer's runtime nor its compiler
//! flags are needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of one corpus.
const FILES_MAX: usize = 110;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 4096;

/// A fuzz target: its name, and the property that it checks of an input.
pub type Target = (&'static str, fn(&[u8]));

/// The corpora of a crate.
#[derive(Debug)]
pub struct Corpora {
    folder: PathBuf,
    targets: &'static [Target],
}

impl Corpora {
    /// Those in `fuzz` of the crate in `folder`, which has these targets.
    #[must_use]
    pub fn new(folder: &str, targets: &'static [Target]) -> Corpora {
        Corpora { folder: Path::new(folder).join("fuzz"), targets }
    }

    /// Checks every file of a target's corpus.
    ///
    /// # Panics
    /// When the property does not hold, or there is no file.
    pub fn replay(&self, target: &str) {
        let named = self.targets.iter().find(|(name, _)| *name == target);
        let (_, check) = named.expect("the target exists");
        let files = entries(&self.folder.join("corpus").join(target));
        assert!(!files.is_empty(), "an empty corpus");
        for file in files {
            // The harness shows this only if the check panics.
            eprintln!("replaying {}", file.display());
            check(&fs::read(&file).expect("a file of the corpus can be read"));
        }
    }

    /// Checks that every property has a target and a corpus, and nothing else has.
    ///
    /// # Panics
    /// When that is not so.
    pub fn check_names(&self) {
        let expected: BTreeSet<String> =
            self.targets.iter().map(|(name, _)| (*name).to_owned()).collect();
        for folder in ["fuzz_targets", "corpus"] {
            let stems = entries(&self.folder.join(folder)).into_iter();
            let found = stems.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
            assert_eq!(found.collect::<BTreeSet<_>>(), expected, "in {folder}");
        }
    }

    /// Checks that the corpora are small enough to be kept.
    ///
    /// # Panics
    /// When one is not.
    pub fn check_sizes(&self) {
        for (target, _) in self.targets {
            let files = entries(&self.folder.join("corpus").join(target));
            assert!(files.len() <= FILES_MAX, "{target} has {} files", files.len());
            for file in files {
                let length = fs::metadata(&file).expect("a file has a length").len();
                assert!(length <= FILE_BYTES_MAX, "{} has {length} bytes", file.display());
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    listed.map(|entry| entry.expect("an entry can be read").path()).collect()
}
