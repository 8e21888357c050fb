//! Rotation of the root: every state survives a restart and can be aborted, and whatever happens in
//! whatever order, no valid leaf is refused by a sidecar whose bundle counts.

use proptest::prelude::*;

use super::*;

/// Lives that make a rotation take a minute: leaves of 20 s, clocks within 2 s.
fn short() -> Lives {
    let second = Duration::from_secs;
    Lives::new(second(100_000), second(10_000), second(20), second(60), second(2)).unwrap()
}

const ALL: Gate = Gate { connected: 3, at_epoch: 3, chained_to_old: 0 };

fn phase(authority: &Authority, now_s: u64) -> Phase {
    authority.rotation(ALL, at(now_s)).unwrap().phase
}

fn name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Steady { .. } => "steady",
        Phase::Introduced { .. } => "introduced",
        Phase::Issuing { .. } => "issuing",
        Phase::Reverting { .. } => "reverting",
        Phase::Dropping { .. } => "dropping",
    }
}

/// The same store and keys in another process.
fn restart(authority: Authority, now_s: u64) -> Authority {
    let Authority { store, keys, lives, .. } = authority;
    Authority::open(store, keys, "mesh.example", lives, at(now_s)).unwrap()
}

#[test]
fn every_step_waits_for_its_gate_and_survives_a_restart() {
    let mut authority = restart(authority(short()), NOW_S);
    let (_, old_leaf) = join(&authority, WEB, at(NOW_S));
    let old_root = authority.root_of(&peer(&old_leaf)).unwrap().unwrap();
    let mut now_s = NOW_S;
    let wait = |authority: &Authority, gate, now_s| {
        authority.advance(gate, at(now_s)).unwrap().unwrap_err()
    };
    assert_eq!(wait(&authority, ALL, now_s), Wait::Rotate);
    assert!(authority.rotate(at(now_s)).unwrap());
    assert!(!authority.rotate(at(now_s)).unwrap(), "never two at once");
    authority = restart(authority, now_s);
    assert_eq!(name(&phase(&authority, now_s)), "introduced");
    assert_eq!(authority.bundle(at(now_s)).unwrap().epoch, 2);

    let behind = Gate { at_epoch: 2, ..ALL };
    assert_eq!(wait(&authority, behind, now_s + 1000), Wait::Sidecars { missing: 1 });
    assert_eq!(wait(&authority, ALL, now_s + 22), Wait::Until { until_s: now_s + 22 });
    now_s += 23;
    let (_, late_leaf) = join(&authority, WEB, at(now_s));
    assert_eq!(authority.root_of(&peer(&late_leaf)).unwrap().unwrap(), old_root);
    authority.advance(ALL, at(now_s)).unwrap().unwrap();
    authority = restart(authority, now_s);
    assert_eq!(name(&phase(&authority, now_s)), "issuing");
    assert_eq!(authority.retiring().unwrap(), Some(old_root.clone()));
    let (_, new_leaf) = join(&authority, WEB, at(now_s));
    assert_ne!(authority.root_of(&peer(&new_leaf)).unwrap().unwrap(), old_root);
    assert_eq!(authority.bundle(at(now_s)).unwrap().epoch, 2);

    let chained = Gate { chained_to_old: 1, ..ALL };
    assert_eq!(wait(&authority, ALL, now_s + 22), Wait::Until { until_s: now_s + 22 });
    assert_eq!(wait(&authority, chained, now_s + 23), Wait::Chained { peers: 1 });
    now_s += 23;
    authority.advance(ALL, at(now_s)).unwrap().unwrap();
    authority = restart(authority, now_s);
    assert_eq!(name(&phase(&authority, now_s)), "dropping");
    assert_eq!(authority.bundle(at(now_s)).unwrap().epoch, 3);
    assert_eq!(authority.abort_rotation(at(now_s)), Err(CaFault::TooLate));

    assert_eq!(wait(&authority, behind, now_s), Wait::Sidecars { missing: 1 });
    authority.advance(ALL, at(now_s)).unwrap().unwrap();
    authority = restart(authority, now_s);
    assert_eq!(name(&phase(&authority, now_s)), "steady");
    let view = authority.view(at(now_s)).unwrap();
    assert_eq!(view.authorities.len(), 2, "the old root and its issuer are gone");
    assert!(!authority.keys.names().unwrap().contains(&old_root.0));
    assert!(authority.rotate(at(now_s)).unwrap());
}

