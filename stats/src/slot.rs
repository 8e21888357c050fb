//! Where a value is counted: HDR's log-linear layout, cut into pages of one octave.
//!
//! ```text
//! page 0   [0, 1024)        width 1
//! page 1   [1024, 2048)     width 1
//! page 2   [2048, 4096)     width 2
//! page p   [1024 << (p-1), 1024 << p)   width 1 << (p-1)
//! ```
//!
//! # Invariants
//! - The bounds are those of `hdrhistogram` with low 1, high [`VALUE_MAX`] and 3 digits, so that
//!   counts move between the two without loss.
//! - `width <= lowest / 1024` from page 1 on: any member of a slot is within 0.1 % of any other.
//! - `page < PAGES` and `index < PAGE_SLOTS`.
//!
//! # Not here
//! The counts.

use crate::limits::{PAGE_SLOTS, PAGES, VALUE_MAX};

const PAGE_BITS: u32 = PAGE_SLOTS.trailing_zeros();
const INDEX_MASK: u64 = PAGE_SLOTS as u64 - 1;

/// The position of one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) page: usize,
    pub(crate) index: usize,
}

impl Slot {
    /// The slot of `value`; values over [`VALUE_MAX`] share the top one.
    #[inline]
    pub(crate) fn of(value: u64) -> Self {
        let value = value.min(VALUE_MAX);
        let bits = u64::BITS - (value | INDEX_MASK).leading_zeros();
        let page = bits - PAGE_BITS;
        let index = (value >> width_shift(page)) & INDEX_MASK;
        Self { page: page as usize, index: index as usize }
    }

    /// The smallest value counted here.
    pub(crate) fn lowest(self) -> u64 {
        let page = self.page as u32;
        let leading = if page == 0 { 0 } else { PAGE_SLOTS as u64 };
        (leading + self.index as u64) << width_shift(page)
    }

    /// The largest value counted here (of those up to [`VALUE_MAX`]).
    pub(crate) fn highest(self) -> u64 {
        self.lowest() + (1 << width_shift(self.page as u32)) - 1
    }
}

#[inline]
fn width_shift(page: u32) -> u32 {
    page.saturating_sub(1)
}

const _: () = assert!(u64::BITS - VALUE_MAX.leading_zeros() - PAGE_BITS == PAGES as u32 - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_tile_the_range_without_gap_or_overlap() {
        let mut next = 0;
        for page in 0..PAGES {
            for index in 0..PAGE_SLOTS {
                let slot = Slot { page, index };
                assert_eq!(slot.lowest(), next);
                assert_eq!(Slot::of(slot.lowest()), slot);
                assert_eq!(Slot::of(slot.highest()), slot);
                next = slot.highest() + 1;
            }
        }
        assert_eq!(next, VALUE_MAX + 1);
    }

    #[test]
    fn members_of_a_slot_differ_by_less_than_a_thousandth() {
        for page in 0..PAGES {
            let slot = Slot { page, index: 0 };
            let spread = slot.highest() - slot.lowest();
            assert!(spread * 1000 <= slot.lowest(), "page {page}");
        }
    }

    #[test]
    fn values_over_the_range_share_the_top_slot() {
        let top = Slot { page: PAGES - 1, index: PAGE_SLOTS - 1 };
        assert_eq!(Slot::of(VALUE_MAX), top);
        assert_eq!(Slot::of(VALUE_MAX + 1), top);
        assert_eq!(Slot::of(u64::MAX), top);
    }
}
