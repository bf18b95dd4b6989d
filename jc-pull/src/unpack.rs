//! A layer's tar, entry by entry, into a directory in overlayfs' format (OCI image-spec layer.md;
//! the kernel's overlayfs.rst).

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use jc_unshare::{Error, Result, strerror};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::sys;
use crate::tar::{Entry, Kind, Reader};
use crate::tree::{Tree, set_opaque};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Unpacks into `root`, an empty directory. Gives the directories that the layer uses and does not
/// list, `""` being the root: they should be as the layers beneath have them.
pub fn unpack<R: BufRead>(reader: &mut Reader<R>, root: OwnedFd) -> Result<BTreeSet<Vec<u8>>> {
    let mut unpacker = Unpacker {
        tree: Tree::new(root),
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    };
    while let Some(entry) = reader.entry().map_err(|e| Error::new(strerror(&e)))? {
        unpacker.entry(&entry, reader).map_err(|e| {
            e.context(format_args!("entry {}", String::from_utf8_lossy(&entry.path)))
        })?;
    }
    unpacker.tree.finish()
}

struct Unpacker {
    tree: Tree,
    /// Who owns what is made, before any chown(2).
    owner: (u32, u32),
}

impl Unpacker {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        check_xattrs(entry)?;
        let components = components(&entry.path)?;
        let Some((name, parents)) = components.split_last() else {
            self.tree.enter(&[])?;
            return match entry.kind {
                Kind::Directory => self.root(entry),
                _ => Err(Error::new("the root itself is not a directory")),
            };
        };
        if parents.iter().any(|c| c.starts_with(WHITEOUT)) {
            return Err(Error::new("a whiteout in place of a directory"));
        }
        // Before the tree moves to where the link itself belongs.
        let target = match &entry.kind {
            Kind::HardLink(target) if !name.starts_with(WHITEOUT) => Some(self.target(target)?),
            _ => None,
        };
        self.tree.enter(parents)?;
        if *name == OPAQUE_MARK {
            return set_opaque(self.tree.fd()).map_err(|e| self.tree.fault("setxattr", name, e));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(hidden);
        }
        match (&entry.kind, target) {
            (Kind::Directory, _) => self.directory(name, entry),
            (Kind::File, _) => self.file(name, entry, reader),
            (Kind::Symlink(text), _) => self.symlink(name, text, entry),
            (Kind::Fifo, _) => self.node(name, FileType::Fifo, 0, entry),
            (Kind::Char(0, 0), _) => {
                Err(Error::new("a character device 0:0, which is how overlayfs hides a name"))
            }
            (Kind::Char(major, minor), _) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(name, FileType::CharacterDevice, device, entry)
            }
            (Kind::Block(major, minor), _) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(name, FileType::BlockDevice, device, entry)
            }
            (Kind::HardLink(_), Some((directory, target))) => {
                self.hard_link(name, &directory, &target)
            }
            (Kind::HardLink(_), None) => Err(Error::new("a hard link to nothing")),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        self.dress_directory(b".", entry, true)
    }

    fn directory(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let plain = Mode::from_raw_mode(entry.mode & 0o1777);
        let inherits = self.tree.is_setgid();
        let (fd, existed, replaced) = match rustix::fs::mkdirat(self.tree.fd(), name, plain) {
            Ok(()) => (sys::open_dir(self.tree.fd(), name), false, false),
            Err(Errno::EXIST) => match sys::open_dir(self.tree.fd(), name) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.tree.remove(name)?;
                    (Ok(self.tree.make_directory(name, plain)?), false, true)
                }
                other => (other, true, false),
            },
            Err(e) => return Err(self.tree.fault("mkdir", name, e)),
        };
        let fd = fd.map_err(|e| self.tree.fault("open", name, e))?;
        if replaced {
            // What was there hid the layers beneath; so must what takes its place.
            set_opaque(&fd).map_err(|e| self.tree.fault("setxattr", name, e))?;
        }
        self.tree.push_existing(name, fd)?;
        self.dress_directory(b".", entry, existed || inherits)
    }

    /// Gives the current directory what the entry says of it. `reset`: it may have other owners
    /// and modes than those that mkdir(2) gives.
    fn dress_directory(&mut self, name: &[u8], entry: &Entry, reset: bool) -> Result<()> {
        let fd = self.tree.fd();
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if reset || (entry.uid, entry.gid) != self.owner {
            chown(fd, entry).map_err(|e| fault("chown", e))?;
        }
        if reset || entry.mode & 0o6000 != 0 {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::fchmod(fd, mode).map_err(|e| fault("chmod", e))?;
        }
        if reset {
            clear_xattrs(fd).map_err(|e| fault("removexattr", e))?;
        }
        set_xattrs(fd, entry).map_err(|e| fault("setxattr", e))?;
        self.tree.list(entry.mtime, entry.mode & 0o2000 != 0);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode);
        let fd = self.make("create", name, |fd| rustix::fs::openat(fd, name, flags, mode))?;
        let mut file = std::fs::File::from(fd);
        loop {
            let piece = reader.content().map_err(|e| Error::new(strerror(&e)))?;
            if piece.is_empty() {
                break;
            }
            let n = piece.len();
            file.write_all(piece)
                .map_err(|e| Error::new(format_args!("write: {}", strerror(&e))))?;
            reader.consume(n);
        }
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if self.must_chown(entry) {
            chown(&file, entry).map_err(|e| fault("chown", e))?;
        }
        // Writing and chown(2) both may drop these bits; and they come before security.capability.
        if entry.mode & 0o6000 != 0 {
            rustix::fs::fchmod(&file, mode).map_err(|e| fault("chmod", e))?;
        }
        set_xattrs(&file, entry).map_err(|e| fault("setxattr", e))?;
        rustix::fs::futimens(&file, &sys::timestamps(entry.mtime)).map_err(|e| fault("utimens", e))
    }

    fn symlink(&mut self, name: &[u8], text: &[u8], entry: &Entry) -> Result<()> {
        self.make("symlink", name, |fd| rustix::fs::symlinkat(text, fd, name))?;
        self.dress(name, entry)
    }

    fn node(&mut self, name: &[u8], kind: FileType, device: u64, entry: &Entry) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        self.make("mknod", name, |fd| rustix::fs::mknodat(fd, name, kind, mode, device))?;
        self.dress(name, entry)
    }

    /// Owner, attributes and time of what cannot be opened to be given them.
    fn dress(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let fd = self.tree.fd();
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if self.must_chown(entry) {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| fault("chown", e))?;
            if entry.mode & 0o6000 != 0 && !matches!(entry.kind, Kind::Symlink(_)) {
                let mode = Mode::from_raw_mode(entry.mode);
                rustix::fs::chmodat(fd, name, mode, AtFlags::empty())
                    .map_err(|e| fault("chmod", e))?;
            }
        }
        if !entry.xattrs.is_empty() {
            self.set_xattrs_by_path(name, entry).map_err(|e| fault("setxattr", e))?;
        }
        let times = sys::timestamps(entry.mtime);
        rustix::fs::utimensat(fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| fault("utimens", e))
    }

    /// An O_PATH fd takes no xattr calls; its name in /proc does, and ends at the very inode.
    fn set_xattrs_by_path(&self, name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.tree.fd(), name, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        entry.xattrs.iter().try_for_each(|(key, value)| {
            rustix::fs::setxattr(path.as_str(), key.as_slice(), value, XattrFlags::empty())
        })
    }

    /// The directory that holds a hard link's target, and the target's name in it.
    fn target(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let text = String::from_utf8_lossy(path);
        let components =
            components(path).map_err(|e| e.context(format_args!("hard link to {text}")))?;
        let Some((name, parents)) = components.split_last() else {
            return Err(Error::new("a hard link to the root"));
        };
        if components.iter().any(|c| c.starts_with(WHITEOUT)) {
            return Err(Error::new(format_args!("hard link to {text}: a whiteout")));
        }
        let fault = |e: Errno| {
            let error = Error::new(format_args!("hard link to {text}: {}", strerror(&e.into())));
            match e {
                Errno::NOENT => {
                    error.hint("links to what only a lower layer has are not supported")
                }
                _ => error,
            }
        };
        let parents = if parents.is_empty() { b".".to_vec() } else { parents.join(&b'/') };
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let root = self.tree.root();
        let directory =
            rustix::fs::openat2(root, parents, flags, Mode::empty(), resolve).map_err(fault)?;
        let stat = sys::stat(&directory, name).map_err(fault)?;
        if sys::is_whiteout(&stat) {
            return Err(fault(Errno::NOENT));
        }
        Ok((directory, name.to_vec()))
    }

    fn hard_link(&mut self, name: &[u8], directory: &OwnedFd, target: &[u8]) -> Result<()> {
        let same = |a: &rustix::fs::Stat, b: &rustix::fs::Stat| {
            (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
        };
        if let (Ok(here), Ok(there)) =
            (sys::stat(self.tree.fd(), name), sys::stat(directory, target))
            && same(&here, &there)
        {
            return Ok(());
        }
        self.make("link", name, |fd| {
            rustix::fs::linkat(directory, target, fd, name, AtFlags::empty())
        })
    }

    /// Hides a name of the layers beneath. Order does not matter: what this layer itself has under
    /// that name stays.
    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        if matches!(name, b"" | b"." | b"..") || name.starts_with(WHITEOUT) {
            return Err(Error::new("a whiteout that hides nothing"));
        }
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        let fd = self.tree.fd();
        let made = rustix::fs::mknodat(fd, name, FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Ok(()) => rustix::fs::fsetxattr(fd, sys::ORIGIN, b"", XattrFlags::empty())
                .map_err(|e| fault("setxattr", e)),
            Err(Errno::EXIST) => match sys::open_dir(fd, name) {
                Ok(directory) => set_opaque(directory).map_err(|e| fault("setxattr", e)),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(()),
                Err(e) => Err(fault("open", e)),
            },
            Err(e) => Err(fault("mknod", e)),
        }
    }

    /// Makes something new under a name; of duplicates the last one wins.
    fn make<T>(
        &mut self,
        operation: &str,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make(self.tree.fd()) {
            Err(Errno::EXIST) => {
                self.tree.remove(name)?;
                make(self.tree.fd())
            }
            other => other,
        };
        made.map_err(|e| self.tree.fault(operation, name, e))
    }

    fn must_chown(&self, entry: &Entry) -> bool {
        (entry.uid, entry.gid) != self.owner || self.tree.is_setgid()
    }
}

