//! Path resolution inside a hostile root. Each component is opened below a directory descriptor, and this module
//! follows symbolic links itself, so no file of the root leads outside.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_at;
use jc_unshare::procfs::is_procfs;
use jc_unshare::{Absent, Context, Error, Result};
use rustix::fs::{
    FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, mkdirat, openat, readlinkat,
};
use rustix::io::Errno;

/// The treatment of a missing component.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// An error.
    Fail,
    /// Directories (0755) are made for the last component and its parents.
    MakeDir,
    /// An empty file (0644) is made for the last component, and directories for its parents.
    MakeFile,
}

/// The most symbolic links in one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Resolves `path` with `root` as "/", also in symbolic links, and opens the file with O_PATH. ENOENT, ENOTDIR: the
/// path does not exist. ELOOP: too many symbolic links, or a magic link of procfs.
pub fn resolve(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<OwnedFd> {
    let dirs = vec![root.try_clone_to_owned().on("open", path)?];
    Ok(Walk { path, dirs, links: 0 }.find(missing)?.0)
}

/// Opens a regular file of a root for reading. `None`: the path does not exist. A file of another type is an
/// error and is never opened for reading, since opening a FIFO or a device can block.
pub fn open_file(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    let dirs = vec![root.try_clone_to_owned().on("open", path)?];
    let mut walk = Walk { path, dirs, links: 0 };
    let Some((fd, name)) = walk.find(Missing::Fail).absent()? else { return Ok(None) };
    let is_regular = |fd: &OwnedFd| Ok::<_, Error>(file_type(fd, path)? == FileType::RegularFile);
    let not_regular = || Error::new(format_args!("open {}: not a regular file", path.display()));
    if !is_regular(&fd)? {
        return Err(not_regular());
    }
    // An O_PATH descriptor cannot be read. The name may lead to another file now, so the type is checked again.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(walk.current()?, &name, flags | OFlags::CLOEXEC, Mode::empty());
    let file = file.on("open", path)?;
    if is_regular(&file)? { Ok(Some(file)) } else { Err(not_regular()) }
}

/// Opens the directory `name` of `root`, which is made if missing. A symbolic link is an error, since the payload
/// must find the mount at this path and not at another one.
pub fn real_dir(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let shown = Path::new("/").join(name);
    let fd = match open_at(root, name) {
        Err(Errno::NOENT) => {
            let made = mkdirat(root, name, Mode::from_raw_mode(0o755));
            unless_present(made).on("mkdir", &shown).map_err(advise_upper)?;
            open_at(root, name)
        }
        other => other,
    }
    .on("open", &shown)?;
    match file_type(&fd, &shown)? {
        FileType::Directory => Ok(fd),
        FileType::Symlink => Err(refuse(&shown, "is a symbolic link in this root")
            .hint(format_args!("{name} must be mounted on ordinary directory entries"))),
        _ => Err(refuse(&shown, "is not a directory in this root")),
    }
}

/// The outcome of making a file. Another start in the same root may have made the file since this one looked.
fn unless_present<T>(made: rustix::io::Result<T>) -> rustix::io::Result<()> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made.map(drop),
    }
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::new(format_args!("mount {}: {why}", path.display()))
}

fn advise_upper(error: Error) -> Error {
    error.hint("--upper tmpfs makes missing mount points in memory")
}

/// A resolution in progress.
struct Walk<'a> {
    path: &'a Path,
    /// The directories from the root to the current one. ".." removes the last one, except the root.
    dirs: Vec<OwnedFd>,
    links: u32,
}

impl Walk<'_> {
    /// Resolves all components. Returns the file, and unless the file is a directory its name in the last directory.
    fn find(&mut self, missing: Missing) -> Result<(OwnedFd, OsString)> {
        let mut left: Vec<OsString> = components(self.path);
        while let Some(name) = left.pop() {
            if name == ".." {
                if self.dirs.len() > 1 {
                    self.dirs.pop();
                }
                continue;
            }
            let here = self.current()?;
            let fd = match open_at(here, &name) {
                Err(Errno::NOENT) => self.create(here, &name, left.is_empty(), missing)?,
                other => other.on("open", self.path)?,
            };
            match file_type(&fd, self.path)? {
                FileType::Symlink if is_magic(here, &fd)? => {
                    let error = Err(Errno::LOOP).on("open", self.path);
                    return error
                        .map_err(|e| e.hint("a magic link of procfs leads outside of all paths"));
                }
                FileType::Symlink => self.follow(&fd, &mut left)?,
                FileType::Directory => self.dirs.push(fd),
                _ if left.is_empty() => return Ok((fd, name)),
                _ => return Err(Errno::NOTDIR).on("open", self.path),
            }
        }
        let last = self.dirs.pop().ok_or_else(|| Error::new("open: no root"))?;
        Ok((last, OsString::new()))
    }

    fn current(&self) -> Result<BorrowedFd<'_>> {
        self.dirs.last().map(AsFd::as_fd).ok_or_else(|| Error::new("open: no root"))
    }

    fn create(
        &self,
        here: BorrowedFd<'_>,
        name: &OsStr,
        is_last: bool,
        missing: Missing,
    ) -> Result<OwnedFd> {
        match missing {
            Missing::Fail => return Err(Errno::NOENT).on("open", self.path),
            Missing::MakeFile if is_last => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let made = openat(here, name, flags, Mode::from_raw_mode(0o644));
                unless_present(made).on("create", self.path).map_err(advise_upper)?;
            }
            Missing::MakeFile | Missing::MakeDir => {
                let made = mkdirat(here, name, Mode::from_raw_mode(0o755));
                unless_present(made).on("mkdir", self.path).map_err(advise_upper)?;
            }
        }
        open_at(here, name).on("open", self.path)
    }

    /// Puts the components of a symbolic link in front of those that are left.
    fn follow(&mut self, link: &OwnedFd, left: &mut Vec<OsString>) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP).on("open", self.path);
        }
        let target = readlinkat(link, "", Vec::new()).on("readlink", self.path)?;
        let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
        if target.is_absolute() {
            self.dirs.truncate(1);
        }
        left.extend(components(&target));
        Ok(())
    }
}

