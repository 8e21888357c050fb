//! Random fleets, orders, losses, repetitions, delays and restarts; the referee of `sim` checks
//! every command, and in the end everything must have come to rest.

use proptest::prelude::*;

use super::sim::{CART, Habit, Said, Sim, WEB, draft, hash, key};
use crate::fleet::Entry;
use crate::release::Profile;
use crate::version::SidecarKey;

#[derive(Debug, Clone)]
enum Move {
    Wait(u64),
    Drop(usize),
    Return(usize),
    Crash(usize),
    Wipe(usize),
    Join(usize, bool),
    /// A report of a sidecar comes twice, now or much later.
    Repeat(usize),
    Late(usize),
    Release(u8, u8),
    Supersede(u8),
    Rollback,
    Restart,
    Pause,
    Resume,
    Abort,
    Hurry,
    Spoil(usize, u8, u8),
}

fn moves() -> impl Strategy<Value = Move> {
    let who = 0..200_usize;
    prop_oneof![
        12 => (1..150_u64).prop_map(Move::Wait),
        3 => who.clone().prop_map(Move::Drop),
        6 => who.clone().prop_map(Move::Return),
        1 => who.clone().prop_map(Move::Crash),
        1 => who.clone().prop_map(Move::Wipe),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, canary)| Move::Join(who, canary)),
        3 => who.clone().prop_map(Move::Repeat),
        3 => who.clone().prop_map(Move::Late),
        3 => (1..6_u8, 1..3_u8).prop_map(|(web, cart)| Move::Release(web, cart)),
        1 => (1..6_u8).prop_map(Move::Supersede),
        1 => Just(Move::Rollback),
        2 => Just(Move::Restart),
        1 => Just(Move::Pause),
        2 => Just(Move::Resume),
        1 => Just(Move::Abort),
        1 => Just(Move::Hurry),
        1 => (who, 1..6_u8, 0..3_u8).prop_map(|(who, policy, how)| Move::Spoil(who, policy, how)),
    ]
}

/// The sidecar that a random number means.
fn pick(sim: &Sim, number: usize) -> Option<SidecarKey> {
    let count = sim.sides.len();
    if count == 0 { None } else { sim.sides.keys().nth(number % count).cloned() }
}

fn on_side(sim: &mut Sim, number: usize, online: bool, action: fn(&mut Sim, &SidecarKey)) {
    let Some(key) = pick(sim, number) else { return };
    if sim.sides[&key].online == online {
        action(sim, &key);
    }
}

fn begin(sim: &mut Sim, web: u8, cart: u8, supersede: bool) {
    let draft = draft(web, cart, Profile::Standard);
    if let Ok(commands) = sim.conductor.release(draft, supersede, sim.now) {
        sim.begun(commands);
    }
}

