//! SPIFFE IDs against the examples and rules of the specification.

use super::*;

#[test]
fn an_id_is_its_trust_domain_and_path() {
    let id = SpiffeId::parse("spiffe://mesh.example/ns/a/sa/b").expect("it is valid");
    assert_eq!(id.trust_domain(), "mesh.example");
    assert_eq!(id.path(), "/ns/a/sa/b");
    assert_eq!(id.to_string(), id.as_str());
    let domain = SpiffeId::parse("spiffe://mesh.example").expect("a trust domain has an id too");
    assert_eq!((domain.trust_domain(), domain.path()), ("mesh.example", ""));
}
