//! Replays the fuzz corpora (`ringway_testing::corpus`), by the properties of the fuzz targets
//! themselves, from the same file.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod ringway_push_fuzz;

use ringway_testing::corpus::Corpora;

fn corpora() -> Corpora {
    Corpora::new(env!("CARGO_MANIFEST_DIR"), &ringway_push_fuzz::TARGETS)
}

#[test]
fn frames_corpus_holds() {
    corpora().replay("frames");
}

#[test]
fn hello_corpus_holds() {
    corpora().replay("hello");
}

#[test]
fn mesh_corpus_holds() {
    corpora().replay("mesh");
}

#[test]
fn every_property_has_a_target_and_a_corpus() {
    corpora().check_names();
}

#[test]
fn corpora_stay_small() {
    corpora().check_sizes();
}
