//! `--to`: one directory with the files that an overlay of the layers shows.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{AtFlags, Mode, Stat};

use crate::atomic::AtomicPath;
use crate::copy::{copy_metadata, copy_up};
use crate::dir_stack::DirStack;
use crate::sys;
use crate::walk::{NonDirectory, Visitor, walk};

/// Writes the layers, the uppermost first, to `to`, which is absent or an empty directory. The directory
/// appears complete, by rename. A directory with files is an error.
pub fn flatten(layers: &[OwnedFd], to: &Path, no_sync: bool) -> Result<()> {
    let output = AtomicPath::directory(to)?;
    let root = output.fd.try_clone().op("dup")?;
    walk(layers, &mut Writer { stack: None, root })?;
    if !no_sync {
        sys::sync(&output.fd).on("sync", to)?;
    }
    output.publish()
}

/// Writes the files of a walk.
struct Writer {
    /// The directory that is being written. Absent before the root.
    stack: Option<DirStack>,
    root: OwnedFd,
}

impl Visitor for Writer {
    fn directory(&mut self, path: &[u8], _: &OwnedFd, _: &Stat) -> Result<()> {
        let enter = |stack: &mut DirStack| {
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            rustix::fs::mkdirat(stack.fd(), name, Mode::RWXU)?;
            stack.push(sys::open_dir_to_read(stack.fd(), name)?)
        };
        match &mut self.stack {
            Some(stack) => enter(stack).on("mkdir", sys::as_path(path)),
            None => {
                self.stack = Some(DirStack::new(self.root.try_clone().op("dup")?));
                Ok(())
            }
        }
    }

    fn non_directory(&mut self, entry: &NonDirectory<'_>) -> Result<()> {
        let Some(stack) = &self.stack else { return Ok(()) };
        let done = match entry.first {
            Some(first) => {
                rustix::fs::linkat(&self.root, first, stack.fd(), entry.name, AtFlags::empty())
                    .map_err(Into::into)
            }
            None => copy_up(entry.parent, stack.fd(), entry.name, entry.stat),
        };
        done.on("copy", sys::as_path(entry.path))
    }

    /// Sets the time last, since each new entry changes it.
    fn leave(&mut self, path: &[u8], from: &OwnedFd) -> Result<()> {
        let Some(stack) = &mut self.stack else { return Ok(()) };
        let done = copy_metadata(from, stack.fd()).and_then(|()| stack.pop());
        done.on("copy", sys::as_path(path))
    }
}