#[test]
fn abort_goes_back_to_the_old_root_from_every_state_before_it_is_dropped() {
    for steps in 0..2 {
        let mut authority = authority(short());
        let before = authority.bundle(at(NOW_S)).unwrap();
        let mut now_s = NOW_S;
        assert!(!authority.abort_rotation(at(now_s)).unwrap(), "there is nothing to abort");
        authority.rotate(at(now_s)).unwrap();
        for _ in 0..steps {
            now_s += 23;
            authority.advance(ALL, at(now_s)).unwrap().unwrap();
        }
        let (workload, issued) = join(&authority, WEB, at(now_s));
        assert!(authority.abort_rotation(at(now_s)).unwrap());
        assert!(!authority.abort_rotation(at(now_s)).unwrap(), "a second abort changes nothing");
        authority = restart(authority, now_s);
        assert_eq!(name(&phase(&authority, now_s)), "reverting");
        // What the new root signed is waited for; it is accepted until then.
        let trusted = trust(&authority.bundle(at(now_s)).unwrap());
        trusted.check(&workload.pair(&issued), at(now_s)).unwrap();
        let wait_s = if steps == 0 { 2 } else { 22 };
        let early = authority.advance(ALL, at(now_s + wait_s)).unwrap();
        assert_eq!(early, Err(Wait::Until { until_s: now_s + wait_s }));
        now_s += wait_s + 1;
        authority.advance(ALL, at(now_s)).unwrap().unwrap();
        assert_eq!(name(&phase(&authority, now_s)), "dropping");
        let bundle = authority.bundle(at(now_s)).unwrap();
        assert_eq!(bundle.roots_pem, before.roots_pem);
        assert!(bundle.epoch > before.epoch);
        authority.advance(ALL, at(now_s)).unwrap().unwrap();
        assert_eq!(authority.view(at(now_s)).unwrap().authorities.len(), 2);
    }
}

/// linkerd2#4287 is the outage of those who do not wait. Operators' certificates live longer than
/// leaves; denying one is the way not to wait for it.
#[test]
fn old_root_stays_as_long_as_an_operators_certificate_needs_it() {
    let authority = authority(short());
    let operator = authority.operator(Role::Viewer, "ann", None, at(NOW_S + 20)).unwrap();
    authority.rotate(at(NOW_S)).unwrap();
    authority.advance(ALL, at(NOW_S + 23)).unwrap().unwrap();
    let until_s = operator.issued.until_s + 2;
    let waits = authority.advance(ALL, at(NOW_S + 60)).unwrap();
    assert_eq!(waits, Err(Wait::Until { until_s }));
    assert_eq!(authority.rotation(ALL, at(NOW_S + 60)).unwrap().wait, waits.err());
    let subject = Subject::parse(&operator.issued.serial).unwrap();
    authority.deny(subject, "issued anew", None, at(NOW_S + 60)).unwrap();
    authority.advance(ALL, at(NOW_S + 60)).unwrap().unwrap();
}

/// A sidecar of the simulation.
struct Sidecar {
    issued: Issued,
    pair: KeyPair,
    connected: bool,
    epoch: u64,
    trusted: ringway_tls::Bundle,
    /// Its clock against that of the pusher, in seconds.
    skew: i64,
}

impl Sidecar {
    fn new(authority: &Authority, now_s: u64, skew: i64) -> Sidecar {
        let (workload, issued) = join(authority, WEB, at(now_s));
        let bundle = authority.bundle(at(now_s)).unwrap();
        let (pair, trusted) = (workload.pair(&issued), trust(&bundle));
        Sidecar { issued, pair, connected: true, epoch: bundle.epoch, trusted, skew }
    }

    fn clock(&self, now_s: u64) -> u64 {
        now_s.saturating_add_signed(self.skew)
    }

    fn is_valid(&self, now_s: u64) -> bool {
        self.issued.until_s >= now_s
    }

    fn sync(&mut self, authority: &Authority, now_s: u64) {
        let bundle = authority.bundle(at(now_s)).unwrap();
        (self.epoch, self.trusted) = (bundle.epoch, trust(&bundle));
    }

