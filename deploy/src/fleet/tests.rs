//! What the fleet keeps of what sidecars say, how much of it, and for how long.

use std::collections::BTreeMap;

use super::*;
use crate::limits::FAILURES_SHOWN_MAX;
use crate::version::PolicyHash;

const NOW: u64 = 1_000_000;

fn key(number: usize) -> SidecarKey {
    SidecarKey::new("web", &format!("node-{number}")).unwrap()
}

fn version(generation: u64) -> Version {
    Version { generation, hash: PolicyHash::new([generation as u8; 32]) }
}

fn running(generation: u64) -> Hello {
    let running = Running { version: version(generation), confirmed: true };
    Hello { running: Some(running), ..Hello::default() }
}

fn said(generation: u64, state: State) -> Report {
    let entry = Entry { version: version(generation), state };
    Report { entries: vec![entry], ..Report::default() }
}

fn one(hello: Hello) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.hello(&key(1), hello, ConnectionId(1), NOW).unwrap();
    fleet
}

/// Reports under the connection that counts.
fn tell(
    fleet: &mut Fleet,
    number: usize,
    report: Report,
    now: u64,
) -> Result<Vec<Event>, FleetFault> {
    let id = match fleet.sidecar(&key(number)).unwrap().connection() {
        Connection::Connected { id, .. } => id,
        Connection::Away { .. } => ConnectionId(u64::MAX),
    };
    fleet.report(&key(number), report, id, now)
}

fn standing(fleet: &Fleet) -> Standing {
    fleet.sidecar(&key(1)).unwrap().standing()
}

#[test]
fn a_sidecar_goes_from_told_to_current() {
    let mut fleet = one(Hello::default());
    assert_eq!(standing(&fleet), Standing::Empty);
    fleet.want(&key(1), version(2));
    assert_eq!(standing(&fleet), Standing::Waiting);
    for (state, expected) in [
        (State::Staged, Standing::Staged),
        (State::Applied, Standing::Probation),
        (State::Confirmed, Standing::Current),
    ] {
        tell(&mut fleet, 1, said(2, state), NOW).unwrap();
        assert_eq!(standing(&fleet), expected);
    }
    assert_eq!(fleet.sidecar(&key(1)).unwrap().confirmed(), Some(version(2)));
}

#[test]
fn what_a_sidecar_undid_is_a_failure_and_it_runs_what_was_confirmed_before() {
    let mut fleet = one(running(2));
    fleet.want(&key(1), version(5));
    tell(&mut fleet, 1, said(5, State::Applied), NOW).unwrap();
    tell(&mut fleet, 1, said(5, State::RolledBack("errors rose".to_owned())), NOW + 1).unwrap();
    let sidecar = fleet.sidecar(&key(1)).unwrap();
    assert_eq!(sidecar.applied(), Some(version(2)));
    assert_eq!(sidecar.standing(), Standing::Failed);
    let failure = sidecar.failure().unwrap();
    assert_eq!((failure.kind, failure.at_ms), (FailureKind::RolledBack, NOW + 1));
    // A late word of the same version does not heal it.
    tell(&mut fleet, 1, said(5, State::Applied), NOW + 2).unwrap();
    assert_eq!(standing(&fleet), Standing::Failed);
    tell(&mut fleet, 1, said(6, State::Confirmed), NOW + 3).unwrap();
    fleet.want(&key(1), version(6));
    assert_eq!(standing(&fleet), Standing::Current);
}

#[test]
fn late_reports_of_lower_generations_change_nothing() {
    let mut fleet = one(running(5));
    let before = fleet.sidecar(&key(1)).cloned();
    tell(&mut fleet, 1, said(2, State::Confirmed), NOW).unwrap();
    assert_eq!(fleet.sidecar(&key(1)).cloned(), before);
}

#[test]
fn what_runs_may_be_confirmed_or_undone_when_the_next_is_staged_already() {
    let mut fleet = one(running(2));
    tell(&mut fleet, 1, said(5, State::Applied), NOW).unwrap();
    tell(&mut fleet, 1, said(8, State::Staged), NOW).unwrap();
    let mut confirmed = fleet.clone();
    tell(&mut confirmed, 1, said(5, State::Confirmed), NOW).unwrap();
    assert_eq!(confirmed.sidecar(&key(1)).unwrap().confirmed(), Some(version(5)));
    tell(&mut fleet, 1, said(5, State::RolledBack("errors".to_owned())), NOW).unwrap();
    assert_eq!(fleet.sidecar(&key(1)).unwrap().applied(), Some(version(2)));
}

#[test]
fn what_was_said_under_an_older_connection_changes_nothing() {
    let mut fleet = one(running(5));
    fleet.hello(&key(1), Hello::default(), ConnectionId(2), NOW).unwrap();
    let before = fleet.sidecar(&key(1)).cloned();
    let late = fleet.report(&key(1), said(5, State::Confirmed), ConnectionId(1), NOW);
    assert_eq!(late, Err(FleetFault::Late(key(1))));
    assert_eq!(fleet.sidecar(&key(1)).cloned(), before);
}

