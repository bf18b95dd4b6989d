//! `--to`: one directory that is what an overlay of the layers shows.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result, strerror};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};

use crate::beneath::{copy_metadata, copy_up};
use crate::merge::{Other, Visitor, walk};
use crate::sys;

/// Writes the layers, the uppermost first, to `to`, which must not be there yet or be empty. It
/// appears complete, by rename.
pub fn flatten(layers: &[OwnedFd], to: &Path, no_sync: bool) -> Result<()> {
    let name =
        to.file_name().ok_or_else(|| Error::new(format_args!("{}: no name", to.display())))?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent_fd = open(parent)?;
    let work = format!(".{}.jc-{:016x}", name.to_string_lossy(), sys::random());
    rustix::fs::mkdirat(&parent_fd, &work, Mode::RWXU).on("mkdir", parent.join(&work))?;
    let written = write(layers, &parent_fd, &work).and_then(|root| {
        if !no_sync {
            sys::sync(&root).on("sync", to)?;
        }
        // Over an empty directory, and nothing else.
        rustix::fs::renameat(&parent_fd, &work, &parent_fd, name).on("rename", to)
    });
    if written.is_err() {
        // The first failure is the one to tell.
        let _: rustix::io::Result<()> =
            sys::remove_all(std::os::fd::AsFd::as_fd(&parent_fd), work.as_bytes());
    }
    written
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).on("open", path)
}

fn write(layers: &[OwnedFd], parent: &OwnedFd, work: &str) -> Result<OwnedFd> {
    let root = sys::open_dir(parent, work.as_bytes()).op("open")?;
    let copy = root.try_clone().op("dup")?;
    walk(layers, &mut Writer { way: Vec::new(), root: copy })?;
    Ok(root)
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
