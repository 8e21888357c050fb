//! The work that every request pays for, cut into pieces that can be repeated.
//!
//! ```text
//! heads ─ bytes to facts, facts to bytes     decisions ─ path, route, endpoint
//! bodies ─ the chunked coding                records ─ outcome, histogram
//! ```
//!
//! # Invariants
//! - Each operation says whether its result is right, and each run asserts that all of them were.
//! - What an operation does depends on how many were done before it and on nothing else: no clock,
//!   no random seed. After [`Workload::cycle`] operations the inputs begin anew.
//!
//! # Not here
//! Measuring: `super` counts instructions, the bench `time` takes the time. Planning as a whole,
//! which needs a worker and its sockets.

mod bodies;
mod decisions;
mod heads;
mod records;

/// Inputs of a workload that has more than one.
const INPUTS: usize = 1024;

/// Something that can be done any number of times.
pub(crate) struct Workload {
    /// Its name in reports and in the ratchet.
    pub(crate) name: &'static str,
    /// Operations after which the inputs repeat.
    pub(crate) cycle: u64,
    run: Box<dyn FnMut(u64)>,
}

impl Workload {
    /// `operation` says whether its result was right; `holds` whether what is left behind is, after
    /// so many operations. One cycle is run at once: what is allocated at first touch is there.
    fn new(
        name: &'static str,
        cycle: usize,
        mut operation: impl FnMut() -> bool + 'static,
        holds: impl Fn(u64) -> bool + 'static,
    ) -> Self {
        let mut done = 0;
        for _ in 0..cycle {
            assert!(operation(), "{name}: a wrong result");
            done += 1;
        }
        let run = move |times| {
            let mut right = 0;
            for _ in 0..times {
                right += u64::from(operation());
            }
            done += times;
            assert_eq!(right, times, "{name}: wrong results");
            assert!(holds(done), "{name}: left something else behind");
        };
        Self { name, cycle: cycle as u64, run: Box::new(run) }
    }

    /// One that has a single input and leaves nothing behind.
    fn pure(name: &'static str, operation: impl FnMut() -> bool + 'static) -> Self {
        Self::new(name, 8, operation, |_| true)
    }

    /// Does it `times` times.
    pub(crate) fn run(&mut self, times: u64) {
        (self.run)(times);
    }
}

/// All of them. What they work on is built here and stays until the process ends.
pub(crate) fn all() -> Vec<Workload> {
    [heads::all(), decisions::all(), records::all(), bodies::all()].into_iter().flatten().collect()
}

/// A value as long-lived as the process, so that heads can borrow from it.
fn kept<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// Numbers far apart from each other, the same in every run.
fn scattered(number: usize) -> u64 {
    (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Turns over the places `0..INPUTS`.
fn turn(at: &mut usize) -> usize {
    let now = *at;
    *at = (now + 1) % INPUTS;
    now
}
