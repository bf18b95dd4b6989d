//! A layer's directory while it is filled: where in it the unpacker stands.
//!
//! The way from the root to the current directory is held as a stack of fds, each opened by one
//! component beneath the one before, never following a symbolic link. So no name in an archive can
//! lead out, and a run of entries in one directory opens it once.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, remove_tree, strerror};
use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::io::Errno;

use crate::beneath::{Seen, parts, see};
use crate::sys;
use crate::tar::{Time, acl};

/// As many symbolic links as Linux follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A directory that is open.
struct Frame {
    name: Vec<u8>,
    fd: OwnedFd,
    /// What its modification time must be once nothing more is made in it.
    mtime: Time,
    /// Whether what is made in it takes over its group.
    setgid: bool,
}

/// The layer's directory and the way to the current one.
pub struct Tree<'a> {
    root: Frame,
    below: Vec<Frame>,
    implied: BTreeSet<Vec<u8>>,
    /// Lists that directories hand on to what is made in them: not while an archive makes it.
    default_acls: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The layers beneath, the nearest first; empty too while they are not known.
    beneath: &'a [OwnedFd],
}

impl<'a> Tree<'a> {
    /// `root` is empty and belongs to nobody else.
    pub fn new(root: OwnedFd, beneath: &'a [OwnedFd]) -> Self {
        let root = Frame { name: Vec::new(), fd: root, mtime: Time::default(), setgid: false };
        let (below, default_acls) = (Vec::new(), BTreeMap::new());
        Self { root, below, implied: BTreeSet::from([Vec::new()]), default_acls, beneath }
    }

    /// The current directory.
    pub fn fd(&self) -> &OwnedFd {
        &self.here().fd
    }

    /// The layer's root.
    pub fn root(&self) -> &OwnedFd {
        &self.root.fd
    }

    /// Whether what is made in the current directory takes over its group.
    pub fn is_setgid(&self) -> bool {
        self.here().setgid
    }

    fn here(&self) -> &Frame {
        self.below.last().unwrap_or(&self.root)
    }

