//! The limits that can be asked for, and the files that hold them in either version.

use std::fs;
use std::path::Path;

use jc_unshare::{Context, Error, Result};

use crate::hierarchy::Version;

/// A limit, and its amount.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Memory and swap together, in bytes.
    Memory(u64),
    /// Processes and threads.
    Pids(u64),
}

impl Limit {
    /// The controller that enforces it.
    pub fn controller(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Pids(_) => "pids",
        }
    }

    /// Writes the limit into the group `directory` and makes sure that the kernel took it.
    pub fn apply(self, version: Version, directory: &Path) -> Result<()> {
        match (self, version) {
            (Self::Memory(bytes), Version::V2) => {
                set(&directory.join("memory.max"), whole_pages(bytes))?;
                swap(&directory.join("memory.swap.max"), 0)
            }
            (Self::Memory(bytes), Version::V1) => {
                let bytes = whole_pages(bytes);
                set(&directory.join("memory.limit_in_bytes"), bytes)?;
                swap(&directory.join("memory.memsw.limit_in_bytes"), bytes)
            }
            (Self::Pids(count), _) => set(&directory.join("pids.max"), count),
        }
    }
}

/// The kernel rounds down to pages.
fn whole_pages(bytes: u64) -> u64 {
    bytes - bytes % rustix::param::page_size() as u64
}

/// Limits swap. A kernel that does not count swap has no such file, and without any swap on the
/// machine needs none.
fn swap(path: &Path, value: u64) -> Result<()> {
    if path.exists() {
        return set(path, value);
    }
    let swaps = fs::read_to_string("/proc/swaps").on("read", "/proc/swaps")?;
    match swaps.lines().count() {
        0 | 1 => Ok(()),
        _ => Err(Error::new("limit memory: this kernel does not count swap, and swap is in use")
            .hint("boot with swapaccount=1, or swapoff -a")),
    }
}

fn set(path: &Path, value: u64) -> Result<()> {
    fs::write(path, value.to_string()).on("write", path)?;
    let held = fs::read_to_string(path).on("read", path)?;
    if held.trim() == value.to_string() {
        return Ok(());
    }
    let (path, held) = (path.display(), held.trim());
    Err(Error::new(format_args!("write {path}: asked for {value}, the kernel holds {held}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_the_kernel_changes_is_an_error() {
        let full = Path::new("/dev/null"); // takes everything, holds nothing
        let error = set(full, 5).unwrap_err().to_string();
        assert_eq!(error, "write /dev/null: asked for 5, the kernel holds ");
    }

    #[test]
    fn memory_is_counted_in_pages() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(whole_pages(page * 3 + 1), page * 3);
    }
}
