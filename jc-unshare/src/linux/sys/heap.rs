//! The heap of the programs that are built with musl.
//!
//! musl's own heap maps and unmaps memory for many of a program's first allocations: 80 µs for the few
//! hundred that clap makes. This heap takes no mutex either, which would be half of the work.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU8, Ordering};

use super::memory::end;

/// Nobody uses the heap.
const FREE: u8 = 0;
/// A thread changes the heap.
const BUSY: u8 = 1;
/// A child shares the heap, and must not use it.
const CLOSED: u8 = 2;

/// A heap of the kind of Doug Lea's, behind a lock.
pub(crate) struct Heap {
    state: AtomicU8,
    memory: std::cell::UnsafeCell<dlmalloc::Dlmalloc>,
}

// SAFETY: the memory is touched only by the thread that has made the state BUSY.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap without blocks.
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU8::new(FREE),
            memory: std::cell::UnsafeCell::new(dlmalloc::Dlmalloc::new()),
        }
    }

    fn take(&self, state: u8) {
        let take =
            || self.state.compare_exchange(FREE, state, Ordering::Acquire, Ordering::Relaxed);
        while let Err(now) = take() {
            if now == CLOSED {
                end("a child allocates in the memory of its parent");
            }
            std::thread::yield_now();
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut dlmalloc::Dlmalloc) -> T) -> T {
        self.take(BUSY);
        // SAFETY: no other thread has the memory; see above.
        let done = act(unsafe { &mut *self.memory.get() });
        self.state.store(FREE, Ordering::Release);
        done
    }

    /// Calls `act` while the heap is closed: a child that shares the memory of this process, and allocates or
    /// frees, writes a line and ends with code 125. This process must have one thread, and `act` must not
    /// allocate.
    pub(super) fn closed<T>(&self, act: impl FnOnce() -> T) -> T {
        self.take(CLOSED);
        let done = act();
        self.state.store(FREE, Ordering::Release);
        done
    }
}

// SAFETY: it is dlmalloc that hands out the memory; the callers' promises are those that it wants.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is not empty.
        self.with(|memory| unsafe { memory.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.with(|memory| unsafe { memory.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is of this heap, and of that layout.
        self.with(|memory| unsafe { memory.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.with(|memory| unsafe { memory.realloc(block, layout.size(), layout.align(), size) })
    }
}
