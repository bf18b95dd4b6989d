//! Overlays of a directory of the host and of each mount below it.
//!
//! A user namespace owns none of the mounts that it has copied, and overlayfs takes no directory there that has such
//! mounts below (mount_namespaces(7), "locked"). Such a directory is assembled: a tmpfs has its symbolic links, and
//! places for the other entries, on which overlays and read-only binds are mounted.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::{open_at, open_dir_to_read};
use jc_unshare::mountinfo::{MountInfo, unescape};
use jc_unshare::{Context, Error, Result, userns};
use nix::libc;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, StatVfsMountFlags, StatxFlags, fstat, fstatfs,
    fstatvfs, mkdirat, openat, readlinkat, statx, symlinkat,
};
use rustix::io::Errno;

use super::changes::Changes;
use super::layer::Layer;
use super::overlay::overlay;
use crate::linux::mount::fscontext::{attach, clone_fd, detach_top, new_mount};
use crate::linux::mount::resolve::{Missing, resolve};
use crate::linux::sys::{attr, mount_setattr, propagation};

/// The most entries of a directory that is assembled.
const MAX_ENTRIES: usize = 4096;

/// The mounts that show a directory of the host.
pub struct Tree {
    /// Each mount with its path in the directory. An outer mount comes before those below.
    mounts: Vec<(PathBuf, OwnedFd)>,
}

impl Tree {
    /// Mounts a directory. `skipped` are the names in it at which the caller mounts something else.
    pub fn mount(
        directory: &Path,
        changes: &mut Changes,
        skipped: &[&str],
        slash: &OwnedFd,
    ) -> Result<Self> {
        let directory = fs::canonicalize(directory).on("open", directory)?;
        let mut points = mount_points(&directory)?;
        let in_userns = !userns::is_initial()?;
        let mut builder = Builder { directory, changes, slash, in_userns, mounts: Vec::new() };
        points.retain(|point| in_userns || !skipped.iter().any(|name| point.starts_with(name)));
        builder.add(Path::new(""), &points, skipped)?;
        if !in_userns {
            points.iter().try_for_each(|point| builder.add(point, &[], &[]))?;
        }
        Ok(Self { mounts: builder.mounts })
    }

    /// Attaches the mounts, the first one on `place`. Returns its root directory.
    pub fn attach(&self, place: &OwnedFd, shown: &Path) -> Result<&OwnedFd> {
        let Some(((_, root), below)) = self.mounts.split_first() else {
            return Err(Error::new("mount: no overlay"));
        };
        attach(root, place, shown)?;
        for (path, mount) in below {
            let mode = fstat(mount).on("stat", path)?.st_mode;
            let missing = match FileType::from_raw_mode(mode) {
                FileType::Directory => Missing::MakeDir,
                _ => Missing::MakeFile,
            };
            let target = resolve(root.as_fd(), path, missing)?;
            attach(mount, &target, path)?;
        }
        Ok(root)
    }

    /// Adds flags of [`attr`] to all mounts. RDONLY comes after all mount points in them are made.
    pub fn restrict(&self, attributes: u64) -> Result<()> {
        self.mounts.iter().try_for_each(|(path, mount)| {
            mount_setattr(mount.as_fd(), attributes, propagation::KEEP, false)
                .on("mount_setattr", path)
        })
    }
}

/// The paths below a directory at which the payload would see a mount, the outer ones first.
fn mount_points(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = "/proc/self/mountinfo";
    let text = fs::read_to_string(table).on("read", table)?;
    let mut points = Vec::new();
    for mount in text.lines().filter_map(MountInfo::parse) {
        let path = unescape(mount.point);
        let below = path.strip_prefix(directory).ok();
        let Some(below) = below.filter(|below| !below.as_os_str().is_empty()) else { continue };
        // The mount of another ID covers this one, or a directory above.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = match statx(CWD, &path, flags, StatxFlags::MNT_ID) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            found => found.on("statx", &path)?,
        };
        if mount.id.parse() == Ok(found.stx_mnt_id) {
            points.push(below.to_owned());
        }
    }
    points.sort();
    points.dedup();
    Ok(points)
}

struct Builder<'a> {
    directory: PathBuf,
    changes: &'a mut Changes,
    slash: &'a OwnedFd,
    in_userns: bool,
    mounts: Vec<(PathBuf, OwnedFd)>,
}

