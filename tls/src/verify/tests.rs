//! Verdicts on certificates, as a table of named cases in the manner of x509-limbo.
//!
//! The cases under `data` were made with OpenSSL, since rcgen makes no certificates that weak; they
//! are valid from November 2026 for 98 years.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku,
    GeneralSubtree, IsCa, KeyPair as Key, KeyUsagePurpose as Ku, NameConstraints,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SanType, SerialNumber,
};

use super::*;
use crate::testing::{Authority, NOW, authority, id, in_year, leaf};

const A: &str = "spiffe://mesh.example/a";
const ACCEPTED: &str = "accepted";
/// 1 June 2027.
const LATER: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_811_808_000));

type Chain = Vec<CertificateDer<'static>>;

/// What a server of the mesh says about a client's chain: `accepted` or the fault.
fn verdict(
    bundle: &Arc<Bundle>,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<SpiffeId, Fault> {
    let verifier = MeshVerifier::new(Arc::clone(bundle), Box::default());
    call::enter(now, u64::MAX);
    let verified = verifier.verify_client_cert(&chain[0], &chain[1..], now);
    let (found, until) = call::leave();
    match verified {
        Ok(_) => {
            assert!(found.fault.is_none() && until >= now.as_secs());
            Ok(found.peer.expect("who is accepted has a name"))
        }
        Err(_) => {
            assert!(found.peer.is_none());
            Err(found.fault.expect("a refusal has a reason"))
        }
    }
}

fn label(bundle: &Arc<Bundle>, chain: &[CertificateDer<'_>]) -> &'static str {
    match verdict(bundle, chain, NOW) {
        Ok(_) => ACCEPTED,
        Err(fault) => fault.label(),
    }
}

/// The label for a leaf directly below the root, changed by `change`.
fn changed(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> &'static str {
    let mut params = leaf(A);
    change(&mut params);
    label(&root.bundle(), &[root.leaf(&params)])
}

/// The label for a leaf below an intermediate, which `change` makes differ.
fn below(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> &'static str {
    let mut params = authority("intermediate");
    change(&mut params);
    let intermediate = root.below(params);
    label(&root.bundle(), &[intermediate.leaf(&leaf(A)), intermediate.der.clone()])
}

fn check(cases: &[(&str, &'static str, &'static str)]) {
    let wrong: Vec<_> = cases.iter().filter(|(_, found, expected)| found != expected).collect();
    assert!(wrong.is_empty(), "case, found, expected: {wrong:#?}");
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

fn extension(critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999], vec![5, 0]);
    extension.set_criticality(critical);
    extension
}

/// nameConstraints that permit URIs of `host` only.
fn permitted_uris(host: &str) -> CustomExtension {
    let name = [&[0x86, host.len() as u8], host.as_bytes()].concat();
    let subtree = [&[0x30, name.len() as u8], &name[..]].concat();
    let permitted = [&[0xa0, subtree.len() as u8], &subtree[..]].concat();
    let content = [&[0x30, permitted.len() as u8], &permitted[..]].concat();
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    extension
}

#[test]
fn paths_and_validity_have_their_verdicts() {
    let root = Authority::new("root");
    let same_name = Authority::new("root");
    let bundle = root.bundle();
    let middle = root.below(authority("middle"));
    let lower = middle.below(authority("lower"));
    let member = || root.leaf(&leaf(A));
    let signer = root.pair(&leaf(A));
    let mut short = authority("short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = root.below(short);
    let too_deep = short.below(authority("too deep"));
    let mut old = authority("old root");
    in_year(&mut old, 2024);
    let old = Authority::with(old);
    let by_leaf = {
        let key = Key::generate().expect("a key can be made");
        let issuer = rcgen::Issuer::new(leaf(A), key);
        let leaf_of_leaf = leaf("spiffe://mesh.example/b");
        let own = Key::generate().expect("a key can be made");
        leaf_of_leaf.signed_by(&own, &issuer).expect("it can be signed").der().clone()
    };
    let mut cut = member().to_vec();
    cut.truncate(cut.len() - 1);
    let longer = [&member()[..], &[0]].concat();
    check(&[
        ("below the root", label(&bundle, &[member()]), ACCEPTED),
        ("below an intermediate", below(&root, |_| {}), ACCEPTED),
        (
            "below two, in any order, with a stranger between",
            label(
                &bundle,
                &[
                    lower.leaf(&leaf(A)),
                    middle.der.clone(),
                    same_name.der.clone(),
                    lower.der.clone(),
                ],
            ),
            ACCEPTED,
        ),
        ("the root sent along", label(&bundle, &[member(), root.der.clone()]), ACCEPTED),
        ("intermediate missing", label(&bundle, &[middle.leaf(&leaf(A))]), "peer_untrusted"),
        ("another root", label(&same_name.bundle(), &[member()]), "peer_untrusted"),
        ("expired", changed(&root, |params| in_year(params, 2025)), "peer_expired"),
        ("not yet valid", changed(&root, |params| in_year(params, 2027)), "peer_not_yet_valid"),
        ("expired intermediate", below(&root, |params| in_year(params, 2025)), "peer_expired"),
        ("future intermediate", below(&root, |params| in_year(params, 2027)), "peer_not_yet_valid"),
        (
            "validity that ends before it begins",
            changed(&root, |params| params.not_after = params.not_before - Duration::from_secs(9)),
            "peer_certificate",
        ),
        (
            "expired root, which is trusted by decision",
            label(&old.bundle(), &[old.leaf(&leaf(A))]),
            ACCEPTED,
        ),
        (
            "at its path length",
            label(&bundle, &[short.leaf(&leaf(A)), short.der.clone()]),
            ACCEPTED,
        ),
        (
            "past its path length",
            label(&bundle, &[too_deep.leaf(&leaf(A)), too_deep.der.clone(), short.der.clone()]),
            "peer_certificate",
        ),
        (
            "issued by a leaf",
            label(&bundle, &[by_leaf, signer.certified().cert[0].clone()]),
            "peer_certificate",
        ),
        (
            "intermediate that is no authority",
            below(&root, |p| p.is_ca = IsCa::ExplicitNoCa),
            "peer_certificate",
        ),
        (
            "intermediate that may not sign",
            below(&root, |params| params.key_usages = vec![Ku::CrlSign]),
            "peer_certificate",
        ),
        ("the root as leaf", label(&bundle, std::slice::from_ref(&root.der)), "peer_usage"),
        ("self-signed leaf", label(&bundle, &[Authority::with(leaf(A)).der]), "peer_untrusted"),
        ("cut by a byte", label(&bundle, &[cut.into()]), "peer_certificate"),
        ("longer by a byte", label(&bundle, &[longer.into()]), "peer_certificate"),
        ("nothing", label(&bundle, &[Vec::new().into()]), "peer_certificate"),
    ]);
}

#[test]
fn usages_and_extensions_have_their_verdicts() {
    let root = Authority::new("root");
    let usage = |usages: &[Ku]| changed(&root, |params| params.key_usages = usages.to_vec());
    let purpose =
        |purposes: &[Eku]| changed(&root, |params| params.extended_key_usages = purposes.to_vec());
    check(&[
        (
            "an authority",
            changed(&root, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "peer_usage",
        ),
        ("explicitly none", changed(&root, |params| params.is_ca = IsCa::ExplicitNoCa), ACCEPTED),
        ("keyCertSign", usage(&[Ku::DigitalSignature, Ku::KeyCertSign]), "peer_usage"),
        ("cRLSign", usage(&[Ku::DigitalSignature, Ku::CrlSign]), "peer_usage"),
        ("keyEncipherment beside", usage(&[Ku::DigitalSignature, Ku::KeyEncipherment]), ACCEPTED),
        ("keyEncipherment alone", usage(&[Ku::KeyEncipherment]), "peer_usage"),
        ("no keyUsage", usage(&[]), "peer_usage"),
        ("for clients", purpose(&[Eku::ClientAuth]), ACCEPTED),
        ("for both", purpose(&[Eku::ServerAuth, Eku::ClientAuth]), ACCEPTED),
        ("for servers", purpose(&[Eku::ServerAuth]), "peer_usage"),
        ("for code", purpose(&[Eku::CodeSigning]), "peer_usage"),
        ("for anything, which webpki does not take", purpose(&[Eku::Any]), "peer_usage"),
        (
            "intermediate for clients",
            below(&root, |p| p.extended_key_usages = vec![Eku::ClientAuth]),
            ACCEPTED,
        ),
        (
            "intermediate for servers",
            below(&root, |params| params.extended_key_usages = vec![Eku::ServerAuth]),
            "peer_usage",
        ),
        (
            "unknown critical extension",
            changed(&root, |params| params.custom_extensions = vec![extension(true)]),
            "peer_certificate",
        ),
        (
            "unknown extension",
            changed(&root, |params| params.custom_extensions = vec![extension(false)]),
            ACCEPTED,
        ),
        (
            "extension twice",
            changed(&root, |params| params.custom_extensions = vec![extension(false); 2]),
            ACCEPTED,
        ),
        (
            "intermediate with an unknown critical extension",
            below(&root, |params| params.custom_extensions = vec![extension(true)]),
            "peer_certificate",
        ),
        (
            "constraints on the names of hosts do not touch URIs",
            below(&root, |params| {
                params.name_constraints = Some(NameConstraints {
                    permitted_subtrees: vec![GeneralSubtree::DnsName("mesh.example".into())],
                    excluded_subtrees: Vec::new(),
                });
            }),
            ACCEPTED,
        ),
        (
            "URIs of the trust domain permitted, which webpki refuses as a whole",
            below(&root, |params| params.custom_extensions = vec![permitted_uris("mesh.example")]),
            "peer_certificate",
        ),
        (
            "URIs of another trust domain permitted",
            below(&root, |params| params.custom_extensions = vec![permitted_uris("other.example")]),
            "peer_certificate",
        ),
    ]);
}

#[test]
fn names_have_their_verdicts() {
    let root = Authority::new("root");
    let named = |names: &[SanType]| changed(&root, |p| p.subject_alt_names = names.to_vec());
    let mut cases = vec![
        ("no name", named(&[]), "peer_spiffe_id"),
        ("a host only", named(&[dns("a.example")]), "peer_spiffe_id"),
        ("a host beside", named(&[dns("a.example"), uri(A)]), ACCEPTED),
        ("an address beside", named(&[SanType::IpAddress([10, 0, 0, 1].into()), uri(A)]), ACCEPTED),
        ("two ids", named(&[uri(A), uri("spiffe://mesh.example/b")]), "peer_spiffe_id"),
        ("one id twice", named(&[uri(A), uri(A)]), "peer_spiffe_id"),
        ("another URI beside", named(&[uri(A), uri("https://a.example/")]), "peer_spiffe_id"),
        ("another trust domain", named(&[uri("spiffe://other.example/a")]), ACCEPTED),
        ("only a trust domain", named(&[uri("spiffe://mesh.example")]), "peer_spiffe_id"),
    ];
    for malformed in [
        "https://mesh.example/a",
        "SPIFFE://mesh.example/a",
        "spiffe:mesh.example/a",
        "spiffe:///a",
        "spiffe://Mesh.example/a",
        "spiffe://mesh.example:8443/a",
        "spiffe://user@mesh.example/a",
        "spiffe://mesh.example/",
        "spiffe://mesh.example/a/",
        "spiffe://mesh.example//a",
        "spiffe://mesh.example/./a",
        "spiffe://mesh.example/a/../b",
        "spiffe://mesh.example/a?b",
        "spiffe://mesh.example/a#b",
        "spiffe://mesh.example/%61",
        "spiffe://mesh.example/a b",
        "spiffe://mesh.example/a\0",
    ] {
        cases.push((malformed, named(&[uri(malformed)]), "peer_spiffe_id"));
    }
    check(&cases);
}

#[test]
fn keys_of_all_supported_kinds_are_accepted() {
    let root = Authority::new("root");
    for (kind, algorithm) in [
        ("ECDSA P-384", &PKCS_ECDSA_P384_SHA384),
        ("Ed25519", &PKCS_ED25519),
        ("RSA 2048", &PKCS_RSA_SHA256),
    ] {
        let key = Key::generate_for(algorithm).expect("a key can be made");
        let (chain, key) = root.issue_for(&leaf(A), &key);
        let pair = crate::KeyPair::parse(chain.as_bytes(), key.as_bytes(), None);
        let pair = pair.expect("the pair is usable");
        assert_eq!(pair.info().key, kind);
        assert_eq!(label(&root.bundle(), &pair.certified().cert), ACCEPTED, "{kind}");
    }
}

#[test]
fn weak_and_old_certificates_are_refused() {
    let root: CertificateDer<'_> = include_bytes!("data/root.der").as_slice().into();
    let anchors = [webpki::anchor_from_trusted_cert(&root).expect("the root is usable").to_owned()];
    let judge = |leaf: &[u8]| {
        let anchors = Anchors { roots: &anchors, crls: &[] };
        path(anchors, (&CertificateDer::from(leaf), &[]), LATER, KeyUsage::client_auth())
    };
    assert!(judge(include_bytes!("data/rsa2048.der")).is_ok(), "the others differ from this");
    assert_eq!(
        judge(include_bytes!("data/v1.der")),
        Err(PathFault::Certificate("it is not of version 3"))
    );
    assert_eq!(
        judge(include_bytes!("data/sha1.der")),
        Err(PathFault::Certificate("a key or signature is of a kind that is not supported"))
    );
}

/// webpki does not look at the size of a leaf's key until it signs; so the signature is what fails.
#[test]
fn rsa_of_1024_bits_cannot_sign_a_handshake() {
    let leaf: CertificateDer<'_> = include_bytes!("data/rsa1024.der").as_slice().into();
    let end_entity = EndEntityCert::try_from(&leaf).expect("it can be read");
    let algorithms = provider().crypto().signature_verification_algorithms;
    for algorithm in algorithms.all {
        assert!(end_entity.verify_signature(*algorithm, b"message", &[0; 128]).is_err());
    }
}

#[test]
fn crls_have_their_verdicts() {
    let root = Authority::new("root");
    let other = Authority::new("root");
    let mut params = authority("middle");
    params.serial_number = Some(SerialNumber::from(5));
    let middle = root.below(params);
    let with_serial = |by: &Authority, serial: u64| {
        let mut params = leaf(A);
        params.serial_number = Some(SerialNumber::from(serial));
        by.leaf(&params)
    };
    let direct = || vec![with_serial(&root, 7)];
    let indirect = || vec![with_serial(&middle, 7), middle.der.clone()];
    let judge = |crls: &[Vec<u8>], chain: Chain| {
        let crls: Vec<&[u8]> = crls.iter().map(Vec::as_slice).collect();
        label(&root.bundle_with(&crls), &chain)
    };
    check(&[
        ("not on it", judge(&[root.crl(&[8], 2026)], direct()), ACCEPTED),
        ("on it", judge(&[root.crl(&[6, 7, 8], 2026)], direct()), "peer_revoked"),
        ("on one past its next update", judge(&[root.crl(&[7], 2025)], direct()), "peer_revoked"),
        ("the same serial of another issuer", judge(&[root.crl(&[7], 2026)], indirect()), ACCEPTED),
        ("an issuer on it", judge(&[root.crl(&[5], 2026)], indirect()), "peer_revoked"),
        ("on that of the issuer", judge(&[middle.crl(&[7], 2026)], indirect()), "peer_revoked"),
        (
            "on the second of two",
            judge(&[middle.crl(&[1], 2026), root.crl(&[5], 2026)], indirect()),
            "peer_revoked",
        ),
        (
            "on one with a forged signature",
            judge(&[other.crl(&[1], 2026)], direct()),
            "peer_certificate",
        ),
    ]);
    let fault = verdict(&root.bundle_with(&[&root.crl(&[7], 2026)]), &direct(), NOW).err();
    assert_eq!(fault, Some(Fault::PeerRevoked { serial: "07".into() }));
}

#[test]
fn a_chain_is_limited() {
    let root = Authority::new("root");
    let bundle = root.bundle();
    let leaf = root.leaf(&leaf(A));
    let chain = |others: usize| -> Chain {
        let mut chain = vec![leaf.clone()];
        chain.resize(others + 1, root.der.clone());
        chain
    };
    assert_eq!(label(&bundle, &chain(CHAIN_CERTIFICATES_MAX - 1)), ACCEPTED);
    let fault = verdict(&bundle, &chain(CHAIN_CERTIFICATES_MAX), NOW).err();
    assert_eq!(fault, Some(Fault::PeerCertificate("its chain is too long")));
}

#[test]
fn a_deep_chain_is_followed_up_to_the_depth_of_webpki() {
    let root = Authority::new("root");
    let bundle = root.bundle();
    let verdict = |depth: usize| {
        let mut chain: Chain = Vec::new();
        let mut last = root.below(authority("1"));
        chain.push(last.der.clone());
        for name in 2..=depth {
            last = last.below(authority(&name.to_string()));
            chain.push(last.der.clone());
        }
        chain.insert(0, last.leaf(&leaf(A)));
        label(&bundle, &chain)
    };
    assert_eq!(verdict(6), ACCEPTED);
    assert_eq!(verdict(7), "peer_certificate");
}

#[test]
fn a_client_expects_one_of_its_ids() {
    let root = Authority::new("root");
    let leaf = root.leaf(&leaf(A));
    let ask = |expected: &[&str]| {
        let expected = expected.iter().map(|text| id(text)).collect();
        let verifier = MeshVerifier::new(root.bundle(), expected);
        let name = ServerName::try_from("any.example").expect("a name");
        call::enter(NOW, u64::MAX);
        let verified = verifier.verify_server_cert(&leaf, &[], &name, &[], NOW);
        let (found, _) = call::leave();
        verified.map(|_| found.peer).map_err(|error| (error, found.fault))
    };
    assert_eq!(ask(&["spiffe://mesh.example/b", A]), Ok(Some(id(A))));
    let (error, fault) =
        ask(&["spiffe://mesh.example/b", "spiffe://other.example/a"]).expect_err("nobody of these");
    assert_eq!(error, CertificateError::ApplicationVerificationFailure.into());
    assert_eq!(
        fault.map(|fault| fault.to_string()).as_deref(),
        Some(
            "expected spiffe://mesh.example/b or spiffe://other.example/a, \
             peer is spiffe://mesh.example/a"
        )
    );
}

#[test]
fn chains_that_were_accepted_are_asked_for_trust_and_revocation_not_for_validity() {
    let root = Authority::new("root");
    let mut params = leaf(A);
    params.serial_number = Some(SerialNumber::from(7));
    in_year(&mut params, 2024);
    let old = [root.leaf(&params)];
    assert_eq!(root.bundle().still_trusts(&old), Ok(()));
    let revoked = root.bundle_with(&[&root.crl(&[7], 2026)]).still_trusts(&old);
    assert_eq!(revoked, Err(Fault::PeerRevoked { serial: "07".into() }));
    assert_eq!(Authority::new("new").bundle().still_trusts(&old), Err(Fault::PeerUntrusted));
    assert_eq!(root.bundle().still_trusts(&[]), Err(Fault::PeerNoCertificate));
    for purpose in [Eku::ServerAuth, Eku::ClientAuth] {
        let mut params = leaf(A);
        params.extended_key_usages = vec![purpose];
        assert_eq!(root.bundle().still_trusts(&[root.leaf(&params)]), Ok(()));
    }
}

#[test]
fn a_chain_that_was_accepted_is_not_verified_again_while_nothing_changes() {
    let root = Authority::new("root");
    let bundle = root.bundle();
    let mut params = leaf(A);
    params.serial_number = Some(SerialNumber::from(7_u64));
    in_year(&mut params, 2026);
    let chain = [root.leaf(&params)];
    assert_eq!(accepted::count(), 0);
    for _ in 0..3 {
        assert_eq!(verdict(&bundle, &chain, NOW), Ok(id(A)));
        assert_eq!(accepted::count(), 1);
    }
    // Its time is asked for each time, in both directions.
    let (long_after, before) = (LATER.as_secs() + 400 * 86_400, NOW.as_secs() - 400 * 86_400);
    for (second, label) in [(long_after, "peer_expired"), (before, "peer_not_yet_valid")] {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(second));
        assert_eq!(verdict(&bundle, &chain, time).unwrap_err().label(), label);
    }
    // So are the roots and their lists.
    let revoked = root.bundle_with(&[&root.crl(&[7], 2026)]);
    assert_eq!(verdict(&revoked, &chain, NOW).unwrap_err().label(), "peer_revoked");
    let other = Authority::new("other").bundle();
    assert_eq!(verdict(&other, &chain, NOW).unwrap_err().label(), "peer_untrusted");
    assert_eq!(verdict(&bundle, &chain, NOW), Ok(id(A)));
    assert_eq!(accepted::count(), 1, "refusals are not kept");
}

#[test]
fn a_chain_accepted_from_a_client_is_verified_again_from_a_server() {
    let root = Authority::new("root");
    let bundle = root.bundle();
    let mut params = leaf(A);
    params.extended_key_usages = vec![Eku::ClientAuth];
    let chain = [root.leaf(&params)];
    assert_eq!(verdict(&bundle, &chain, NOW), Ok(id(A)));
    let verifier = MeshVerifier::new(bundle, Box::default());
    let name = ServerName::try_from("a.example").unwrap();
    call::enter(NOW, u64::MAX);
    let verified = verifier.verify_server_cert(&chain[0], &[], &name, &[], NOW);
    assert!(verified.is_err());
    assert_eq!(call::leave().0.fault.unwrap().label(), "peer_usage");
}

#[test]
fn chains_that_are_kept_are_bounded() {
    let key = |byte: usize| {
        let leaf = CertificateDer::from(byte.to_be_bytes().to_vec());
        accepted::Key::new(&Authority::new("root").bundle(), 0, &leaf, &[])
    };
    let root = Authority::new("root").bundle();
    let first = CertificateDer::from(vec![1, 2]);
    let parts = [CertificateDer::from(vec![1]), CertificateDer::from(vec![2])];
    let whole = accepted::Key::new(&root, 0, &first, &[]);
    assert_ne!(whole, accepted::Key::new(&root, 0, &parts[0], &parts[1..]), "cut elsewhere");
    for number in 0..=crate::limits::ACCEPTED_CHAINS_MAX {
        accepted::keep(key(number), Accepted { id: id(A), valid: (0, u64::MAX) });
    }
    assert_eq!(accepted::count(), 1);
}
