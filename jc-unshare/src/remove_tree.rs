//! Removal of a directory tree that other users, an image or a payload have filled.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::{Errno, Result};

use crate::platform::{allow_change, allow_owner, open_directory};

/// Levels of the tree whose descriptors stay open: a tree of an ordinary depth needs no `..`.
const WINDOW: usize = 16;

/// Names that a neighbour may change during one removal before the removal gives up.
const RETRIES: usize = 1000;

/// Removes `name`, a single path component, in the directory `parent`, with all beneath it. An absent
/// name is no error.
///
/// The removal follows no symbolic link and enters no mount: a mount in the tree is `EBUSY`. Directories
/// whose mode shuts out their owner get `u+rwx`. Open descriptors are bounded whatever the depth is,
/// and time and memory are linear in the number of entries. `EBUSY` is also the error when a neighbour
/// moves or adds entries faster than they can be removed.
pub fn remove_tree(parent: impl AsFd, name: &[u8]) -> Result<()> {
    let base = open_directory(&parent, b".")?;
    let mut removal = Removal {
        current: Level { fd: base, id: (0, 0), directories: vec![name.to_vec()] },
        above: Vec::new(),
        retries: RETRIES,
    };
    removal.run(name)
}

struct Removal {
    current: Level,
    /// The levels on the way to the current one, `parent` first.
    above: Vec<Above>,
    retries: usize,
}

/// An open directory.
struct Level {
    fd: OwnedFd,
    /// Device and inode.
    id: (u64, u64),
    /// Names in it that are still to be removed.
    directories: Vec<Vec<u8>>,
}

/// A directory on the way to the current one.
struct Above {
    /// Absent for a level outside the window, which `..` opens again.
    fd: Option<OwnedFd>,
    id: (u64, u64),
    directories: Vec<Vec<u8>>,
    /// The name of the next level in this directory.
    entered: Vec<u8>,
}

impl Removal {
    fn run(&mut self, top: &[u8]) -> Result<()> {
        loop {
            if let Some(name) = self.current.directories.pop() {
                self.enter(name)?;
            } else if let Some(above) = self.above.pop() {
                self.leave(above, top)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Makes the directory `name` the current one, or removes `name` if it is something else.
    fn enter(&mut self, name: Vec<u8>) -> Result<()> {
        let open = || open_directory(&self.current.fd, &name);
        let opened = match open() {
            Err(Errno::ACCESS) => allow_owner(&self.current.fd, &name).and_then(|()| open()),
            other => other,
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return match remove(&self.current.fd, &name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => self.again(name),
                    removed => removed,
                };
            }
            Err(e) => return Err(e),
        };
        let next = Level::new(fd)?;
        let left = std::mem::replace(&mut self.current, next);
        self.above.push(Above {
            fd: Some(left.fd),
            id: left.id,
            directories: left.directories,
            entered: name,
        });
        // `parent` stays open: a removal that has lost its way begins there again.
        if let Some(outside) = self.above.len().checked_sub(WINDOW).filter(|outside| *outside > 0)
            && let Some(above) = self.above.get_mut(outside)
        {
            above.fd = None;
        }
        Ok(())
    }

    /// Removes the current directory, which is empty, and makes the one above it the current one.
    fn leave(&mut self, above: Above, top: &[u8]) -> Result<()> {
        let Above { fd, id, directories, entered } = above;
        let fd = match fd {
            Some(fd) => fd,
            None => {
                let fd = open_directory(&self.current.fd, b"..")?;
                if identify(&fd)?.0 != id {
                    return self.restart(top);
                }
                fd
            }
        };
        self.current = Level { fd, id, directories };
        match remove(&self.current.fd, &entered, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => self.again(entered),
            removed => removed,
        }
    }

    /// Puts a name back that a neighbour has changed.
    fn again(&mut self, name: Vec<u8>) -> Result<()> {
        self.retries = self.retries.checked_sub(1).ok_or(Errno::BUSY)?;
        self.current.directories.push(name);
        Ok(())
    }

    /// Begins in `parent` again, since a neighbour has moved the current directory elsewhere.
    fn restart(&mut self, top: &[u8]) -> Result<()> {
        self.above.truncate(1);
        if let Some(Above { fd: Some(fd), id, .. }) = self.above.pop() {
            self.current = Level { fd, id, directories: Vec::new() };
        }
        self.again(top.to_vec())
    }
}

impl Level {
    /// Removes from the directory everything but directories.
    fn new(fd: OwnedFd) -> Result<Self> {
        let (id, mode) = identify(&fd)?;
        if !mode.contains(Mode::RWXU) {
            // An owner's capability or another's permission may do as well: the next step shows that.
            let _: Result<()> = rustix::fs::fchmod(&fd, mode | Mode::RWXU);
        }
        let mut directories = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                directories.push(name.to_vec());
                continue;
            }
            match remove(&fd, name, AtFlags::empty()) {
                // unlink(2): EISDIR on Linux, EPERM in POSIX, for file systems without types in directories.
                Err(Errno::ISDIR | Errno::PERM) => directories.push(name.to_vec()),
                removed => removed?,
            }
        }
        Ok(Self { fd, id, directories })
    }
}

