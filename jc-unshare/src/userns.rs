//! The user namespace of this process (user_namespaces(7)).

use crate::error::Result;

/// Whether the user namespace of this process is the initial one, by the inode number of its file.
/// ENOENT: there is no procfs on /proc.
#[cfg(target_os = "linux")]
pub fn is_initial() -> Result<bool> {
    use crate::error::Absent;
    use crate::procfs::namespace;

    /// PROC_USER_INIT_INO of Linux' proc_ns.h
    const INITIAL: u64 = 0xEFFF_FFFD;
    match namespace("user").absent()? {
        Some(number) => Ok(number == INITIAL),
        // A kernel without user namespaces lacks the file; every kernel has that of the mount namespace.
        None => namespace("mnt").map(|_| true),
    }
}

/// Whether the user namespace of this process is the initial one: other systems have no other.
#[cfg(not(target_os = "linux"))]
pub fn is_initial() -> Result<bool> {
    Ok(true)
}
