//! Every size that bounds this crate, related to each other at compile time.
//!
//! # Invariants
//! The assertions below; a change that breaks one does not compile.
//!
//! # Not here
//! Limits of the configuration (how many routes a file may have) and of the data path.

/// Significant decimal digits that a histogram keeps.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Slots in one page of a histogram. A page covers one octave; page 0 covers `0..PAGE_SLOTS`.
pub const PAGE_SLOTS: usize = 1024;

/// Pages in a histogram's directory.
pub const PAGES: usize = 33;

/// The largest value a histogram tells apart: 4 398 s in nanoseconds. Larger ones count in the top
/// slot and as saturated.
pub const VALUE_MAX: u64 = (1 << 42) - 1;

/// Slots that [`Slots`](crate::Slots) allocates together, and bits in a chunk's mask.
pub const CHUNK_SLOTS: usize = 64;

/// Ids in one [`Registry`](crate::Registry) and slots in one [`Slots`](crate::Slots), at most.
/// At 32 bytes per 64 slots an untouched table of this size costs 64 KiB.
pub const SERIES_MAX: usize = 1 << 17;

/// Default bucket bounds for latencies, 1-2.5-5 from 100 us to 60 s, ascending, in nanoseconds.
pub const LATENCY_BOUNDS_NS: [u64; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

const HOUR_NS: u64 = 3_600_000_000_000;

// A page of 1024 slots per octave resolves 1/1024 of a value: three digits.
const _: () = assert!(PAGE_SLOTS.is_power_of_two());
const _: () = assert!(PAGE_SLOTS as u64 >= 10u64.pow(SIGNIFICANT_DIGITS as u32));
// The directory covers the range exactly: page p >= 1 holds PAGE_SLOTS << (p - 1) and upward.
const _: () = assert!(VALUE_MAX + 1 == (PAGE_SLOTS as u64) << (PAGES - 1));
const _: () = assert!(VALUE_MAX >= HOUR_NS);
const _: () = assert!(CHUNK_SLOTS == u64::BITS as usize);
const _: () = assert!(SERIES_MAX.is_multiple_of(CHUNK_SLOTS));
const _: () = assert!(SERIES_MAX <= u32::MAX as usize);
const _: () = assert!(ascending(&LATENCY_BOUNDS_NS));
const _: () = assert!(LATENCY_BOUNDS_NS[LATENCY_BOUNDS_NS.len() - 1] <= VALUE_MAX);

const fn ascending(bounds: &[u64]) -> bool {
    let mut index = 1;
    while index < bounds.len() {
        if bounds[index - 1] >= bounds[index] {
            return false;
        }
        index += 1;
    }
    true
}
