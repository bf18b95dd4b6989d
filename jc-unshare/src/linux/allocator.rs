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