fn make(sim: &mut Sim, a_move: &Move, old: &mut Vec<(SidecarKey, Said)>) {
    match *a_move {
        Move::Wait(seconds) => sim.run(seconds * 1_000),
        Move::Drop(who) => on_side(sim, who, true, Sim::disconnect),
        Move::Return(who) => on_side(sim, who, false, Sim::connect),
        Move::Crash(who) => on_side(sim, who, true, Sim::crash),
        Move::Wipe(who) => on_side(sim, who, true, Sim::wipe),
        Move::Join(who, canary) => {
            let identity = if who.is_multiple_of(4) { CART } else { WEB };
            let key = key(identity, who);
            if !sim.sides.contains_key(&key) {
                sim.connect_new(&key, canary && who.is_multiple_of(3));
            }
        }
        Move::Repeat(who) => {
            let Some(key) = pick(sim, who) else { return };
            let connection = sim.sides[&key].connection;
            let said: Vec<Entry> = sim.sides[&key].entries();
            for entry in said.into_iter().rev() {
                old.push((key.clone(), (connection, entry.clone())));
                sim.reports.push_back((key.clone(), (connection, entry)));
            }
        }
        Move::Late(which) => {
            if let Some((key, said)) = old.get(which % old.len().max(1)).cloned() {
                sim.deliver(&key, said);
            }
        }
        Move::Release(web, cart) => begin(sim, web, cart, false),
        Move::Supersede(web) => begin(sim, web, 1, true),
        Move::Rollback => {
            let result = sim.conductor.rollback(None, "bob", Profile::Standard, false, sim.now);
            if let Ok(commands) = result {
                sim.begun(commands);
            }
        }
        Move::Restart => sim.restart(),
        Move::Pause => {
            let _ = sim.conductor.pause("bob");
        }
        Move::Resume => {
            if let Ok(commands) = sim.conductor.resume(sim.now) {
                sim.carry_out(commands);
            }
        }
        Move::Abort => {
            if let Ok(commands) = sim.conductor.abort("bob", sim.now) {
                sim.carry_out(commands);
            }
        }
        Move::Hurry => sim.hurry(),
        Move::Spoil(who, policy, how) => {
            let Some(key) = pick(sim, who) else { return };
            let habit = [Habit::Silent, Habit::Rejects, Habit::RollsBack][usize::from(how)];
            sim.sides.get_mut(&key).unwrap().habits.insert(hash(policy), habit);
        }
    }
}

/// Everybody behaves and is connected from now on.
fn calm(sim: &mut Sim) {
    for side in sim.sides.values_mut() {
        side.habits.clear();
    }
    for key in sim.sides.keys().cloned().collect::<Vec<_>>() {
        if !sim.sides[&key].online {
            sim.connect(&key);
        }
    }
    if let Ok(commands) = sim.conductor.resume(sim.now) {
        sim.carry_out(commands);
    }
}

/// Everybody runs the last good policy, but for those in whom it failed.
fn check_rest(sim: &Sim) -> Result<(), TestCaseError> {
    let Some(summary) = sim.conductor.summary(sim.now) else { return Ok(()) };
    let rollout = sim.conductor.rollout().unwrap();
    prop_assert!(!rollout.is_running(), "it never ends: {summary}");
    prop_assert_eq!(sim.tally_counted_anew(), rollout.members.tally());
    let Some(good) = sim.conductor.history().last_good() else { return Ok(()) };
    for (key, side) in &sim.sides {
        let failed = sim.conductor.fleet().sidecar(key).and_then(|it| it.failure()).is_some();
        let runs = side.running.map(|it| it.hash);
        let wanted = good.classes.get(key.identity()).copied();
        prop_assert!(failed || runs == wanted, "{} runs {:?} after {}", key, runs, summary);
    }
    Ok(())
}

fn play(count: usize, canaries: usize, moves: &[Move]) -> Result<(), TestCaseError> {
    let mut sim = Sim::settled(count, canaries);
    let mut old = Vec::new();
    for a_move in moves {
        make(&mut sim, a_move, &mut old);
    }
    calm(&mut sim);
    sim.run(3_600_000);
    check_rest(&sim)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nobody_gets_what_is_not_its_turn_and_it_ends(
        count in 0..40_usize,
        canaries in 0..4_usize,
        moves in prop::collection::vec(moves(), 1..60),
    ) {
        play(count, canaries, &moves)?;
    }

    #[test]
    fn when_everybody_reports_well_the_release_is_confirmed(
        count in 0..60_usize,
        canaries in 0..4_usize,
        restarts in prop::collection::vec(1..200_u64, 0..4),
    ) {
        let mut sim = Sim::settled(count, canaries);
        sim.release(draft(2, 1, Profile::Standard));
        for seconds in restarts {
            sim.run(seconds * 1_000);
            sim.restart();
            sim.run(seconds % 50 * 1_000);
            calm(&mut sim);
        }
        sim.run(3_600_000);
        let summary = sim.conductor.summary(sim.now).unwrap().to_string();
        prop_assert!(summary.starts_with("release 2: confirmed"), "{}", summary);
        check_rest(&sim)?;
    }
}
