//! Commits, probations and ways back under a control thread and a disk that fail at will.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_protocol::PolicyHash;

use super::super::Order;
use super::*;

const PROBATION_MS: u64 = 10_000;
const QUIET: Traffic = Traffic { exchanges: 0, own_failures: 0 };
/// What no policy survives.
const HARM: Traffic = Traffic { exchanges: 100, own_failures: 100 };

fn policy(generation: u64, text: &str) -> Policy {
    let running = Running { generation, hash: PolicyHash::of(text) };
    Policy { running, text: text.to_owned() }
}

/// A sidecar of which only the policies are real.
struct World {
    folder: tempfile::TempDir,
    state: SharedState,
    policies: Policies,
    /// The control thread can apply nothing.
    broken: Arc<AtomicBool>,
    /// What it has applied.
    applied: Arc<Mutex<Vec<Option<Running>>>>,
}

impl World {
    /// A first start, or a start in the folder of another one.
    fn start(folder: tempfile::TempDir, applied: bool) -> World {
        let mut state = StateDir::open(folder.path()).unwrap();
        let boot = state.boot();
        let state = SharedState::new(state);
        let (orders, mut given) = Orders::new();
        let broken = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (is_broken, done) = (Arc::clone(&broken), Arc::clone(&log));
        tokio::spawn(async move {
            while let Some(order) = given.recv().await {
                match order {
                    Order::Check { answer, .. } => answer.send(Ok(())).unwrap(),
                    Order::Apply { answer, .. } if is_broken.load(Ordering::Relaxed) => {
                        answer.send(Err("the port is taken".to_owned())).unwrap();
                    }
                    Order::Apply { policy, answer } => {
                        done.lock().unwrap().push(policy.map(|policy| policy.running));
                        answer.send(Ok(())).unwrap();
                    }
                    Order::Endpoints(_) | Order::Credentials => {}
                }
            }
        });
        let status = Arc::new(Status::default());
        let policies = Policies::new(state.clone(), orders, status, boot, applied, 0);
        World { folder, state, policies, broken, applied: log }
    }

    fn new() -> World {
        World::start(tempfile::tempdir().unwrap(), true)
    }

    /// Ends without a word and starts again.
    fn crash(self, applied: bool) -> World {
        let World { folder, state, policies, .. } = self;
        drop((state, policies));
        World::start(folder, applied)
    }

    async fn stage(&mut self, policy: &Policy) {
        let Running { generation, hash } = policy.running;
        let text = policy.text.clone();
        let stage = Stage { generation, hash, release: 1, requires: Vec::new(), policy: text };
        self.policies.stage(stage).await;
    }

    async fn commit_for(&mut self, policy: &Policy, probation_ms: u64) {
        let Running { generation, hash } = policy.running;
        let commit = Commit { generation, hash, probation_ms };
        self.policies.commit(commit, QUIET, 0, false).await;
    }

    /// Stages and commits.
    async fn take(&mut self, policy: &Policy, probation_ms: u64) {
        self.stage(policy).await;
        self.commit_for(policy, probation_ms).await;
    }

    async fn look(&mut self, now_ms: u64, traffic: Traffic) {
        self.policies.look(now_ms, traffic).await;
    }

