//! Answers of a pusher, good and bad, and what is found after a restart.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/default/sa/web";
/// 1 July 2026.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_782_864_000));

/// An authority as a pusher has one.
struct Authority {
    issuer: Issuer<'static, Key>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = Key::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn answer(&self, csr: &str, renew_at_s: u64) -> Joined {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        request.params.not_before = date_time_ymd(2026, 6, 1);
        request.params.not_after = date_time_ymd(2026, 8, 1);
        Joined {
            chain: request.signed_by(&self.issuer).unwrap().pem(),
            identity: WEB.into(),
            roots: self.pem.clone(),
            revocations: String::new(),
            epoch: 3,
            renew_at_s,
        }
    }
}

fn folder() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    (folder, state)
}

#[test]
fn what_was_taken_is_what_the_next_start_finds() {
    let (_folder, state) = folder();
    assert!(Identity::load(&state).unwrap().is_none());
    let (authority, request) = (Authority::new(), Request::new().unwrap());
    let answer = authority.answer(&request.csr, 1_783_000_000);
    let taken = Identity::take(&state, None, &request, &answer, NOW).unwrap();
    let loaded = Identity::load(&state).unwrap().unwrap();
    for identity in [&taken, &loaded] {
        assert_eq!(identity.id().unwrap().as_str(), WEB);
        assert_eq!((identity.epoch(), identity.renew_at_s()), (3, 1_783_000_000));
        assert!(identity.is_valid(NOW));
        assert_eq!(identity.root(NOW).len(), 64);
    }
    let late = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));
    assert!(!loaded.is_valid(late));
    assert!(!answer.chain.contains("PRIVATE"));
}

#[test]
fn an_answer_for_another_key_or_from_nobody_known_changes_nothing() {
    let (_folder, state) = folder();
    let (authority, request) = (Authority::new(), Request::new().unwrap());
    let good = authority.answer(&request.csr, 0);
    Identity::take(&state, None, &request, &good, NOW).unwrap();
    let before = state.identity_file(PAIR_FILE).unwrap();
    let other = authority.answer(&Request::new().unwrap().csr, 0);
    let foreign = Joined { roots: Authority::new().pem, ..good.clone() };
    let cut = Joined { chain: good.chain[..good.chain.len() / 2].to_owned(), ..good };
    for wrong in [other, foreign, cut] {
        let error = Identity::take(&state, None, &request, &wrong, NOW).unwrap_err();
        assert!(matches!(error, IdentityError::Answer(_)), "{error}");
        assert_eq!(state.identity_file(PAIR_FILE).unwrap(), before);
    }
}

#[test]
fn renewal_is_due_at_half_of_the_life_where_the_pusher_said_nothing_sensible() {
    let (_folder, state) = folder();
    let (authority, request) = (Authority::new(), Request::new().unwrap());
    for nonsense in [0, 1, u64::MAX] {
        let answer = authority.answer(&request.csr, nonsense);
        let taken = Identity::take(&state, None, &request, &answer, NOW).unwrap();
        // The first of June and the first of August 2026.
        assert_eq!(taken.renew_at_s(), u64::midpoint(1_780_272_000, 1_785_542_400));
    }
}

#[test]
fn roots_that_do_not_vouch_for_us_are_refused_and_more_roots_are_taken() {
    let (_folder, state) = folder();
    let (authority, other) = (Authority::new(), Authority::new());
    let request = Request::new().unwrap();
    let answer = authority.answer(&request.csr, 0);
    let identity = Identity::take(&state, None, &request, &answer, NOW).unwrap();
    let bundle =
        |roots: String| ringway_protocol::Bundle { epoch: 4, roots, revocations: String::new() };
    let refused = identity.with_bundle(&state, &bundle(other.pem.clone()), NOW);
    assert!(matches!(refused, Err(IdentityError::Answer(_))));
    assert_eq!(Identity::load(&state).unwrap().unwrap().epoch(), 3);
    let both = bundle(format!("{}{}", other.pem, authority.pem));
    let taken = identity.with_bundle(&state, &both, NOW).unwrap().unwrap();
    assert_eq!((taken.epoch(), taken.bundle.roots().len()), (4, 2));
    assert_eq!(taken.root(NOW), identity.root(NOW), "it still leads to the same one");
}

#[test]
fn a_damaged_pair_is_said_and_not_used() {
    let (folder, state) = folder();
    let (authority, request) = (Authority::new(), Request::new().unwrap());
    Identity::take(&state, None, &request, &authority.answer(&request.csr, 0), NOW).unwrap();
    std::fs::write(folder.path().join("id").join(PAIR_FILE), "-----BEGIN").unwrap();
    assert!(Identity::load(&state).is_err());
}

#[test]
fn older_roots_are_not_taken_but_to_join() {
    let (_folder, state) = folder();
    let (authority, other) = (Authority::new(), Authority::new());
    let request = Request::new().unwrap();
    let answer = authority.answer(&request.csr, 0);
    let identity = Identity::take(&state, None, &request, &answer, NOW).unwrap();
    let bundle = |epoch: u64, roots: String| {
        let revocations = String::new();
        ringway_protocol::Bundle { epoch, roots, revocations }
    };
    let both = bundle(4, format!("{}{}", other.pem, authority.pem));
    let held = identity.with_bundle(&state, &both, NOW).unwrap().unwrap();
    let older = held.with_bundle(&state, &bundle(3, authority.pem.clone()), NOW).unwrap();
    assert!(older.is_none());
    // An answer that was on its way when the roots changed.
    let next = Request::new().unwrap();
    let answer = authority.answer(&next.csr, 1_783_000_000);
    let renewed = Identity::take(&state, Some(&held), &next, &answer, NOW).unwrap();
    for identity in [&renewed, &Identity::load(&state).unwrap().unwrap()] {
        assert_eq!((identity.epoch(), identity.bundle.roots().len()), (4, 2));
        assert_eq!(identity.renew_at_s(), 1_783_000_000);
    }
    let joined = Identity::take(&state, None, &next, &answer, NOW).unwrap();
    assert_eq!((joined.epoch(), joined.bundle.roots().len()), (3, 1));
}
