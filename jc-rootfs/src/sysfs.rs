//! /sys of a container, and the cgroup file systems in it, by which programs learn their limits.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{Mode, OFlags, StatFs, fstatfs, openat, stat, statfs};

use crate::dev::NOTHING_RUNS;
use crate::fscontext::{FsContext, attach, attach_below, clone_tree, new_mount, restrict_tree};
use crate::resolve::real_dir;
use crate::spec::Sys;
use crate::sys::{attr, mount_setattr, propagation};

/// Mounts sysfs and the cgroup hierarchies. Only the owner of the network namespace may have a new
/// sysfs; to others the host's is shown.
pub fn mount_sys(root: BorrowedFd<'_>, how: Sys) -> Result<()> {
    let attributes = match how {
        Sys::None => return Ok(()),
        Sys::Rw => NOTHING_RUNS,
        Sys::Ro => NOTHING_RUNS | attr::RDONLY,
    };
    let target = real_dir(root, "sys")?;
    let path = Path::new("/sys");
    match new_mount("sysfs", &[], attributes) {
        Ok(sys) => {
            attach(&sys, &target, path)?;
            mount_cgroups(&sys, attributes)
        }
        Err(error) => {
            let sys = clone_tree(path).map_err(|_| error)?;
            restrict_tree(sys.as_fd(), attributes, path)?;
            attach(&sys, &target, path)
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
    let Ok(host) = statfs(CGROUPS) else { return Ok(()) };
    let hierarchies = match magic(&host) {
        CGROUP2_SUPER_MAGIC | TMPFS_MAGIC if in_first_namespace() => present(attributes),
        CGROUP2_SUPER_MAGIC => new_mount("cgroup2", &[], attributes),
        TMPFS_MAGIC => return mount_version_1(&on(sys, "fs/cgroup")?, attributes),
        _ => return Ok(()),
    };
    // The owner of a cgroup namespace may mount its own; others are shown what is there.
    let hierarchies = hierarchies.or_else(|_| present(attributes))?;
    attach(&hierarchies, on(sys, "fs/cgroup")?, Path::new(CGROUPS))
}

/// Whether this is the cgroup namespace of the machine. A new mount of cgroup2 from there would set
/// the options of all the others, such as the host's nsdelegate (Documentation/admin-guide/cgroup-v2.rst).
fn in_first_namespace() -> bool {
    /// PROC_CGROUP_INIT_INO of Linux' proc_ns.h
    const INITIAL: u64 = 0xEFFF_FFFB;
    // What cannot be asked is taken for the machine's: to show what is there does no harm.
    stat("/proc/self/ns/cgroup").map_or(true, |stat| stat.st_ino == INITIAL)
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
    let mounted = |hierarchy: &Hierarchy<'_>| {
        hierarchy.kind == "cgroup" || Path::new(CGROUPS).join(hierarchy.directory).exists()
    };
    let hierarchies = table.lines().filter_map(Hierarchy::parse).filter(mounted);
    let mounts: Result<Vec<_>> =
        hierarchies.map(|h| Ok((h.directory, h.mount(attributes)?))).collect();
    // As above. So nothing is attached before all of them are there.
    let Ok(mounts) = mounts else {
        return attach(present(attributes)?, target, Path::new(CGROUPS));
    };
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
