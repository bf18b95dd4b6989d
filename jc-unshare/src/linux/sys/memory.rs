//! Out-of-memory errors without a panic.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{IoSlice, stderr};

use nix::libc;
use rustix::io::writev;

use crate::{Kind, Tool};

/// A heap that ends the process with one line if an allocation fails.
pub struct Checked<H>(pub H);

impl<H> Checked<H> {
    fn check(block: *mut u8) -> *mut u8 {
        if block.is_null() { end("out of memory") } else { block }
    }
}

// SAFETY: the inner heap allocates the blocks, and needs the same guarantees of the caller.
unsafe impl<H: GlobalAlloc> GlobalAlloc for Checked<H> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::check(unsafe { self.0.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::check(unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::check(unsafe { self.0.realloc(block, layout, size) })
    }
}

/// Ends the process with this error. Only system calls are made, since the heap is unusable.
pub(super) fn end(error: &str) -> ! {
    let (tool, code) =
        Tool::running().map_or(("jc", 125), |tool| (tool.name(), tool.code(Kind::Failed)));
    let line = [tool, ": ", error, "\n"].map(|part| IoSlice::new(part.as_bytes()));
    // An error of this write cannot be reported anywhere.
    let _: rustix::io::Result<usize> = writev(stderr(), &line);
    // SAFETY: _exit(2) runs no handlers, unlike exit(3).
    unsafe { libc::_exit(code.into()) }
}
