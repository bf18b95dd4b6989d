//! The allocator of the programs.

use super::sys;

#[cfg(target_env = "musl")]
#[global_allocator]
pub static HEAP: sys::memory::Checked<sys::heap::Heap> =
    sys::memory::Checked(sys::heap::Heap::new());

#[cfg(not(target_env = "musl"))]
#[global_allocator]
pub static HEAP: sys::memory::Checked<std::alloc::System> =
    sys::memory::Checked(std::alloc::System);

/// The address and the length of the heap's arena. Other heaps than that of musl have none.
pub fn arena() -> (usize, usize) {
    #[cfg(target_env = "musl")]
    return HEAP.0.open_arena();
    #[cfg(not(target_env = "musl"))]
    (0, 0)
}
