//! `--to`: one directory that is what an overlay of the layers shows.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result, strerror};
use rustix::fs::{AtFlags, Mode, Stat};

use crate::beneath::{copy_metadata, copy_up};
use crate::beside::Beside;
use crate::merge::{Other, Visitor, walk};
use crate::sys;
use crate::way::Way;

/// Writes the layers, the uppermost first, to `to`, which must not be there yet or be empty. It
/// appears complete, by rename.
pub fn flatten(layers: &[OwnedFd], to: &Path, no_sync: bool) -> Result<()> {
    let beside = Beside::directory(to)?;
    let root = beside.fd.try_clone().op("dup")?;
    walk(layers, &mut Writer { way: None, root })?;
    if !no_sync {
        sys::sync(&beside.fd).on("sync", to)?;
    }
    beside.finish()
}

/// Writes what it is shown.
struct Writer {
    /// The directory that is being written; none before the root.
    way: Option<Way>,
    root: OwnedFd,
}

fn fault(operation: &str, path: &[u8], e: &std::io::Error) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::new(format_args!("{operation} {path}: {}", strerror(e)))
}

impl Visitor for Writer {
    fn directory(&mut self, path: &[u8], _: &OwnedFd, _: &Stat) -> Result<()> {
        let enter = |way: &mut Way| {
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            rustix::fs::mkdirat(way.fd(), name, Mode::RWXU)?;
            way.push(sys::open_dir(way.fd(), name)?)
        };
        match &mut self.way {
            Some(way) => enter(way).map_err(|e| fault("mkdir", path, &e.into())),
            None => {
                self.way = Some(Way::new(self.root.try_clone().op("dup")?));
                Ok(())
            }
        }
    }

    fn other(&mut self, entry: &Other<'_>) -> Result<()> {
        let Some(way) = &self.way else { return Ok(()) };
        let done = match entry.first {
            Some(first) => {
                rustix::fs::linkat(&self.root, first, way.fd(), entry.name, AtFlags::empty())
                    .map_err(Into::into)
            }
            None => copy_up(entry.parent, way.fd(), entry.name, entry.stat),
        };
        done.map_err(|e| fault("copy", entry.path, &e))
    }

    /// Its time last: writing into it changes that.
    fn leave(&mut self, path: &[u8], from: &OwnedFd, _: &Stat) -> Result<()> {
        let Some(way) = &mut self.way else { return Ok(()) };
        let done = copy_metadata(from, way.fd()).and_then(|()| way.pop());
        done.map_err(|e| fault("copy", path, &e.into()))
    }
}
