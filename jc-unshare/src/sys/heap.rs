//! The heap of the programs that are built with musl.
//!
//! musl's own heap maps and unmaps memory for many of a program's first allocations: 80 µs for the few
//! hundred that clap makes. This heap takes no mutex either, which would be half of the work.

use std::sync::atomic::{AtomicU8, Ordering};

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
    /// An empty heap.
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
                refuse();
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

/// Ends a process that uses a closed heap. The process shares the memory of its parent, so that it has
/// only system calls to do that.
fn refuse() -> ! {
    use nix::libc;
    const LINE: &str = "jc: a child allocates in the memory of its parent\n";
    // SAFETY: both system calls change no memory; nobody is left to be told of an error.
    unsafe {
        libc::syscall(libc::SYS_write, 2, LINE.as_ptr(), LINE.len());
        libc::syscall(libc::SYS_exit_group, 125);
    }
    // The kernel does not come back from exit_group(2).
    loop {
        std::hint::spin_loop();
    }
}

// SAFETY: it is dlmalloc that hands out the memory; the callers' promises are those that it wants.
unsafe impl std::alloc::GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        // SAFETY: the layout is not empty.
        self.with(|memory| unsafe { memory.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: std::alloc::Layout) -> *mut u8 {
        // SAFETY: as above.
        self.with(|memory| unsafe { memory.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: the block is of this heap, and of that layout.
        self.with(|memory| unsafe { memory.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: std::alloc::Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.with(|memory| unsafe { memory.realloc(block, layout.size(), layout.align(), size) })
    }
}
