//! The parent directory of a new group in a hierarchy: `--parent`, or the nearest ancestor of the caller's own group that
//! is delegated to the caller and can hold the group, or for root the top.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use jc_unshare::descriptor::open_dir;
use jc_unshare::program::Step;
use jc_unshare::{Absent, Context, Error, Result, userns};
use rustix::fs::{Access, access, getxattr};
use rustix::io::Errno;

use super::hierarchy::{Hierarchy, Version, is_cgroup};

/// Checks a path from the top of a hierarchy: without `..` it stays in the hierarchy, since the file system of cgroups
/// has no symbolic links.
pub fn below_top(word: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(word);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("a path from the top of the hierarchy has no \"..\"".to_owned());
    }
    Ok(path)
}

/// An absolute path like that of [`below_top`], which is not the top itself.
pub fn absolute(word: &str) -> std::result::Result<PathBuf, String> {
    let path = below_top(word)?;
    if path.is_absolute() && path.parent().is_some() {
        Ok(path)
    } else {
        Err("not a path like /a/b from the top of the hierarchies".to_owned())
    }
}

/// The directory of a new group that needs these controllers: the nearest of [`parents`] that can hold it.
///
/// A v2 group that holds processes cannot limit groups below it (cgroups(7), "no internal processes"). With `evacuate` the
/// nearest directory is used in any case. A new group does not escape a limit of the caller's groups that has the same kind:
/// on v1, where a group can hold both, root makes the new one in the caller's own.
pub fn parent(
    hierarchy: &Hierarchy,
    chosen: Option<&Path>,
    controllers: &[&str],
    evacuate: bool,
) -> Result<PathBuf> {
    let parents = parents(hierarchy, chosen)?;
    let nearest = parents.first().ok_or_else(|| match chosen {
        // No process would remove a directory that this one made here.
        Some(path) => {
            let path = below(&hierarchy.mount, path);
            Error::new(format_args!("--parent {}: no such cgroup", path.display()))
                .hint("mkdir makes it, in each hierarchy that is used")
        }
        None => not_delegated(&hierarchy.own),
    })?;
    let is_free = controllers.is_empty() || evacuate && hierarchy.version == Version::V2;
    if is_free || chosen.is_some() {
        return Ok(nearest.clone());
    }
    for group in hierarchy.own.ancestors() {
        let is_parent = parents.iter().any(|parent| parent == group);
        if is_parent && can_limit(hierarchy, group)? {
            return Ok(group.to_path_buf());
        }
        if group == hierarchy.mount {
            break;
        }
        if has_limit(hierarchy, group, controllers)? {
            if nearest.starts_with(group) {
                break;
            }
            if hierarchy.version == Version::V1 && rustix::process::geteuid().is_root() {
                return Ok(hierarchy.own.clone());
            }
            let (group, nearest) = (group.display(), nearest.display());
            let text =
                format_args!("cgroup {group}: its limit would not hold for a group in {nearest}");
            let own = hierarchy.own.strip_prefix(&hierarchy.mount).unwrap_or(&hierarchy.own);
            let own = own.display();
            return Err(Error::new(text).hint(format_args!(
                "--parent {own} (of jc-run: --cgroup-parent {own}) makes it below, where the limit holds"
            )));
        }
    }
    Ok(nearest.clone())
}

/// The directories below which this process makes groups, the nearest to its own group first: `chosen`, else the ancestors
/// that are delegated to it, and for root the top of the hierarchy. The list is empty where the hierarchy has none.
pub fn parents(hierarchy: &Hierarchy, chosen: Option<&Path>) -> Result<Vec<PathBuf>> {
    if let Some(path) = chosen {
        let path = below(&hierarchy.mount, path);
        return match open_dir(&path).absent()? {
            Some(directory) if !is_cgroup(&directory, hierarchy.version) => {
                Err(Error::new(format_args!("--parent {}: not a cgroup", path.display())))
            }
            found => Ok(found.map(|_| path).into_iter().collect()),
        };
    }
    let is_root = rustix::process::geteuid().is_root();
    let mut parents = Vec::new();
    let ancestors = hierarchy.own.ancestors();
    for path in ancestors.take_while(|path| path.starts_with(&hierarchy.mount)) {
        let is_delegated = if is_root {
            hierarchy.version == Version::V2 && is_roots(&hierarchy.mount, path)?
        } else {
            is_writable(path, hierarchy.version)?
        };
        if is_delegated {
            parents.push(path.to_path_buf());
        }
    }
    if is_root && parents.last() != Some(&hierarchy.mount) {
        parents.push(hierarchy.mount.clone());
    }
    Ok(parents)
}

