//! Mounts of `--mount`, in the order of the command line.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Absent, Context, Error, Maps, Result};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use super::copy_up::copy_up;
use super::fscontext::{FsContext, attach, clone_mount};
use super::resolve::{Missing, real_dir, resolve};
use super::sysfs;
use crate::TOOL;
use crate::linux::args::words::{Depth, IdMap, Options, Word};
use crate::linux::sys::{self, attr, propagation};

/// A mount of the command line. A bind mount is detached from the start, since its source is a path of the host.
pub struct Planned<'a> {
    word: &'a Word,
    bind: Option<OwnedFd>,
}

impl<'a> Planned<'a> {
    /// Creates detached copies of the sources of bind mounts, which are still peers of the host's mounts.
    pub fn all(words: &'a [Word]) -> Result<Vec<Self>> {
        let plan = |word: &'a Word| {
            let bind = word.options.bind.map(|depth| bind(word, depth)).transpose()?;
            Ok(Self { word, bind })
        };
        words.iter().map(plan).collect()
    }

    /// Makes the mount below `root`. A missing target is made, with its parents.
    pub fn attach(&self, root: BorrowedFd<'_>) -> Result<()> {
        let Word { target, kind, options, .. } = self.word;
        if options.is_remount {
            let mount = resolve(root, target, Missing::Fail)?;
            return change(&mount, options, target);
        }
        // A tmpfs has the mode of the directory that it covers, or without one the kernel's default.
        let covers = kind == "tmpfs" && resolve(root, target, Missing::Fail).absent()?.is_some();
        let place = self.place(root)?;
        let mount = match &self.bind {
            Some(mount) => mount.try_clone().on("dup", target)?,
            None if kind == "cgroup" || (kind == "cgroup2" && sysfs::is_version_1()?) => {
                let set = options.one.set | options.all.set;
                sysfs::mount_cgroups(|| Ok(place), set, sysfs::Extent::OwnGroup)?;
                // The lookup finds the new mount.
                let mount = resolve(root, target, Missing::Fail)?;
                return propagate(&mount, options, target);
            }
            None => self.new_file_system(&place, covers)?,
        };
        attach(&mount, &place, target)?;
        propagate(&mount, options, target)
    }

    /// Opens the target. The kernel's own file systems are not mounted through a symbolic link: masks and other
    /// programs find them by their path.
    fn place(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        let target = &self.word.target;
        let mut components = target.components().skip(1);
        let name = components.next().and_then(|name| name.as_os_str().to_str());
        let is_kernels = matches!(self.word.kind.as_str(), "proc" | "sysfs");
        if let (true, Some(name), None) = (is_kernels, name, components.next()) {
            return real_dir(root, name);
        }
        let missing = match &self.bind {
            Some(mount) if !is_directory(mount, target)? => Missing::MakeFile,
            _ => Missing::MakeDir,
        };
        resolve(root, target, missing)
    }

    /// Creates a detached mount of a new file system.
    fn new_file_system(&self, place: &OwnedFd, covers: bool) -> Result<OwnedFd> {
        let Word { source, kind, options, target } = self.word;
        let source = source.to_str().ok_or_else(|| Error::usage("--mount: SRC is not UTF-8"))?;
        let context = FsContext::open_from(kind, source)?;
        for flag in &options.flags {
            context.set_flag(flag)?;
        }
        let set = options.one.set | options.all.set;
        if set & attr::RDONLY != 0 && has_own_medium(kind) {
            context.set_flag("ro")?;
        }
        for (key, value) in &options.data {
            match value {
                Some(value) => context.set(key, value)?,
                None => context.set_flag(key)?,
            }
        }
        if covers && !options.data.iter().any(|(key, _)| key == "mode") {
            let covered = fstat(place).on("stat", target)?;
            context.set("mode", &format!("{:o}", covered.st_mode & 0o7777))?;
        }
        let writable = if options.copies_up { set & !attr::RDONLY } else { set };
        let mount = context.mount(writable)?;
        if options.copies_up {
            copy_up(place, &mount, target)?;
            change(&mount, options, target)?;
        }
        map_ids(&mount, options, target)?;
        Ok(mount)
    }
}

/// Whether a type of file system may write to a medium at the mount, unless the file system itself is read-only. The
/// others are one file system with several mounts, of which only this one is read-only.
fn has_own_medium(kind: &str) -> bool {
    const WITHOUT: [&str; 9] =
        ["proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "overlay", "cgroup2", "securityfs"];
    !WITHOUT.contains(&kind)
}

/// Creates a detached copy of the source of a bind mount.
fn bind(word: &Word, depth: Depth) -> Result<OwnedFd> {
    let path = Path::new(&word.source);
    let mount = clone_mount(path, depth == Depth::All)?;
    // Without an option no later mount propagates, whatever the host has.
    let asked = word.options.propagation.first();
    if asked.is_none_or(|(types, _)| *types != propagation::SLAVE && *types != propagation::SHARED)
    {
        set_propagation(&mount, propagation::PRIVATE, Depth::All, path)?;
    }
    change(&mount, &word.options, path)?;
    map_ids(&mount, &word.options, path)?;
    Ok(mount)
}

/// Changes the attributes of a mount, and of the mounts below.
fn change(mount: &OwnedFd, options: &Options, shown: &Path) -> Result<()> {
    for (change, recursive) in [(options.all, true), (options.one, false)] {
        if !change.is_none() {
            sys::change_mount(mount.as_fd(), change, recursive)
                .on("mount_setattr", shown)
                .map_err(|e| e.hint("a user namespace cannot clear attributes of older mounts"))?;
        }
    }
    Ok(())
}

/// Sets the types of propagation of a mount that is attached.
fn propagate(mount: &OwnedFd, options: &Options, shown: &Path) -> Result<()> {
    options
        .propagation
        .iter()
        .try_for_each(|(types, depth)| set_propagation(mount, *types, *depth, shown))
}

fn set_propagation(mount: &OwnedFd, types: u64, depth: Depth, shown: &Path) -> Result<()> {
    sys::mount_setattr(mount.as_fd(), 0, types, depth == Depth::All).on("set propagation of", shown)
}

fn map_ids(mount: &OwnedFd, options: &Options, shown: &Path) -> Result<()> {
    let Some((map, depth)) = &options.idmap else { return Ok(()) };
    let namespace = match map {
        IdMap::Own => {
            let path = "/proc/self/ns/user";
            open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path)?
        }
        IdMap::Ranges(users, groups) => Maps::of(users, groups).namespace(TOOL)?,
    };
    sys::map_ids(mount.as_fd(), namespace.as_fd(), *depth == Depth::All).on("idmap", shown)
}

fn is_directory(fd: &OwnedFd, shown: &Path) -> Result<bool> {
    let mode = fstat(fd).on("stat", shown)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}
