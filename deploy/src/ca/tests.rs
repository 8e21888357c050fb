//! Claims about certificates, tokens, renewals and denials, with ringway-tls and openssl as
//! verifiers.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair as Key, KeyUsagePurpose,
    SanType,
};
use ringway_tls::pki_types::pem::PemObject;
use ringway_tls::{CertificateDer, KeyPair, MaterialFault, SpiffeId, UnixTime};

use super::*;
use crate::store::{Local, Memory, Store, StoreFault};

mod rotation;

/// 1 July 2026.
pub(super) const NOW_S: u64 = 1_782_864_000;
const HOUR_S: u64 = 3600;
const WEB: &str = "spiffe://mesh.example/ns/shop/sa/web";

pub(super) fn at(second: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(second))
}

pub(super) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// An authority in memory.
pub(super) fn authority(lives: Lives) -> Authority {
    let store = Arc::new(Memory::new());
    Authority::open(store, Keys::memory(), "mesh.example", lives, at(NOW_S)).unwrap()
}

/// A key of a workload and its request.
pub(super) struct Workload {
    pub(super) key: Key,
    pub(super) csr: String,
}

impl Workload {
    pub(super) fn new() -> Workload {
        Workload::asking(&CertificateParams::default())
    }

    fn asking(params: &CertificateParams) -> Workload {
        let key = Key::generate().unwrap();
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        Workload { key, csr }
    }

    pub(super) fn pair(&self, issued: &Issued) -> KeyPair {
        let key = self.key.serialize_pem();
        KeyPair::parse(issued.chain_pem.as_bytes(), key.as_bytes(), None).unwrap()
    }
}

pub(super) fn request(pattern: &str, uses: u32) -> TokenRequest {
    let pattern = Pattern::parse(pattern).unwrap();
    TokenRequest { pattern, ttl: Duration::from_secs(HOUR_S), uses, note: "a test".into() }
}

pub(super) fn token(authority: &Authority, pattern: &str, now: UnixTime) -> String {
    let made = authority.create_token(&request(pattern, 1), now).unwrap();
    made.token.expose().to_owned()
}

pub(super) fn join(authority: &Authority, name: &str, now: UnixTime) -> (Workload, Issued) {
    let workload = Workload::new();
    let token = token(authority, name, now);
    let issued = authority.join(&token, None, workload.csr.as_bytes(), now, 1 << 31).unwrap();
    (workload, issued)
}

fn leaf(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap()
}

pub(super) fn peer(issued: &Issued) -> Peer {
    Peer::read(&leaf(issued)).unwrap()
}