    /// Makes the current directory the one that the components lead to from the root. Those that
    /// are not there are made; symbolic links are followed as they would be inside the root.
    pub fn enter(&mut self, components: &[&[u8]]) -> Result<()> {
        let shared =
            self.below.iter().zip(components).take_while(|(frame, c)| frame.name == **c).count();
        self.leave(shared)?;
        let mut todo: Vec<Vec<u8>> =
            components.iter().skip(shared).rev().map(|c| c.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => self.leave(self.below.len().saturating_sub(1))?,
                _ => {
                    if let Some(target) = self.descend(&name)? {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(self.fault("open", &name, Errno::LOOP));
                        }
                        if target.starts_with(b"/") {
                            self.leave(0)?;
                        }
                        todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes into the directory of that name, or gives the text of the symbolic link it is.
    fn descend(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match sys::open_dir(self.fd(), name) {
            Ok(fd) => self.push_existing(name, fd).map(|()| None),
            Err(Errno::NOENT) => {
                let text = self.see(name)?.link_text(name);
                match text.map_err(|e| self.fault("readlink", name, e))? {
                    Some(text) => Ok(Some(text)),
                    None => self.imply(name, false).map(|()| None),
                }
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let stat = sys::stat(self.fd(), name).map_err(|e| self.fault("stat", name, e))?;
                if sys::file_type(&stat) == FileType::Symlink {
                    let text = rustix::fs::readlinkat(self.fd(), name, Vec::new());
                    return text
                        .map(|text| Some(text.into_bytes()))
                        .map_err(|e| self.fault("readlink", name, e));
                }
                if !sys::is_whiteout(&stat) {
                    return Err(self.fault("open", name, Errno::NOTDIR));
                }
                // Gone, and here again with something in it: nothing from beneath shows.
                self.remove(name)?;
                self.imply(name, true).map(|()| None)
            }
            Err(e) => Err(self.fault("open", name, e)),
        }
    }

    /// What the layers beneath show under a name of the current directory.
    pub fn see(&self, name: &[u8]) -> Result<Seen> {
        let frames = || std::iter::once(&self.root).chain(&self.below);
        if self.beneath.is_empty() || frames().any(|frame| sys::is_opaque(&frame.fd)) {
            return Ok(Seen::Nothing);
        }
        see(self.beneath, &self.path_of(name)).map_err(|e| self.fault("open", name, e))
    }

    /// Goes into a directory that was there before.
    pub fn push_existing(&mut self, name: &[u8], fd: OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| self.fault("stat", name, e))?;
        let setgid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        self.below.push(Frame { name: name.to_vec(), fd, mtime: sys::mtime(&stat), setgid });
        Ok(())
    }

    /// Makes a directory that the archive uses and has not listed, and goes into it.
    fn imply(&mut self, name: &[u8], opaque: bool) -> Result<()> {
        let fd = self.make_directory(name, Mode::from_raw_mode(0o755))?;
        if opaque {
            sys::set_opaque(&fd).map_err(|e| self.fault("setxattr", name, e))?;
        }
        // The parent may hand on its group and its setgid bit.
        if self.is_setgid() {
            sys::reset_owner(&fd).map_err(|e| self.fault("chown", name, e))?;
        }
        self.below.push(Frame { name: name.to_vec(), fd, mtime: Time::default(), setgid: false });
        self.implied.insert(self.path());
        Ok(())
    }

    /// mkdir(2) and open, in the current directory.
    pub fn make_directory(&self, name: &[u8], mode: Mode) -> Result<OwnedFd> {
        rustix::fs::mkdirat(self.fd(), name, mode).map_err(|e| self.fault("mkdir", name, e))?;
        sys::open_dir(self.fd(), name).map_err(|e| self.fault("open", name, e))
    }

    /// The archive lists the current directory: it is as `mtime` and `setgid` say, and has that list
    /// in the end.
    pub fn list(&mut self, mtime: Time, setgid: bool, default_acl: Option<Vec<u8>>) {
        let path = self.path();
        self.implied.remove(&path);
        match default_acl {
            Some(list) => drop(self.default_acls.insert(path, list)),
            None => drop(self.default_acls.remove(&path)),
        }
        let here = self.below.last_mut().unwrap_or(&mut self.root);
        (here.mtime, here.setgid) = (mtime, setgid);
    }

    /// Removes a name from the current directory, with all beneath it.
    pub fn remove(&mut self, name: &[u8]) -> Result<()> {
        remove_tree(self.fd(), name).map_err(|e| self.fault("remove", name, e))?;
        let gone = self.path_of(name);
        let beneath = [gone.as_slice(), b"/"].concat();
        let is_gone = |path: &Vec<u8>| *path == gone || path.starts_with(&beneath);
        self.implied.retain(|path| !is_gone(path));
        self.default_acls.retain(|path, _| !is_gone(path));
        Ok(())
    }

    /// Leaves all directories; those that the archive used and did not list, `""` being the root.
    pub fn finish(mut self) -> Result<BTreeSet<Vec<u8>>> {
        self.leave(0)?;
        set_mtime(&self.root)?;
        for (path, list) in &self.default_acls {
            self.set_default_acl(path, list).map_err(|e| self.fault("setxattr", path, e))?;
        }
        Ok(self.implied)
    }

    fn set_default_acl(&self, path: &[u8], list: &[u8]) -> rustix::io::Result<()> {
        let root = sys::open_dir(&self.root.fd, b".")?;
        let directory = parts(path).try_fold(root, |at, part| sys::open_dir(&at, part))?;
        rustix::fs::fsetxattr(&directory, acl::DEFAULT, list, XattrFlags::empty())
    }

    /// Goes up until `depth` directories beneath the root are left.
    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.below.len() > depth {
            if let Some(frame) = self.below.pop() {
                set_mtime(&frame)?;
            }
        }
        Ok(())
    }

    fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.below.iter().map(|frame| frame.name.as_slice()).collect();
        names.join(&b'/')
    }

    /// The path of a name in the current directory.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match self.path() {
            path if path.is_empty() => name.to_vec(),
            path => [path.as_slice(), b"/", name].concat(),
        }
    }

    /// What a system call on a name in the current directory failed with.
    pub fn fault(&self, operation: &str, name: &[u8], errno: Errno) -> Error {
        let path = self.path_of(name);
        let path = String::from_utf8_lossy(&path);
        let error = Error::new(format_args!("{operation} {path}: {}", strerror(&errno.into())));
        match errno {
            Errno::PERM | Errno::INVAL if operation == "chown" => error.hint(sys::OWNERS_HINT),
            Errno::PERM if operation == "mknod" => error.hint("devices need root"),
            Errno::PERM if operation == "setxattr" => {
                error.hint("this attribute needs root, perhaps in a user namespace")
            }
            Errno::OPNOTSUPP => error.hint("the store's file system lacks what this layer needs"),
            _ => error,
        }
    }
}

fn set_mtime(frame: &Frame) -> Result<()> {
    rustix::fs::futimens(&frame.fd, &sys::timestamps(frame.mtime)).map_err(|e| {
        let name = String::from_utf8_lossy(&frame.name);
        Error::new(format_args!("utimens {name}: {}", strerror(&e.into())))
    })
}
