//! What operators and sidecars see of a rollout, one behaviour each.

use super::sim::{CART, Habit, Sim, WEB, draft, hash, key};
use crate::conductor::ReleaseFault;
use crate::fleet::Standing;
use crate::limits::FORGET_AFTER_MS;
use crate::release::{Outcome, Profile};
use crate::rollout::{Command, ControlFault, Plan, PlanFault, Waits};
use crate::version::SidecarKey;

fn words(sim: &Sim) -> String {
    sim.conductor.summary(sim.now).unwrap().to_string()
}

fn running(sim: &Sim, byte: u8) -> usize {
    sim.sides.values().filter(|it| it.running.is_some_and(|it| it.hash == hash(byte))).count()
}

fn staged(sim: &Sim) -> usize {
    sim.log.iter().filter(|command| matches!(command, Command::Stage { .. })).count()
}

fn has_applied(sim: &Sim) -> bool {
    sim.log.iter().any(|command| matches!(command, Command::Commit { .. }))
}

fn new_release(sim: &mut Sim) {
    sim.release(draft(2, 1, Profile::Standard));
}

/// Runs until the words say so, an hour at most.
fn run_until(sim: &mut Sim, text: &str) {
    for _ in 0..3_600 {
        if words(sim).contains(text) {
            return;
        }
        sim.second();
    }
    panic!("never {text:?}: {}", words(sim));
}

#[test]
fn a_release_goes_by_canary_and_percentages_and_becomes_the_last_good() {
    let mut sim = Sim::settled(480, 3);
    let start = sim.now;
    new_release(&mut sim);
    assert!(words(&sim).starts_with("release 2: staged on 0 of 480 sidecars, nobody applies it"));
    run_until(&mut sim, "canary of 480 sidecars applied (3), in probation for another 55 s");
    run_until(&mut sim, "canary of 480 sidecars applied (3), watched for another 60 s");
    assert_eq!(running(&sim, 2), 3);
    run_until(&mut sim, "1 % of 480 sidecars applied");
    sim.run(3_000);
    let few = running(&sim, 2);
    assert!((4..20).contains(&few), "{few}");
    run_until(&mut sim, "10 % of");
    sim.run(3_000);
    assert!((30..80).contains(&running(&sim, 2)));
    run_until(&mut sim, "50 % of");
    sim.run(3_000);
    assert!((200..290).contains(&running(&sim, 2)));
    run_until(&mut sim, "confirmed on 480 of 480 sidecars");
    let took_s = (sim.now - start) / 1_000;
    assert!((600..620).contains(&took_s), "{took_s}");
    assert_eq!(sim.conductor.history().last_good().unwrap().number, 2);
    assert_eq!(sim.log.last(), Some(&Command::Finished { release: 2 }));
    let summary = sim.conductor.fleet().summary();
    assert_eq!(summary.standing.get(&Standing::Current), Some(&480));
}

#[test]
fn one_that_cannot_stage_stops_the_release_before_anybody_applies_it() {
    let mut sim = Sim::settled(100, 1);
    sim.sides.get_mut(&key(WEB, 42)).unwrap().habits.insert(hash(2), Habit::Rejects);
    new_release(&mut sim);
    sim.run(200_000);
    let expected = format!(
        "release 2: halted at stage, nobody applied it: {WEB}/node-42 rejected: it asks for what \
         this version cannot do"
    );
    assert_eq!(words(&sim), expected);
    assert!(!has_applied(&sim));
    assert_eq!(running(&sim, 1), 100);
    let outcome = &sim.conductor.history().entry(2).unwrap().outcome;
    assert!(matches!(outcome, Outcome::Halted { .. }));
    assert_eq!(sim.conductor.history().last_good().unwrap().number, 1);
    // Those who only staged it keep what they run, and are not waited for.
    let summary = sim.conductor.fleet().summary();
    assert_eq!(summary.standing.get(&Standing::Current), Some(&99));
    assert_eq!(summary.failures.len(), 1);
}

#[test]
fn one_canary_that_rolls_back_stops_the_release_and_brings_the_others_back() {
    let mut sim = Sim::settled(480, 3);
    sim.sides.get_mut(&key(WEB, 1)).unwrap().habits.insert(hash(2), Habit::RollsBack);
    new_release(&mut sim);
    run_until(&mut sim, "halted at canary: spiffe://mesh/ns/shop/sa/web/node-1 rolled back");
    assert!(words(&sim).ends_with("errors of its own rose; 2 sidecars still to go back"));
    sim.run(2_000);
    assert!(words(&sim).ends_with("errors of its own rose"), "{}", words(&sim));
    assert_eq!(running(&sim, 1), 480);
    let reverts: Vec<&Command> =
        sim.log.iter().filter(|it| matches!(it, Command::Revert { .. })).collect();
    assert_eq!(reverts.len(), 2, "{reverts:?}");
}

