//! Replays the fuzz corpora: what a fuzzer once reached is checked by every `cargo test`.
//!
//! The properties are those of the fuzz targets, from the same file; neither the fuzzer's runtime
//! nor its compiler flags are needed here.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod ringway_fuzz;

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
    let named = ringway_fuzz::TARGETS.iter().find(|(name, _)| *name == target);
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
fn chunked_corpus_holds() {
    replay("chunked");
}

#[test]
fn client_hello_corpus_holds() {
    replay("client_hello");
}

#[test]
fn config_corpus_holds() {
    replay("config");
}

#[test]
fn detection_corpus_holds() {
    replay("detection");
}

#[test]
fn flood_corpus_holds() {
    replay("flood");
}

#[test]
fn http2_request_corpus_holds() {
    replay("http2_request");
}

#[test]
fn http2_response_corpus_holds() {
    replay("http2_response");
}

#[test]
fn path_corpus_holds() {
    replay("path");
}

#[test]
fn proxy_protocol_corpus_holds() {
    replay("proxy_protocol");
}

#[test]
fn request_head_corpus_holds() {
    replay("request_head");
}

#[test]
fn response_head_corpus_holds() {
    replay("response_head");
}

#[test]
fn tls_session_corpus_holds() {
    replay("tls_session");
}

#[test]
fn trailers_corpus_holds() {
    replay("trailers");
}

#[test]
fn every_property_has_a_target_and_a_corpus() {
    let expected: BTreeSet<String> =
        ringway_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["fuzz_targets", "corpus"] {
        let stems = entries(&fuzz_folder().join(folder)).into_iter();
        let found = stems.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        assert_eq!(found.collect::<BTreeSet<_>>(), expected, "in {folder}");
    }
}

#[test]
fn corpora_stay_small() {
    for (target, _) in ringway_fuzz::TARGETS {
        let files = entries(&fuzz_folder().join("corpus").join(target));
        assert!(files.len() <= FILES_MAX, "{target} has {} files", files.len());
        for file in files {
            let length = fs::metadata(&file).expect("a file has a length").len();
            assert!(length <= FILE_BYTES_MAX, "{} has {length} bytes", file.display());
        }
    }
}
