//! Paths inside a root that may be hostile. Every step is taken from a held directory descriptor
//! and no link is followed by the kernel, so nothing that the root contains can lead out of it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context, Error, Result};
use rustix::fs::{
    FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, mkdirat, openat, readlinkat,
};
use rustix::io::Errno;

use jc_unshare::procfs::is_procfs;

/// What to do about a path that is not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// It is an error.
    Fail,
    /// Make it a directory (0755), with its parents.
    MakeDir,
    /// Make it an empty file (0644), with its parents.
    MakeFile,
}

/// path_resolution(7) gives up after as many.
const MAX_LINKS: u32 = 40;

/// Resolves `path` with `root` as "/", links included, and opens what it names with O_PATH.
pub fn resolve(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<OwnedFd> {
    let dirs = vec![root.try_clone_to_owned().on("open", path)?];
    Ok(Walk { path, dirs, links: 0 }.find(missing)?.0)
}

/// Opens a regular file for reading, as [`resolve`] finds it; nothing if it is not there. A fifo or a
/// device in its place is not opened, so that none can hold this up.
pub fn open_file(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    let dirs = vec![root.try_clone_to_owned().on("open", path)?];
    let mut walk = Walk { path, dirs, links: 0 };
    let Some((fd, name)) = walk.find(Missing::Fail).absent()? else { return Ok(None) };
    let regular = |fd: &OwnedFd| Ok::<_, Error>(file_type(fd, path)? == FileType::RegularFile);
    let not_regular = || Error::new(format_args!("open {}: not a regular file", path.display()));
    if !regular(&fd)? {
        return Err(not_regular());
    }
    // By name once more: what O_PATH gives cannot be read. It may be another file by now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(walk.here()?, &name, flags | OFlags::CLOEXEC, Mode::empty());
    let file = file.on("open", path)?;
    if regular(&file)? { Ok(Some(file)) } else { Err(not_regular()) }
}

/// Opens the directory `name` in `root`, made if it is missing. A link in its place is an error: what
/// is mounted here must be where the payload will look for it.
pub fn real_dir(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let shown = Path::new("/").join(name);
    let fd = match open_path(root, name.as_ref()) {
        Err(Errno::NOENT) => {
            mkdirat(root, name, Mode::from_raw_mode(0o755))
                .on("mkdir", &shown)
                .map_err(read_only)?;
            open_path(root, name.as_ref())
        }
        other => other,
    }
    .on("open", &shown)?;
    match file_type(&fd, &shown)? {
        FileType::Directory => Ok(fd),
        FileType::Symlink => Err(refuse(&shown, "is a symbolic link in this root")),
        _ => Err(refuse(&shown, "is not a directory in this root")),
    }
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::new(format_args!("mount {}: {why}", path.display()))
}

/// The hint for what cannot be made.
fn read_only(error: Error) -> Error {
    error.hint("--upper tmpfs makes missing mount points in memory")
}

struct Walk<'a> {
    path: &'a Path,
    /// The directories from the root down to the present one: ".." goes back, never up.
    dirs: Vec<OwnedFd>,
    links: u32,
}

impl Walk<'_> {
    /// Goes all the way. Of a file, this gives its name too, in the directory that is the last one.
    fn find(&mut self, missing: Missing) -> Result<(OwnedFd, OsString)> {
        let mut left: Vec<OsString> = components(self.path);
        while let Some(name) = left.pop() {
            if name == ".." {
                if self.dirs.len() > 1 {
                    self.dirs.pop();
                }
                continue;
            }
            let here = self.here()?;
            let fd = match open_path(here, &name) {
                Err(Errno::NOENT) => self.make(here, &name, left.is_empty(), missing)?,
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

    fn here(&self) -> Result<BorrowedFd<'_>> {
        self.dirs.last().map(AsFd::as_fd).ok_or_else(|| Error::new("open: no root"))
    }

    fn make(
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
                made.on("create", self.path).map_err(read_only)?;
            }
            Missing::MakeFile | Missing::MakeDir => {
                let made = mkdirat(here, name, Mode::from_raw_mode(0o755));
                made.on("mkdir", self.path).map_err(read_only)?;
            }
        }
        open_path(here, name).on("open", self.path)
    }

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

/// The components that matter, last first.
fn components(path: &Path) -> Vec<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let names = bytes.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

fn open_path(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a link of the directory `dir` is one of those that lead anywhere, such as
/// /proc/self/fd/N (`RESOLVE_NO_MAGICLINKS` in openat2(2)). Those of procfs are in the directories of
/// processes; what its root has are plain ones.
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

    /// A root full of traps, in a directory whose own "outside" must never be reached.
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
    fn what_is_missing_is_made_inside() {
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
    fn says_what_is_wrong() {
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
