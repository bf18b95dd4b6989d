//! Directories that a layer uses and does not list, made as the layers beneath have them.
//!
//! overlayfs shows a merged directory with owner, mode, times and attributes of the uppermost layer
//! that has it, so there they must be what they were beneath.

use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};

use crate::copy::copy_metadata;
use crate::dir_stack::DirStack;
use crate::implied::{Implied, Node};
use crate::merged::{Lookup, Merged};
use crate::sys;
use crate::tar::Time;

/// Makes each of the `implied` directories of `own` as the uppermost of the layers `beneath`
/// (the nearest first) shows it. `false` if one is a symbolic link there: the layer must be unpacked
/// again, following it.
pub fn inherit(own: &OwnedFd, implied: &Implied, lower: &[OwnedFd]) -> Result<bool> {
    let mut walk = Walk { implied, path: Vec::new() };
    walk.run(own, lower).map_err(|e| {
        let path = walk.path.join(&b'/');
        let path = String::from_utf8_lossy(&path);
        Error::new(format_args!("directory /{path}: {}", strerror(&e.into())))
    })
}

/// Whether a root is as it is where no layer lists it.
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
    /// The names on the way to the current directory.
    path: Vec<&'a [u8]>,
}

impl<'a> Walk<'a> {
    fn run(&mut self, own: &OwnedFd, lower: &[OwnedFd]) -> rustix::io::Result<bool> {
        let mut stack = DirStack::new(sys::open_dir(own, b".")?);
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
            let mine = sys::open_dir(stack.fd(), name)?;
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
                // Beneath there is nothing that the directories in this one could be like.
                Lookup::Absent | Lookup::NonDirectory(..) => drop(self.path.pop()),
            }
        }
        Ok(true)
    }

    /// The directories to settle in one, which is open; none in one that hides those beneath.
    fn inside(&self, node: Node, directory: &OwnedFd) -> Vec<(&'a [u8], Node)> {
        if sys::is_opaque(directory) {
            Vec::new()
        } else {
            self.implied.children(node).rev().collect()
        }
    }
}
