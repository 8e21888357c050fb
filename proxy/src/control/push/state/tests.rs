//! Restarts, crashes, damage and a full disk.

use super::*;

fn policy(generation: u64, text: &str) -> Policy {
    let running = Running { generation, hash: PolicyHash::of(text) };
    Policy { running, text: text.to_owned() }
}

/// What is known of `policy` after a crash.
fn undone(policy: &Policy) -> Refused {
    Refused { running: policy.running, reason: CRASHED.to_owned(), told: false }
}

/// A folder in which `policies` were applied and confirmed one after the other.
fn folder(policies: &[&Policy]) -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut state = StateDir::open(folder.path()).unwrap();
    assert_eq!(state.boot(), Boot::default());
    for policy in policies {
        state.keep(policy).unwrap();
        let _ = state.begin(policy.running).unwrap();
        state.confirm().unwrap();
    }
    (folder, state)
}

/// As after the process was killed and started again.
fn restart(folder: &tempfile::TempDir, state: StateDir) -> (StateDir, Boot) {
    drop(state);
    let mut state = StateDir::open(folder.path()).unwrap();
    let boot = state.boot();
    (state, boot)
}

#[test]
fn a_confirmed_policy_is_what_the_next_start_has() {
    let (first, second) = (policy(1, "one"), policy(2, "two"));
    let (folder, state) = folder(&[&first, &second]);
    let (state, boot) = restart(&folder, state);
    let previous = Some(first);
    assert_eq!(boot, Boot { policy: Some(second), previous, ..Boot::default() });
    assert_eq!(state.highest(), 2);
}

#[test]
fn a_process_that_dies_on_probation_starts_with_what_was_before() {
    let (good, bad) = (policy(1, "good"), policy(2, "bad"));
    let (folder, mut state) = folder(&[&good]);
    state.keep(&bad).unwrap();
    let _ = state.begin(bad.running).unwrap();
    let (state, boot) = restart(&folder, state);
    assert_eq!(boot.policy.as_ref(), Some(&good));
    assert_eq!(boot.undone, Some(undone(&bad)));
    assert_eq!(state.highest(), 2, "the bad one is stale for good");
    assert_eq!(state.refusal(bad.running), Some(CRASHED));
    assert_eq!(state.refusal(good.running), None);
    let (mut state, again) = restart(&folder, state);
    assert_eq!(again.undone, Some(undone(&bad)), "until the pusher knows");
    state.told(bad.running).unwrap();
    let (state, again) = restart(&folder, state);
    assert_eq!(state.refusal(bad.running), Some(CRASHED));
    assert_eq!(again, Boot { policy: Some(good), ..Boot::default() });
}

#[test]
fn the_first_policy_of_all_is_undone_to_nothing() {
    let (folder, mut state) = folder(&[]);
    let bad = policy(1, "bad");
    state.keep(&bad).unwrap();
    let _ = state.begin(bad.running).unwrap();
    let (_, boot) = restart(&folder, state);
    assert_eq!(boot.policy, None);
    assert_eq!(boot.undone, Some(undone(&bad)));
}

#[test]
fn an_orderly_end_on_probation_is_no_crash() {
    let (good, fresh) = (policy(1, "good"), policy(2, "fresh"));
    let (folder, mut state) = folder(&[&good]);
    state.keep(&fresh).unwrap();
    let _ = state.begin(fresh.running).unwrap();
    state.end().unwrap();
    let (state, boot) = restart(&folder, state);
    let previous = Some(good.clone());
    let expected = Boot { policy: Some(fresh), on_probation: true, previous, undone: None };
    assert_eq!(boot, expected);
    let (_, boot) = restart(&folder, state);
    assert_eq!(boot.policy, Some(good), "but a crash after that is");
}