#[test]
fn in_a_large_step_one_failure_is_borne_and_two_percent_are_not() {
    let mut sim = Sim::settled(480, 0);
    let fail = |sim: &mut Sim, count: usize, above: u16| {
        let late = |key: &&SidecarKey| super::super::draw(key, 2) >= above;
        let chosen: Vec<SidecarKey> = sim.sides.keys().filter(late).take(count).cloned().collect();
        for key in chosen {
            sim.sides.get_mut(&key).unwrap().habits.insert(hash(2), Habit::RollsBack);
        }
    };
    fail(&mut sim, 1, 5_000);
    new_release(&mut sim);
    run_until(&mut sim, "confirmed on 479 of 480 sidecars");
    let mut sim = Sim::settled(480, 0);
    fail(&mut sim, 10, 5_000);
    new_release(&mut sim);
    run_until(&mut sim, "halted at 100 %");
    assert!(words(&sim).contains("(10 of 480 failed)"), "{}", words(&sim));
    sim.run(5_000);
    assert_eq!(running(&sim, 1), 480);
}

#[test]
fn five_percent_may_be_silent_in_the_stage_and_no_more() {
    for (silent, goes_on) in [(5, true), (6, false)] {
        let mut sim = Sim::settled(100, 1);
        for number in 10..10 + silent {
            sim.sides.get_mut(&key(WEB, number)).unwrap().habits.insert(hash(2), Habit::Silent);
        }
        new_release(&mut sim);
        sim.run(29_000);
        assert!(words(&sim).contains(&format!("staged on {} of 100", 100 - silent)));
        assert!(!has_applied(&sim));
        sim.run(2_000);
        assert_eq!(has_applied(&sim), goes_on, "{}", words(&sim));
        if !goes_on {
            let expected = format!("6 of 100 sidecars do not answer, {WEB}/node-10 is one");
            assert!(words(&sim).ends_with(&expected), "{}", words(&sim));
        }
    }
}

#[test]
fn those_of_a_step_who_fall_silent_stop_the_release() {
    let mut sim = Sim::settled(100, 2);
    new_release(&mut sim);
    run_until(&mut sim, "canary of 100 sidecars applied (2), in probation");
    sim.run(3_000);
    sim.disconnect(&key(WEB, 0));
    run_until(&mut sim, "halted at canary: 1 of 2 sidecars do not answer");
    sim.run(3_000);
    // The one that is away still runs it, and goes back when it comes.
    assert!(words(&sim).ends_with("1 sidecar still to go back"), "{}", words(&sim));
    assert_eq!(running(&sim, 2), 1);
    sim.connect(&key(WEB, 0));
    sim.run(3_000);
    assert_eq!(running(&sim, 1), 100);
}

#[test]
fn small_fleets_go_by_one_then_all() {
    let mut sim = Sim::settled(9, 0);
    new_release(&mut sim);
    run_until(&mut sim, "one sidecar of 9 sidecars applied (1)");
    sim.run(3_000);
    assert_eq!(running(&sim, 2), 1);
    run_until(&mut sim, "100 % of 9 sidecars applied (9)");
    run_until(&mut sim, "confirmed on 9 of 9");
    let mut sim = Sim::settled(9, 2);
    new_release(&mut sim);
    run_until(&mut sim, "canary of 9 sidecars applied (2)");
}

#[test]
fn classes_that_do_not_change_get_nothing() {
    let mut sim = Sim::new();
    for number in 0..5 {
        sim.connect_new(&key(WEB, number), false);
        sim.connect_new(&key(CART, number), false);
    }
    sim.release(draft(1, 1, Profile::Dev));
    sim.run(10_000);
    sim.log.clear();
    new_release(&mut sim);
    run_until(&mut sim, "confirmed on 5 of 5 sidecars");
    let touched = sim.log.iter().filter_map(super::sim::addressed);
    assert!(touched.map(|(key, _)| key).all(|key| key.identity() == WEB));
    assert_eq!(staged(&sim), 5);
}

