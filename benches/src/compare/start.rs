//! From exec to the first answer, and the memory that a started proxy takes.
//!
//! The clock runs from just before the process is made to the first 200 that came through the proxy
//! from the origin, on a client that asks without pause: accepted, parsed, forwarded and answered.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Bench,
    findings::{EXEC_TO_ACCEPT, Findings, PSS, RSS},
    peer::{Peer, Proxy, Setup},
    scenario::Scenario,
};
use crate::{error::Error, procfs::Memory, terminal};

/// Starts of each proxy; they are short and vary more than loads do.
const STARTS: u32 = 10;
/// Time for a started proxy to finish what it does in the background.
const SETTLE: Duration = Duration::from_millis(200);

/// Starts every contender again and again.
pub(super) fn measure(bench: &Bench, scenario: &Scenario, findings: &mut Findings) {
    let setup = scenario.setup();
    let mut order = bench.peers_with(setup.name, findings);
    for start in 0..STARTS {
        terminal::progress(&format!("start: {} of {STARTS}", start + 1));
        order.retain(|peer| match one_start(bench, peer, setup) {
            Ok((milliseconds, memory)) => {
                findings.push(EXEC_TO_ACCEPT, &peer.id, milliseconds);
                findings.push(RSS, &peer.id, memory.resident_kib as f64 / 1024.0);
                findings.push(PSS, &peer.id, memory.proportional_kib as f64 / 1024.0);
                true
            }
            Err(error) => {
                findings.failed(&peer.id, &error);
                false
            }
        });
        order.reverse();
    }
}

fn one_start(bench: &Bench, peer: &Rc<Peer>, setup: Setup<'_>) -> Result<(f64, Memory), Error> {
    let began = Instant::now();
    let mut proxy = Proxy::spawn(bench, peer, setup)?;
    proxy.wait_for_answer(None)?;
    let elapsed = began.elapsed();
    std::thread::sleep(SETTLE);
    let memory = proxy.child.process().memory().map_err(Error::io("read the memory in use"))?;
    Ok((elapsed.as_secs_f64() * 1e3, memory))
}
