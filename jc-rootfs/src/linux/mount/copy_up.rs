//! `tmpcopyup`: a copy of a directory of the root, which begins a tmpfs. The kernel's limit of the tmpfs bounds the copy.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jc_unshare::descriptor::open_at;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, mkdirat,
    mknodat, openat, readlinkat, symlinkat,
};

/// The most levels of directories.
const MAX_DEPTH: u32 = 512;

/// Copies what is in a directory. Modes, owners and symbolic links stay as they are, and no link is followed.
/// `shown` is the path in an error.
pub fn copy_up(from: &OwnedFd, to: &OwnedFd, shown: &Path) -> Result<()> {
    copy_directory(from, to, MAX_DEPTH, shown)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32, shown: &Path) -> Result<()> {
    let depth = depth.checked_sub(1).ok_or_else(|| {
        Error::new(format_args!("copy {}: more than {MAX_DEPTH} levels", shown.display()))
    })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = openat(from, ".", flags, Mode::empty()).on("open", shown)?;
    for entry in Dir::new(listed).on("read", shown)? {
        let entry = entry.on("read", shown)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, depth, shown)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32, shown: &Path) -> Result<()> {
    let source = open_at(from, name).on("open", shown)?;
    let stat = fstat(&source).on("stat", shown)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU).on("mkdir", shown)?;
            copy_directory(&source, &open_at(to, name).on("open", shown)?, depth, shown)?;
        }
        FileType::Symlink => {
            let target = readlinkat(&source, "", Vec::new()).on("readlink", shown)?;
            symlinkat(&target, to, name).on("symlink", shown)?;
        }
        FileType::RegularFile => copy_file(from, to, name, shown)?,
        _ => mknodat(to, name, kind, Mode::RUSR, stat.st_rdev).on("mknod", shown)?,
    }
    set_owner_and_mode(to, name, &stat, shown)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr, shown: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source: File = openat(from, name, flags, Mode::empty()).on("open", shown)?.into();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut copy: File = openat(to, name, flags, Mode::RUSR).on("create", shown)?.into();
    io::copy(&mut source, &mut copy).on("copy", shown).map(drop)
}

fn set_owner_and_mode(to: impl AsFd, name: &CStr, stat: &Stat, shown: &Path) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(&to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).on("chown", shown)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    chmodat(&to, name, mode, AtFlags::empty()).on("chmod", shown)
}
