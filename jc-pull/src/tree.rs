//! The directory of a layer that is being unpacked, and the current directory in it.
//!
//! Each directory is opened by one component below its parent, and the kernel follows no symbolic link. A
//! name in an archive therefore cannot leave the directory of the layer, and entries in one directory
//! open it once.

use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, remove_tree, strerror};
use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::io::Errno;

use crate::dir_stack::DirStack;
use crate::implied::{Implied, Node};
use crate::limits::Allowance;
use crate::merged::{Lookup, Merged};
use crate::sys;
use crate::tar::{Time, acl};

/// The most symbolic links of one path in Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A directory between the root and the current one, or the current one.
#[derive(Default)]
struct Frame {
    name: Vec<u8>,
    /// The modification time, which is set when the directory is complete.
    mtime: Time,
    /// Whether new entries get the group of the directory.
    setgid: bool,
    /// Whether the directory or one above it hides the lower layers.
    hidden: bool,
    /// The default access control list, which is set when the directory is complete, so that new entries
    /// do not inherit it.
    default_acl: Option<Vec<u8>>,
    node: Option<Node>,
}

/// The directory of a layer, with the current directory in it.
pub struct Tree {
    root: Frame,
    below: Vec<Frame>,
    stack: DirStack,
    /// The part of the limits of the layer that is left.
    pub allowance: Allowance,
    implied: Implied,
    /// Whether a directory of the layer has a default access control list.
    has_default_acls: bool,
    /// The lower layers. Absent if there are none, or if they are unknown.
    lower: Option<Merged>,
}

/// The file under a name of the current directory.
enum Step {
    Entered,
    Link(Vec<u8>),
    Missing,
}

impl Tree {
    /// `root` is an empty directory of this process alone. `lower` are the lower layers, the nearest
    /// first.
    pub fn new(root: OwnedFd, lower: &[OwnedFd], allowance: Allowance) -> Result<Self> {
        let merged = || Merged::new(lower).map_err(|e| Error::new(strerror(&e.into())));
        Ok(Self {
            root: Frame { node: Some(Implied::ROOT), ..Frame::default() },
            below: Vec::new(),
            stack: DirStack::new(root),
            allowance,
            implied: Implied::default(),
            has_default_acls: false,
            lower: if lower.is_empty() { None } else { Some(merged()?) },
        })
    }

    pub fn fd(&self) -> &OwnedFd {
        self.stack.fd()
    }

    /// The root of the layer.
    pub fn root(&self) -> &OwnedFd {
        self.stack.root()
    }

    pub fn is_setgid(&self) -> bool {
        self.current().setgid
    }

    fn current(&self) -> &Frame {
        self.below.last().unwrap_or(&self.root)
    }

    fn current_mut(&mut self) -> &mut Frame {
        self.below.last_mut().unwrap_or(&mut self.root)
    }

    /// Enters the directory of a path from the root. Absent directories are made, and symbolic links are
    /// followed inside of the root. A component that is neither a directory nor a link is an error, and
    /// so are too many links.
    pub fn enter(&mut self, components: &[&[u8]]) -> Result<()> {
        self.walk(components, true).map(drop)
    }

    /// Enters the directory of a path, and makes no directory. `false` if a component is absent.
    pub fn find(&mut self, components: &[&[u8]]) -> Result<bool> {
        self.walk(components, false)
    }

