//! Hard links to files of the same layer and of lower layers.

use std::os::fd::OwnedFd;

use jc_unshare::descriptor::is_same;
use jc_unshare::{Context, Error, Result, strerror};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::path::{WHITEOUT, components, is_aufs};
use super::state::{State, unsaved};
use crate::copy::copy_up;
use crate::merged::Lookup;
use crate::sys;

impl State {
    /// The directory of the target of a hard link, and the target's name in it. A target that neither
    /// this layer nor a lower one has is an error.
    pub fn target(&mut self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let text = String::from_utf8_lossy(path);
        let context = |e: Error| e.context(format_args!("hard link to {text}"));
        let components = components(path).map_err(context)?;
        let Some((name, parents)) = components.split_last() else {
            return Err(Error::new("a hard link to the root"));
        };
        if components.iter().skip(is_aufs(&components).into()).any(|c| c.starts_with(WHITEOUT)) {
            return Err(context(Error::new("a whiteout")));
        }
        match self.own_target(name, parents).map_err(context)? {
            Some(directory) => Ok((directory, name.to_vec())),
            None if self.may_defer => {
                self.is_deferred = true;
                Err(context(Error::new("not in this layer")))
            }
            None => self
                .copy_target(name, parents)
                .and_then(|()| Ok((self.tree.fd().try_clone().op("dup")?, name.to_vec())))
                .map_err(context),
        }
    }

    /// The directory of the target. The result is `None` if this layer lacks the target.
    fn own_target(&mut self, name: &[u8], parents: &[&[u8]]) -> Result<Option<OwnedFd>> {
        let directory = match sys::open_beneath(self.tree.root(), parents) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            // A component is a symbolic link. The tree follows links within the limits.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                if !self.tree.find(parents)? {
                    return Ok(None);
                }
                self.tree.fd().try_clone().op("dup")?
            }
            Err(e) => return Err(Error::new(strerror(&e.into()))),
        };
        match sys::stat(&directory, name) {
            Ok(stat) if !sys::is_whiteout(&stat) => Ok(Some(directory)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::new(strerror(&e.into()))),
        }
    }

    /// Copies the target from the lower layers, as overlayfs does for link(2), and enters its directory.
    fn copy_target(&mut self, name: &[u8], parents: &[&[u8]]) -> Result<()> {
        let missing = || Error::new(strerror(&Errno::NOENT.into()));
        self.tree.enter(parents)?;
        match sys::stat(self.tree.fd(), name) {
            Ok(stat) if sys::is_whiteout(&stat) => return Err(missing()),
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(self.tree.fault("stat", name, e)),
        }
        self.copied_from_lower = true;
        match self.tree.lookup_lower(name)? {
            Lookup::Absent => Err(missing()),
            Lookup::Directory(_) => Err(Error::new("a directory")),
            Lookup::NonDirectory(from, stat) => copy_up(&from, self.tree.fd(), name, &stat)
                .map_err(|e| Error::new(format_args!("copy: {}", strerror(&e))))
                .and_then(|()| self.sums.unknown(&self.tree.path_of(name)).map_err(unsaved)),
        }
    }

    pub fn hard_link(&mut self, name: &[u8], directory: &OwnedFd, target: &[u8]) -> Result<()> {
        if let (Ok(here), Ok(there)) =
            (sys::stat(self.tree.fd(), name), sys::stat(directory, target))
            && is_same(&here, &there)
        {
            return Ok(());
        }
        self.create("link", name, |fd| {
            rustix::fs::linkat(directory, target, fd, name, AtFlags::empty())
        })?;
        self.sums.unknown(&self.tree.path_of(name)).map_err(unsaved)
    }
}
