//! Files of the procfs at /proc (proc(5)).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, openat2, stat,
};
use rustix::io::Errno;

use super::sys;
use crate::descriptor::open_dir_at;
use crate::error::{Context, Error, Result};

/// Whether the descriptor is the root directory of a procfs. The root of a payload may have any directory at
/// /proc.
pub fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool> {
    /// PROC_ROOT_INO of Linux' proc_fs.h
    const ROOT: u64 = 1;
    let kind = fstatfs(fd).on("fstatfs", "/proc")?.f_type;
    Ok(kind == PROC_SUPER_MAGIC && fstat(fd).on("stat", "/proc")?.st_ino == ROOT)
}

/// The value of a field of `/proc/self/status`. `None` if the kernel does not write the field. ENOENT: no
/// procfs is mounted at /proc.
pub fn status(field: &str) -> Result<Option<String>> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).on("read", path)?;
    let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned());
    Ok(text.lines().find_map(value))
}

/// The inode number of `/proc/self/ns/NAME`, which identifies the namespace (namespaces(7)). ENOENT: no
/// procfs is mounted at /proc, or the kernel lacks this kind of namespace.
pub fn namespace(name: &str) -> Result<u64> {
    let path = format!("/proc/self/ns/{name}");
    Ok(stat(path.as_str()).on("stat", &path)?.st_ino)
}

/// Whether the user namespace of this process owns its namespace of that name in /proc/PID/ns.
pub fn owns(name: &str) -> Result<bool> {
    let own = format!("/proc/self/ns/{name}");
    let own = File::open(&own).on("open", &own)?;
    // EPERM: the owner is a user namespace that this process may not open.
    match sys::owner(own.as_fd()) {
        Err(e) if e.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(false),
        owner => {
            let owner = fstat(owner.op("ioctl NS_GET_USERNS")?).op("fstat")?;
            Ok(owner.st_ino == namespace("user")?)
        }
    }
}

/// Writes to a file of a process, by its path below /proc. EXDEV: something is mounted over the file or a
/// directory above it, and would receive the text (CVE-2025-52881).
pub fn write(path: &str, text: &str) -> Result<()> {
    const PROC: &str = "/proc";
    let proc = open_dir_at(CWD, PROC).on("open", PROC)?;
    if !is_procfs(proc.as_fd())? {
        return Err(Error::new("open /proc: is not a procfs").hint("mount -t proc proc /proc"));
    }
    let shown = Path::new(PROC).join(path);
    let mut file = open_beneath(proc.as_fd(), path, OFlags::WRONLY).on("write", &shown)?;
    file.write_all(text.as_bytes()).on("write", &shown)
}

/// Opens a setting below /proc/sys/net. The directory itself may be a mount, such as a writable one in a
/// read-only /proc/sys. EXDEV: something is mounted further below, and would be opened in place of the setting.
pub fn open_net_setting(name: &str, access: OFlags) -> Result<File> {
    const NET: &str = "/proc/sys/net";
    let net = open_dir_at(CWD, NET).on("open", NET)?;
    if fstatfs(&net).on("fstatfs", NET)?.f_type != PROC_SUPER_MAGIC {
        return Err(Error::new(format_args!("open {NET}: is not in a procfs")));
    }
    open_beneath(net.as_fd(), name, access).on("open", Path::new(NET).join(name))
}

fn open_beneath(directory: BorrowedFd<'_>, path: &str, access: OFlags) -> io::Result<File> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(directory, path, access | OFlags::CLOEXEC, Mode::empty(), within)?.into())
}