#[test]
fn a_newer_connection_counts_and_the_end_of_the_older_does_not() {
    let mut fleet = one(running(2));
    fleet.hello(&key(1), running(2), ConnectionId(2), NOW).unwrap();
    assert_eq!(fleet.goodbye(&key(1), ConnectionId(1), NOW), None);
    assert!(fleet.sidecar(&key(1)).unwrap().is_connected());
    assert!(fleet.goodbye(&key(1), ConnectionId(2), NOW).is_some());
    assert_eq!(fleet.goodbye(&key(1), ConnectionId(2), NOW), None);
    assert_eq!(standing(&fleet), Standing::Away);
    let late = fleet.report(&key(1), Report::default(), ConnectionId(2), NOW);
    assert_eq!(late, Err(FleetFault::Late(key(1))));
    let unknown = fleet.report(&key(2), Report::default(), ConnectionId(2), NOW);
    assert_eq!(unknown, Err(FleetFault::Unknown(key(2))));
}

#[test]
fn who_is_away_for_an_hour_is_forgotten() {
    let mut fleet = one(running(2));
    let _ = fleet.goodbye(&key(1), ConnectionId(1), NOW);
    assert_eq!(fleet.sweep(NOW + FORGET_AFTER_MS - 1), Vec::new());
    let forgotten = vec![Event::Forgotten { sidecar: key(1) }];
    assert_eq!(fleet.sweep(NOW + FORGET_AFTER_MS), forgotten);
    assert!(fleet.is_empty() && fleet.nodes.is_empty());
}

#[test]
fn a_full_fleet_forgets_who_is_away_longest_and_refuses_when_nobody_is() {
    let key = |number: usize| {
        SidecarKey::new(&format!("web-{}", number % 5), &format!("node-{number}")).unwrap()
    };
    let mut fleet = Fleet::default();
    for number in 0..SIDECARS_MAX {
        let id = ConnectionId(number as u64);
        fleet.hello(&key(number), Hello::default(), id, NOW).unwrap();
    }
    let newcomer = key(SIDECARS_MAX);
    let id = ConnectionId(SIDECARS_MAX as u64);
    assert_eq!(fleet.hello(&newcomer, Hello::default(), id, NOW), Err(FleetFault::Full));
    // One that is known may come again.
    assert!(fleet.hello(&key(3), Hello::default(), id, NOW).is_ok());
    let _ = fleet.goodbye(&key(8), ConnectionId(8), NOW + 2);
    let _ = fleet.goodbye(&key(9), ConnectionId(9), NOW + 1);
    let events = fleet.hello(&newcomer, Hello::default(), id, NOW + 3).unwrap();
    assert_eq!(events[0], Event::Forgotten { sidecar: key(9) });
    assert_eq!(fleet.len(), SIDECARS_MAX);
}

#[test]
fn an_identity_with_too_many_nodes_takes_no_place_of_others() {
    let mut fleet = one(Hello::default());
    let other = SidecarKey::new("other", "n").unwrap();
    fleet.hello(&other, Hello::default(), ConnectionId(0), NOW).unwrap();
    let _ = fleet.goodbye(&other, ConnectionId(0), NOW);
    for number in 2..=NODES_MAX {
        fleet.hello(&key(number), Hello::default(), ConnectionId(1), NOW).unwrap();
    }
    let newcomer = key(NODES_MAX + 1);
    let refused = fleet.hello(&newcomer, Hello::default(), ConnectionId(1), NOW);
    assert_eq!(refused, Err(FleetFault::Nodes("web".to_owned())));
    let _ = fleet.goodbye(&key(7), ConnectionId(1), NOW + 1);
    let events = fleet.hello(&newcomer, Hello::default(), ConnectionId(1), NOW + 2).unwrap();
    assert_eq!(events[0], Event::Forgotten { sidecar: key(7) });
    let third = SidecarKey::new("third", "n").unwrap();
    assert!(fleet.hello(&third, Hello::default(), ConnectionId(1), NOW + 3).is_ok());
}

#[test]
fn what_sidecars_say_has_limits() {
    let words = |count: usize, bytes: usize| -> Vec<String> {
        (0..count).map(|number| format!("{number:0bytes$}")).collect()
    };
    let hello = |labels: usize, capabilities: usize, bytes: usize| Hello {
        labels: words(labels, bytes).into_iter().map(|word| (word, String::new())).collect(),
        capabilities: words(capabilities, bytes).into_iter().collect(),
        ..Hello::default()
    };
    let mut fleet = Fleet::default();
    let mut say = |hello| fleet.hello(&key(1), hello, ConnectionId(1), NOW);
    assert!(say(hello(LABELS_MAX, CAPABILITIES_MAX, WORD_BYTES_MAX)).is_ok());
    assert!(say(hello(LABELS_MAX + 1, 0, 4)).is_err());
    assert!(say(hello(0, CAPABILITIES_MAX + 1, 4)).is_err());
    assert!(say(hello(1, 0, WORD_BYTES_MAX + 1)).is_err());
    assert!(say(hello(0, 1, WORD_BYTES_MAX + 1)).is_err());
    assert!(say(running(GENERATION_MAX)).is_ok());
    assert_eq!(say(running(GENERATION_MAX + 1)), Err(FleetFault::Generation(GENERATION_MAX + 1)));
}