#[test]
fn an_empty_fleet_confirms_at_once_and_late_ones_get_it_by_themselves() {
    let mut sim = Sim::new();
    sim.release(draft(1, 1, Profile::Standard));
    assert_eq!(words(&sim), "release 1: confirmed, for whoever connects");
    sim.connect_new(&key(WEB, 0), false);
    sim.run(3_000);
    assert_eq!(running(&sim, 1), 1);
    assert!(has_applied(&sim));
}

#[test]
fn who_connects_late_gets_the_last_good_first_and_the_release_when_its_step_has_passed() {
    let mut sim = Sim::settled(100, 1);
    new_release(&mut sim);
    run_until(&mut sim, "canary of");
    sim.connect_new(&key(WEB, 900), false);
    sim.connect_new(&key(WEB, 901), true);
    sim.run(5_000);
    assert_eq!(sim.sides[&key(WEB, 900)].running.map(|it| it.hash), Some(hash(1)));
    assert_eq!(sim.sides[&key(WEB, 900)].staged.map(|it| it.hash), Some(hash(2)));
    assert_eq!(sim.sides[&key(WEB, 901)].running.map(|it| it.hash), Some(hash(2)));
    run_until(&mut sim, "confirmed on 102 of 102");
}

#[test]
fn a_second_release_is_refused_or_takes_the_place_of_the_first() {
    let mut sim = Sim::settled(100, 1);
    new_release(&mut sim);
    run_until(&mut sim, "10 % of 100");
    sim.run(3_000);
    assert!(running(&sim, 2) > 1);
    let third = draft(3, 1, Profile::Standard);
    let refused = sim.conductor.release(third.clone(), false, sim.now);
    assert_eq!(refused, Err(ReleaseFault::Running(2)));
    assert_eq!(refused.unwrap_err().to_string(), "release 2 is being rolled out");
    let commands = sim.conductor.release(third, true, sim.now).unwrap();
    sim.begun(commands);
    sim.run(3_000);
    // Who applied the second goes back to the last good one before the third comes.
    assert_eq!(running(&sim, 2), 0);
    let outcome = &sim.conductor.history().entry(2).unwrap().outcome;
    assert!(matches!(outcome, Outcome::Superseded { by: 3, .. }));
    run_until(&mut sim, "release 3: confirmed on 100 of 100");
}

#[test]
fn a_paused_release_goes_no_further_but_is_watched() {
    let mut sim = Sim::settled(100, 3);
    assert_eq!(sim.conductor.pause("bob"), Err(ControlFault::NotRunning));
    new_release(&mut sim);
    run_until(&mut sim, "canary of");
    sim.conductor.pause("bob").unwrap();
    assert_eq!(sim.conductor.pause("eve"), Err(ControlFault::Paused("bob".to_owned())));
    sim.run(600_000);
    assert_eq!(running(&sim, 2), 3);
    assert!(words(&sim).ends_with("ready for the next step; paused by bob"), "{}", words(&sim));
    let commands = sim.conductor.resume(sim.now).unwrap();
    sim.carry_out(commands);
    assert_eq!(sim.conductor.resume(sim.now), Err(ControlFault::NotPaused));
    sim.run(2_000);
    assert!(running(&sim, 2) > 3);
}

#[test]
fn a_failure_during_a_pause_stops_the_release() {
    let mut sim = Sim::settled(100, 3);
    sim.sides.get_mut(&key(WEB, 1)).unwrap().habits.insert(hash(2), Habit::RollsBack);
    new_release(&mut sim);
    run_until(&mut sim, "canary of");
    sim.conductor.pause("bob").unwrap();
    run_until(&mut sim, "halted at canary");
}

#[test]
fn an_aborted_release_is_undone() {
    let mut sim = Sim::settled(100, 3);
    new_release(&mut sim);
    run_until(&mut sim, "10 % of");
    sim.run(3_000);
    assert!(running(&sim, 2) > 3);
    let commands = sim.conductor.abort("bob", sim.now).unwrap();
    sim.carry_out(commands);
    sim.run(3_000);
    assert_eq!(words(&sim), "release 2: halted at 10 %: aborted by bob");
    assert_eq!(running(&sim, 1), 100);
    assert_eq!(sim.conductor.abort("bob", sim.now), Err(ControlFault::NotRunning));
}

