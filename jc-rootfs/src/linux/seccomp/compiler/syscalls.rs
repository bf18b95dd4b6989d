//! System calls and their numbers.

use super::abi::{ABIS, Abi};

/// A system call with its numbers.
#[derive(Debug, Eq, PartialEq)]
pub struct Call {
    /// The name, as in syscalls(2).
    pub name: &'static str,
    /// The number in each [`Abi`], without the bit of x32. [`NONE`] where the ABI lacks the call.
    pub numbers: [u32; ABIS],
    /// The capabilities that allow the call in the default profile, a bit each.
    pub allowed_by: u64,
    /// The number of the call that carries this one on x86 (socketcall(2), ipc(2)), and the first argument.
    pub carrier: Option<(u32, u64)>,
}

/// The number of a call that an ABI lacks.
pub const NONE: u32 = u32::MAX;

/// The first number of ARM's private system calls (`__ARM_NR_BASE`).
pub const ARM_BASE: u32 = 0xF_0000;

impl Call {
    /// The number of the call, without the bit of x32.
    pub fn number(&self, abi: Abi) -> Option<u32> {
        Some(self.numbers[abi as usize]).filter(|number| *number != NONE)
    }
}

/// Finds a system call in a table that is sorted by name.
pub fn find<'a>(table: &'a [Call], name: &str) -> Option<&'a Call> {
    let found = table.binary_search_by(|call| call.name.cmp(name));
    found.ok().map(|index| &table[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::seccomp::built::TABLE;

    #[test]
    fn the_table_has_the_numbers_of_this_machine() {
        let number = |name: &str, abi| find(&TABLE, name).unwrap().number(abi);
        assert_eq!(number("read", Abi::X86_64), Some(0));
        assert_eq!(number("execve", Abi::X86), Some(11));
        assert_eq!(number("execve", Abi::X32), Some(520));
        assert_eq!(number("execve", Abi::Aarch64), Some(221));
        assert_eq!(number("cacheflush", Abi::Arm), Some(983_042));
        assert_eq!(number("open", Abi::Aarch64), None);
        assert!(find(&TABLE, "opens").is_none());
        let native = Abi::native();
        for (name, expected) in [
            ("close", nix::libc::SYS_close),
            ("openat2", nix::libc::SYS_openat2),
            ("seccomp", nix::libc::SYS_seccomp),
            ("clone3", nix::libc::SYS_clone3),
            ("mount_setattr", nix::libc::SYS_mount_setattr),
        ] {
            assert_eq!(number(name, native).map(i64::from), Some(expected), "{name}");
        }
    }
}