/// Whether groups below this group can have limits and processes. On v1 they always can.
fn can_limit(hierarchy: &Hierarchy, group: &Path) -> Result<bool> {
    let is_free = hierarchy.version == Version::V1 || group == hierarchy.mount;
    Ok(is_free || is_empty(group)?)
}

/// Whether a v2 group holds no processes.
fn is_empty(group: &Path) -> Result<bool> {
    let members = group.join("cgroup.procs");
    match fs::read(&members) {
        // A threaded group does not list its processes.
        Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(false),
        members_of_group => Ok(members_of_group.on("read", &members)?.is_empty()),
    }
}

/// Whether a group has a limit of one of these controllers.
fn has_limit(hierarchy: &Hierarchy, group: &Path, controllers: &[&str]) -> Result<bool> {
    let limits: &[(&str, &str)] = match hierarchy.version {
        Version::V1 => &LIMITS_OF_V1,
        Version::V2 => &LIMITS,
    };
    // The group lacks the file if the controller is not enabled for it.
    let read = |path: PathBuf| fs::read_to_string(&path).on("read", &path).absent();
    for (_, file) in limits.iter().filter(|(name, _)| controllers.contains(name)) {
        let value = read(group.join(file))?.unwrap_or_default();
        let is_set_always = hierarchy.version == Version::V1 && *file == "cpuset.cpus";
        let is_limit = if is_set_always {
            read(hierarchy.mount.join(file))?.is_some_and(|all| all != value)
        } else {
            !is_unlimited(value.trim())
        };
        if is_limit {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the text of a file stands for no limit. The memory controller of v1 has the largest number of bytes in whole
/// pages.
fn is_unlimited(value: &str) -> bool {
    const UNLIMITED: u64 = 1 << 62;
    value.is_empty()
        || value == "-1"
        || value.starts_with("max")
        || value.parse::<u64>().is_ok_and(|number| number >= UNLIMITED)
}

/// The files of v2 controllers that limit a group, and start with `max` or are empty without a limit.
const LIMITS: [(&str, &str); 7] = [
    ("memory", "memory.max"),
    ("memory", "memory.high"),
    ("memory", "memory.swap.max"),
    ("pids", "pids.max"),
    ("cpu", "cpu.max"),
    ("cpuset", "cpuset.cpus"),
    ("io", "io.max"),
];

/// The files of v1 controllers that limit a group.
const LIMITS_OF_V1: [(&str, &str); 7] = [
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("pids", "pids.max"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpuset", "cpuset.cpus"),
    ("blkio", "blkio.throttle.read_bps_device"),
    ("blkio", "blkio.throttle.write_bps_device"),
];

/// The directory of a path from the top of a hierarchy.
pub fn below(mount: &Path, path: &Path) -> PathBuf {
    mount.join(path.strip_prefix("/").unwrap_or(path))
}

fn not_delegated(own: &Path) -> Error {
    Error::new(format_args!("cgroup {}: not delegated to this user", own.display()))
        .hint("systemd-run --user --scope -p Delegate=yes -- jc-cgroup ... delegates one")
}

/// Whether a manager has delegated the v2 group to root (systemd's "Delegate="). Only root sets trusted.delegate. A
/// group of another user, and each group below it, is not delegated to root, since that user can move and
/// stop its processes. In a user namespace, trusted attributes are not visible (xattr(7)), and the root of
/// the namespace owns a delegated group.
fn is_roots(mount: &Path, group: &Path) -> Result<bool> {
    if is_marked(group, "trusted.delegate")? {
        for path in group.ancestors().take_while(|path| path.starts_with(mount)) {
            if !is_owned_by_root(path)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    Ok(is_marked(group, "user.delegate")? && is_owned_by_root(group)? && !userns::is_initial()?)
}

fn is_owned_by_root(path: &Path) -> Result<bool> {
    Ok(fs::metadata(path).on("stat", path)?.uid() == 0)
}

fn is_marked(path: &Path, name: &str) -> Result<bool> {
    let mut value = [0; 8];
    match getxattr(path, name, &mut value) {
        Ok(length) => Ok(value[..length] == *b"1"),
        // A longer value, no such attribute, or a group that no longer exists.
        Err(Errno::RANGE | Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(false),
        Err(error) => Err(error).on("getxattr", path),
    }
}

fn is_writable(path: &Path, version: Version) -> Result<bool> {
    let files: &[&str] = match version {
        Version::V2 => &[".", "cgroup.procs", "cgroup.subtree_control"],
        Version::V1 => &["."],
    };
    for file in files {
        if !may_write(&path.join(file))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether this process may write to a file or directory of a hierarchy, if it exists.
pub fn may_write(path: &Path) -> Result<bool> {
    match access(path, Access::WRITE_OK) {
        Err(Errno::ACCESS | Errno::ROFS) => Ok(false),
        other => Ok(other.on("access", path).absent()?.is_some()),
    }
}

/// Enables these controllers of a v2 hierarchy for groups below `group`, in its ancestors first. With `evacuate`,
/// processes of this user that prevent that move to a leaf group. Without controllers nothing changes.
pub fn enable(mount: &Path, group: &Path, controllers: &[&str], evacuate: bool) -> Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let missing = not_in(&group.join("cgroup.controllers"), controllers)?;
    if let Some(name) = missing.first() {
        match group.parent() {
            Some(parent) if group != mount => enable(mount, parent, &missing, evacuate)?,
            _ => return Err(not_available(name, group)),
        }
    }
    let control = group.join("cgroup.subtree_control");
    let missing = not_in(&control, controllers)?;
    let is_free = group == mount || is_empty(group)?;
    if missing.is_empty() && is_free {
        return Ok(());
    }
    let words: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    // The kernel enables threaded controllers, as pids is, in a group that holds processes, but then no process can enter
    // the groups below it (cgroups(7)).
    let enabled =
        if is_free { fs::write(&control, words.join(" ")) } else { Err(Errno::BUSY.into()) };
    match enabled {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy && evacuate => {
            evacuate_to_leaf(group)?;
            fs::write(&control, words.join(" ")).on("write", &control)
        }
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            let error = Err::<(), _>(e).on("write", &control);
            error.map_err(|e| {
                e.hint(
                    "a cgroup that holds processes cannot limit others below it: \
                        --evacuate moves them to a leaf, --parent chooses another",
                )
            })
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let error = Err::<(), _>(e).on("write", &control);
            error.map_err(|e| e.hint(format_args!("{} is not delegated", missing.join(", "))))
        }
        other => other.on("write", &control),
    }
}

fn not_available(name: &str, group: &Path) -> Error {
    Error::new(format_args!("cgroup controller {name}: not available in {}", group.display()))
        .hint("the manager of the parent group has not delegated it")
}

/// The controllers that are not in the file.
fn not_in<'a>(file: &Path, controllers: &[&'a str]) -> Result<Vec<&'a str>> {
    let text = fs::read_to_string(file).on("read", file)?;
    let has = |name: &str| text.split_whitespace().any(|known| known == name);
    Ok(controllers.iter().copied().filter(|name| !has(name)).collect())
}

/// Moves the processes of a group to a leaf group below it.
fn evacuate_to_leaf(group: &Path) -> Result<()> {
    let leaf = group.join("jc-evacuated");
    make_dir(&leaf)?;
    let (from, to) = (group.join("cgroup.procs"), leaf.join("cgroup.procs"));
    for pid in fs::read_to_string(&from).on("read", &from)?.lines() {
        match fs::write(&to, pid) {
            Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            moved => moved.on(&format!("move process {pid} to"), &leaf)?,
        }
    }
    Ok(())
}

/// Makes a group's directory. An existing directory is no error.
fn make_dir(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.on("mkdir", path),
    }
}

/// Moves this process, which must have one thread, into a group.
pub fn enter(version: Version, group: &Path) -> Result<()> {
    let file = members(version, group);
    fs::write(&file, SELF).on("write", &file).map_err(|error| {
        match error.errno().map(Errno::from_raw_os_error) {
            // The user must also own a group above this process and the target (cgroups(7), "Cgroup delegation").
            Some(Errno::ACCESS) if version == Version::V2 => error.hint(
                "a user moves processes only within a delegated group: systemd-run --user --scope -- jc-exec ... \
                 starts in that of the user",
            ),
            _ => error,
        }
    })
}

/// A step that moves a child into a group.
pub fn step_into(version: Version, group: &Path) -> Result<Step> {
    let path = members(version, group);
    let file = File::options().write(true).open(&path).on("open", &path)?;
    Ok(Step::write(file.into(), SELF, &path))
}

/// The PID by which a process names itself in a write to the file.
const SELF: &str = "0";

/// The file that moves the process of a written PID into the group. In version 1 the file moves one thread, since
/// the kernel may wait for an RCU grace period to move a whole process.
fn members(version: Version, group: &Path) -> PathBuf {
    group.join(match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.procs",
    })
}

/// Copies CPUs and memory nodes from the parent group, since a new v1 cpuset without them accepts no process.
pub fn inherit_cpuset(group: &Path) -> Result<()> {
    let Some(parent) = group.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = group.join(file);
        let own = fs::read(&path).on("read", &path)?;
        if own.as_slice().trim_ascii().is_empty() {
            let above = parent.join(file);
            let value = fs::read(&above).on("read", &above)?;
            let value = std::ffi::OsStr::from_bytes(value.as_slice().trim_ascii()).to_owned();
            fs::write(&path, value.as_bytes()).on("write", &path)?;
        }
    }
    Ok(())
}