#[test]
fn the_second_orderly_end_on_one_probation_is_the_policys_doing() {
    let (good, fresh) = (policy(1, "good"), policy(2, "fresh"));
    let (folder, mut state) = folder(&[&good]);
    let restart = |mut state: StateDir| {
        state.end().unwrap();
        restart(&folder, state)
    };
    state.keep(&fresh).unwrap();
    let _ = state.begin(fresh.running).unwrap();
    let (state, boot) = restart(state);
    assert_eq!((boot.policy.as_ref(), boot.on_probation), (Some(&fresh), true));
    let (mut state, boot) = restart(state);
    assert_eq!((boot.policy.as_ref(), boot.on_probation), (Some(&good), false));
    assert_eq!(boot.undone.unwrap().reason, RESTARTED);
    // Each probation has its own.
    let next = policy(3, "next");
    state.keep(&next).unwrap();
    let _ = state.begin(next.running).unwrap();
    let (mut state, boot) = restart(state);
    assert_eq!((boot.policy.as_ref(), boot.on_probation), (Some(&next), true));
    state.confirm().unwrap();
    let (state, _) = restart(state);
    let (_, boot) = restart(state);
    assert_eq!((boot.policy, boot.on_probation), (Some(next), false), "nor is it any after");
}

#[test]
fn what_was_never_confirmed_is_nothing_to_go_back_to() {
    let (good, first, second) = (policy(1, "good"), policy(2, "first"), policy(3, "second"));
    let (_folder, mut state) = folder(&[&good]);
    for fresh in [&first, &second] {
        state.keep(fresh).unwrap();
        let _ = state.begin(fresh.running).unwrap();
    }
    let (back, written) = state.roll_back("harm".to_owned());
    written.unwrap();
    assert_eq!(back, Some(good.running));
    assert_eq!(state.refusal(second.running), Some("harm"));
}

#[test]
fn a_policy_with_other_bytes_than_were_written_is_not_used() {
    let (first, second) = (policy(1, "one"), policy(2, "two"));
    for damage in [&b"tw0"[..], b"", b"\xff\xfe"] {
        let (folder, state) = folder(&[&first, &second]);
        fs::write(state.policy_path(second.running.hash), damage).unwrap();
        let (_, boot) = restart(&folder, state);
        assert_eq!(boot.policy.as_ref(), Some(&first), "{damage:?}");
        assert_eq!(boot.undone, None, "it has done no harm");
    }
}

#[test]
fn a_damaged_record_is_none_and_both_damaged_policies_are_none() {
    let (first, second) = (policy(1, "one"), policy(2, "two"));
    let (folder, state) = folder(&[&first, &second]);
    for policy in [&first, &second] {
        fs::remove_file(state.policy_path(policy.running.hash)).unwrap();
    }
    let (state, boot) = restart(&folder, state);
    assert_eq!(boot.policy, None);
    fs::write(folder.path().join("record.json"), "{\"cur").unwrap();
    let (_, boot) = restart(&folder, state);
    assert_eq!(boot, Boot::default());
}

#[test]
fn one_process_at_a_time_has_the_folder() {
    let (folder, _state) = folder(&[]);
    let second = StateDir::open(folder.path()).unwrap_err();
    assert!(second.to_string().ends_with("needs a state_dir of its own"), "{second}");
}

#[test]
fn three_policies_are_kept_and_those_in_use_among_them() {
    let policies: Vec<Policy> = (1..=8).map(|n| policy(n, &format!("policy {n}"))).collect();
    let (_folder, state) = folder(&policies.iter().collect::<Vec<_>>());
    let left = fs::read_dir(state.path().join("policies")).unwrap().count();
    assert_eq!(left, 3);
    assert!(state.policy_path(policies[7].running.hash).exists());
    assert!(state.policy_path(policies[6].running.hash).exists());
}

#[test]
fn nobody_else_may_read_what_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, state) = folder(&[]);
    state.write_identity(&[("key.pem", "secret")]).unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("id/key.pem") & 0o777, 0o600);
    assert_eq!(mode("id") & 0o777, 0o700);
    assert_eq!(state.identity_file("key.pem").unwrap().as_deref(), Some("secret"));
    assert_eq!(state.identity_file("other").unwrap(), None);
}

#[test]
fn endpoints_come_back_and_damaged_ones_are_none() {
    let (folder, state) = folder(&[]);
    let mut endpoints = EndpointsState::default();
    assert_eq!(state.endpoints(), endpoints);
    let member = ringway_protocol::Member { address: "10.0.0.1:80".parse().unwrap(), weight: 3 };
    endpoints.put("shop:http", vec![member]);
    state.keep_endpoints(&endpoints).unwrap();
    assert_eq!(state.endpoints(), endpoints);
    fs::write(folder.path().join("endpoints.json"), "{\"shop").unwrap();
    assert_eq!(state.endpoints(), EndpointsState::default());
}

