//! The heap of the programs that are built with musl.
//!
//! The heap of musl maps and unmaps memory for many of the first allocations of a program, which takes 80 µs for the
//! few hundred allocations of clap. This heap has an atomic flag in place of a mutex, which would double its time. Small
//! blocks of a start come from an arena, whose blocks cost nothing to free: a seventh of the time of a parser.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU8, Ordering};

use super::memory::end;

/// No thread uses the heap.
const FREE: u8 = 0;
/// A thread changes the heap.
const BUSY: u8 = 1;
/// A child shares the memory of this process, and must not use the heap.
const CLOSED: u8 = 2;

/// The size of the arena in bytes, which the parser of jc-unshare fills.
const ARENA: usize = 16 << 10;
/// The size of the largest block in the arena: a list that grows would leave half of the arena unused.
const SMALL: usize = 256;

/// An arena and Doug Lea's heap, behind a spin lock.
pub(crate) struct Heap {
    state: AtomicU8,
    memory: std::cell::UnsafeCell<Memory>,
}

/// The memory of a heap.
struct Memory {
    heap: dlmalloc::Dlmalloc,
    /// The addresses of the arena, and the first one after the blocks in use.
    start: usize,
    end: usize,
    free: usize,
}

impl Memory {
    fn has_in_arena(&self, block: *mut u8) -> bool {
        (self.start..self.end).contains(&(block as usize))
    }

    /// A block of the arena. `None`: the block is not small, or the arena is full.
    fn take_from_arena(&mut self, layout: Layout) -> Option<*mut u8> {
        let block = self.free.next_multiple_of(layout.align());
        let after = block + layout.size();
        (layout.size() <= SMALL && after <= self.end).then(|| {
            self.free = after;
            block as *mut u8
        })
    }

    /// Changes the size of the block, if it is the last one of the arena. Returns whether the size is the new one.
    fn resize_in_arena(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        let is_last = block as usize + old == self.free && block as usize + new <= self.end;
        if is_last {
            self.free = block as usize + new;
        }
        is_last
    }

    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is not empty.
        let other =
            |heap: &mut dlmalloc::Dlmalloc| unsafe { heap.malloc(layout.size(), layout.align()) };
        self.take_from_arena(layout).unwrap_or_else(|| other(&mut self.heap))
    }
}

// SAFETY: only the thread that has set the state to BUSY uses the memory.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap without blocks.
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU8::new(FREE),
            memory: std::cell::UnsafeCell::new(Memory {
                heap: dlmalloc::Dlmalloc::new(),
                start: 0,
                end: 0,
                free: 0,
            }),
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

    fn with<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        self.acquire(BUSY);
        // SAFETY: the state is BUSY, so no other thread uses the memory.
        let done = act(unsafe { &mut *self.memory.get() });
        self.state.store(FREE, Ordering::Release);
        done
    }

    /// Makes the arena, once. Returns its memory.
    pub(crate) fn open_arena(&self) -> (usize, usize) {
        self.with(|memory| {
            if memory.start == memory.end {
                // SAFETY: the size is not zero.
                let block = unsafe { memory.heap.malloc(ARENA, 16) } as usize;
                if block != 0 {
                    (memory.start, memory.free, memory.end) = (block, block, block + ARENA);
                }
            }
            (memory.start, memory.end - memory.start)
        })
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

// SAFETY: blocks of the arena do not overlap, and dlmalloc allocates all others.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|memory| memory.alloc(layout))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // The arena may have the bytes of a former block. SAFETY: the layout is not empty.
        self.with(|memory| unsafe { memory.heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.with(|memory| {
            if memory.has_in_arena(block) {
                memory.resize_in_arena(block, layout.size(), 0);
            } else {
                // SAFETY: the block comes from dlmalloc, with this layout.
                unsafe { memory.heap.free(block, layout.size(), layout.align()) }
            }
        });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.with(|memory| {
            if !memory.has_in_arena(block) {
                // SAFETY: the block comes from dlmalloc, with this layout.
                return unsafe { memory.heap.realloc(block, layout.size(), layout.align(), size) };
            }
            if memory.resize_in_arena(block, layout.size(), size) {
                return block;
            }
            // SAFETY: the caller guarantees that the size is not zero and fits the alignment.
            let new =
                memory.alloc(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
            if !new.is_null() {
                // SAFETY: both blocks have that many bytes, and do not overlap.
                unsafe { std::ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
            }
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_sizes_keep_their_bytes_and_do_not_overlap() {
        let heap = Heap::new();
        heap.open_arena();
        let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
        for round in 0..4000usize {
            let size = 1 + round * 7 % 300;
            let layout = Layout::from_size_align(size, 1 << (round % 5)).unwrap();
            let (byte, which) = (round as u8, round * 31 % 97);
            // SAFETY: each block is used with its own layout, and freed once.
            unsafe {
                if which < blocks.len() && round % 3 == 0 {
                    let (block, layout, _) = blocks.swap_remove(which);
                    heap.dealloc(block, layout);
                } else if which < blocks.len() && round % 3 == 1 {
                    let (block, old, byte) = blocks.swap_remove(which);
                    let new = heap.realloc(block, old, size);
                    let kept = std::slice::from_raw_parts(new, size.min(old.size()));
                    assert!(kept.iter().all(|b| *b == byte), "{round}");
                    std::ptr::write_bytes(new, byte, size);
                    blocks.push((new, Layout::from_size_align(size, old.align()).unwrap(), byte));
                } else {
                    let is_zeroed = round % 2 == 0;
                    let block =
                        if is_zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) };
                    assert_eq!(block as usize % layout.align(), 0, "{round}");
                    let bytes = std::slice::from_raw_parts_mut(block, size);
                    assert!(!is_zeroed || bytes.iter().all(|b| *b == 0), "{round}");
                    bytes.fill(byte);
                    blocks.push((block, layout, byte));
                }
            }
        }
        for (block, layout, byte) in blocks {
            // SAFETY: the block is in use, and has this layout.
            unsafe {
                let bytes = std::slice::from_raw_parts(block, layout.size());
                assert!(bytes.iter().all(|b| *b == byte));
                heap.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn the_last_block_of_the_arena_grows_in_place_and_a_freed_one_is_used_again() {
        let heap = Heap::new();
        let (start, length) = heap.open_arena();
        assert_eq!((length, heap.open_arena()), (ARENA, (start, ARENA)));
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: each block is used with its own layout.
        unsafe {
            let block = heap.alloc(layout(16));
            assert_eq!(block as usize, start);
            assert_eq!(heap.realloc(block, layout(16), 4096), block);
            heap.dealloc(block, layout(4096));
            assert_eq!(heap.alloc(layout(8)), block);
            assert!(!(start..start + ARENA).contains(&(heap.alloc(layout(SMALL + 1)) as usize)));
        }
    }
}
