//! /sys of a container, with the cgroup file systems, in which programs read their limits.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::descriptor::open_dir_at;
use jc_unshare::{Absent, Context, Error, Result, exists, procfs, userns};
use nix::libc;
use rustix::fs::{StatFs, fstatfs, statfs};

use super::fscontext::{
    FsContext, attach, attach_below, clone_mount, clone_tree, new_mount, restrict_tree,
};
use super::resolve::real_dir;
use crate::linux::args::values::Sys;
use crate::linux::sys::{attr, mount_setattr, propagation};

/// Mounts sysfs and the cgroup hierarchies. The kernel refuses a new sysfs (EPERM) to a user namespace that does
/// not own the network namespace. The mount is then a copy of the host's.
pub fn mount_sys(root: BorrowedFd<'_>, kind: Sys) -> Result<()> {
    let attributes = match kind {
        Sys::None => return Ok(()),
        Sys::Rw => attr::DATA_ONLY,
        Sys::Ro => attr::DATA_ONLY | attr::RDONLY,
    };
    let target = real_dir(root, "sys")?;
    let path = Path::new("/sys");
    match new_mount("sysfs", &[], attributes) {
        Err(error) if is_refusal(&error)? => {
            let sys = clone_tree(path)?;
            restrict_tree(sys.as_fd(), attributes, path)?;
            attach(&sys, &target, path)
        }
        made => {
            let sys = made?;
            attach(&sys, &target, path)?;
            mount_cgroups(|| open_cgroups(&sys), attributes, Extent::Hierarchy)
        }
    }
}

/// Whether the descriptor holds the root of a sysfs.
pub fn is_sysfs(fd: BorrowedFd<'_>) -> Result<bool> {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    Ok(magic(&fstatfs(fd).on("fstatfs", "/sys")?) == SYSFS_MAGIC)
}

/// The mount point of the hierarchies, on the host and in the container.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The part of the hierarchies that a mount shows if the group of this process is not the root of its cgroup namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// All groups.
    Hierarchy,
    /// The group of this process, and the groups below.
    OwnGroup,
}

/// Whether the host's hierarchies are in directories of their own, as with version 1.
pub fn is_version_1() -> Result<bool> {
    Ok(statfs(CGROUPS)
        .on("statfs", CGROUPS)
        .absent()?
        .is_some_and(|host| magic(&host) == TMPFS_MAGIC))
}

const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Mounts the hierarchies of the host on the directory that `open` opens: cgroup v2, or a directory for each hierarchy
/// of v1. The mounts begin at the root of the cgroup namespace (cgroup_namespaces(7)).
pub fn mount_cgroups(
    open: impl FnOnce() -> Result<OwnedFd>,
    attributes: u64,
    extent: Extent,
) -> Result<()> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let Some(host) = statfs(CGROUPS).on("statfs", CGROUPS).absent()? else { return Ok(()) };
    let hierarchies = match magic(&host) {
        CGROUP2_SUPER_MAGIC if extent == Extent::OwnGroup => {
            let table = read_groups()?;
            let own = table.lines().filter_map(Hierarchy::parse).find(|own| own.kind == "cgroup2");
            let own = own.ok_or_else(|| Error::new("/proc/self/cgroup: has no cgroup2"))?;
            own.mount_own(Path::new(CGROUPS), attributes)?
        }
        TMPFS_MAGIC if extent == Extent::OwnGroup => {
            return mount_version_1(&open()?, attributes, true);
        }
        CGROUP2_SUPER_MAGIC | TMPFS_MAGIC if in_initial_namespace()? => clone_cgroups(attributes)?,
        CGROUP2_SUPER_MAGIC => match new_mount("cgroup2", &[], attributes) {
            Err(error) if is_refusal(&error)? => clone_cgroups(attributes)?,
            made => made?,
        },
        TMPFS_MAGIC => return mount_version_1(&open()?, attributes, false),
        _ => return Ok(()),
    };
    attach(&hierarchies, open()?, Path::new(CGROUPS))
}

