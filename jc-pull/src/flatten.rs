//! `--to`: one directory that is what an overlay of the layers shows.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result, strerror};
use rustix::fs::{AtFlags, Mode, Stat};

use crate::beneath::{copy_metadata, copy_up};
use crate::beside::Beside;
use crate::merge::{Other, Visitor, walk};
use crate::sys;

/// Writes the layers, the uppermost first, to `to`, which must not be there yet or be empty. It
/// appears complete, by rename.
pub fn flatten(layers: &[OwnedFd], to: &Path, no_sync: bool) -> Result<()> {
    let beside = Beside::directory(to)?;
    let root = beside.fd.try_clone().op("dup")?;
    walk(layers, &mut Writer { way: Vec::new(), root })?;
    if !no_sync {
        sys::sync(&beside.fd).on("sync", to)?;
    }
    beside.finish()
}

/// Writes what it is shown.
struct Writer {
    root: OwnedFd,
    /// The directories that are being written, with the ones that they are copied from.
    way: Vec<(OwnedFd, OwnedFd)>,
}

fn fault(operation: &str, path: &[u8], e: &std::io::Error) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::new(format_args!("{operation} {path}: {}", strerror(e)))
}

impl Visitor for Writer {
    fn directory(&mut self, path: &[u8], from: &OwnedFd, _: &Stat) -> Result<()> {
        let make = || -> std::io::Result<(OwnedFd, OwnedFd)> {
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let directory = match self.way.last() {
                None => self.root.try_clone()?,
                Some((parent, _)) => {
                    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                    sys::open_dir(parent, name)?
                }
            };
            Ok((directory, from.try_clone()?))
        };
        self.way.push(make().map_err(|e| fault("mkdir", path, &e))?);
        Ok(())
    }

    fn other(&mut self, entry: &Other<'_>) -> Result<()> {
        let Some((parent, _)) = self.way.last() else { return Ok(()) };
        let done = match entry.first {
            Some(first) => {
                rustix::fs::linkat(&self.root, first, parent, entry.name, AtFlags::empty())
                    .map_err(Into::into)
            }
            None => copy_up(entry.parent, parent, entry.name, entry.stat),
        };
        done.map_err(|e| fault("copy", entry.path, &e))
    }

    /// Its time last: writing into it changes that.
    fn leave(&mut self, path: &[u8], _: &Stat) -> Result<()> {
        let Some((to, from)) = self.way.pop() else { return Ok(()) };
        copy_metadata(&from, &to).map_err(|e| fault("copy", path, &e.into()))
    }
}