    fn break_it(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// Makes the record as unwritable as on a full disk, or not.
    fn fill_disk(&self, full: bool) {
        let beside = self.folder.path().join("record.new");
        if full { fs::create_dir(&beside).unwrap() } else { fs::remove_dir(&beside).unwrap() }
    }

    fn in_use(&self) -> (Option<Running>, bool) {
        (self.policies.running(), self.policies.is_on_probation())
    }

    fn last_applied(&self) -> Option<Option<Running>> {
        self.applied.lock().unwrap().last().copied()
    }

    fn last_report(&self) -> (u64, State, &str) {
        let report = self.policies.reports().last().unwrap();
        (report.generation, report.state, &report.reason)
    }
}

#[tokio::test]
async fn a_commit_that_fails_during_a_probation_leaves_what_was_good() {
    let (good, watched, next) = (policy(1, "good"), policy(2, "watched"), policy(3, "next"));
    let mut world = World::new();
    world.take(&good, 0).await;
    world.take(&watched, PROBATION_MS).await;
    world.break_it(true);
    world.take(&next, PROBATION_MS).await;
    assert_eq!(world.last_report(), (3, State::Rejected, "the port is taken"));
    assert_eq!(world.in_use(), (Some(watched.running), true));
    world.break_it(false);
    world.look(1000, HARM).await;
    assert_eq!(world.last_applied(), Some(Some(good.running)));
    assert_eq!(world.in_use(), (Some(good.running), false));
    assert_eq!(world.state.with(|state| state.highest()), 3);
    let is_refused = |policy: &Policy| world.policies.refusal(policy.running).is_some();
    assert!(is_refused(&watched) && !is_refused(&next), "one did harm, the other nothing");
}

#[tokio::test]
async fn going_back_is_tried_until_it_is_done() {
    let (good, bad) = (policy(1, "good"), policy(2, "bad"));
    let mut world = World::new();
    world.take(&good, 0).await;
    world.take(&bad, PROBATION_MS).await;
    world.break_it(true);
    world.look(1000, HARM).await;
    assert!(matches!(world.last_report(), (2, State::RolledBack, _)));
    world.break_it(false);
    world.look(1999, HARM).await;
    assert_eq!(world.in_use(), (Some(bad.running), true), "never as if it were good");
    world.look(2000, HARM).await;
    assert_eq!(world.in_use(), (Some(good.running), false));
}

#[tokio::test]
async fn going_back_to_nothing_is_tried_again_too() {
    let bad = policy(1, "bad");
    let mut world = World::new();
    world.take(&bad, PROBATION_MS).await;
    world.break_it(true);
    // Waits of 1, 2, 4, 8, 16, 30 and 30 s.
    let mut tried = Vec::new();
    for second in 1..=100 {
        let before = world.policies.going_back.as_ref().map(|back| back.at_ms);
        world.look(second * 1000, HARM).await;
        if world.policies.going_back.as_ref().map(|back| back.at_ms) != before {
            tried.push(second);
        }
    }
    assert_eq!(tried, [1, 2, 4, 8, 16, 32, 62, 92]);
    world.break_it(false);
    world.look(122_000, HARM).await;
    assert_eq!((world.in_use(), world.last_applied()), ((None, false), Some(None)));
}

#[tokio::test]
async fn another_policy_ends_the_way_back() {
    let (good, bad, next) = (policy(1, "good"), policy(2, "bad"), policy(3, "next"));
    let mut world = World::new();
    world.take(&good, 0).await;
    world.take(&bad, PROBATION_MS).await;
    world.break_it(true);
    world.look(1000, HARM).await;
    world.break_it(false);
    world.take(&next, PROBATION_MS).await;
    world.look(5000, QUIET).await;
    assert_eq!(world.in_use(), (Some(next.running), true));
    world.look(6000, HARM).await;
    assert_eq!(world.in_use(), (Some(good.running), false));
}

#[tokio::test]
async fn going_back_needs_no_disk() {
    let (good, bad) = (policy(1, "good"), policy(2, "bad"));
    let mut world = World::new();
    world.take(&good, 0).await;
    world.take(&bad, PROBATION_MS).await;
    let path = world.state.with(|state| state.policy_path(good.running.hash));
    fs::remove_file(&path).unwrap();
    world.look(1000, HARM).await;
    assert_eq!(world.in_use(), (Some(good.running), false));
    assert!(path.exists(), "the next start wants it");
}

#[tokio::test]
async fn a_policy_that_waits_at_the_start_is_still_on_probation() {
    let (good, fresh) = (policy(1, "good"), policy(2, "fresh"));
    let mut world = World::new();
    world.take(&good, 0).await;
    world.take(&fresh, PROBATION_MS).await;
    world.state.with(StateDir::end).unwrap();
    let mut world = world.crash(false);
    assert_eq!(world.in_use(), (None, false));
    world.look(1000, QUIET).await;
    assert_eq!(world.in_use(), (Some(fresh.running), true));
    world.look(2000, HARM).await;
    assert_eq!(world.in_use(), (Some(good.running), false));
}

#[tokio::test]
async fn a_policy_is_confirmed_once_that_is_written() {
    let (good, bad) = (policy(1, "good"), policy(2, "bad"));
    let mut world = World::new();
    world.take(&good, PROBATION_MS).await;
    world.fill_disk(true);
    world.look(PROBATION_MS, QUIET).await;
    world.look(PROBATION_MS + 1000, QUIET).await;
    assert_eq!(world.in_use(), (Some(good.running), true));
    assert!(matches!(world.last_report(), (1, State::Applied, _)));
    world.fill_disk(false);
    world.look(PROBATION_MS + 2000, QUIET).await;
    assert_eq!(world.in_use(), (Some(good.running), false));
    assert!(matches!(world.last_report(), (1, State::Confirmed, _)));
    // The same for what is undone: written later, and no crash for the next start.
    world.take(&bad, PROBATION_MS).await;
    world.fill_disk(true);
    world.look(1000, HARM).await;
    world.fill_disk(false);
    world.look(2000, HARM).await;
    let mut world = world.crash(true);
    assert_eq!(world.in_use(), (Some(good.running), false));
    let (generation, state, reason) = world.last_report();
    assert_eq!((generation, state), (2, State::RolledBack));
    assert!(reason.starts_with("100 of 100"), "{reason}");
    world.policies.reported(1);
    assert!(!world.crash(true).policies.has_news(), "the pusher knows");
}

#[tokio::test]
async fn what_was_undone_is_not_taken_again_but_under_a_higher_generation() {
    let (good, bad, again) = (policy(1, "good"), policy(2, "bad"), policy(3, "bad"));
    let mut world = World::new();
    world.take(&good, 0).await;
    world.take(&bad, PROBATION_MS).await;
    let mut world = world.crash(true);
    for _ in 0..2 {
        world.stage(&bad).await;
        let (generation, state, reason) = world.last_report();
        assert_eq!((generation, state), (2, State::Rejected));
        assert!(reason.starts_with("generation 2 was undone here: the process"), "{reason}");
        world.commit_for(&bad, PROBATION_MS).await;
        assert_eq!(world.in_use(), (Some(good.running), false));
        world = world.crash(true);
    }
    world.take(&again, 0).await;
    assert_eq!(world.in_use(), (Some(again.running), false));
}

#[tokio::test]
async fn nothing_is_taken_at_the_end() {
    let good = policy(1, "good");
    let mut world = World::new();
    world.stage(&good).await;
    world.state.with(StateDir::end).unwrap();
    world.commit_for(&good, 0).await;
    assert_eq!(world.in_use(), (None, false));
    assert!(matches!(world.last_report(), (1, State::Staged, _)), "no fault of the policy");
}

#[tokio::test]
async fn a_commit_during_a_probation_is_compared_with_what_was_good() {
    let (first, second) = (policy(1, "first"), policy(2, "second"));
    let mut world = World::new();
    let counts = [(0, 0), (100, 10), (200, 110)];
    let [none, tenth, most] =
        counts.map(|(exchanges, own_failures)| Traffic { exchanges, own_failures });
    world.look(0, none).await;
    for (policy, traffic) in [(&first, tenth), (&second, most)] {
        world.stage(policy).await;
        let Running { generation, hash } = policy.running;
        let commit = Commit { generation, hash, probation_ms: PROBATION_MS };
        world.policies.commit(commit, traffic, 1000, false).await;
        let before = world.policies.watched.as_ref().unwrap().probation.before();
        assert!((before - 0.1).abs() < 1e-9, "{before}");
    }
}
