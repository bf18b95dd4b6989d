//! Confinement of a program without jc-rootfs: a user namespace of its own, mounts over the sockets of the
//! host's resolvers, and a filter of system calls.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;

use jc_unshare::namespaces::unshare;
use jc_unshare::sys::clone;
use jc_unshare::{Absent, Context, Result, exists};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind, mount_change, move_mount, open_tree, unmount,
};

use crate::linux::sys;

/// Sockets of services that look up names for a program: nscd(8), systemd-resolved(8), also by D-Bus, avahi-daemon(8)
/// and sssd(8).
const RESOLVERS: [&str; 6] = [
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/dbus/system_bus_socket",
    "/run/avahi-daemon/socket",
    "/var/lib/sss/pipes/nss",
];

/// The contents of resolv.conf(5) inside. The address does not matter: port 53 of each leads to the resolver.
pub const NAME_SERVER: &str = "nameserver 127.0.0.1\n";
/// The contents of hosts(5) inside. A line of the host would hide a name from the resolver.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
/// The files to cover, if they exist. Where the first does not, the C library's resolver asks 127.0.0.1.
const FILES: [(&str, &str); 2] = [("/etc/resolv.conf", NAME_SERVER), ("/etc/hosts", LOCALHOST)];

/// Changes the mounts of the mount namespace that has been made for this. The program cannot undo the changes:
/// it gets a copy of the namespace that belongs to another user namespace, where they are locked
/// (mount_namespaces(7)).
pub fn cover() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).on("set propagation", "/")?;
    for socket in RESOLVERS {
        let found = fs::metadata(socket).on("stat", socket).absent()?;
        if found.is_some_and(|found| found.file_type().is_socket()) {
            mount_bind("/dev/null", socket).on("cover", socket)?;
        }
    }
    cover_files()
}

/// Mounts files over those of [`FILES`] that exist. The files are made on a tmpfs that is mounted over /etc for a moment.
fn cover_files() -> Result<()> {
    let mut covered = Vec::new();
    for (path, text) in FILES {
        if exists(path)? {
            // A symbolic link is followed, before the directory is covered.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            covered.push((path, text, open(path, flags, Mode::empty()).on("open", path)?));
        }
    }
    if covered.is_empty() {
        return Ok(());
    }
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "/etc", "tmpfs", flags, Some(c"mode=755")).on("mount tmpfs on", "/etc")?;
    let make = |(path, text, _): &(&str, &str, OwnedFd)| {
        fs::write(path, text).on("write", path)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, *path, flags).on("open_tree", path)
    };
    let trees: Result<Vec<OwnedFd>> = covered.iter().map(make).collect();
    unmount("/etc", UnmountFlags::DETACH).on("umount", "/etc")?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    for ((path, _, target), tree) in covered.iter().zip(trees?) {
        move_mount(tree, "", target, "", both).on("cover", path)?;
    }
    Ok(())
}

/// Enters the user namespace of the program, with a copy of the mounts. The network namespace belongs to another
/// one, over which the program has no capability.
pub fn enter_user_namespace() -> Result<()> {
    unshare(clone::NEWUSER | clone::NEWNS)
}

/// Filters system calls, and leaves the program the first descriptors only.
pub fn confine(preserved: u32) -> Result<()> {
    sys::close_on_exec_from(3u32.saturating_add(preserved)).op("close_range")?;
    sys::filter_sockets().op("install the seccomp filter")
}
