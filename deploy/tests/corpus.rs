//! Replays the fuzz corpora: what a fuzzer once reached is checked by every `cargo test`.
//!
//! The properties are those of the fuzz targets, from the same file; neither the fuzzer's runtime
//! nor its compiler flags are needed here.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod ringway_push_fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of one corpus.
const FILES_MAX: usize = 110;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 4096;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    listed.map(|entry| entry.expect("an entry can be read").path()).collect()
}

fn replay(target: &str) {
    let named = ringway_push_fuzz::TARGETS.iter().find(|(name, _)| *name == target);
    let (_, check) = named.expect("the target exists");
    let files = entries(&fuzz_folder().join("corpus").join(target));
    assert!(!files.is_empty(), "an empty corpus");
    for file in files {
        // The harness shows this only if the check panics.
        eprintln!("replaying {}", file.display());
        check(&fs::read(&file).expect("a file of the corpus can be read"));
    }
}

#[test]
fn frames_corpus_holds() {
    replay("frames");
}

#[test]
fn hello_corpus_holds() {
    replay("hello");
}

#[test]
fn mesh_corpus_holds() {
    replay("mesh");
}

#[test]
fn every_property_has_a_target_and_a_corpus() {
    let expected: BTreeSet<String> =
        ringway_push_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["fuzz_targets", "corpus"] {
        let stems = entries(&fuzz_folder().join(folder)).into_iter();
        let found = stems.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        assert_eq!(found.collect::<BTreeSet<_>>(), expected, "in {folder}");
    }
}

#[test]
fn corpora_stay_small() {
    for (target, _) in ringway_push_fuzz::TARGETS {
        let files = entries(&fuzz_folder().join("corpus").join(target));
        assert!(files.len() <= FILES_MAX, "{target} has {} files", files.len());
        for file in files {
            let length = fs::metadata(&file).expect("a file has a length").len();
            assert!(length <= FILE_BYTES_MAX, "{} has {length} bytes", file.display());
        }
    }
}