pub(super) fn trust(bundle: &Bundle) -> ringway_tls::Bundle {
    let crls: Vec<&[u8]> = bundle.crls.iter().map(|crl| crl.pem.as_bytes()).collect();
    ringway_tls::Bundle::parse(bundle.roots_pem.as_bytes(), &crls).unwrap()
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, CaFault>) -> Refusal {
    match result {
        Err(CaFault::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Whether openssl accepts the chain; `None` if there is no openssl.
fn openssl(folder: &Path, issued: &Issued, crl: Option<&str>, purpose: &str) -> Option<String> {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let leaf_end = issued.chain_pem.find("-----END").unwrap() + 26;
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-purpose", purpose]);
    command.args(["-attime", &NOW_S.to_string()]);
    command.arg("-CAfile").arg(put("bundle.pem", &issued.bundle_pem));
    command.arg("-untrusted").arg(put("issuer.pem", &issued.chain_pem[leaf_end..]));
    if let Some(crl) = crl {
        command.arg("-crl_check").arg("-CRLfile").arg(put("crl.pem", crl));
    }
    let output = command.arg(put("leaf.pem", &issued.chain_pem[..leaf_end])).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(format!("{} {}", output.status.success(), String::from_utf8_lossy(&text)))
}

#[test]
fn leaf_is_an_svid_that_the_mesh_accepts() {
    let authority = authority(Lives::default());
    let (workload, issued) = join(&authority, WEB, at(NOW_S));
    let pair = workload.pair(&issued);
    assert_eq!(pair.as_identity().unwrap(), &id(WEB));
    trust(&authority.bundle(at(NOW_S)).unwrap()).check(&pair, at(NOW_S)).unwrap();
    let info = pair.info();
    assert_eq!(info.uris, [WEB]);
    assert!(info.dns_names.is_empty() && info.addresses.is_empty() && !info.is_ca);
    assert_eq!(info.key, "ECDSA P-256");
    assert_eq!(info.serial, issued.serial);
    assert_eq!(info.serial.len(), 32);
    assert_eq!(info.not_before, NOW_S as i64 - 600);
    assert_eq!(info.not_after, NOW_S as i64 + 24 * 3600);
    assert_eq!(issued.until_s, NOW_S + 24 * HOUR_S);
    assert_eq!(issued.renew_at_s, NOW_S + 12 * HOUR_S);
    assert_eq!(pair.chain().len(), 2);
}

#[test]
fn chain_obeys_the_letter_of_x509() {
    use x509_parser::prelude::FromDer;
    let authority = authority(Lives::default());
    let (_, issued) = join(&authority, WEB, at(NOW_S));
    let all = issued.chain_pem.clone() + &issued.bundle_pem;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(all.as_bytes()).map(Result::unwrap).collect();
    let read = |at: usize| {
        x509_parser::certificate::X509Certificate::from_der(&certificates[at]).unwrap().1
    };
    for (place, path_len) in [(0, None), (1, Some(0)), (2, Some(1))] {
        let certificate = read(place);
        let basic = certificate.basic_constraints().unwrap().expect("basicConstraints");
        assert_eq!(basic.value.ca, path_len.is_some());
        assert_eq!(basic.value.path_len_constraint, path_len);
        let usage = certificate.key_usage().unwrap().expect("keyUsage").value;
        assert_eq!(usage.digital_signature(), place == 0);
        assert_eq!((usage.key_cert_sign(), usage.crl_sign()), (place > 0, place > 0));
    }
    let leaf = read(0);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "without a subject the names are critical");
}

#[test]
fn openssl_accepts_the_leaf_for_both_ends_and_its_crl() {
    let authority = authority(Lives::default());
    let folder = tempfile::tempdir().unwrap();
    let (_, issued) = join(&authority, WEB, at(NOW_S));
    for purpose in ["sslserver", "sslclient"] {
        let Some(verdict) = openssl(folder.path(), &issued, None, purpose) else { return };
        assert!(verdict.starts_with("true"), "{verdict}");
    }
    let (_, other) = join(&authority, "spiffe://mesh.example/ns/shop/sa/cart", at(NOW_S));
    authority.deny(Subject::parse(WEB).unwrap(), "stolen", None, at(NOW_S)).unwrap();
    let crls = authority.crls(at(NOW_S)).unwrap();
    let verdict = openssl(folder.path(), &issued, Some(&crls[0].pem), "sslclient").unwrap();
    assert!(verdict.starts_with("false") && verdict.contains("revoked"), "{verdict}");
    let verdict = openssl(folder.path(), &other, Some(&crls[0].pem), "sslclient").unwrap();
    assert!(verdict.starts_with("true"), "{verdict}");
}

#[test]
fn a_denial_too_many_is_refused_and_the_list_goes_on() {
    let authority = authority(Lives::default());
    let serial = |number: usize| Subject::Serial(format!("{number:x}"));
    for number in 0..limits::CRL_ENTRIES_MAX - 1 {
        let (subject, reason) = (serial(number), String::new());
        let denial = Denial { subject, reason, since_s: NOW_S, until_s: None };
        authority.write(&denial.subject.key(), None, &denial).unwrap();
    }
    let deny = |number| authority.deny(serial(number), "", None, at(NOW_S));
    deny(10_000).unwrap();
    assert!(matches!(deny(10_001), Err(CaFault::Full { .. })));
    deny(10_000).unwrap();
    assert_eq!(authority.crls(at(NOW_S)).unwrap()[0].entries, limits::CRL_ENTRIES_MAX);
    assert!(authority.allow(&serial(10_000)).unwrap());
    deny(10_001).unwrap();
}

/// The request asks to be an authority and somebody else, with an extension that nobody knows.
#[test]
fn request_contributes_its_key_and_nothing_else() {
    let authority = authority(Lives::default());
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    let other = "spiffe://mesh.example/operator/ca-admin/eve";
    params.subject_alt_names.push(SanType::URI(other.try_into().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    let workload = Workload::asking(&params);
    let token = token(&authority, WEB, at(NOW_S));
    let issued = authority.join(&token, None, workload.csr.as_bytes(), at(NOW_S), 0).unwrap();
    let pair = workload.pair(&issued);
    assert_eq!(pair.info().uris, [WEB]);
    assert!(pair.info().dns_names.is_empty() && !pair.info().is_ca);
    assert_eq!(pair.info().subject, "");
}

#[test]
fn request_without_possession_or_of_another_kind_is_refused_and_costs_no_use() {
    let authority = authority(Lives::default());
    let token = token(&authority, WEB, at(NOW_S));
    let workload = Workload::new();
    let der = CertificateParams::default().serialize_request(&workload.key).unwrap().der().to_vec();
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    let p384 = Key::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = CertificateParams::default().serialize_request(&p384).unwrap();
    let mut longer = der.clone();
    longer.push(0);
    let mut long = workload.csr.clone().into_bytes();
    long.resize(limits::CSR_BYTES_MAX + 1, b'\n');
    for csr in [&forged, &p384.der().to_vec(), &longer, &long, &b"x".to_vec(), &vec![0x30]] {
        let refused = refusal(authority.join(&token, None, csr, at(NOW_S), 0));
        assert_eq!(refused.word(), "csr", "{refused}");
    }
    long.truncate(limits::CSR_BYTES_MAX);
    authority.join(&token, None, &long, at(NOW_S), 0).unwrap();
}

#[test]
fn token_is_refused_with_the_reason_in_one_word() {
    let authority = authority(Lives::default());
    let workload = Workload::new();
    let join = |token: &str, asked: Option<&str>, now_s| {
        let asked = asked.map(id);
        authority.join(token, asked.as_ref(), workload.csr.as_bytes(), at(now_s), 0)
    };
    let one = token(&authority, WEB, at(NOW_S));
    let refused = refusal(join(&one, Some("spiffe://mesh.example/ns/shop/sa/x"), NOW_S));
    assert_eq!(refused.word(), "other-identity");
    let refused = refusal(join(&one, None, NOW_S + HOUR_S + 1));
    assert_eq!(refused, Refusal::TokenExpired { since_s: 1 });
    assert_eq!(refused.word(), "expired");
    join(&one, Some(WEB), NOW_S + HOUR_S).unwrap();
    assert_eq!(refusal(join(&one, Some(WEB), NOW_S + 1)).word(), "used-up");
    for unknown in ["", "ringway-join-", &format!("{one}0"), &one[1..], &"x".repeat(1000)] {
        assert_eq!(refusal(join(unknown, Some(WEB), NOW_S)).word(), "unknown");
    }

    let many = authority.create_token(&request("spiffe://mesh.example/ns/shop/*", 2), at(NOW_S));
    let many = many.unwrap();
    let text = many.token.expose();
    assert_eq!(refusal(join(text, None, NOW_S)).word(), "identity");
    join(text, Some(WEB), NOW_S).unwrap();
    join(text, Some("spiffe://mesh.example/ns/shop/sa/cart"), NOW_S).unwrap();
    assert_eq!(refusal(join(text, Some(WEB), NOW_S)), Refusal::TokenUsedUp);
    assert!(authority.revoke_token(&many.view.name).unwrap());
    assert!(!authority.revoke_token(&many.view.name).unwrap());
    assert_eq!(refusal(join(text, Some(WEB), NOW_S)), Refusal::TokenUnknown);

    let all = token(&authority, "spiffe://mesh.example/*", at(NOW_S));
    for reserved in
        ["spiffe://mesh.example/operator/ca-admin/eve", "spiffe://mesh.example/ringway/pusher"]
    {
        assert_eq!(refusal(join(&all, Some(reserved), NOW_S)).word(), "identity");
    }
    let foreign = refusal(join(&all, Some("spiffe://other/a"), NOW_S));
    assert_eq!(foreign.word(), "other-identity");
    join(&all, Some(WEB), NOW_S).unwrap();
}

#[test]
fn token_is_not_in_the_store() {
    let store = Arc::new(Memory::new());
    let authority = Authority::open(
        Arc::clone(&store) as Arc<dyn Store>,
        Keys::memory(),
        "mesh.example",
        Lives::default(),
        at(NOW_S),
    )
    .unwrap();
    let made = authority.create_token(&request(WEB, 1), at(NOW_S)).unwrap();
    let digits = made.token.expose().strip_prefix("ringway-join-").unwrap();
    assert_eq!(digits.len(), 32);
    assert!(!format!("{made:?}").contains(digits));
    for (key, entry) in store.list("").unwrap().entries {
        let text = String::from_utf8(entry.value).unwrap();
        assert!(!key.contains(digits) && !text.contains(digits), "{key}");
        assert!(!text.contains("PRIVATE KEY"), "{key}");
    }
    assert_eq!(authority.tokens().unwrap(), [made.view]);
}

#[test]
fn of_concurrent_users_of_one_token_exactly_one_gets_a_certificate() {
    let authority = Arc::new(authority(Lives::default()));
    for _ in 0..10 {
        let token = token(&authority, WEB, at(NOW_S));
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let users: Vec<_> = (0..4)
            .map(|_| {
                let (authority, token) = (Arc::clone(&authority), token.clone());
                let barrier = Arc::clone(&barrier);
                std::thread::spawn(move || {
                    let workload = Workload::new();
                    barrier.wait();
                    authority.join(&token, None, workload.csr.as_bytes(), at(NOW_S), 0)
                })
            })
            .collect();
        let results: Vec<_> = users.into_iter().map(|user| user.join().unwrap()).collect();
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for lost in lost {
            assert_eq!(refusal(lost), Refusal::TokenUsedUp);
        }
    }
}

#[test]
fn renewal_is_by_the_certificate_until_it_expires_or_is_denied() {
    let authority = authority(Lives::default());
    let (_, first) = join(&authority, WEB, at(NOW_S));
    let renew = |issued: &Issued, now_s: u64| {
        authority.renew(&peer(issued), Workload::new().csr.as_bytes(), at(now_s), 0)
    };
    let second = renew(&first, NOW_S + 12 * HOUR_S).unwrap();
    assert_eq!(second.id, WEB);
    assert_ne!(second.serial, first.serial);
    renew(&first, first.until_s).unwrap();
    let late = refusal(renew(&first, first.until_s + 1));
    assert_eq!(late, Refusal::Expired { since_s: 1 });

    let by_serial = Subject::parse(&first.serial).unwrap();
    authority.deny(by_serial.clone(), "leaked", None, at(NOW_S)).unwrap();
    let denied = refusal(renew(&first, NOW_S + 1));
    assert_eq!(denied.word(), "denied");
    assert!(denied.to_string().contains("leaked"), "{denied}");
    renew(&second, NOW_S + 1).unwrap();
    assert!(authority.allow(&by_serial).unwrap());
    renew(&first, NOW_S + 1).unwrap();

    let by_id = Subject::parse(WEB).unwrap();
    authority.deny(by_id.clone(), "gone", Some(at(NOW_S + 10)), at(NOW_S)).unwrap();
    assert_eq!(refusal(renew(&second, NOW_S + 10)).word(), "denied");
    let token = token(&authority, WEB, at(NOW_S));
    let csr = Workload::new().csr;
    let refused = refusal(authority.join(&token, None, csr.as_bytes(), at(NOW_S), 0));
    assert_eq!(refused.word(), "denied");
    renew(&second, NOW_S + 11).unwrap();
}

#[test]
fn operator_and_pusher_do_not_renew_as_workloads() {
    let authority = authority(Lives::default());
    let operator = authority.operator(Role::CaAdmin, "ann", None, at(NOW_S)).unwrap();
    let pusher = authority.serving(&[], at(NOW_S), 0).unwrap();
    for credentials in [operator, pusher] {
        let csr = Workload::new().csr;
        let peer = peer(&credentials.issued);
        let refused = refusal(authority.renew(&peer, csr.as_bytes(), at(NOW_S), 0));
        assert_eq!(refused.word(), "identity");
    }
}

#[test]
fn operator_and_pusher_get_keys_that_fit() {
    let authority = authority(Lives::default());
    let trust = trust(&authority.bundle(at(NOW_S)).unwrap());
    let operator = authority.operator(Role::Releaser, "ann", None, at(NOW_S)).unwrap();
    let names = ["push.example".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let pusher = authority.serving(&names, at(NOW_S), 0).unwrap();
    for credentials in [&operator, &pusher] {
        let chain = credentials.issued.chain_pem.as_bytes();
        let pair = KeyPair::parse(chain, credentials.key_pem.expose().as_bytes(), None).unwrap();
        pair.as_identity().unwrap();
        trust.check(&pair, at(NOW_S)).unwrap();
        assert_eq!(pair.info().uris, [credentials.issued.id.as_str()]);
    }
    assert_eq!(operator.issued.id, "spiffe://mesh.example/operator/releaser/ann");
    assert_eq!(operator.issued.until_s, NOW_S + 30 * 24 * HOUR_S);
    let info = ringway_tls::CertificateInfo::read(&leaf(&pusher.issued)).unwrap();
    assert_eq!(info.dns_names, ["push.example"]);
    assert_eq!(info.addresses.len(), 2);
    assert!(authority.serving(&["a b".to_owned()], at(NOW_S), 0).is_err());
    for name in ["", "a/b", "ä", &"x".repeat(65)] {
        assert!(authority.operator(Role::Viewer, name, None, at(NOW_S)).is_err(), "{name}");
    }
    let year = Some(Duration::from_secs(365 * 24 * HOUR_S));
    assert!(authority.operator(Role::Viewer, "ann", year, at(NOW_S)).is_err());
}

#[test]
fn crl_refuses_the_denied_leaf_and_no_other() {
    let authority = authority(Lives::default());
    let (web, web_issued) = join(&authority, WEB, at(NOW_S));
    let (cart, cart_issued) = join(&authority, "spiffe://mesh.example/ns/shop/sa/cart", at(NOW_S));
    let crls = authority.bundle(at(NOW_S)).unwrap().crls;
    assert_eq!(crls.iter().map(|crl| crl.entries).collect::<Vec<_>>(), [0], "one, and empty");
    authority.deny(Subject::parse(WEB).unwrap(), "stolen", None, at(NOW_S)).unwrap();
    let bundle = authority.bundle(at(NOW_S)).unwrap();
    let trusted = trust(&bundle);
    assert_eq!(trusted.revoked(), 1);
    let verdict = trusted.check(&web.pair(&web_issued), at(NOW_S));
    assert_eq!(verdict, Err(MaterialFault::Revoked { serial: web_issued.serial.clone() }));
    trusted.check(&cart.pair(&cart_issued), at(NOW_S)).unwrap();

    // The same bytes until something changes or half its life is over.
    assert_eq!(authority.bundle(at(NOW_S + 60)).unwrap(), bundle);
    authority.deny(Subject::parse(&cart_issued.serial).unwrap(), "lost", None, at(NOW_S)).unwrap();
    let trusted = trust(&authority.bundle(at(NOW_S + 60)).unwrap());
    let verdict = trusted.check(&cart.pair(&cart_issued), at(NOW_S));
    assert!(matches!(verdict, Err(MaterialFault::Revoked { .. })), "{verdict:?}");
    authority.allow(&Subject::parse(WEB).unwrap()).unwrap();
    let trusted = trust(&authority.bundle(at(NOW_S + 60)).unwrap());
    trusted.check(&web.pair(&web_issued), at(NOW_S)).unwrap();
}

/// A verifier whose clock is 10 minutes behind or ahead accepts what was issued this second.
#[test]
fn clocks_may_differ_by_ten_minutes() {
    let authority = authority(Lives::default());
    let (workload, issued) = join(&authority, WEB, at(NOW_S));
    let trusted = trust(&authority.bundle(at(NOW_S)).unwrap());
    for now_s in [NOW_S - 600, NOW_S + 600] {
        trusted.check(&workload.pair(&issued), at(now_s)).unwrap();
    }
    assert!(trusted.check(&workload.pair(&issued), at(NOW_S - 601)).is_err());
    // Renewal is long before a clock that is ahead sees the end.
    assert!(issued.renew_at_s + 600 < issued.until_s - 600);
}

#[test]
fn issuer_is_replaced_at_half_its_life_without_a_new_bundle() {
    let authority = authority(Lives::default());
    let before = authority.view(at(NOW_S)).unwrap();
    let half_s = NOW_S + 365 * 24 * HOUR_S / 2;
    let (_, last) = join(&authority, WEB, at(half_s - 1));
    let (workload, first) = join(&authority, WEB, at(half_s));
    assert_ne!(peer(&last).issuer, peer(&first).issuer);
    let after = authority.view(at(half_s)).unwrap();
    assert_eq!((after.epoch, &after.roots_sha256), (before.epoch, &before.roots_sha256));
    trust(&authority.bundle(at(half_s)).unwrap())
        .check(&workload.pair(&first), at(half_s))
        .unwrap();
    // The old one goes when it has expired, and its key with it.
    let over_s = NOW_S + 365 * 24 * HOUR_S + 601;
    authority.sweep(at(over_s)).unwrap();
    let left = authority.view(at(over_s)).unwrap().authorities;
    assert!(left.iter().all(|authority| authority.id != before.issuer), "{left:?}");
    assert!(left.iter().all(|authority| authority.has_key));
}

#[test]
fn issuing_goes_on_while_the_key_of_the_root_is_away() {
    let authority = authority(Lives::default());
    let view = authority.view(at(NOW_S)).unwrap();
    let Phase::Steady { root } = view.phase else { panic!("{view:?}") };
    // As a process sees it that starts without the root's key.
    authority.keys.remove(root.as_str()).unwrap();
    let Authority { store, keys, .. } = authority;
    let authority = Authority::existing(store, keys).unwrap();
    join(&authority, WEB, at(NOW_S + 200 * 24 * HOUR_S));
    let token = token(&authority, WEB, at(NOW_S + 364 * 24 * HOUR_S + 1));
    let csr = Workload::new().csr;
    let late = at(NOW_S + 364 * 24 * HOUR_S + 1);
    let refused = authority.join(&token, None, csr.as_bytes(), late, 0);
    assert!(matches!(refused, Err(CaFault::Key { .. })), "{refused:?}");
}

#[test]
fn sweep_forgets_what_is_over_and_nothing_else() {
    let authority = authority(Lives::default());
    join(&authority, WEB, at(NOW_S));
    authority.deny(Subject::parse(WEB).unwrap(), "", Some(at(NOW_S + 5)), at(NOW_S)).unwrap();
    let day_s = limits::DAY_S;
    assert_eq!(authority.sweep(at(NOW_S)).unwrap(), Swept::default());
    let swept = authority.sweep(at(NOW_S + day_s + 601)).unwrap();
    assert_eq!(swept, Swept { issued: 1, tokens: 0, denials: 1 });
    let swept = authority.sweep(at(NOW_S + 8 * day_s)).unwrap();
    assert_eq!(swept, Swept { issued: 0, tokens: 1, denials: 0 });
}

#[test]
fn certificates_of_one_identity_are_bounded() {
    let authority = authority(Lives::default());
    let (_, issued) = join(&authority, WEB, at(NOW_S));
    let kept = |until_s| {
        let issuer = peer(&issued).issuer.unwrap();
        serde_json::json!({ "id": WEB, "issuer": issuer, "until_s": until_s }).to_string()
    };
    let prefix = super::issue::issued_of(WEB);
    for number in 1..limits::ISSUED_PER_IDENTITY_MAX {
        let (key, value) = (format!("{prefix}{number:032x}"), kept(NOW_S + HOUR_S));
        authority.store.put_if_version(&key, None, value.as_bytes()).unwrap();
    }
    let csr = Workload::new().csr;
    let renew = |now_s| authority.renew(&peer(&issued), csr.as_bytes(), at(now_s), 0);
    assert_eq!(refusal(renew(NOW_S)).word(), "busy");
    renew(NOW_S + HOUR_S + 601).unwrap();
}

#[test]
fn state_folder_outlives_the_process_and_keys_without_state_are_no_new_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.redb");
    let keys = || Keys::folder(&folder.path().join("keys")).unwrap();
    let open = || {
        let store = Arc::new(Local::open(&file)?);
        Authority::open(store, keys(), "mesh.example", Lives::default(), at(NOW_S))
    };
    assert!(matches!(Authority::in_folder(folder.path()), Err(CaFault::NoAuthority)));
    let authority = open().unwrap();
    let before = authority.view(at(NOW_S)).unwrap();
    let in_use = Authority::in_folder(folder.path()).unwrap_err();
    assert!(matches!(in_use, CaFault::Store(StoreFault::InUse { .. })), "{in_use}");
    drop(authority);
    assert_eq!(open().unwrap().view(at(NOW_S)).unwrap(), before);
    let offline = Authority::in_folder(folder.path()).unwrap();
    assert_eq!(offline.view(at(NOW_S)).unwrap(), before);
    assert_eq!(offline.trust_domain(), "mesh.example");
    drop(offline);

    let store = Arc::new(Local::open(&file).unwrap());
    let other = Authority::open(store, keys(), "other", Lives::default(), at(NOW_S));
    assert!(matches!(other, Err(CaFault::OtherTrustDomain { .. })), "{other:?}");
    drop(other);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(open().unwrap_err(), CaFault::StateLost);
}

/// A first start that is killed after any of its writes is finished by the next.
#[test]
fn first_start_that_was_cut_short_is_finished() {
    let store = Arc::new(Memory::new());
    store.put_if_version("ca/founded", None, b"0").unwrap();
    let keys = Keys::memory();
    keys.put("0123456789abcdef", &Secret::new("half".into())).unwrap();
    let authority =
        Authority::open(store, keys, "mesh.example", Lives::default(), at(NOW_S)).unwrap();
    assert_eq!(authority.keys.names().unwrap().len(), 2);
    join(&authority, WEB, at(NOW_S));
}
