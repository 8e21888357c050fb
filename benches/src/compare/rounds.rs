//! Interleaved rounds: every contender once per round, A B C and then C B A.
//!
//! # Invariants
//! - What drifts hits all alike: the order turns around with every round.
//! - A round in which the machine was taken away, or the generator was late, is void for all, and
//!   repeated.

use std::time::Instant;

use super::{Bench, findings::Findings};
use crate::{error::Error, procfs, terminal};

/// A round in which more of one core's time was stolen is void.
const STOLEN_SHARE_MAX: f64 = 0.01;
/// Void rounds for each round that is asked for; after that all count, so that a run has an end.
const VOID_SHARE_MAX: f64 = 0.75;

/// Runs as many undisturbed rounds as are asked for. `once` measures one contender; `keep` is given
/// what a good round brought. A contender that fails is dropped from `contenders`.
///
/// When too many rounds are void, the rest count as they are: the machine is like that.
pub(super) fn run<Contender, Figure>(
    bench: &Bench,
    what: &str,
    findings: &mut Findings,
    contenders: &mut Vec<Contender>,
    name: impl Fn(&Contender) -> String,
    mut once: impl FnMut(&mut Contender) -> Result<Figure, Error>,
    mut keep: impl FnMut(&mut Findings, &mut Contender, Figure),
) {
    let (mut good, mut void) = (0, 0);
    let void_max = (f64::from(bench.rounds) * VOID_SHARE_MAX).ceil() as u32;
    while good < bench.rounds && !contenders.is_empty() {
        let progress = format!(
            "{}: {what}, round {} of {}, {void} void",
            findings.id(),
            good + 1,
            bench.rounds
        );
        terminal::progress(&progress);
        let clock = Disturbance::begin();
        let mut figures = Vec::with_capacity(contenders.len());
        let mut late = false;
        contenders.retain_mut(|contender| match once(contender) {
            Ok(figure) => {
                figures.push(figure);
                true
            }
            Err(Error::Late { .. }) if void < void_max => {
                late = true;
                true
            }
            Err(error) => {
                findings.failed(&name(contender), &error);
                false
            }
        });
        let is_void = clock.end(findings) && void < void_max || late;
        if is_void {
            void += 1;
            findings.machine().void_rounds += 1;
        } else {
            good += 1;
            for (contender, figure) in contenders.iter_mut().zip(figures) {
                keep(findings, contender, figure);
            }
        }
        contenders.reverse();
    }
}

/// Whether the hypervisor took the machine away while something was measured.
struct Disturbance {
    began: Instant,
    stolen_before: u64,
    softirq_before: u64,
}

impl Disturbance {
    fn begin() -> Self {
        let machine = procfs::machine_ticks().unwrap_or_default();
        Self {
            began: Instant::now(),
            stolen_before: machine.stolen,
            softirq_before: machine.softirq,
        }
    }

    /// Adds what happened to the findings, and says whether it was too much.
    fn end(&self, findings: &mut Findings) -> bool {
        let machine = procfs::machine_ticks().unwrap_or_default();
        let stolen = machine.stolen.saturating_sub(self.stolen_before);
        findings.machine().stolen_ms += stolen * 10;
        findings.machine().softirq_ms += machine.softirq.saturating_sub(self.softirq_before) * 10;
        stolen as f64 / 100.0 > STOLEN_SHARE_MAX * self.began.elapsed().as_secs_f64()
    }
}
