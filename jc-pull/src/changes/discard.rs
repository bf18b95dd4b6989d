//! `--discard`: an upper directory without its changes.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result, lock, lower, remove_tree};
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::base::{Base, open_dir};
use super::conflict::relative;
use super::list::{Change, Kind, list};
use super::lookup::Lower;
use super::operand::Operand;
use super::pattern::Patterns;
use super::upper::{Placed, Upper};
use crate::copy::copy_metadata;
use crate::sys;

/// Drops the changes that the patterns select. Without patterns the directory of `jc-rootfs --upper` loses all that
/// jc-rootfs made in it. An upper directory of a running program is an error, and so is one without the file `lower`.
pub fn discard(operand: &mut Operand, base: Option<&Base>, patterns: &Patterns) -> Result<()> {
    let path = operand.upper.path().to_owned();
    let _lock = exclude_starts(&path)?;
    // Before the lock the directories may be those that another discard has removed.
    operand.upper = Upper::open(&path)?;
    let (upper, path) = (&operand.upper, path.display());
    // Without the file, the directory may be any directory of the user.
    upper.require_recorded().map_err(|e| Error::new(e.to_string()))?;
    if operand.is_running {
        return Err(
            Error::new(format_args!("{path}: the container runs")).hint("jc-stop ends a container")
        );
    }
    if let Some(pid) = operand.user()? {
        return Err(Error::new(format_args!("{path}: in use by process {pid}")));
    }
    if patterns.is_empty() {
        discard_all(upper, operand.is_container)
    } else {
        upper.placed(base)?.iter().try_for_each(|placed| discard_some(placed, patterns))
    }
}

/// Locks the directory. A jc-rootfs that starts holds a shared lock until a table of mounts has its upper directories.
fn exclude_starts(path: &Path) -> Result<OwnedFd> {
    let directory = sys::open_dir_to_read(CWD, path).on("open", path)?;
    if lock::try_exclude(&directory).on("flock", path)? {
        Ok(directory)
    } else {
        Err(Error::new(format_args!("{}: in use by another process", path.display())))
    }
}

/// Empties all upper directories. A container keeps them, empty; otherwise they are removed with the file `lower`.
fn discard_all(upper: &Upper, keeps: bool) -> Result<()> {
    for part in upper.parts() {
        let mut names = Vec::new();
        let shown = sys::as_path(&part.at);
        sys::for_each_name(&part.root, |name| {
            names.push(name.to_vec());
            Ok(())
        })
        .on("read", shown)?;
        for name in names {
            remove_tree(&part.root, &name).on("remove", shown.join(sys::as_path(&name)))?;
        }
    }
    if keeps {
        return Ok(());
    }
    let directory = open_dir(upper.path()).on("open", upper.path())?;
    // A directory without this file has no changes left.
    let shown = upper.path().join(lower::FILE);
    rustix::fs::unlinkat(&directory, lower::FILE, AtFlags::empty()).on("remove", shown)?;
    for name in lower::DIRECTORIES {
        remove_tree(&directory, name.as_bytes()).on("remove", upper.path().join(name))?;
    }
    Ok(())
}

fn discard_some(placed: &Placed<'_>, patterns: &Patterns) -> Result<()> {
    let part = placed.part;
    for change in list(&part.root, part.marks, &placed.position(), &placed.skipped, patterns)? {
        let shown = sys::as_path(&change.path).to_owned();
        let path = relative(&change.path, &part.at);
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let Some((name, parents)) = parts.split_last() else { continue };
        let parent = match sys::open_beneath(&part.root, parents) {
            // An earlier change has taken the directory with it.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.on("open", &shown)?,
        };
        let parent = sys::open_dir_to_read(&parent, ".").on("open", &shown)?;
        if is_directory_kept(&change) {
            reset_metadata(placed, &parent, name, parents)?;
            continue;
        }
        refuse_below_opaque(placed, parents).map_err(|e| e.context(shown.display()))?;
        remove_tree(&parent, name).on("remove", &shown)?;
    }
    Ok(())
}

/// Whether a change is one of a directory's own metadata.
fn is_directory_kept(change: &Change) -> bool {
    let is_directory = |stat| sys::file_type(stat) == FileType::Directory;
    change.kind == Kind::Modified && change.stat.as_ref().is_some_and(is_directory)
}

/// Gives a directory the metadata of the lower one.
fn reset_metadata(
    placed: &Placed<'_>,
    parent: &OwnedFd,
    name: &[u8],
    parents: &[&[u8]],
) -> Result<()> {
    let shown = sys::as_path(name);
    let mut below = placed.position().open()?;
    for above in parents {
        below.enter(above, false).on("read", shown)?;
    }
    let found = if name == b"." { below.enter(name, true) } else { below.lookup(name) };
    let Lower::Directory(lower) = found.on("read", shown)? else { return Ok(()) };
    let own = sys::open_dir_to_read(parent, name).on("open", shown)?;
    for (key, _) in sys::xattrs(&own).on("read", shown)? {
        rustix::fs::fremovexattr(&own, key.as_slice()).on("reset", shown)?;
    }
    copy_metadata(&lower, &own).on("reset", shown)
}

/// Refuses a part of a directory that replaces one of the lower directories: nothing would show the lower file again.
fn refuse_below_opaque(placed: &Placed<'_>, parents: &[&[u8]]) -> Result<()> {
    let mut below = placed.position().open()?;
    let mut directory = sys::open_dir_to_read(&placed.part.root, ".").op("open")?;
    for parent in parents {
        directory = sys::open_dir_to_read(&directory, *parent).op("open")?;
        let hides = !matches!(below.enter(parent, false).op("read")?, Lower::Absent);
        if hides && placed.part.marks.opacity(&directory)? == super::marks::Opacity::Opaque {
            return Err(Error::new("is in a directory that was made again")
                .hint("a pattern that matches the whole directory drops it"));
        }
    }
    Ok(())
}
