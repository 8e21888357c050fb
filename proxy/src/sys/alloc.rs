//! The global allocator: the system's, with a count of the calls each thread makes.
//!
//! A worker is meant to allocate nothing per request in steady state. The count makes that a
//! number that anyone can read (`ringway_worker_allocations_total`) and that a test asserts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system allocator, counting.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counting;

/// How many times this thread has asked for memory since it started.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Has the allocator return whole free pages to the system, wherever they lie. It takes as long as
/// there are free pieces to look at.
#[cfg(target_env = "gnu")]
pub fn give_back_free_memory() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: `malloc_trim(3)` may be called at any time from any thread; it moves nothing that is
    // in use.
    unsafe { malloc_trim(0) };
}

/// Allocators other than glibc's decide by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_free_memory() {}

fn count() {
    // A thread that is being torn down may allocate after its locals are gone: not counted.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on unchanged to `System`, which upholds the contract of
// `GlobalAlloc`; counting touches a const-initialised thread local and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of `alloc`, which is passed on as it is.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `pointer` came from `System` because every allocation does.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
