//! Tables of series addressed by dense ids, allocated a chunk at a time.
//!
//! ```text
//! Slots ──▶ [chunk 0][chunk 1][  --  ][chunk 3] ...    fixed when created, 32 bytes each
//!               │ mask of touched slots, 64 x T        allocated at first touch, then kept
//! ```
//!
//! # Invariants
//! - One thread calls [`Slots::touch`]; any thread reads. A slot that was touched stays where it
//!   is.
//! - A slot is visible to readers only once touched, though its neighbours share its chunk: a
//!   scrape shows no series that never happened.
//!
//! # Not here
//! What an id means: [`Registry`](crate::Registry). Forgetting a series.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{CHUNK_SLOTS, SERIES_MAX};

/// A fixed number of `T`, each created when its chunk is first touched.
#[derive(Debug)]
pub struct Slots<T> {
    chunks: Box<[OnceLock<Chunk<T>>]>,
    capacity: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    /// Bit i: slot i was touched.
    touched: AtomicU64,
    /// CHUNK_SLOTS of them.
    slots: Box<[T]>,
}

impl<T: Default> Slots<T> {
    /// A table of `capacity` slots, cut to [`SERIES_MAX`]. Allocates 32 bytes per 64 slots.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(SERIES_MAX);
        let chunks = (0..capacity.div_ceil(CHUNK_SLOTS)).map(|_| OnceLock::new()).collect();
        Self { chunks, capacity }
    }

    /// Slots in the table, touched or not.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The slot at `index` if it was touched. Any thread may call this.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        let chunk = self.chunks.get(index / CHUNK_SLOTS)?.get()?;
        let offset = index % CHUNK_SLOTS;
        if chunk.touched.load(Ordering::Acquire) & (1 << offset) == 0 {
            return None;
        }
        chunk.slots.get(offset)
    }

    /// The slot at `index`, created if need be; `None` past the capacity.
    ///
    /// Only the shard's own thread may call this. Allocates when the chunk is new.
    #[inline]
    pub fn touch(&self, index: usize) -> Option<&T> {
        if index >= self.capacity {
            return None;
        }
        let chunk = match self.chunks[index / CHUNK_SLOTS].get() {
            Some(chunk) => chunk,
            None => self.first_touch(index / CHUNK_SLOTS),
        };
        let offset = index % CHUNK_SLOTS;
        let touched = chunk.touched.load(Ordering::Relaxed);
        if touched & (1 << offset) == 0 {
            chunk.touched.store(touched | 1 << offset, Ordering::Release);
        }
        chunk.slots.get(offset)
    }

    /// Touched slots with their indexes, ascending. Any thread may call this.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let chunks = self.chunks.iter().enumerate();
        let allocated = chunks.filter_map(|(number, chunk)| Some((number, chunk.get()?)));
        allocated.flat_map(|(number, chunk)| {
            let touched = chunk.touched.load(Ordering::Acquire);
            let slots = chunk.slots.iter().enumerate();
            slots
                .filter(move |(offset, _)| touched & (1 << offset) != 0)
                .map(move |(offset, slot)| (number * CHUNK_SLOTS + offset, slot))
        })
    }

    #[cold]
    #[inline(never)]
    fn first_touch(&self, number: usize) -> &Chunk<T> {
        self.chunks[number].get_or_init(|| Chunk {
            touched: AtomicU64::new(0),
            slots: (0..CHUNK_SLOTS).map(|_| T::default()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Counter;

    #[test]
    fn untouched_slot_is_absent_even_in_an_allocated_chunk() {
        let slots: Slots<Counter> = Slots::new(200);
        assert!(slots.get(5).is_none());
        slots.touch(5).unwrap().increment();
        assert_eq!(slots.get(5).unwrap().value(), 1);
        assert!(slots.get(4).is_none());
        assert!(slots.get(64).is_none());
    }

    #[test]
    fn last_slot_is_there_and_one_past_the_capacity_is_not() {
        let slots: Slots<Counter> = Slots::new(65);
        assert!(slots.touch(64).is_some());
        assert!(slots.touch(65).is_none());
        assert!(slots.get(65).is_none());
        assert!(slots.get(usize::MAX).is_none());
        assert!(Slots::<Counter>::new(0).touch(0).is_none());
    }

    #[test]
    fn capacity_is_cut_to_the_maximum() {
        let slots: Slots<Counter> = Slots::new(usize::MAX);
        assert_eq!(slots.capacity(), SERIES_MAX);
        assert!(slots.touch(SERIES_MAX - 1).is_some());
        assert!(slots.touch(SERIES_MAX).is_none());
    }

    #[test]
    fn iteration_yields_touched_slots_in_order_of_index() {
        let slots: Slots<Counter> = Slots::new(1_000);
        for index in [999, 0, 63, 64, 500] {
            slots.touch(index).unwrap().add(index as u64);
        }
        let seen: Vec<_> = slots.iter().map(|(index, slot)| (index, slot.value())).collect();
        assert_eq!(seen, [(0, 0), (63, 63), (64, 64), (500, 500), (999, 999)]);
    }

    #[test]
    fn untouched_table_of_the_maximum_size_costs_64_kib() {
        let slots: Slots<Counter> = Slots::new(SERIES_MAX);
        assert_eq!(size_of_val(&*slots.chunks), 64 << 10);
    }
}