#[test]
fn now_skips_the_steps_but_not_the_stage_nor_the_probation() {
    let mut sim = Sim::settled(100, 3);
    let slow = key(WEB, 50);
    sim.sides.get_mut(&slow).unwrap().habits.insert(hash(2), Habit::Silent);
    sim.release(draft(2, 1, Profile::Now));
    sim.run(20_000);
    assert!(!has_applied(&sim));
    sim.sides.get_mut(&slow).unwrap().habits.clear();
    sim.run(30_000);
    assert_eq!(running(&sim, 2), 100);
    let mut sim = Sim::settled(100, 3);
    new_release(&mut sim);
    run_until(&mut sim, "canary of");
    sim.hurry();
    sim.run(2_000);
    assert_eq!(running(&sim, 2), 100);
    assert!(words(&sim).contains("waits for 100 sidecars to confirm"), "{}", words(&sim));
    sim.run(61_000);
    assert_eq!(words(&sim), "release 2: confirmed on 100 of 100 sidecars");
}

#[test]
fn the_developers_profile_waits_for_answers_only() {
    let mut sim = Sim::settled(20, 1);
    sim.release(draft(2, 1, Profile::Dev));
    sim.run(15_000);
    assert_eq!(words(&sim), "release 2: confirmed on 20 of 20 sidecars");
}

#[test]
fn a_rollback_is_a_release_with_old_policies_under_a_higher_generation() {
    let mut sim = Sim::settled(20, 1);
    sim.release(draft(2, 1, Profile::Dev));
    sim.run(15_000);
    let commands = sim.conductor.rollback(None, "bob", Profile::Dev, false, sim.now).unwrap();
    sim.begun(commands);
    sim.run(15_000);
    assert_eq!(words(&sim), "release 3: confirmed on 20 of 20 sidecars");
    assert_eq!(running(&sim, 1), 20);
}

#[test]
fn a_restart_in_a_step_waits_for_the_sidecars_and_goes_on_with_the_same_step() {
    let mut sim = Sim::settled(100, 3);
    new_release(&mut sim);
    run_until(&mut sim, "1 % of");
    // It is down for twice as long as the step lasts.
    sim.now += 240_000;
    sim.restart();
    sim.run(5_000);
    assert!(words(&sim).starts_with("release 2: 1 % of 100 sidecars"), "{}", words(&sim));
    for key in sim.sides.keys().cloned().collect::<Vec<_>>() {
        sim.connect(&key);
    }
    run_until(&mut sim, "10 % of 100");
    run_until(&mut sim, "confirmed on 100 of 100");
}

#[test]
fn a_pusher_that_nobody_comes_back_to_does_not_go_on() {
    let mut sim = Sim::settled(100, 3);
    new_release(&mut sim);
    run_until(&mut sim, "canary of 100 sidecars applied (3), watched");
    sim.restart();
    sim.run(2 * FORGET_AFTER_MS);
    assert!(words(&sim).contains("waits for 100 sidecars to come back"), "{}", words(&sim));
}

#[test]
fn sidecars_that_are_gone_for_good_since_a_restart_hold_nothing_up_for_ever() {
    let mut sim = Sim::settled(100, 3);
    new_release(&mut sim);
    run_until(&mut sim, "canary of 100 sidecars applied (3), watched");
    sim.restart();
    // The pods were renamed meanwhile: a few of the old ones are left.
    for key in sim.sides.keys().take(10).cloned().collect::<Vec<_>>() {
        sim.connect(&key);
    }
    sim.run(FORGET_AFTER_MS - 60_000);
    assert!(words(&sim).contains("to come back"), "{}", words(&sim));
    run_until(&mut sim, "confirmed on 10 of 10");
}

#[test]
fn plans_are_checked() {
    let waits = Waits::default();
    assert!(Plan::new(waits, &[1, 10, 50, 100]).is_ok());
    for wrong in [&[][..], &[0, 100], &[10, 10, 100], &[50], &[100, 101]] {
        assert_eq!(Plan::new(waits, wrong), Err(PlanFault::Percents), "{wrong:?}");
    }
    let most: Vec<u8> = (100 - crate::limits::PERCENTS_MAX as u8 + 1..=100).collect();
    assert!(Plan::new(waits, &most).is_ok());
    let over: Vec<u8> = (100 - crate::limits::PERCENTS_MAX as u8..=100).collect();
    assert_eq!(Plan::new(waits, &over), Err(PlanFault::Percents));
    let longest = Waits { bake_ms: crate::limits::WAIT_MS_MAX, ..waits };
    assert!(Plan::new(longest, &[100]).is_ok());
    let longer = Waits { bake_ms: crate::limits::WAIT_MS_MAX + 1, ..waits };
    assert_eq!(Plan::new(longer, &[100]), Err(PlanFault::Wait));
}
