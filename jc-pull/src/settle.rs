//! Directories that a layer uses and does not list, made as the layers beneath have them.
//!
//! overlayfs shows a merged directory with owner, mode, times and attributes of the uppermost layer
//! that has it, so there they must be what they were beneath.

use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};

use crate::beneath::{Merged, Seen, copy_metadata};
use crate::implied::{Implied, Node};
use crate::sys;
use crate::tar::Time;
use crate::way::Way;

/// Makes each of the `implied` directories of `own` as the uppermost of the layers `beneath`
/// (the nearest first) shows it. `false` if one is a symbolic link there: the layer must be unpacked
/// again, following it.
pub fn settle(own: &OwnedFd, implied: &Implied, beneath: &[OwnedFd]) -> Result<bool> {
    let mut settling = Settling { implied, path: Vec::new() };
    settling.run(own, beneath).map_err(|e| {
        let path = settling.path.iter().map(|name| String::from_utf8_lossy(name));
        let path = path.collect::<Vec<_>>().join("/");
        Error::new(format_args!("directory /{path}: {}", strerror(&e.into())))
    })
}

/// Whether a root is as it is where no layer lists it.
pub fn is_plain(root: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(root)?;
    let own = sys::xattr_names(root)?.iter().any(|key| !sys::is_overlay_xattr(key));
    Ok(!own
        && stat.st_mode & 0o7777 == 0o755
        && (stat.st_uid, stat.st_gid) == (0, 0)
        && sys::mtime(&stat) == Time::default())
}

struct Settling<'a> {
    implied: &'a Implied,
    /// The names on the way to the current directory.
    path: Vec<&'a [u8]>,
}

impl<'a> Settling<'a> {
    fn run(&mut self, own: &OwnedFd, beneath: &[OwnedFd]) -> rustix::io::Result<bool> {
        let mut way = Way::new(sys::open_dir(own, b".")?);
        let mut merged = Merged::new(beneath)?;
        if let Some(theirs) = merged.top()
            && self.implied.contains(Implied::ROOT)
            && !sys::is_opaque(own)
        {
            copy_metadata(theirs, own)?;
        }
        let mut todo = vec![self.inside(Implied::ROOT, own)];
        while let Some(here) = todo.last_mut() {
            let Some((name, node)) = here.pop() else {
                todo.pop();
                self.path.pop();
                way.pop()?;
                merged.ascend()?;
                continue;
            };
            self.path.push(name);
            let mine = sys::open_dir(way.fd(), name)?;
            let seen = if sys::is_opaque(&mine) { Seen::Nothing } else { merged.see(name)? };
            let is_implied = self.implied.contains(node);
            match seen {
                Seen::Directory(theirs) => {
                    if is_implied {
                        copy_metadata(&theirs, &mine)?;
                    }
                    todo.push(self.inside(node, &mine));
                    way.push(mine)?;
                    merged.descend(name)?;
                }
                _ if is_implied && seen.link_text(name)?.is_some() => return Ok(false),
                // Beneath there is nothing that the directories in this one could be like.
                Seen::Nothing | Seen::Other(..) => drop(self.path.pop()),
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
