//! An end without a panic where there is no memory.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{IoSlice, stderr};

use nix::libc;
use rustix::io::writev;

/// A heap that ends the process with one line where it has no memory left.
pub struct Checked<H>(pub H);

impl<H> Checked<H> {
    fn check(block: *mut u8) -> *mut u8 {
        if block.is_null() { end("out of memory") } else { block }
    }
}

// SAFETY: the blocks are those of the heap inside; the callers' promises are those that it wants.
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

/// Ends the process with this error, by system calls alone: the heap cannot be used.
pub(super) fn end(error: &str) -> ! {
    let (tool, code) = crate::tool::running();
    let line = [tool, ": ", error, "\n"].map(|part| IoSlice::new(part.as_bytes()));
    // An error of this write has no place to go.
    let _: rustix::io::Result<usize> = writev(stderr(), &line);
    // SAFETY: unlike exit(3), it runs nothing of this process.
    unsafe { libc::_exit(code.into()) }
}
