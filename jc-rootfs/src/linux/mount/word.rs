//! Mounts of `--mount`, in the order of the command line.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Absent, Context, Error, Maps, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, fstat, open};

use super::copy_up::copy_up;
use super::fscontext::{FsContext, attach, clone_mount};
use super::resolve::{Missing, real_dir, resolve};
use super::sysfs;
use crate::TOOL;
use crate::linux::args::words::{Depth, IdMap, Options, Word};
use crate::linux::sys::{self, attr, propagation};

/// A mount of the command line, detached until its turn.
pub struct Planned<'a> {
    word: &'a Word,
    /// `None`: a change of a mount, or a new file system that is made at its turn.
    mount: Option<OwnedFd>,
}

impl<'a> Planned<'a> {
    /// Creates detached copies of the sources of bind mounts, which are still peers of the host's mounts. With
    /// `file_systems` new file systems are created in between: mountinfo lists mounts in the order of their creation
    /// (proc_pid_mountinfo(5), since Linux 6.8), and its readers expect that of the command line.
    pub fn all(words: &'a [Word], file_systems: bool) -> Result<Vec<Self>> {
        let plan = |word: &'a Word| {
            let mount = match word.options.bind {
                Some(depth) => Some(bind(word, depth)?),
                None if file_systems && !word.options.is_remount && !is_hierarchies(word)? => {
                    Some(new_file_system(word)?)
                }
                None => None,
            };
            Ok(Self { word, mount })
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
        let made;
        let mount = match &self.mount {
            Some(mount) => mount,
            None if is_hierarchies(self.word)? => {
                let set = attributes(options);
                sysfs::mount_cgroups(|| Ok(place), set, sysfs::Extent::OwnGroup)?;
                // The lookup finds the new mount.
                let mount = resolve(root, target, Missing::Fail)?;
                return propagate(&mount, options, target);
            }
            None => {
                made = new_file_system(self.word)?;
                &made
            }
        };
        if options.bind.is_none() {
            self.complete(mount, &place, covers)?;
        }
        attach(mount, &place, target)?;
        propagate(mount, options, target)
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
        let missing = match &self.mount {
            Some(mount) if !is_directory(mount, target)? => Missing::MakeFile,
            _ => Missing::MakeDir,
        };
        resolve(root, target, missing)
    }

    /// Fills a new file system with what the place has, before the mount gets its last attributes.
    fn complete(&self, mount: &OwnedFd, place: &OwnedFd, covers: bool) -> Result<()> {
        let Word { options, target, .. } = self.word;
        if covers && !has_mode(options) {
            let covered = fstat(place).on("stat", target)?;
            let mode = Mode::from_raw_mode(covered.st_mode & 0o7777);
            chmodat(mount, ".", mode, AtFlags::empty()).on("chmod", target)?;
        }
        if options.copies_up {
            copy_up(place, mount, target)?;
        }
        if is_filled(self.word) && attributes(options) & attr::RDONLY != 0 {
            change(mount, options, target)?;
        }
        map_ids(mount, options, target)
    }
}

/// Whether the mount is one of all cgroup hierarchies, which have a mount each.
fn is_hierarchies(word: &Word) -> Result<bool> {
    Ok(word.kind == "cgroup" || (word.kind == "cgroup2" && sysfs::is_version_1()?))
}

/// Whether a new file system is written to before its mount is read-only.
fn is_filled(word: &Word) -> bool {
    word.options.copies_up || (word.kind == "tmpfs" && !has_mode(&word.options))
}

fn has_mode(options: &Options) -> bool {
    options.data.iter().any(|(key, _)| key == "mode")
}

fn attributes(options: &Options) -> u64 {
    options.one.set | options.all.set
}

/// Creates a detached mount of a new file system.
fn new_file_system(word: &Word) -> Result<OwnedFd> {
    let Word { source, kind, options, .. } = word;
    let source = source.to_str().ok_or_else(|| Error::usage("--mount: SRC is not UTF-8"))?;
    let context = FsContext::open_from(kind, source)?;
    for flag in &options.flags {
        context.set_flag(flag)?;
    }
    let set = attributes(options);
    if set & attr::RDONLY != 0 && has_own_medium(kind) {
        context.set_flag("ro")?;
    }
    for (key, value) in &options.data {
        match value {
            Some(value) => context.set(key, value)?,
            None => context.set_flag(key)?,
        }
    }
    context.mount(if is_filled(word) { set & !attr::RDONLY } else { set })
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
