//! procfs, and not what somebody has mounted in its place.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, openat, openat2,
};

use crate::error::{Context, Error, Result};

/// Whether the descriptor holds the root of a procfs, and not what somebody put in its place.
pub fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool> {
    /// PROC_ROOT_INO of Linux' proc_fs.h
    const ROOT: u64 = 1;
    let kind = fstatfs(fd).on("fstatfs", "/proc")?.f_type;
    Ok(kind == PROC_SUPER_MAGIC && fstat(fd).on("stat", "/proc")?.st_ino == ROOT)
}

/// Writes to a file of a process, by its path below /proc. EXDEV: something is mounted over the file or a
/// directory above it, and would get the text instead (CVE-2025-52881).
pub fn write(path: &str, text: &str) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = openat(CWD, "/proc", flags, Mode::empty()).on("open", "/proc")?;
    if !is_procfs(proc.as_fd())? {
        return Err(Error::new("open /proc: is not a procfs"));
    }
    let shown = Path::new("/proc").join(path);
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), within);
    File::from(file.on("write", &shown)?).write_all(text.as_bytes()).on("write", &shown)
}
