//! procfs, and not what somebody has mounted in its place.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    const PROC: &str = "/proc";
    let proc = open_dir(PROC)?;
    if !is_procfs(proc.as_fd())? {
        return Err(Error::new("open /proc: is not a procfs"));
    }
    let shown = Path::new(PROC).join(path);
    let mut file = open_beneath(proc.as_fd(), path, OFlags::WRONLY).on("write", &shown)?;
    file.write_all(text.as_bytes()).on("write", &shown)
}

/// Opens a setting below /proc/sys/net, which may be a mount of its own, such as a writable one in a
/// read-only /proc/sys. EXDEV: a mount lies further below, and would stand for the setting.
pub fn open_net_setting(name: &str, access: OFlags) -> Result<File> {
    const NET: &str = "/proc/sys/net";
    let net = open_dir(NET)?;
    if fstatfs(&net).on("fstatfs", NET)?.f_type != PROC_SUPER_MAGIC {
        return Err(Error::new(format_args!("open {NET}: is not in a procfs")));
    }
    open_beneath(net.as_fd(), name, access).on("open", Path::new(NET).join(name))
}

fn open_dir(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).on("open", path)
}

fn open_beneath(directory: BorrowedFd<'_>, path: &str, access: OFlags) -> io::Result<File> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(directory, path, access | OFlags::CLOEXEC, Mode::empty(), within)?.into())
}
