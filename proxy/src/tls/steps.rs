//! Rations a worker's time for handshakes.
//!
//! A step of a handshake cannot be interrupted, and with a key agreement and a signature in it
//! takes as long as several requests. One step for each round of the driver would be the least that
//! others have to bear, but each round costs, and what a step sends alone wakes its receiver alone:
//! with [`HANDSHAKE_TURN`] of steps between two rounds a handshake takes a sixth less.
//!
//! # Invariants
//! - Steps are taken one after the other, in the order in which they were asked for. Tasks that are
//!   ready between two of them run between them.
//! - Where steps have taken [`HANDSHAKE_TURN`] and more are waited for, the driver has a round
//!   first: everybody else whose event has come runs.

use std::cell::Cell;
use std::rc::Rc;

use super::places::{Place, Places};
use crate::io::turn;
use crate::limits::HANDSHAKE_TURN;

/// The steps of all handshakes of a worker.
pub struct Steps {
    gate: Rc<Places>,
    /// What steps have taken since the last round, ns.
    spent_ns: Cell<u64>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { gate: Places::new(1), spent_ns: Cell::new(0) }
    }
}

impl Steps {
    /// Where the next step is waited for.
    #[must_use]
    pub fn gate(&self) -> &Rc<Places> {
        &self.gate
    }

    /// Gives `step`, which took `took_ns`, to whoever waits for it: at once, or after a round of
    /// the driver. Who was ready when the step was taken has asked for it by the time that the task
    /// runs, since tasks run in the order in which they became ready; where nobody has, no round is
    /// needed.
    pub fn give_back(&self, step: Place, took_ns: u64) {
        if !self.ends_turn(took_ns) {
            return;
        }
        monoio::spawn(async move {
            if step.is_waited_for() {
                turn::round().await;
            }
            drop(step);
        });
    }

    /// Counts a step; whether it was the last before a round.
    fn ends_turn(&self, took_ns: u64) -> bool {
        let spent_ns = self.spent_ns.get().saturating_add(took_ns);
        let is_over = u128::from(spent_ns) >= HANDSHAKE_TURN.as_nanos();
        self.spent_ns.set(if is_over { 0 } else { spent_ns });
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_as_many_steps_as_fit_and_one_at_least() {
        let turn_ns = u64::try_from(HANDSHAKE_TURN.as_nanos()).expect("short");
        let steps = Steps::default();
        assert!(steps.ends_turn(5 * turn_ns), "one long step");
        let share = turn_ns / 4;
        let ends: Vec<bool> = (0..8).map(|_| steps.ends_turn(share)).collect();
        assert_eq!(ends, [false, false, false, true, false, false, false, true]);
        assert!(steps.ends_turn(u64::MAX));
    }
}