/// unlinkat(2), for which an absent name is no error.
fn remove(directory: &OwnedFd, name: &[u8], flags: AtFlags) -> Result<()> {
    let remove = || match rustix::fs::unlinkat(directory, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    };
    match remove() {
        Err(Errno::PERM) if allow_change(directory, name) => remove(),
        removed => removed,
    }
}

/// Device, inode and mode.
fn identify(fd: &OwnedFd) -> Result<((u64, u64), Mode)> {
    let stat = rustix::fs::fstat(fd)?;
    // The types differ between platforms.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let id = (stat.st_dev as u64, stat.st_ino as u64);
    Ok((id, Mode::from_raw_mode(stat.st_mode)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{RenameFlags, mkdirat, renameat_with};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    /// A directory in memory, if there is such a file system: a journal makes tens of thousands of directories wait.
    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    /// Nests directories called `a`.
    fn nest(top: &Path, depth: usize) {
        fs::create_dir(top).unwrap();
        let mut at = open(top);
        for _ in 1..depth {
            mkdirat(&at, "a", Mode::RWXU).unwrap();
            at = open_directory(&at, b"a").unwrap();
        }
    }

    #[test]
    fn a_tree_that_is_deeper_than_any_path_is_removed() {
        let dir = scratch();
        nest(&dir.path().join("tree"), 30_000);
        let parent = open(dir.path());
        remove_tree(&parent, b"tree").unwrap();
        remove_tree(&parent, b"tree").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = scratch();
        fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        fs::write(dir.path().join("kept/file"), "").unwrap();
        for link in ["link", "tree/link", "tree/sub/link"] {
            std::os::unix::fs::symlink(dir.path().join("kept"), dir.path().join(link)).unwrap();
        }
        let parent = open(dir.path());
        for name in [b"tree".as_slice(), b"link"] {
            remove_tree(&parent, name).unwrap();
        }
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert!(dir.path().join("kept/file").exists());
    }

    /// Removes trees while a neighbour runs `change` on each again and again.
    fn race(build: impl Fn(&Path), change: impl Fn(&Path) + Sync) {
        let dir = scratch();
        let kept = dir.path().join("kept/a/a");
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        let parent = open(dir.path());
        for _ in 0..100 {
            build(dir.path());
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        change(dir.path());
                    }
                });
                let removed = remove_tree(&parent, b"tree");
                done.store(true, Ordering::Relaxed);
                assert!(matches!(removed, Ok(()) | Err(Errno::BUSY)), "{removed:?}");
            });
            assert!(kept.join("file").exists());
            remove_tree(&parent, b"tree").unwrap();
            remove_tree(&parent, b"moved").unwrap();
        }
    }

    #[test]
    fn a_directory_that_a_neighbour_swaps_for_a_link_is_not_followed() {
        race(
            |dir| {
                fs::create_dir_all(dir.join("tree/a/a/a")).unwrap();
                std::os::unix::fs::symlink("../kept", dir.join("tree/link")).unwrap();
            },
            |dir| {
                let tree = fs::File::open(dir.join("tree"));
                // The names go away in the end.
                drop(
                    tree.map(|tree| {
                        renameat_with(&tree, "a", &tree, "link", RenameFlags::EXCHANGE)
                    }),
                );
            },
        );
    }

    #[test]
    fn a_directory_that_a_neighbour_moves_takes_nothing_else_with_it() {
        let deep = format!("tree/{}", "a/".repeat(WINDOW));
        race(
            |dir| nest(&dir.join("tree"), WINDOW * 4),
            |dir| {
                // The names go away in the end.
                drop(fs::rename(dir.join(&deep), dir.join("moved")));
                drop(fs::rename(dir.join("moved"), dir.join("kept/moved")));
                drop(fs::rename(dir.join("kept/moved"), dir.join(&deep)));
            },
        );
    }
}
