//! Removal of groups without a lock in the whole hierarchy: below any `--parent`, and below groups that were delegated
//! to other users. The contents of a locked group stay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jc_unshare::{Error, Result};
use rustix::io::Errno;

use super::group::parse_path;
use super::hierarchy::{Hierarchy, Version};
use super::parent::may_write;
use super::remove::{PATIENCE, children, sweep_one};
use crate::TOOL;

/// The longest wait for all groups of other users together, since other users can delay the removal of their groups.
const PATIENCE_FOR_OTHERS: Duration = Duration::from_secs(1);

/// A group that could not be removed.
struct Left {
    version: Version,
    path: PathBuf,
    unattended: bool,
    is_own: bool,
    error: Error,
}

impl Left {
    fn new(version: Version, path: PathBuf, unattended: bool, error: Error) -> Self {
        let caller = rustix::process::geteuid().as_raw();
        let is_own = fs::metadata(&path).is_ok_and(|meta| meta.uid() == caller);
        Self { version, path, unattended, is_own, error }
    }
}

/// Removes dead groups. Each group is tried once before the first wait, so that one group takes no time of another. A
/// remaining group of another user is reported on stderr, and one of the caller is an error.
pub fn sweep_everywhere(hierarchies: &[Hierarchy]) -> Result<()> {
    let mut left = Vec::new();
    for hierarchy in hierarchies {
        sweep_below(hierarchy.version, &hierarchy.mount, &mut left);
    }
    let (own, others): (Vec<Left>, Vec<Left>) = left.into_iter().partition(|left| left.is_own);
    let others = wait_for(others, PATIENCE_FOR_OTHERS);
    if let Some(error) = others.first() {
        let text = format!("{error}; not removed, with {} more of other users", others.len() - 1);
        TOOL.report(&Error::new(text));
    }
    wait_for(own, PATIENCE).into_iter().next().map_or(Ok(()), Err)
}

/// Tries again to remove groups whose processes were about to end. Returns the errors of the groups that remain.
fn wait_for(left: Vec<Left>, patience: Duration) -> Vec<Error> {
    let give_up = Instant::now() + patience;
    let again = |left: Left| {
        if left.error.errno() != Some(Errno::BUSY.raw_os_error()) {
            return Some(left.error);
        }
        let patience = give_up.saturating_duration_since(Instant::now());
        sweep_one(left.version, &left.path, left.unattended, patience).err()
    };
    left.into_iter().filter_map(again).collect()
}

fn sweep_below(version: Version, top: &Path, left: &mut Vec<Left>) {
    let found = children(top).and_then(|children| Ok((children, may_write(top)?)));
    let (children, can_remove) = match found {
        Ok(found) => found,
        // A group that this process cannot read has no groups of this user below it.
        Err(error) if error.errno() == Some(Errno::ACCESS.raw_os_error()) => return,
        // Another user may have made a path that is too long.
        Err(error) => return left.push(Left::new(version, top.to_owned(), false, error)),
    };
    for path in children {
        match parse_path(&path) {
            None => sweep_below(version, &path, left),
            Some((_, unattended)) if can_remove => {
                if let Err(error) = sweep_one(version, &path, unattended, Duration::ZERO) {
                    left.push(Left::new(version, path, unattended, error));
                }
            }
            Some(_) => {}
        }
    }
}