    fn renew(&mut self, authority: &Authority, now_s: u64) {
        let workload = Workload::new();
        let csr = workload.csr.as_bytes();
        match authority.renew(&peer(&self.issued), csr, at(now_s), 0) {
            Ok(issued) => {
                (self.pair, self.issued) = (workload.pair(&issued), issued);
                self.sync(authority, now_s);
            }
            Err(CaFault::Refused(Refusal::Expired { .. })) => {
                *self = Sidecar::new(authority, now_s, self.skew);
            }
            Err(fault) => panic!("{fault}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Input {
    Pass(u64),
    Rotate,
    Abort,
    Advance,
    Restart,
    /// The sidecar takes the bundle of today, if it is connected.
    Sync(usize),
    Renew(usize),
    Disconnect(usize),
    Connect(usize),
}

fn input() -> impl Strategy<Value = Input> {
    let which = 0_usize..3;
    prop_oneof![
        6 => (1_u64..26).prop_map(Input::Pass),
        2 => Just(Input::Rotate),
        1 => Just(Input::Abort),
        6 => Just(Input::Advance),
        1 => Just(Input::Restart),
        3 => which.clone().prop_map(Input::Sync),
        3 => which.clone().prop_map(Input::Renew),
        1 => which.clone().prop_map(Input::Disconnect),
        1 => which.prop_map(Input::Connect),
    ]
}

fn gate(authority: &Authority, sidecars: &[Sidecar], now_s: u64) -> Gate {
    let epoch = authority.bundle(at(now_s)).unwrap().epoch;
    let retiring = authority.retiring().unwrap();
    let mut gate = Gate::default();
    for sidecar in sidecars.iter().filter(|sidecar| sidecar.connected) {
        gate.connected += 1;
        gate.at_epoch += u64::from(sidecar.epoch == epoch);
        let root = authority.root_of(&peer(&sidecar.issued)).unwrap();
        gate.chained_to_old += u64::from(retiring.is_some() && root == retiring);
    }
    gate
}

/// Each with a valid leaf is accepted by each that the gates wait for: one that is connected or has
/// a valid leaf itself.
fn check(sidecars: &[Sidecar], now_s: u64) -> Result<(), TestCaseError> {
    for verifier in sidecars.iter().filter(|one| one.connected || one.is_valid(now_s)) {
        let clock = verifier.clock(now_s);
        for shown in sidecars.iter().filter(|one| one.is_valid(now_s.max(clock))) {
            let verdict = verifier.trusted.check(&shown.pair, at(clock));
            prop_assert!(verdict.is_ok(), "{:?} at {}", verdict, now_s - NOW_S);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// It fails without any one of the waits of Introduced, Issuing and Reverting.
    #[test]
    fn no_valid_leaf_is_refused_whatever_the_order(
        inputs in proptest::collection::vec(input(), 60..200),
    ) {
        let mut authority = authority(short());
        let mut now_s = NOW_S;
        let mut sidecars: Vec<Sidecar> =
            [-2, 0, 2].map(|skew| Sidecar::new(&authority, now_s, skew)).into();
        for input in inputs {
            match input {
                Input::Pass(seconds) => now_s += seconds,
                Input::Rotate => {
                    authority.rotate(at(now_s)).unwrap();
                }
                // Too late is an answer too.
                Input::Abort => {
                    let _ = authority.abort_rotation(at(now_s));
                }
                Input::Advance => {
                    let gate = gate(&authority, &sidecars, now_s);
                    let _ = authority.advance(gate, at(now_s)).unwrap();
                }
                Input::Restart => authority = restart(authority, now_s),
                Input::Sync(which) if sidecars[which].connected => {
                    sidecars[which].sync(&authority, now_s);
                    check(&sidecars, now_s)?;
                }
                Input::Renew(which) if sidecars[which].connected => {
                    sidecars[which].renew(&authority, now_s);
                    check(&sidecars, now_s)?;
                }
                Input::Disconnect(which) => sidecars[which].connected = false,
                // Whoever comes back shows its epoch; one whose certificate has expired joins.
                Input::Connect(which) => {
                    sidecars[which].connected = true;
                    if !sidecars[which].is_valid(now_s) {
                        sidecars[which].renew(&authority, now_s);
                    }
                    check(&sidecars, now_s)?;
                }
                Input::Sync(_) | Input::Renew(_) => {}
            }
        }
    }
}
