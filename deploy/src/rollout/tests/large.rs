//! That the work of a tick and of an event stays bounded in fleets of 500 and 10 000.
//!
//! The bounds are wide, for busy machines and builds without optimisation; the times are printed:
//! `cargo test -p ringway-push --lib large -- --nocapture`.

use std::time::{Duration, Instant};

use super::sim::{Sim, draft};
use crate::release::Profile;
use crate::rollout::Command;

/// Most of a tick or an event that begins no step.
const BOUND: Duration = Duration::from_millis(100);

fn measure(count: usize) {
    let mut sim = Sim::settled(count, 2);
    sim.release(draft(2, 1, Profile::Standard));
    sim.run(3_000);
    let mut slowest = Duration::ZERO;
    for second in 0..20 {
        let begun = Instant::now();
        let commands = sim.conductor.tick(sim.now + second * 1_000);
        slowest = slowest.max(begun.elapsed());
        assert_eq!(commands, Vec::new());
    }
    let begun = Instant::now();
    let written = serde_json::to_vec(sim.conductor.stored()).unwrap();
    let write = begun.elapsed();
    let begun = Instant::now();
    let commands = sim.conductor.hurry(sim.now).unwrap();
    let step = begun.elapsed();
    let commits = commands.iter().filter(|it| matches!(it, Command::Commit { .. })).count();
    assert_eq!(commits, count - 2);
    println!(
        "{count} sidecars: slowest of 20 ticks {slowest:?}, a step for all {step:?}, \
         state of {} KiB written in {write:?}",
        written.len() / 1024
    );
    assert!(slowest < BOUND, "{slowest:?}");
    assert!(step < BOUND * 10, "{step:?}");
}

#[test]
fn a_tick_over_500_sidecars_is_short() {
    measure(500);
}

#[test]
fn a_tick_over_10_000_sidecars_is_short() {
    measure(10_000);
}