/// The components except ".", the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let names = bytes.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

/// Whether a link of the directory `dir` is a magic link such as /proc/self/fd/N (RESOLVE_NO_MAGICLINKS in
/// openat2(2)). In a procfs all links are magic except those of the root directory.
fn is_magic(dir: BorrowedFd<'_>, link: &OwnedFd) -> Result<bool> {
    let kind = fstatfs(link).op("fstatfs")?.f_type;
    Ok(kind == PROC_SUPER_MAGIC && !is_procfs(dir)?)
}

fn file_type(fd: &OwnedFd, path: &Path) -> Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd).on("stat", path)?.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};

    /// A hostile root, beside a directory "outside" that no path may reach.
    fn hostile_root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        for (target, link) in [
            ("/a", "absolute"),
            ("../../../../outside", "up"),
            ("a/b", "relative"),
            ("loop2", "loop1"),
            ("loop1", "loop2"),
            ("/nowhere/there", "dangling"),
            ("/proc/self/root", "magic"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        (dir, root)
    }

    fn open_root(root: &Path) -> OwnedFd {
        File::open(root).unwrap().into()
    }

    #[test]
    fn resolves_as_if_the_root_were_slash() {
        let (_dir, root) = hostile_root();
        let fd = open_root(&root);
        for (path, expected) in [
            ("/", ""),
            ("/a/b", "a/b"),
            ("absolute/b", "a/b"),
            ("/relative", "a/b"),
            ("/relative/..", "a"),
            ("/../../a", "a"),
            ("/a/./b/../b//", "a/b"),
            ("file", "file"),
        ] {
            let found = fstat(resolve(fd.as_fd(), path.as_ref(), Missing::Fail).unwrap()).unwrap();
            let expected = fs::metadata(root.join(expected)).unwrap();
            assert_eq!((found.st_dev, found.st_ino), (expected.dev(), expected.ino()), "{path}");
        }
    }

    #[test]
    fn a_component_that_another_start_makes_meanwhile_is_used() {
        let (_dir, root) = hostile_root();
        let walk = Walk { path: Path::new("/x"), dirs: vec![open_root(&root)], links: 0 };
        let here = walk.current().unwrap();
        for (name, missing) in [("file", Missing::MakeFile), ("a", Missing::MakeDir)] {
            let fd = walk.create(here, OsStr::new(name), true, missing).unwrap();
            let there = fs::metadata(root.join(name)).unwrap();
            assert_eq!(fstat(&fd).unwrap().st_ino, there.ino());
        }
    }

    #[test]
    fn a_missing_component_is_made_inside_the_root() {
        let (dir, root) = hostile_root();
        let fd = open_root(&root);
        for (path, missing, made) in [
            ("/new/dir", Missing::MakeDir, "new/dir"),
            ("/new/file", Missing::MakeFile, "new/file"),
            ("/up", Missing::MakeDir, "outside"),
            ("/up/x", Missing::MakeDir, "outside/x"),
            ("/dangling", Missing::MakeFile, "nowhere/there"),
            ("/magic/etc", Missing::MakeDir, "proc/self/root/etc"),
        ] {
            resolve(fd.as_fd(), path.as_ref(), missing).unwrap();
            let meta = fs::symlink_metadata(root.join(made)).unwrap();
            assert_eq!(meta.is_dir(), missing == Missing::MakeDir, "{path}");
        }
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn an_error_names_the_path_and_the_cause() {
        let (_dir, root) = hostile_root();
        let fd = open_root(&root);
        for (path, message) in [
            ("/loop1", "open /loop1: Too many levels of symbolic links"),
            ("/none", "open /none: No such file or directory"),
            ("/dangling", "open /dangling: No such file or directory"),
            ("/file/x", "open /file/x: Not a directory"),
        ] {
            let error = resolve(fd.as_fd(), path.as_ref(), Missing::Fail).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let error = real_dir(fd.as_fd(), "absolute").unwrap_err().to_string();
        assert_eq!(error, "mount /absolute: is a symbolic link in this root");
        let error = real_dir(fd.as_fd(), "file").unwrap_err().to_string();
        assert_eq!(error, "mount /file: is not a directory in this root");
        real_dir(fd.as_fd(), "fresh").unwrap();
    }
}
