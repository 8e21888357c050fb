//! Blocks: the fixed pieces of memory that bytes travel in, pooled per thread.
//!
//! ```text
//!  0          start            end            capacity
//!  |  headroom  |     data      |     spare      |
//! ```
//!
//! # Invariants
//! - `0 <= start <= end <= capacity`; everything below `end` was written before it is read.
//! - A block is owned by exactly one place: a connection, the pool, or an operation in the
//!   kernel. The traits below hand out the address only while monoio owns the block, and monoio
//!   keeps what it owns until the completion, even when the future that started it is dropped.
//! - The memory is a mapping of its own: a block that leaves the pool goes back to the system at
//!   once, whatever else was allocated around it. Ten thousand connections that went quiet leave
//!   no trace in the resident size.
//!
//! # Not here
//! Who may hold how many: that is the connection's business.

use std::cell::RefCell;
use std::ptr::NonNull;

use monoio::buf::{IoBuf, IoBufMut};
use rustix::mm::{MapFlags, ProtFlags};

use crate::limits::{
    LARGE_BLOCK_BYTES, LARGE_BLOCKS_KEPT, LARGE_BLOCKS_POOLED, SMALL_BLOCK_BYTES,
    SMALL_BLOCKS_KEPT, SMALL_BLOCKS_POOLED,
};

/// Private anonymous memory of a fixed size.
pub struct Mapping {
    pub(super) address: NonNull<u8>,
    pub(super) length: usize,
}

impl Mapping {
    /// Maps `length` zeroed bytes. Aborts the process when the system has none left, as any
    /// allocation does.
    pub(super) fn new(length: usize) -> Self {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choosing aliases
        // nothing.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let address = mapped.ok().and_then(|address| NonNull::new(address.cast::<u8>()));
        let Some(address) = address else {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; 4096]>());
        };
        Self { address, length }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nobody else holds it.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// Where the data of a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    start: usize,
    end: usize,
}

/// A piece of memory with a window of data in it. Dropped, it returns to its thread's pool.
pub struct Block {
    /// `None` only while `drop` runs.
    mapping: Option<Mapping>,
    start: usize,
    end: usize,
}

#[derive(Default)]
struct Pool {
    small: Vec<Mapping>,
    large: Vec<Mapping>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Block {
    /// An empty block of `SMALL_BLOCK_BYTES`.
    #[must_use]
    pub fn small() -> Self {
        Self::take(SMALL_BLOCK_BYTES, |pool| pool.small.pop())
    }

    /// An empty block of `LARGE_BLOCK_BYTES`.
    #[must_use]
    pub fn large() -> Self {
        Self::take(LARGE_BLOCK_BYTES, |pool| pool.large.pop())
    }

    /// The smallest block with room for `bytes`; never more than `LARGE_BLOCK_BYTES`.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        if bytes <= SMALL_BLOCK_BYTES { Self::small() } else { Self::large() }
    }

    fn take(length: usize, pop: impl FnOnce(&mut Pool) -> Option<Mapping>) -> Self {
        let pooled = POOL.try_with(|pool| pop(&mut pool.borrow_mut())).ok().flatten();
        let mapping = pooled.unwrap_or_else(|| Mapping::new(length));
        Self { mapping: Some(mapping), start: 0, end: 0 }
    }

