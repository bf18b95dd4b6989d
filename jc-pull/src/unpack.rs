//! A layer's tar, entry by entry, into a directory in overlayfs' format (OCI image-spec layer.md;
//! the kernel's overlayfs.rst).

use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use jc_unshare::{Error, Result, strerror};
use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::implied::Implied;
use crate::limits::Allowance;
use crate::sums::Sums;
use crate::sys;
use crate::tar::{Entry, Kind, Reader, acl};
use crate::tree::Tree;

mod link;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// AUFS' own files, that old layers have: hard links may lead to files in the last of them.
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// What became of a layer.
pub enum Unpacked {
    /// It is all there.
    Whole {
        /// The directories that the layer uses and does not list: they must be as the layers
        /// beneath have them.
        implied: Implied,
        /// Whether it has taken something from the layers beneath.
        dependent: bool,
    },
    /// It has a hard link to what only a layer beneath can have, and those were not given.
    NeedsBeneath,
}

/// Unpacks into `root`, an empty directory. `beneath` are the layers that it lies on, the nearest
/// first, if they are there already. `ignore_chown`: all is root's, whatever the layer says. `sums`
/// takes what is to be known of the files.
pub fn unpack<R: BufRead>(
    reader: &mut Reader<R>,
    root: OwnedFd,
    beneath: Option<&[OwnedFd]>,
    allowance: Allowance,
    ignore_chown: bool,
    sums: Sums,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker {
        tree: Tree::new(root, beneath.unwrap_or_default(), allowance)?,
        sums,
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        aufs: false,
        dependent: false,
        may_defer: beneath.is_none(),
        deferred: false,
    };
    while let Some(mut entry) = reader.entry().map_err(|e| Error::new(strerror(&e)))? {
        if ignore_chown {
            (entry.uid, entry.gid) = (0, 0);
        }
        let allowance = &mut unpacker.tree.allowance;
        let unpacked = allowance
            .entry()
            .and_then(|()| allowance.bytes(entry.size))
            .and_then(|()| unpacker.entry(&entry, reader));
        if unpacker.deferred {
            return Ok(Unpacked::NeedsBeneath);
        }
        unpacked.map_err(|e| {
            e.context(format_args!("entry {}", String::from_utf8_lossy(&entry.path)))
        })?;
    }
    unpacker.finish()
}

