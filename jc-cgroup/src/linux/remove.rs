//! The end of groups: the kill of their processes, the removal of their directories, and the search for groups
//! without a lock.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::descriptor::is_named;
use jc_unshare::{Absent, Context, Error, Result, cgroupfs, exists};
use rustix::fs::{CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::hierarchy::Version;

/// The longest time that the removal of a group takes, since killed processes do not end at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Removes a group that no process has locked, with its processes. An `unattended` group never has a lock, and is
/// removed only if it is empty. Returns whether the group is removed.
pub fn sweep_one(
    version: Version,
    path: &Path,
    unattended: bool,
    patience: Duration,
) -> Result<bool> {
    let directory = match File::open(path) {
        // The group belongs to another user, whose jc-cgroup removes it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        opened => opened.on("open", path).absent()?,
    };
    let Some(directory) = directory else { return Ok(true) };
    if is_locked(&directory, path)? {
        return Ok(false);
    }
    // Another process may have removed the group before the lock, and made a new one of the same name.
    if !is_named(CWD, path, &directory, path)? {
        return Ok(true);
    }
    if unattended {
        return remove_empty(path, patience);
    }
    clear(version, path, patience).map(|()| true)
}

/// Removes a group without processes. The kernel refuses the removal of one that a process joins meanwhile. Returns
/// whether the group is removed.
fn remove_empty(path: &Path, patience: Duration) -> Result<bool> {
    let give_up = Instant::now() + patience;
    while members(path)?.is_empty() {
        match remove_tree(path) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < give_up => {
                sleep(Duration::from_millis(1));
            }
            removed => return removed.on("rmdir", path).map(|()| true),
        }
    }
    Ok(false)
}

/// Whether another process has locked a group. If none has, this process locks the group.
pub fn is_locked(directory: &File, path: &Path) -> Result<bool> {
    match flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(true),
        taken => taken.on("flock", path).map(|()| false),
    }
}

/// The groups directly below a group.
pub fn children(group: &Path) -> Result<Vec<PathBuf>> {
    // A directory has two links, and one more for each directory in it.
    if fs::metadata(group).is_ok_and(|meta| meta.nlink() == 2) {
        return Ok(Vec::new());
    }
    let directory = open(group, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let Some(directory) = directory.on("open", group).absent()? else { return Ok(Vec::new()) };
    let mut children = Vec::new();
    // Each start reads each hierarchy. std::fs::read_dir would map and unmap memory each time.
    for entry in Dir::new(directory).on("read", group)? {
        // The group was removed meanwhile.
        let Some(entry) = entry.on("read", group).absent()? else { break };
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && ![&b"."[..], b".."].contains(&name) {
            children.push(group.join(OsStr::from_bytes(name)));
        }
    }
    Ok(children)
}

/// The processes of a group and of all groups below it. A threaded group (cgroups(7)) is an error, since only the
/// group above it lists its processes.
pub fn members(group: &Path) -> Result<Vec<i32>> {
    let Some(mut members) = own_members(group)? else {
        let why = "a threaded cgroup, whose processes belong to the cgroup above";
        return Err(Error::new(format_args!("{}: {why}", group.display())));
    };
    add_members_below(group, &mut members)?;
    Ok(members)
}

fn add_members_below(group: &Path, members: &mut Vec<i32>) -> Result<()> {
    for child in children(group)? {
        // The group above lists the processes of a threaded group.
        members.extend(own_members(&child)?.unwrap_or_default());
        add_members_below(&child, members)?;
    }
    Ok(())
}

/// The processes of one group, or `None` if the group is threaded. A group that was removed meanwhile has none.
fn own_members(group: &Path) -> Result<Option<Vec<i32>>> {
    let procs = group.join("cgroup.procs");
    let text = match fs::read_to_string(&procs).on("read", &procs) {
        Err(error) if error.errno() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(None),
        // ENODEV: the group was removed while the file was open.
        Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => None,
        read => read.absent()?,
    };
    let text = text.unwrap_or_default();
    Ok(Some(text.lines().filter_map(|pid| pid.parse().ok()).collect()))
}

/// Kills the processes of a group, and removes it after the groups below it. `patience` is the longest time.
pub fn clear(version: Version, path: &Path, patience: Duration) -> Result<()> {
    let give_up = Instant::now() + patience;
    // Most groups are empty.
    if fs::remove_dir(path).is_ok() {
        return Ok(());
    }
    loop {
        kill_all(version, path)?;
        match remove_tree(path) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < give_up => {
                sleep(Duration::from_millis(1));
            }
            other => return other.on("rmdir", path),
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path).map_err(|e| io::Error::other(e.to_string()))? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Kills all processes of a group: by cgroup.kill (v2, Linux 5.14), or frozen, so that no process forks meanwhile. If
/// neither is possible, the caller repeats the call until the group is empty.
pub fn kill_all(version: Version, path: &Path) -> Result<()> {
    if members(path)?.is_empty() {
        return Ok(());
    }
    let at_once = path.join("cgroup.kill");
    if version == Version::V2 && exists(&at_once)? {
        return fs::write(&at_once, "1").on("write", &at_once);
    }
    freeze(version, path, true)?;
    let members = members(path)?;
    for pid in members.iter().copied().filter_map(Pid::from_raw) {
        // The process may have ended, and the next round kills the remaining ones.
        let _: rustix::io::Result<()> = kill_process(pid, Signal::KILL);
    }
    freeze(version, path, false)?;
    // cgroup.procs has 0 for a process without a number in this PID namespace.
    if members.contains(&0) {
        let why = "it has processes of another PID namespace, which cannot be killed from here";
        return Err(Error::new(format_args!("{}: {why}", path.display())));
    }
    Ok(())
}

/// Asks the kernel to freeze or to thaw a group; false if the hierarchy has no freezer.
pub fn freeze(version: Version, path: &Path, stop: bool) -> Result<bool> {
    let (file, word) = match (version, stop) {
        (Version::V2, true) => ("cgroup.freeze", "1"),
        (Version::V2, false) => ("cgroup.freeze", "0"),
        (Version::V1, true) => ("freezer.state", "FROZEN"),
        (Version::V1, false) => ("freezer.state", "THAWED"),
    };
    let file = path.join(file);
    if !exists(&file)? {
        return Ok(false);
    }
    fs::write(&file, word).on("write", &file).map(|()| true)
}

/// Whether the last request to the group was to freeze: cgroup.freeze of v2 and freezer.self_freezing of v1 have it
/// (cgroup-v2.rst, freezer-subsystem.rst). `None`: the group is absent, or its hierarchy has no freezer.
pub fn is_asked_to_freeze(version: Version, path: &Path) -> Result<Option<bool>> {
    let file = match version {
        Version::V2 => "cgroup.freeze",
        Version::V1 => "freezer.self_freezing",
    };
    Ok(cgroupfs::read(&path.join(file))?.map(|text| text.trim_end() == "1"))
}

/// Whether every process of the group is frozen: `frozen` in cgroup.events of v2 and `freezer.state` of v1 change only then
/// (cgroup-v2.rst, freezer-subsystem.rst). `None`: the group is absent, or its hierarchy has no freezer.
pub fn is_frozen(version: Version, path: &Path) -> Result<Option<bool>> {
    let (file, line) = match version {
        Version::V2 => ("cgroup.events", "frozen 1"),
        Version::V1 => ("freezer.state", "FROZEN"),
    };
    let text = cgroupfs::read(&path.join(file))?;
    Ok(text.map(|text| text.lines().any(|found| found == line)))
}