/// Opens the directory of a new sysfs on which the hierarchies are mounted.
fn open_cgroups(sys: &OwnedFd) -> Result<OwnedFd> {
    open_dir_at(sys, "fs/cgroup").on("open", CGROUPS)
}

/// Whether this process is in the initial cgroup namespace. A new mount of cgroup2 in that namespace would
/// change the options of the host's mount, such as nsdelegate (Linux' admin-guide/cgroup-v2.rst).
fn in_initial_namespace() -> Result<bool> {
    /// PROC_CGROUP_INIT_INO of Linux' proc_ns.h
    const INITIAL: u64 = 0xEFFF_FFFB;
    Ok(procfs::namespace("cgroup")? == INITIAL)
}

/// Whether the kernel refuses a mount because the user namespace does not own the namespace that the mount would
/// show (EPERM). The initial user namespace owns all others.
fn is_refusal(error: &Error) -> Result<bool> {
    Ok(error.errno() == Some(libc::EPERM) && !userns::is_initial()?)
}

fn clone_cgroups(attributes: u64) -> Result<OwnedFd> {
    let tree = clone_tree(Path::new(CGROUPS))?;
    restrict_tree(tree.as_fd(), attributes, Path::new(CGROUPS))?;
    Ok(tree)
}

fn read_groups() -> Result<String> {
    let path = Path::new("/proc/self/cgroup");
    fs::read_to_string(path).on("read", path)
}

/// Mounts a tmpfs with a directory for each hierarchy (cgroups(7), "Mounting v1 controllers"). If `is_own`, the mounts
/// begin at the groups of this process.
fn mount_version_1(target: &OwnedFd, attributes: u64, is_own: bool) -> Result<()> {
    let table = read_groups()?;
    // A refusal concerns all hierarchies, so none is attached before the kernel has made all mounts.
    let mut mounts = Vec::new();
    for hierarchy in table.lines().filter_map(Hierarchy::parse) {
        let (kind, directory) = (hierarchy.kind, hierarchy.directory);
        if kind == "cgroup2" && !exists(Path::new(CGROUPS).join(directory))? {
            continue;
        }
        let made = if is_own {
            hierarchy.mount_own(&Path::new(CGROUPS).join(directory), attributes)
        } else {
            hierarchy.mount(attributes)
        };
        match made {
            Err(error) if is_refusal(&error)? => {
                return attach(clone_cgroups(attributes)?, target, Path::new(CGROUPS));
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
    /// The group of this process.
    group: &'a str,
}

impl<'a> Hierarchy<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        Some(match (number, controllers.strip_prefix("name=")) {
            ("0", _) => Self { kind: "cgroup2", directory: "unified", controllers, group },
            (_, Some(directory)) => Self { kind: "cgroup", directory, controllers, group },
            (_, None) => Self { kind: "cgroup", directory: controllers, controllers, group },
        })
    }

    /// Creates a mount that begins at the group of this process, whose hierarchy the host has at `mount`: a copy of the
    /// host's, or a new one at the root of a cgroup namespace.
    fn mount_own(&self, mount: &Path, attributes: u64) -> Result<OwnedFd> {
        if self.group == "/" && !in_initial_namespace()? {
            return self.mount(attributes);
        }
        let group = mount.join(self.group.trim_start_matches('/'));
        let tree = clone_mount(&group, false)?;
        mount_setattr(tree.as_fd(), attributes, propagation::PRIVATE, false)
            .on("mount_setattr", group)?;
        Ok(tree)
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

fn magic(stat: &StatFs) -> u64 {
    stat.f_type as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_of_version_1_has_the_directory_of_its_controllers_or_name() {
        for (line, kind, directory, (controllers, group)) in [
            ("12:cpu,cpuacct:/a:b", "cgroup", "cpu,cpuacct", ("cpu,cpuacct", "/a:b")),
            ("1:name=systemd:/", "cgroup", "systemd", ("name=systemd", "/")),
            ("0::/x", "cgroup2", "unified", ("", "/x")),
        ] {
            let expected = Hierarchy { kind, directory, controllers, group };
            assert_eq!(Hierarchy::parse(line), Some(expected), "{line}");
        }
        assert_eq!(Hierarchy::parse("garbage"), None);
    }
}
