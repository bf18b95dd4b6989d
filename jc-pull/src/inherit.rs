//! Metadata of the directories that a layer uses and does not list, taken from the lower layers.
//!
//! overlayfs shows a merged directory with owner, mode, times and attributes of the uppermost layer that
//! has it, so that layer needs the metadata of the lower ones.

use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};

use crate::copy::copy_metadata;
use crate::dir_stack::DirStack;
use crate::implied::{Implied, Node};
use crate::merged::{Lookup, Merged};
use crate::sys;
use crate::tar::Time;

/// Copies the metadata of the merged `lower` layers, the nearest first, to the `implied` directories of
/// `own`. `false` if a lower layer has a symbolic link in place of a directory: the layer has to be
/// unpacked again, and follow the link.
pub fn inherit(own: &OwnedFd, implied: &Implied, lower: &[OwnedFd]) -> Result<bool> {
    let mut walk = Walk { implied, path: Vec::new() };
    walk.run(own, lower).map_err(|e| {
        let path = walk.path.join(&b'/');
        let path = String::from_utf8_lossy(&path);
        Error::new(format_args!("directory /{path}: {}", strerror(&e.into())))
    })
}

/// Whether a root has the metadata of a root that no layer lists.
pub fn is_default_root(root: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(root)?;
    let own = sys::xattr_names(root)?.iter().any(|key| !sys::is_overlay_xattr(key));
    Ok(!own
        && stat.st_mode & 0o7777 == 0o755
        && (stat.st_uid, stat.st_gid) == (0, 0)
        && sys::mtime(&stat) == Time::default())
}

struct Walk<'a> {
    implied: &'a Implied,
    /// The names between the root and the current directory.
    path: Vec<&'a [u8]>,
}

impl<'a> Walk<'a> {
    fn run(&mut self, own: &OwnedFd, lower: &[OwnedFd]) -> rustix::io::Result<bool> {
        let mut stack = DirStack::new(sys::open_dir_to_read(own, ".")?);
        let mut merged = Merged::new(lower)?;
        if let Some(theirs) = merged.top()
            && self.implied.is_implied(Implied::ROOT)
            && !sys::is_opaque(own)
        {
            copy_metadata(theirs, own)?;
        }
        let mut todo = vec![self.inside(Implied::ROOT, own)];
        while let Some(here) = todo.last_mut() {
            let Some((name, node)) = here.pop() else {
                todo.pop();
                self.path.pop();
                stack.pop()?;
                merged.ascend()?;
                continue;
            };
            self.path.push(name);
            let mine = sys::open_dir_to_read(stack.fd(), name)?;
            let found = if sys::is_opaque(&mine) { Lookup::Absent } else { merged.lookup(name)? };
            let is_implied = self.implied.is_implied(node);
            match found {
                Lookup::Directory(theirs) => {
                    if is_implied {
                        copy_metadata(&theirs, &mine)?;
                    }
                    todo.push(self.inside(node, &mine));
                    stack.push(mine)?;
                    merged.descend(name)?;
                }
                _ if is_implied && found.link_text(name)?.is_some() => return Ok(false),
                // The directories below this one are in no lower layer.
                Lookup::Absent | Lookup::NonDirectory(..) => drop(self.path.pop()),
            }
        }
        Ok(true)
    }

    /// The nodes in a directory of the layer. An opaque directory has none.
    fn inside(&self, node: Node, directory: &OwnedFd) -> Vec<(&'a [u8], Node)> {
        if sys::is_opaque(directory) {
            Vec::new()
        } else {
            self.implied.children(node).rev().collect()
        }
    }
}
