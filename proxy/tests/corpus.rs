//! Replays the fuzz corpora (`ringway_testing::corpus`), by the properties of the fuzz targets
//! themselves, from the same file.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod ringway_fuzz;

use ringway_testing::corpus::Corpora;

fn corpora() -> Corpora {
    Corpora::new(env!("CARGO_MANIFEST_DIR"), &ringway_fuzz::TARGETS)
}

#[test]
fn chunked_corpus_holds() {
    corpora().replay("chunked");
}

#[test]
fn client_hello_corpus_holds() {
    corpora().replay("client_hello");
}

#[test]
fn config_corpus_holds() {
    corpora().replay("config");
}

#[test]
fn detection_corpus_holds() {
    corpora().replay("detection");
}

#[test]
fn flood_corpus_holds() {
    corpora().replay("flood");
}

#[test]
fn http2_request_corpus_holds() {
    corpora().replay("http2_request");
}

#[test]
fn http2_response_corpus_holds() {
    corpora().replay("http2_response");
}

#[test]
fn path_corpus_holds() {
    corpora().replay("path");
}

#[test]
fn proxy_protocol_corpus_holds() {
    corpora().replay("proxy_protocol");
}

#[test]
fn request_head_corpus_holds() {
    corpora().replay("request_head");
}

#[test]
fn response_head_corpus_holds() {
    corpora().replay("response_head");
}

#[test]
fn tls_session_corpus_holds() {
    corpora().replay("tls_session");
}

#[test]
fn trailers_corpus_holds() {
    corpora().replay("trailers");
}

#[test]
fn every_property_has_a_target_and_a_corpus() {
    corpora().check_names();
}

#[test]
fn corpora_stay_small() {
    corpora().check_sizes();
}