impl Builder<'_> {
    /// Adds the mounts for a path. `below` are the mount points below it.
    fn add(&mut self, path: &Path, below: &[PathBuf], skipped: &[&str]) -> Result<()> {
        let is_root = path.as_os_str().is_empty();
        let source = if is_root { self.directory.clone() } else { self.directory.join(path) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(CWD, &source, flags, Mode::empty()).on("open", &source)?;
        let attributes = attributes(&file, &source)?;
        let mode = fstat(&file).on("stat", &source)?.st_mode;
        let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
        if is_directory && self.in_userns && !below.is_empty() {
            return self.assemble(path, &source, mode, below, skipped);
        }
        if is_directory && (is_root || attributes & attr::RDONLY == 0) {
            match self.overlay(path, &source, attributes) {
                Err(error) if !is_root && is_refusal(&error) => {}
                other => return other,
            }
        }
        self.bind(path, &source, &file, attributes)
    }

    fn overlay(&mut self, path: &Path, source: &Path, attributes: u64) -> Result<()> {
        let at = Path::new("/").join(path);
        let layers = [Layer::open(source)?];
        let writable = self.changes.writable(&at, layers.last())?;
        let mount = overlay(&layers, &writable, attributes & !attr::RDONLY, self.slash)?;
        self.changes.add(&at, &writable, vec![source.to_owned()], &mount)?;
        self.mounts.push((path.to_owned(), mount));
        Ok(())
    }

    /// Adds a read-only copy of the mount of a file or directory.
    fn bind(&mut self, path: &Path, source: &Path, file: &OwnedFd, attributes: u64) -> Result<()> {
        let mount = match clone_fd(file, false, source) {
            // The file of a mount namespace cannot be mounted in another one, and shows nothing.
            Err(error) if is_refusal(&error) && is_namespace(file, source)? => return Ok(()),
            mount => mount?,
        };
        let attributes = attributes | attr::RDONLY | attr::NODEV;
        mount_setattr(mount.as_fd(), attributes, propagation::PRIVATE, false)
            .on("mount_setattr", source)?;
        self.changes.add_read_only(&Path::new("/").join(path));
        self.mounts.push((path.to_owned(), mount));
        Ok(())
    }

    /// Adds an overlay over a tmpfs with the entries of a directory, and the mounts for them.
    fn assemble(
        &mut self,
        path: &Path,
        source: &Path,
        mode: u32,
        below: &[PathBuf],
        skipped: &[&str],
    ) -> Result<()> {
        let octal = format!("{:o}", mode & 0o7777);
        let tmpfs = new_mount("tmpfs", &[("mode", &octal), ("size", "1m")], attr::NODEV)?;
        attach(&tmpfs, self.slash, Path::new("tmpfs"))?;
        let at = Path::new("/").join(path);
        let made = self.fill(&tmpfs, source).and_then(|entries| {
            let layer = open_dir_to_read(&tmpfs, ".").on("open", source)?;
            let layers = [Layer::unnamed(layer, source)];
            let writable = self.changes.writable(&at, layers.last())?;
            let mount = overlay(&layers, &writable, 0, self.slash)?;
            self.changes.add(&at, &writable, vec![source.to_owned()], &mount)?;
            Ok((entries, mount))
        });
        detach_top()?;
        let (entries, mount) = made?;
        self.mounts.push((path.to_owned(), mount));
        for name in entries {
            let path = path.join(&name);
            if !skipped.iter().any(|skipped| path == Path::new(skipped)) {
                let below: Vec<PathBuf> =
                    below.iter().filter(|p| **p != path && p.starts_with(&path)).cloned().collect();
                self.add(&path, &below, &[])?;
            }
        }
        Ok(())
    }

    /// Makes the entries of a directory in a tmpfs. Returns the names of those that need a mount.
    fn fill(&self, tmpfs: &OwnedFd, source: &Path) -> Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        let directory = open_dir_to_read(CWD, source).on("open", source)?;
        for entry in Dir::read_from(&directory).on("read", source)? {
            let entry = entry.on("read", source)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if names.len() >= MAX_ENTRIES {
                let source = source.display();
                return Err(Error::new(format_args!("{source}: more than {MAX_ENTRIES} entries")));
            }
            let shown = source.join(Path::new(OsStr::from_bytes(name.to_bytes())));
            let file = match open_at(&directory, name) {
                Err(Errno::NOENT) => continue,
                opened => opened.on("open", &shown)?,
            };
            match FileType::from_raw_mode(fstat(&file).on("stat", &shown)?.st_mode) {
                FileType::Symlink => {
                    let target = readlinkat(&file, "", Vec::new()).on("readlink", &shown)?;
                    symlinkat(&target, tmpfs, name).on("symlink", &shown)?;
                    continue;
                }
                FileType::Directory => {
                    mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).on("mkdir", &shown)?;
                }
                _ => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    openat(tmpfs, name, flags, Mode::RUSR).on("create", &shown)?;
                }
            }
            names.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        }
        names.sort();
        Ok(names)
    }
}

/// The flags of [`attr`] that a mount of the host has, and that no copy may lack.
fn attributes(file: &OwnedFd, shown: &Path) -> Result<u64> {
    const PAIRS: [(StatVfsMountFlags, u64); 3] = [
        (StatVfsMountFlags::RDONLY, attr::RDONLY),
        (StatVfsMountFlags::NOSUID, attr::NOSUID),
        (StatVfsMountFlags::NOEXEC, attr::NOEXEC),
    ];
    let has = fstatvfs(file).on("statvfs", shown)?.f_flag;
    Ok(PAIRS.iter().filter(|(flag, _)| has.contains(*flag)).fold(0, |all, (_, flag)| all | flag))
}

/// Whether a file is that of a namespace (namespaces(7)).
fn is_namespace(file: &OwnedFd, shown: &Path) -> Result<bool> {
    /// NSFS_MAGIC of Linux' magic.h
    const NSFS: u64 = 0x6e73_6673;
    Ok(fstatfs(file).on("statfs", shown)?.f_type as u64 == NSFS)
}

/// Whether an error means that overlayfs cannot have a lower directory: its file system is of another kind (EINVAL), the
/// caller may not read it (EACCES), or its path is too long for the name of an upper directory.
fn is_refusal(error: &Error) -> bool {
    let refusals = [libc::EINVAL, libc::EACCES, libc::ENAMETOOLONG, libc::ELOOP, libc::EOPNOTSUPP];
    error.errno().is_some_and(|errno| refusals.contains(&errno))
}
