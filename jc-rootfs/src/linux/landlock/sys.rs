//! System calls of Landlock (landlock(7)), which nix and rustix lack.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc::{self, c_int, c_long, c_void};

/// `struct landlock_ruleset_attr`: the rights that a ruleset denies unless a rule allows them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Handled {
    pub files: u64,
    pub tcp: u64,
    pub scopes: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    rights: u64,
    parent: c_int,
}

#[repr(C)]
struct NetPort {
    rights: u64,
    port: u64,
}

const RULE_PATH_BENEATH: c_int = 1;
const RULE_NET_PORT: c_int = 2;
const CREATE_RULESET_VERSION: c_int = 1;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The version of the kernel's interface. ENOSYS: the kernel lacks Landlock. EOPNOTSUPP: Landlock is disabled.
pub fn version() -> io::Result<u32> {
    let none = std::ptr::null::<c_void>();
    // SAFETY: this form of the call takes no memory.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION)
    };
    check(version).map(|version| version as u32)
}

/// Makes a ruleset without rules. E2BIG: the kernel does not know one of the rights.
pub fn create_ruleset(handled: Handled) -> io::Result<OwnedFd> {
    let size = size_of::<Handled>();
    // SAFETY: the kernel reads `size` bytes of the structure.
    let fd =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size, 0) };
    // SAFETY: the descriptor is new, so it has no other owner.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Allows rights for a file, or for a directory and all files beneath.
pub fn allow_beneath(
    ruleset: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    rights: u64,
) -> io::Result<()> {
    let rule = PathBeneath { rights, parent: parent.as_raw_fd() };
    add_rule(ruleset, RULE_PATH_BENEATH, (&raw const rule).cast())
}

/// Allows rights for a port of TCP.
pub fn allow_port(ruleset: BorrowedFd<'_>, port: u16, rights: u64) -> io::Result<()> {
    let rule = NetPort { rights, port: port.into() };
    add_rule(ruleset, RULE_NET_PORT, (&raw const rule).cast())
}

fn add_rule(ruleset: BorrowedFd<'_>, kind: c_int, rule: *const c_void) -> io::Result<()> {
    // SAFETY: the callers pass a rule of the kind, which the kernel reads.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0) })
        .map(drop)
}

/// Restricts this process for ever. EPERM: the process has neither no_new_privs nor CAP_SYS_ADMIN.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes no memory.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
