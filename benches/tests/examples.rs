//! The files that are shipped as examples are files that the proxy takes.

use ringway_router::{Format, load};

fn must_load(name: &str, text: &str) {
    match load(text, Format::Yaml) {
        Ok(loaded) => assert!(loaded.warnings.is_empty(), "{name}: {:#?}", loaded.warnings),
        Err(problems) => panic!("{name}: {problems:#?}"),
    }
}

#[test]
fn quickstart_is_accepted_without_warnings() {
    must_load("quickstart", include_str!("../../deploy/examples/quickstart.yaml"));
}

#[test]
fn reference_is_accepted_without_warnings() {
    must_load("reference", include_str!("../../deploy/examples/reference.yaml"));
}

#[test]
fn both_sides_of_mutual_tls_are_accepted_without_warnings() {
    must_load("mtls-shop", include_str!("../../deploy/examples/mtls-shop.yaml"));
    must_load("mtls-web", include_str!("../../deploy/examples/mtls-web.yaml"));
}