    fn walk(&mut self, components: &[&[u8]], makes: bool) -> Result<bool> {
        let shared =
            self.below.iter().zip(components).take_while(|(frame, c)| frame.name == **c).count();
        self.leave(shared)?;
        let mut todo: Vec<Vec<u8>> =
            components.iter().skip(shared).rev().map(|c| c.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    self.leave(self.below.len().saturating_sub(1))?;
                    continue;
                }
                _ => {}
            }
            let target = match self.descend(&name)? {
                Step::Entered => continue,
                Step::Link(target) => target,
                Step::Missing if !makes => return Ok(false),
                Step::Missing => match self.lower_link(&name)? {
                    Some(target) => target,
                    None => {
                        self.make_implied(&name, false)?;
                        continue;
                    }
                },
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(self.fault("open", &name, Errno::LOOP));
            }
            self.allowance.link(target.len())?;
            if target.starts_with(b"/") {
                self.leave(0)?;
            }
            todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(true)
    }

    /// Enters a directory, or returns the target of a symbolic link.
    fn descend(&mut self, name: &[u8]) -> Result<Step> {
        match sys::open_dir_to_read(self.fd(), name) {
            Ok(fd) => self.push_existing(name, fd).map(|()| Step::Entered),
            Err(Errno::NOENT) => Ok(Step::Missing),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let stat = sys::stat(self.fd(), name).map_err(|e| self.fault("stat", name, e))?;
                if sys::file_type(&stat) == FileType::Symlink {
                    let text = rustix::fs::readlinkat(self.fd(), name, Vec::new());
                    return text
                        .map(|text| Step::Link(text.into_bytes()))
                        .map_err(|e| self.fault("readlink", name, e));
                }
                if !sys::is_whiteout(&stat) {
                    return Err(self.fault("open", name, Errno::NOTDIR));
                }
                // A whiteout and a directory of one name are an opaque directory.
                self.remove(name)?;
                self.make_implied(name, true).map(|()| Step::Entered)
            }
            Err(e) => Err(self.fault("open", name, e)),
        }
    }

    fn lower_link(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.lookup_lower(name)?.link_text(name).map_err(|e| self.fault("readlink", name, e))
    }

    /// The file of the lower layers under a name of the current directory. Errors are those of openat(2),
    /// except absence.
    pub fn lookup_lower(&mut self, name: &[u8]) -> Result<Lookup> {
        if self.current().hidden {
            return Ok(Lookup::Absent);
        }
        let Some(merged) = &mut self.lower else { return Ok(Lookup::Absent) };
        let mut below = self.below.iter().skip(merged.level());
        let descended = below.try_for_each(|frame| merged.descend(&frame.name));
        let found = descended.and_then(|()| merged.lookup(name));
        found.map_err(|e| self.fault("open", name, e))
    }

    /// Enters a directory that existed before.
    pub fn push_existing(&mut self, name: &[u8], fd: OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| self.fault("stat", name, e))?;
        let setgid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        let mut frame = Frame { mtime: sys::mtime(&stat), setgid, ..Frame::default() };
        if self.has_default_acls {
            let list = take_default_acl(&fd).map_err(|e| self.fault("removexattr", name, e))?;
            frame.default_acl = list;
        }
        frame.node = self.current().node.and_then(|node| self.implied.child(node, name));
        self.push(name, fd, frame)
    }

    fn push(&mut self, name: &[u8], fd: OwnedFd, frame: Frame) -> Result<()> {
        let opaque = || self.lower.is_some() && sys::is_opaque(&fd);
        let hidden = self.current().hidden || opaque();
        self.stack.push(fd).map_err(|e| self.fault("stat", name, e))?;
        self.below.push(Frame { name: name.to_vec(), hidden, ..frame });
        Ok(())
    }

    /// Makes the current directory opaque.
    pub fn set_opaque(&mut self) -> rustix::io::Result<()> {
        self.current_mut().hidden = true;
        sys::set_opaque(self.fd())
    }

    /// Makes and enters a directory that the archive uses and has not listed.
    fn make_implied(&mut self, name: &[u8], opaque: bool) -> Result<()> {
        self.allowance.entry()?;
        let fd = self.make_directory(name, Mode::from_raw_mode(0o755))?;
        if opaque {
            sys::set_opaque(&fd).map_err(|e| self.fault("setxattr", name, e))?;
        }
        // The directory may inherit the group and the setgid bit of its parent.
        if self.is_setgid() {
            sys::reset_owner(&fd).map_err(|e| self.fault("chown", name, e))?;
        }
        let node = self.add_node(name);
        self.implied.set_implied(node, true);
        self.push(name, fd, Frame { node: Some(node), ..Frame::default() })
    }

    /// The node of a name in the current directory. The nodes of the directories above it are made, too.
    fn add_node(&mut self, name: &[u8]) -> Node {
        let known = self.below.iter().rposition(|frame| frame.node.is_some());
        let first = known.map_or(0, |known| known + 1);
        let mut node = known.and_then(|known| self.below.get(known)?.node).unwrap_or(Implied::ROOT);
        for frame in self.below.iter_mut().skip(first) {
            node = self.implied.add(node, &frame.name);
            frame.node = Some(node);
        }
        self.implied.add(node, name)
    }

    /// Makes and opens a directory in the current directory.
    pub fn make_directory(&self, name: &[u8], mode: Mode) -> Result<OwnedFd> {
        rustix::fs::mkdirat(self.fd(), name, mode).map_err(|e| self.fault("mkdir", name, e))?;
        sys::open_dir_to_read(self.fd(), name).map_err(|e| self.fault("open", name, e))
    }

    /// Records that the archive lists the current directory, with this metadata.
    pub fn set_listed(&mut self, mtime: Time, setgid: bool, default_acl: Option<Vec<u8>>) {
        if let Some(node) = self.current().node {
            self.implied.set_implied(node, false);
        }
        self.has_default_acls |= default_acl.is_some();
        let frame = self.current_mut();
        (frame.mtime, frame.setgid, frame.default_acl) = (mtime, setgid, default_acl);
    }

    /// Removes a name from the current directory, with all files below it. Errors are those of
    /// unlinkat(2), except absence.
    pub fn remove(&mut self, name: &[u8]) -> Result<()> {
        remove_tree(self.fd(), name).map_err(|e| self.fault("remove", name, e))?;
        if let Some(node) = self.current().node {
            self.implied.forget(node, name);
        }
        Ok(())
    }

    /// Leaves all directories. Returns the directories that the archive used and did not list.
    pub fn finish(mut self) -> Result<Implied> {
        self.leave(0)?;
        finish(&self.root, self.stack.fd()).map_err(|e| self.fault("utimens", b".", e))?;
        Ok(self.implied)
    }

    /// Leaves directories, up to a depth below the root.
    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.below.len() > depth {
            let left = self.below.last().map_or(Ok(()), |frame| finish(frame, self.stack.fd()));
            left.and_then(|()| self.stack.pop()).map_err(|e| self.fault("utimens", b".", e))?;
            self.below.pop();
        }
        while let Some(merged) = self.lower.as_mut().filter(|merged| merged.level() > depth) {
            merged.ascend().map_err(|e| Error::new(strerror(&e.into())))?;
        }
        Ok(())
    }

    fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.below.iter().map(|frame| frame.name.as_slice()).collect();
        names.join(&b'/')
    }

    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match self.path() {
            path if path.is_empty() => name.to_vec(),
            path => [path.as_slice(), b"/", name].concat(),
        }
    }

    /// The error of a system call on a name in the current directory.
    pub fn fault(&self, operation: &str, name: &[u8], errno: Errno) -> Error {
        let path = self.path_of(name);
        let path = String::from_utf8_lossy(&path);
        let error = Error::new(format_args!("{operation} {path}: {}", strerror(&errno.into())));
        let error = error.caused_by(errno.raw_os_error());
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

/// Sets the metadata that a directory gets when it is complete.
fn finish(frame: &Frame, fd: &OwnedFd) -> rustix::io::Result<()> {
    if let Some(list) = &frame.default_acl {
        rustix::fs::fsetxattr(fd, acl::DEFAULT, list, XattrFlags::empty())?;
    }
    rustix::fs::futimens(fd, &sys::timestamps(frame.mtime))
}

/// Removes the default access control list of a directory, so that new entries do not inherit it.
fn take_default_acl(fd: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    let list = sys::xattr(fd, acl::DEFAULT)?;
    if list.is_some() {
        rustix::fs::fremovexattr(fd, acl::DEFAULT)?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_count_whether_an_archive_lists_or_implies_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap().into();
        let mut tree = Tree::new(root, &[], Allowance::new(0).of_entries(5)).unwrap();
        tree.enter(&[b"a", b"b", b"c"]).unwrap();
        tree.enter(&[b"a", b"b"]).unwrap();
        tree.enter(&[b"d"]).unwrap();
        let refused = tree.enter(&[b"a", b"b", b"e", b"f"]).unwrap_err().to_string();
        assert_eq!(refused, "more than 4194304 entries");
    }

    #[test]
    fn implied_directories_are_those_that_are_left_and_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap().into();
        let mut tree = Tree::new(root, &[], Allowance::new(0)).unwrap();
        tree.enter(&[b"a", b"b"]).unwrap();
        tree.enter(&[b"a"]).unwrap();
        tree.set_listed(Time::default(), false, None);
        tree.enter(&[b"c", b"d"]).unwrap();
        tree.enter(&[]).unwrap();
        tree.remove(b"c").unwrap();
        let implied = tree.finish().unwrap();
        assert!(implied.is_implied(Implied::ROOT));
        let a = implied.child(Implied::ROOT, b"a").unwrap();
        assert!(!implied.is_implied(a));
        assert!(implied.is_implied(implied.child(a, b"b").unwrap()));
        assert_eq!(implied.children(Implied::ROOT).count(), 1);
    }
}
