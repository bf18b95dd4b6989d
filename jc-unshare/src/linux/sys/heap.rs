//! The heap of the programs that are built with musl.
//!
//! The heap of musl maps and unmaps memory for many of the first allocations of a program, which takes 80 µs for the
//! few hundred allocations of clap. This heap has an atomic flag in place of a mutex, which would double its time.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU8, Ordering};

use super::memory::end;

/// No thread uses the heap.
const FREE: u8 = 0;
/// A thread changes the heap.
const BUSY: u8 = 1;
/// A child shares the memory of this process, and must not use the heap.
const CLOSED: u8 = 2;

/// Doug Lea's heap, behind a spin lock.
pub(crate) struct Heap {
    state: AtomicU8,
    memory: std::cell::UnsafeCell<dlmalloc::Dlmalloc>,
}

// SAFETY: only the thread that has set the state to BUSY uses the memory.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap without blocks.
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU8::new(FREE),
            memory: std::cell::UnsafeCell::new(dlmalloc::Dlmalloc::new()),
        }
    }

    fn acquire(&self, state: u8) {
        let acquire =
            || self.state.compare_exchange(FREE, state, Ordering::Acquire, Ordering::Relaxed);
        while let Err(now) = acquire() {
            if now == CLOSED {
                end("a child allocates in the memory of its parent");
            }
            std::thread::yield_now();
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut dlmalloc::Dlmalloc) -> T) -> T {
        self.acquire(BUSY);
        // SAFETY: the state is BUSY, so no other thread uses the memory.
        let done = act(unsafe { &mut *self.memory.get() });
        self.state.store(FREE, Ordering::Release);
        done
    }

    /// Calls `act` while the heap is closed: a child that shares the memory of this process, and allocates or
    /// frees, writes a line and ends with code 125. This process must have one thread, and `act` must not
    /// allocate.
    pub(super) fn closed<T>(&self, act: impl FnOnce() -> T) -> T {
        self.acquire(CLOSED);
        let done = act();
        self.state.store(FREE, Ordering::Release);
        done
    }
}

// SAFETY: dlmalloc allocates the memory, and needs the same guarantees of the caller.
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
        // SAFETY: the block comes from this heap, with this layout.
        self.with(|memory| unsafe { memory.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.with(|memory| unsafe { memory.realloc(block, layout.size(), layout.align(), size) })
    }
}
