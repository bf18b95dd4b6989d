//! /sys of a container, and the cgroup file systems in it, by which programs learn their limits.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Absent, Context, Error, Result, exists};
use nix::libc;
use rustix::fs::{Mode, OFlags, StatFs, fstatfs, openat, statfs};

use super::dev::NOTHING_RUNS;
use super::fscontext::{FsContext, attach, attach_below, clone_tree, new_mount, restrict_tree};
use super::resolve::real_dir;
use crate::linux::args::values::Sys;
use crate::linux::sys::{attr, mount_setattr, propagation};
use crate::linux::userns;

/// Mounts sysfs and the cgroup hierarchies. The kernel refuses a new sysfs (EPERM) to a user namespace
/// that does not own the network namespace: the payload then sees the host's.
pub fn mount_sys(root: BorrowedFd<'_>, how: Sys) -> Result<()> {
    let attributes = match how {
        Sys::None => return Ok(()),
        Sys::Rw => NOTHING_RUNS,
        Sys::Ro => NOTHING_RUNS | attr::RDONLY,
    };
    let target = real_dir(root, "sys")?;
    let path = Path::new("/sys");
    match new_mount("sysfs", &[], attributes) {
        Err(error) if is_refusal(&error) => {
            let sys = clone_tree(path)?;
            restrict_tree(sys.as_fd(), attributes, path)?;
            attach(&sys, &target, path)
        }
        made => {
            let sys = made?;
            attach(&sys, &target, path)?;
            mount_cgroups(&sys, attributes)
        }
    }
}

/// Whether the descriptor holds the root of a sysfs.
pub fn is_sysfs(fd: BorrowedFd<'_>) -> Result<bool> {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    Ok(magic(&fstatfs(fd).on("fstatfs", "/sys")?) == SYSFS_MAGIC)
}

/// Where the host has the hierarchies, and so will the container.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts on a new sysfs what the host has at the same place: one hierarchy, or one of version 1 a
/// directory. Each shows what the cgroup namespace shows.
fn mount_cgroups(sys: &OwnedFd, attributes: u64) -> Result<()> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let Some(host) = statfs(CGROUPS).on("statfs", CGROUPS).absent()? else { return Ok(()) };
    let hierarchies = match magic(&host) {
        CGROUP2_SUPER_MAGIC | TMPFS_MAGIC if in_initial_namespace()? => present(attributes)?,
        CGROUP2_SUPER_MAGIC => match new_mount("cgroup2", &[], attributes) {
            Err(error) if is_refusal(&error) => present(attributes)?,
            made => made?,
        },
        TMPFS_MAGIC => return mount_version_1(&on(sys, "fs/cgroup")?, attributes),
        _ => return Ok(()),
    };
    attach(&hierarchies, on(sys, "fs/cgroup")?, Path::new(CGROUPS))
}

/// Whether this is the initial cgroup namespace. A new mount of cgroup2 in that namespace would set
/// the options of all others, such as the host's nsdelegate (Documentation/admin-guide/cgroup-v2.rst).
fn in_initial_namespace() -> Result<bool> {
    /// PROC_CGROUP_INIT_INO of Linux' proc_ns.h
    const INITIAL: u64 = 0xEFFF_FFFB;
    Ok(userns::number("cgroup")? == INITIAL)
}

/// Whether the kernel has refused a mount to a process whose user namespace does not own the namespace
/// that the mount shows (EPERM). The host's own mount is then the only one that this process can show.
fn is_refusal(error: &Error) -> bool {
    error.errno() == Some(libc::EPERM)
}

fn present(attributes: u64) -> Result<OwnedFd> {
    let tree = clone_tree(Path::new(CGROUPS))?;
    restrict_tree(tree.as_fd(), attributes, Path::new(CGROUPS))?;
    Ok(tree)
}

/// A tmpfs with a directory for each hierarchy, as cgroups(7) describes it.
fn mount_version_1(target: &OwnedFd, attributes: u64) -> Result<()> {
    let path = Path::new("/proc/self/cgroup");
    let table = fs::read_to_string(path).on("read", path)?;
    // All hierarchies are mounted before any is attached: a refusal concerns all of them.
    let mut mounts = Vec::new();
    for hierarchy in table.lines().filter_map(Hierarchy::parse) {
        let (kind, directory) = (hierarchy.kind, hierarchy.directory);
        if kind == "cgroup2" && !exists(Path::new(CGROUPS).join(directory))? {
            continue;
        }
        match hierarchy.mount(attributes) {
            Err(error) if is_refusal(&error) => {
                return attach(present(attributes)?, target, Path::new(CGROUPS));
            }
            made => mounts.push((directory, made?)),
        }
    }
    let writable = attributes & !attr::RDONLY;
    let tmpfs = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], writable)?;
    attach(&tmpfs, target, Path::new(CGROUPS))?;
    for (directory, mount) in mounts {
        let shown = Path::new(CGROUPS).join(directory);
        attach_below(&mount, &tmpfs, directory, &shown)?;
    }
    mount_setattr(tmpfs.as_fd(), attributes, propagation::KEEP, false).on("mount_setattr", CGROUPS)
}

/// A line of /proc/self/cgroup (cgroups(7)).
#[cfg_attr(test, derive(Debug, Eq, PartialEq))]
struct Hierarchy<'a> {
    kind: &'static str,
    directory: &'a str,
    controllers: &'a str,
}

impl<'a> Hierarchy<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, _) = rest.split_once(':')?;
        Some(match (number, controllers.strip_prefix("name=")) {
            ("0", _) => Self { kind: "cgroup2", directory: "unified", controllers },
            (_, Some(directory)) => Self { kind: "cgroup", directory, controllers },
            (_, None) => Self { kind: "cgroup", directory: controllers, controllers },
        })
    }

    fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        let context = FsContext::open(self.kind)?;
        for controller in self.controllers.split(',').filter(|word| !word.is_empty()) {
            match controller.split_once('=') {
                Some((key, value)) => context.set(key, value)?,
                None => context.set_flag(controller)?,
            }
        }
        context.mount(attributes)
    }
}

/// The directory of a file system that the kernel or this process has just filled.
fn on(mount: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(mount, name, flags, Mode::empty()).on("open", Path::new(CGROUPS).join(name))
}

fn magic(stat: &StatFs) -> u64 {
    stat.f_type as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies() {
        for (line, kind, directory, controllers) in [
            ("12:cpu,cpuacct:/a:b", "cgroup", "cpu,cpuacct", "cpu,cpuacct"),
            ("1:name=systemd:/", "cgroup", "systemd", "name=systemd"),
            ("0::/x", "cgroup2", "unified", ""),
        ] {
            let expected = Hierarchy { kind, directory, controllers };
            assert_eq!(Hierarchy::parse(line), Some(expected), "{line}");
        }
        assert_eq!(Hierarchy::parse("garbage"), None);
    }
}