/// The name's parts. One that leads upwards is refused: what it means depends on who reads it.
fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let parts = path.split(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b"."));
    let parts: Vec<&[u8]> = parts.collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(Error::new("the name leads upwards"));
    }
    Ok(parts)
}

fn check_xattrs(entry: &Entry) -> Result<()> {
    match entry.xattrs.iter().find(|(key, _)| sys::is_overlay_xattr(key)) {
        Some((key, _)) => Err(Error::new(format_args!(
            "the attribute {}, which is overlayfs' own",
            String::from_utf8_lossy(key)
        ))),
        None => Ok(()),
    }
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

fn chown(fd: impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(fd, Some(uid), Some(gid))
}

fn set_xattrs(fd: impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    entry.xattrs.iter().try_for_each(|(key, value)| {
        rustix::fs::fsetxattr(fd.as_fd(), key.as_slice(), value, XattrFlags::empty())
    })
}

/// Takes away what an earlier entry gave, but not what makes an opaque directory.
fn clear_xattrs(fd: impl AsFd) -> rustix::io::Result<()> {
    for key in sys::xattr_names(fd.as_fd())? {
        if !sys::is_overlay_xattr(&key) {
            rustix::fs::fremovexattr(fd.as_fd(), key.as_slice())?;
        }
    }
    Ok(())
}