struct Unpacker {
    tree: Tree,
    sums: Sums,
    /// Who owns what is made, before any chown(2).
    owner: (u32, u32),
    /// Whether there are files of AUFS to be removed in the end.
    aufs: bool,
    dependent: bool,
    may_defer: bool,
    deferred: bool,
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
        let aufs = is_aufs(&components);
        self.aufs |= aufs;
        if parents.iter().skip(aufs.into()).any(|c| c.starts_with(WHITEOUT)) {
            return Err(Error::new("a whiteout in place of a directory"));
        }
        let is_whiteout = name.starts_with(WHITEOUT) && !(aufs && parents.is_empty());
        // Before the tree moves to where the link itself belongs.
        let target = match &entry.kind {
            Kind::HardLink(target) if !is_whiteout => Some(self.target(target)?),
            _ => None,
        };
        self.tree.enter(parents)?;
        if *name == OPAQUE_MARK {
            return self.tree.set_opaque().map_err(|e| self.tree.fault("setxattr", name, e));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| is_whiteout) {
            return self.whiteout(hidden);
        }
        if sys::forges_whiteout(&entry.kind, entry.uid) {
            return Err(Error::new("what the store itself hides a name with, not a whiteout"));
        }
        match (&entry.kind, target) {
            (Kind::Directory, _) => self.directory(name, entry),
            (Kind::File, _) => self.file(name, entry, reader),
            (Kind::Symlink(text), _) => self.symlink(name, text, entry),
            (Kind::Fifo, _) => self.node(name, FileType::Fifo, 0, entry),
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

    fn finish(mut self) -> Result<Unpacked> {
        if self.aufs {
            self.tree.enter(&[])?;
            for name in AUFS {
                self.remove(name)?;
            }
        }
        let implied = self.tree.finish()?;
        self.sums.finish().map_err(unsaved)?;
        Ok(Unpacked::Whole { implied, dependent: self.dependent })
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
                    self.remove(name)?;
                    (Ok(self.tree.make_directory(name, plain)?), false, true)
                }
                other => (other, true, false),
            },
            Err(e) => return Err(self.tree.fault("mkdir", name, e)),
        };
        let fd = fd.map_err(|e| self.tree.fault("open", name, e))?;
        if replaced {
            // What was there hid the layers beneath; so must what takes its place.
            sys::set_opaque(&fd).map_err(|e| self.tree.fault("setxattr", name, e))?;
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
        let (last, now): (Vec<_>, Vec<_>) =
            entry.xattrs.iter().partition(|(key, _)| key == acl::DEFAULT);
        set_xattrs(fd, now).map_err(|e| fault("setxattr", e))?;
        let default_acl = last.into_iter().next().map(|(_, value)| value.clone());
        self.tree.list(entry.mtime, entry.mode & 0o2000 != 0, default_acl);
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
        let file = std::fs::File::from(fd);
        let crc = write_content(&file, entry.size, reader)?;
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if self.must_chown(entry) {
            chown(&file, entry).map_err(|e| fault("chown", e))?;
        }
        // Writing and chown(2) both may drop these bits; and they come before security.capability.
        if entry.mode & 0o6000 != 0 {
            rustix::fs::fchmod(&file, mode).map_err(|e| fault("chmod", e))?;
        }
        set_xattrs(&file, &entry.xattrs).map_err(|e| fault("setxattr", e))?;
        rustix::fs::futimens(&file, &sys::timestamps(entry.mtime))
            .map_err(|e| fault("utimens", e))?;
        self.sums.file(&self.tree.path_of(name), entry, crc).map_err(unsaved)
    }

    /// Removes a name from the current directory, with all beneath it.
    fn remove(&mut self, name: &[u8]) -> Result<()> {
        self.tree.remove(name)?;
        self.sums.gone(&self.tree.path_of(name)).map_err(unsaved)
    }

    fn symlink(&mut self, name: &[u8], text: &[u8], entry: &Entry) -> Result<()> {
        self.make("symlink", name, |fd| rustix::fs::symlinkat(text, fd, name))?;
        self.dress(name, entry)
    }

    fn node(&mut self, name: &[u8], kind: FileType, device: Dev, entry: &Entry) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        self.make("mknod", name, |fd| sys::mknod(fd, name, kind, mode, device))?;
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
            sys::set_xattrs_at(fd, name, &entry.xattrs).map_err(|e| fault("setxattr", e))?;
        }
        let times = sys::timestamps(entry.mtime);
        rustix::fs::utimensat(fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| fault("utimens", e))
    }

    /// Hides a name of the layers beneath. Order does not matter: what this layer itself has under
    /// that name stays.
    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        if matches!(name, b"" | b"." | b"..") || name.starts_with(WHITEOUT) {
            return Err(Error::new("a whiteout that hides nothing"));
        }
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        let fd = self.tree.fd();
        match sys::make_whiteout(fd, name) {
            Ok(()) => sys::set_origin(fd).map_err(|e| fault("setxattr", e)),
            Err(Errno::EXIST) => match sys::open_dir(fd, name) {
                Ok(directory) => sys::set_opaque(directory).map_err(|e| fault("setxattr", e)),
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
                self.remove(name)?;
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

/// Whether the name is one of AUFS' own, or beneath one.
fn is_aufs(components: &[&[u8]]) -> bool {
    components.first().is_some_and(|first| AUFS.contains(first))
}

fn unsaved(e: std::io::Error) -> Error {
    Error::new(format_args!("write sums: {}", strerror(&e)))
}

/// Writes a file of `size` bytes, leaving its holes. The CRC-32 of its content, if it has none.
fn write_content<R: BufRead>(
    mut file: &File,
    size: u64,
    reader: &mut Reader<R>,
) -> Result<Option<u32>> {
    let mut crc = flate2::Crc::new();
    let mut whole = true;
    let broken = |e| Error::new(format_args!("write: {}", strerror(&e)));
    let mut end = 0;
    loop {
        let piece = reader.content().map_err(|e| Error::new(strerror(&e)))?;
        let n = piece.len();
        if n == 0 {
            break;
        }
        let position = reader.position();
        let piece = reader.content().map_err(|e| Error::new(strerror(&e)))?;
        if position != end {
            whole = false;
            file.seek(SeekFrom::Start(position)).map_err(broken)?;
        }
        file.write_all(piece).map_err(broken)?;
        crc.update(piece);
        reader.consume(n);
        end = position + n as u64;
    }
    if end < size {
        whole = false;
        file.set_len(size).map_err(broken)?;
    }
    Ok(whole.then(|| crc.sum()))
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

fn set_xattrs<'a>(
    fd: impl AsFd,
    xattrs: impl IntoIterator<Item = &'a (Vec<u8>, Vec<u8>)>,
) -> rustix::io::Result<()> {
    xattrs.into_iter().try_for_each(|(key, value)| {
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
