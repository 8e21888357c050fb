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

/// The examples of SPIFFE-ID sections 2.1 to 2.4, and edges of its rules.
#[test]
fn valid_ids_are_taken_as_they_are() {
    let long_domain = format!("spiffe://{}", "a".repeat(TRUST_DOMAIN_BYTES_MAX));
    let long_path = format!("spiffe://d/{}", "p".repeat(SPIFFE_ID_BYTES_MAX - 11));
    for text in [
        "spiffe://staging.example.com/payments/mysql",
        "spiffe://k8s-west.example.com/ns/staging/sa/default",
        "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
        "spiffe://trust-domain_1.2/A/b.C/..x/.../_-",
        "spiffe://1.2.3.4/service",
        "spiffe://-._/x",
        &long_domain,
        &long_path,
    ] {
        assert_eq!(SpiffeId::parse(text).map(|id| id.to_string()), Ok(text.to_owned()));
    }
}

#[test]
fn malformed_ids_are_refused() {
    let long_domain = format!("spiffe://{}/a", "a".repeat(TRUST_DOMAIN_BYTES_MAX + 1));
    let long_path = format!("spiffe://d/{}", "p".repeat(SPIFFE_ID_BYTES_MAX - 10));
    let cases = [
        ("", SpiffeFault::Scheme),
        ("example.com/a", SpiffeFault::Scheme),
        ("http://example.com/a", SpiffeFault::Scheme),
        ("SPIFFE://example.com/a", SpiffeFault::Scheme),
        ("spiffe:/example.com/a", SpiffeFault::Scheme),
        (" spiffe://example.com/a", SpiffeFault::Scheme),
        ("spiffe://", SpiffeFault::NoTrustDomain),
        ("spiffe:///a", SpiffeFault::NoTrustDomain),
        ("spiffe://Example.com/a", SpiffeFault::TrustDomain),
        ("spiffe://example.com:443/a", SpiffeFault::TrustDomain),
        ("spiffe://user@example.com/a", SpiffeFault::TrustDomain),
        ("spiffe://example.com?x=1", SpiffeFault::TrustDomain),
        ("spiffe://ex%61mple.com/a", SpiffeFault::TrustDomain),
        ("spiffe://[::1]/a", SpiffeFault::TrustDomain),
        ("spiffe://exämple.com/a", SpiffeFault::TrustDomain),
        ("spiffe://example.com/", SpiffeFault::TrailingSlash),
        ("spiffe://example.com/a/", SpiffeFault::TrailingSlash),
        ("spiffe://example.com//a", SpiffeFault::EmptySegment),
        ("spiffe://example.com/a//b", SpiffeFault::EmptySegment),
        ("spiffe://example.com/./a", SpiffeFault::DotSegment),
        ("spiffe://example.com/a/..", SpiffeFault::DotSegment),
        ("spiffe://example.com/a?x=1", SpiffeFault::Path),
        ("spiffe://example.com/a#x", SpiffeFault::Path),
        ("spiffe://example.com/%61", SpiffeFault::Path),
        ("spiffe://example.com/a b", SpiffeFault::Path),
        ("spiffe://example.com/a\0", SpiffeFault::Path),
        ("spiffe://example.com/ä", SpiffeFault::Path),
        (&long_domain, SpiffeFault::TrustDomainTooLong),
        (&long_path, SpiffeFault::TooLong),
    ];
    for (text, fault) in cases {
        assert_eq!(SpiffeId::parse(text), Err(fault), "{text:?}");
    }
}

proptest::proptest! {
    /// Whatever is accepted is made of the three parts and nothing else.
    #[test]
    fn an_accepted_text_is_its_parts(text in "(spiffe://)?[a-zA-Z0-9._%:@/-]{0,40}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            let parts = format!("spiffe://{}{}", id.trust_domain(), id.path());
            assert_eq!(parts, text);
            assert!(!id.path().contains("//") && !id.path().ends_with('/'));
        }
    }
}