#[test]
fn reports_have_limits_and_long_reasons_are_cut_at_a_character() {
    let mut fleet = one(running(2));
    let entry = |state| Entry { version: version(2), state };
    let many = |count| Report { entries: vec![entry(State::Staged); count], ..Report::default() };
    assert!(tell(&mut fleet, 1, many(REPORT_ENTRIES_MAX), NOW).is_ok());
    let over = tell(&mut fleet, 1, many(REPORT_ENTRIES_MAX + 1), NOW);
    assert_eq!(over, Err(FleetFault::TooMuch { what: "entries", max: REPORT_ENTRIES_MAX }));
    assert!(tell(&mut fleet, 1, said(GENERATION_MAX + 1, State::Staged), NOW).is_err());
    let reason = format!("x{}", "\u{e9}".repeat(REASON_BYTES_MAX));
    tell(&mut fleet, 1, said(3, State::Rejected(reason)), NOW).unwrap();
    let kept = fleet.sidecar(&key(1)).unwrap().failure().unwrap().reason.len();
    assert_eq!(kept, REASON_BYTES_MAX - 1);
}

#[test]
fn a_summary_counts_who_stands_where_and_spells_out_fifty_failures() {
    let mut fleet = Fleet::default();
    for number in 0..100 {
        fleet.hello(&key(number), running(2), ConnectionId(number as u64), NOW).unwrap();
        fleet.want(&key(number), version(5));
        if number < 60 {
            let report = said(5, State::Rejected("no".to_owned()));
            tell(&mut fleet, number, report, NOW).unwrap();
        }
    }
    let _ = fleet.goodbye(&key(99), ConnectionId(99), NOW);
    let summary = fleet.summary();
    assert_eq!(summary.known, 100);
    let expected =
        BTreeMap::from([(Standing::Away, 1), (Standing::Failed, 60), (Standing::Waiting, 39)]);
    assert_eq!(summary.standing, expected);
    assert_eq!(summary.generations, BTreeMap::from([(2, 99)]));
    assert_eq!(summary.failures.len(), FAILURES_SHOWN_MAX);
    assert!(serde_json::to_string(&summary).unwrap().contains("\"failed\":60"));
}

#[test]
fn the_gate_opens_when_all_who_are_connected_have_the_roots_and_the_chain() {
    let root = |byte| PolicyHash::new([byte; 32]);
    let hello = |epoch, byte| Hello {
        bundle_epoch: epoch,
        certificate: Some(Certificate { not_after_ms: NOW + u64::from(byte), root: root(byte) }),
        ..Hello::default()
    };
    let mut fleet = Fleet::default();
    fleet.hello(&key(1), hello(7, 2), ConnectionId(1), NOW).unwrap();
    fleet.hello(&key(2), hello(6, 1), ConnectionId(2), NOW).unwrap();
    let gate = fleet.gate(7, &root(2));
    assert_eq!((gate.connected, gate.at_epoch, gate.chained, gate.away), (2, 1, 1, 0));
    assert!(!gate.is_at_epoch() && !gate.is_chained());
    assert_eq!(gate.others_end_ms, Some(NOW + 1));
    let certificate = Some(Certificate { not_after_ms: NOW, root: root(2) });
    let report = Report { bundle_epoch: Some(8), certificate, ..Report::default() };
    tell(&mut fleet, 2, report, NOW).unwrap();
    let gate = fleet.gate(7, &root(2));
    assert!(gate.is_at_epoch() && gate.is_chained());
    assert_eq!(gate.others_end_ms, None);
}

#[test]
fn a_sidecar_that_lost_its_disk_begins_anew() {
    let mut fleet = one(running(5));
    fleet.want(&key(1), version(5));
    fleet.hello(&key(1), Hello::default(), ConnectionId(2), NOW).unwrap();
    assert_eq!(standing(&fleet), Standing::Empty);
    tell(&mut fleet, 1, said(4, State::Confirmed), NOW).unwrap();
    assert_eq!(fleet.sidecar(&key(1)).unwrap().applied(), Some(version(4)));
}

#[test]
fn canaries_are_labelled_so_and_not_false() {
    let labelled = |value: &str| {
        let labels = BTreeMap::from([("canary".to_owned(), value.to_owned())]);
        Hello { labels, ..Hello::default() }.is_canary()
    };
    assert!(labelled("") && labelled("true") && !labelled("false"));
    assert!(!Hello::default().is_canary());
}