    /// Gives the block back for a connection that has nothing to do: fewer will be needed from now
    /// on, so the memory goes to the system rather than to a pool that is well filled.
    pub fn retire(mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        // While the thread ends the pool is gone already: the mapping is then simply unmapped.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if mapping.length == SMALL_BLOCK_BYTES && pool.small.len() < SMALL_BLOCKS_KEPT {
                pool.small.push(mapping);
                return;
            }
            // What a burst has left in the pool goes as its connections do.
            if pool.small.len() > SMALL_BLOCKS_KEPT {
                pool.small.pop();
            }
            if pool.large.len() > LARGE_BLOCKS_KEPT {
                pool.large.pop();
            }
        });
    }

    fn mapping(&self) -> &Mapping {
        // The option is emptied by `drop` alone.
        self.mapping.as_ref().expect("a live block has its mapping")
    }

    /// Bytes from one end to the other, whatever the window is.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.mapping().length
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `start..end` lies in the mapping, which is initialised (zeroed when mapped), and
        // `&self` keeps writers out.
        unsafe {
            std::slice::from_raw_parts(
                self.mapping().address.as_ptr().add(self.start),
                self.end - self.start,
            )
        }
    }

    /// The data, to be changed in place.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (start, length) = (self.start, self.end - self.start);
        // SAFETY: as in `data`, and `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.mapping().address.as_ptr().add(start), length)
        }
    }

    /// Number of bytes of data.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that can still be appended behind the data.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.capacity() - self.end
    }

    /// Bytes in front of the data.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Drops the first `count` bytes of data. An emptied block starts at zero again.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed more than there is");
        self.start += count;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Drops what lies behind the first `count` bytes of data.
    pub fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
    }

    /// Drops all data.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Drops all data and leaves `bytes` free in front of what comes next, for [`Self::prepend`].
    ///
    /// # Panics
    /// If the block is not that large.
    pub fn clear_with_headroom(&mut self, bytes: usize) {
        assert!(bytes <= self.capacity(), "headroom larger than the block");
        self.start = bytes;
        self.end = bytes;
    }

    /// Moves the data to the front, so that all free room is behind it.
    pub fn compact(&mut self) {
        if self.start == 0 {
            return;
        }
        let length = self.len();
        let address = self.mapping().address.as_ptr();
        // SAFETY: both ranges lie in the mapping; `copy` allows them to overlap.
        unsafe { std::ptr::copy(address.add(self.start), address, length) };
        self.start = 0;
        self.end = length;
    }

    /// Appends `bytes`; `false`, with nothing written, when they do not fit.
    #[must_use]
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.spare() {
            return false;
        }
        // SAFETY: `end + bytes.len() <= capacity` was just checked, and `&mut self` means that
        // `bytes` cannot be a view of this block.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.mapping().address.as_ptr().add(self.end),
                bytes.len(),
            );
        }
        self.end += bytes.len();
        true
    }

    /// The room behind the data, to be written to and then taken in with [`Self::advance`].
    #[must_use]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let (end, spare) = (self.end, self.spare());
        // SAFETY: `end..capacity` lies in the mapping, which is initialised (zeroed when mapped),
        // and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.mapping().address.as_ptr().add(end), spare) }
    }

    /// Makes the first `count` bytes of the spare room data.
    ///
    /// # Panics
    /// If there is less room.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.spare(), "advanced past the end");
        self.end += count;
    }

    /// Where the data lies, so that it can be sent once more with [`Self::restore`].
    #[must_use]
    pub fn window(&self) -> Window {
        Window { start: self.start, end: self.end }
    }

    /// Makes the bytes of `window` the data again. They are still there after a send, unless
    /// something was written to the block since.
    pub fn restore(&mut self, window: Window) {
        (self.start, self.end) = (window.start, window.end);
    }

    /// Puts `bytes` in front of the data; `false`, with nothing written, without headroom for it.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.start {
            return false;
        }
        self.start -= bytes.len();
        self.data_mut()[..bytes.len()].copy_from_slice(bytes);
        true
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        // While the thread ends the pool is gone already: the mapping is then simply unmapped.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let (shelf, room) = if mapping.length == SMALL_BLOCK_BYTES {
                (&mut pool.small, SMALL_BLOCKS_POOLED)
            } else {
                (&mut pool.large, LARGE_BLOCKS_POOLED)
            };
            if shelf.len() < room {
                shelf.push(mapping);
            }
        });
    }
}

// SAFETY: the address is that of a mapping, which does not move when the block does, and the
// bytes `start..end` are initialised. They stay valid while monoio owns the block.
unsafe impl IoBuf for Block {
    fn read_ptr(&self) -> *const u8 {
        self.data().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above for `end..capacity`; `set_init` only ever grows the window by what the kernel
// says it wrote there.
unsafe impl IoBufMut for Block {
    fn write_ptr(&mut self) -> *mut u8 {
        // SAFETY: `end <= capacity`, so the address lies in the mapping or one past it.
        unsafe { self.mapping().address.as_ptr().add(self.end) }
    }

    fn bytes_total(&mut self) -> usize {
        self.spare()
    }

    unsafe fn set_init(&mut self, count: usize) {
        debug_assert!(count <= self.spare());
        self.end += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_was_pushed_and_consumed() {
        let mut block = Block::small();
        assert!(block.push(b"hello world"));
        block.consume(6);
        assert_eq!(block.data(), b"world");
        assert!(block.prepend(b"hello "));
        assert_eq!(block.data(), b"hello world");
        block.consume(6);
        block.compact();
        assert_eq!(block.data(), b"world");
        assert_eq!(block.spare(), SMALL_BLOCK_BYTES - 5);
    }

    #[test]
    fn a_full_block_refuses_one_more_byte() {
        let mut block = Block::small();
        assert!(block.push(&vec![7; SMALL_BLOCK_BYTES]));
        assert!(!block.push(b"x"));
        assert_eq!(block.len(), SMALL_BLOCK_BYTES);
        assert!(!block.prepend(b"x"));
    }

    #[test]
    fn a_dropped_block_is_used_again_and_the_pool_has_an_end() {
        let first = Block::small();
        let address = first.mapping().address;
        drop(first);
        assert_eq!(Block::small().mapping().address, address);
        let many: Vec<Block> = (0..SMALL_BLOCKS_POOLED + 10).map(|_| Block::small()).collect();
        drop(many);
        POOL.with(|pool| assert_eq!(pool.borrow().small.len(), SMALL_BLOCKS_POOLED));
        // Connections that go quiet take it down to what is always kept.
        for _ in 0..SMALL_BLOCKS_POOLED {
            let mapping = Some(Mapping::new(SMALL_BLOCK_BYTES));
            Block { mapping, start: 0, end: 0 }.retire();
        }
        POOL.with(|pool| assert_eq!(pool.borrow().small.len(), SMALL_BLOCKS_KEPT));
    }
}