#[test]
fn a_full_disk_leaves_what_was_written_before() {
    let good = policy(1, "good");
    let (folder, mut state) = folder(&[&good]);
    // A folder in place of the file beside it: as unwritable as a full disk.
    fs::create_dir(folder.path().join("record.new")).unwrap();
    assert!(state.begin(policy(2, "next").running).is_err());
    assert_eq!(state.highest(), 1);
    fs::remove_dir(folder.path().join("record.new")).unwrap();
    let (_, boot) = restart(&folder, state);
    assert_eq!(boot.policy, Some(good));
}

#[test]
fn what_cannot_be_written_holds_and_is_written_later() {
    let (good, bad) = (policy(1, "good"), policy(2, "bad"));
    let (folder, mut state) = folder(&[&good]);
    let _ = state.begin(bad.running).unwrap();
    let full = folder.path().join("record.new");
    fs::create_dir(&full).unwrap();
    let (back, written) = state.roll_back("harm".to_owned());
    assert_eq!(back, Some(good.running));
    assert!(written.is_err() && state.flush().is_err());
    fs::remove_dir(&full).unwrap();
    state.flush().unwrap();
    let (_, boot) = restart(&folder, state);
    let refused = Refused { reason: "harm".to_owned(), ..undone(&bad) };
    let expected = Boot { policy: Some(good), undone: Some(refused), ..Boot::default() };
    assert_eq!(boot, expected, "the record is no crash's");
}

#[test]
fn what_was_begun_and_not_applied_leaves_all_but_its_generation_as_it_was() {
    let (good, watched, next) = (policy(1, "good"), policy(2, "watched"), policy(3, "next"));
    let (folder, mut state) = folder(&[&good]);
    state.keep(&watched).unwrap();
    let _ = state.begin(watched.running).unwrap();
    let before = state.begin(next.running).unwrap();
    state.restore(before).unwrap();
    assert_eq!((state.previous(), state.highest()), (Some(good.running), 3));
    let (_, boot) = restart(&folder, state);
    assert_eq!((boot.policy, boot.undone), (Some(good), Some(undone(&watched))));
}

#[test]
fn nothing_is_begun_at_the_end() {
    let good = policy(1, "good");
    let (folder, mut state) = folder(&[&good]);
    state.end().unwrap();
    let refused = state.begin(policy(2, "late").running).unwrap_err();
    assert!(matches!(refused, StateError::Ending), "{refused}");
    let (state, boot) = restart(&folder, state);
    assert_eq!((boot.policy, state.highest()), (Some(good), 1));
}

#[test]
fn a_start_needs_neither_a_disk_with_room_nor_a_record_of_text() {
    let good = policy(1, "good");
    let (folder, state) = folder(&[&good]);
    let full = folder.path().join("record.new");
    fs::create_dir(&full).unwrap();
    fs::remove_file(folder.path().join("record.json")).unwrap();
    let (mut state, boot) = restart(&folder, state);
    assert_eq!(boot, Boot::default());
    fs::remove_dir(&full).unwrap();
    state.flush().unwrap();
    fs::write(folder.path().join("record.json"), b"\xff\xfe").unwrap();
    let (_, boot) = restart(&folder, state);
    assert_eq!(boot, Boot::default());
}

#[test]
fn what_was_good_before_is_not_forgotten_because_it_cannot_be_read() {
    let (good, bad) = (policy(1, "good"), policy(2, "bad"));
    let (folder, mut state) = folder(&[&good]);
    let _ = state.begin(bad.running).unwrap();
    let path = state.policy_path(good.running.hash);
    fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    let (state, boot) = restart(&folder, state);
    assert_eq!(boot.policy, None);
    fs::rename(folder.path().join("elsewhere"), &path).unwrap();
    let (_, boot) = restart(&folder, state);
    assert_eq!(boot.policy, Some(good));
}

#[test]
fn a_record_of_an_earlier_version_is_read() {
    let (folder, state) = folder(&[]);
    let text = "{\"current\": null, \"previous\": null, \"on_probation\": false, \
                \"orderly\": true, \"highest\": 7}";
    fs::write(folder.path().join("record.json"), text).unwrap();
    let (state, _) = restart(&folder, state);
    assert_eq!(state.highest(), 7);
}
