//! `--delegate`: the mark of a group below which the payload makes groups.

use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{XattrFlags, setxattr};

use super::hierarchy::Version;

/// Marks the group as delegated, in the way of systemd, so that a manager inside recognizes it.
pub fn mark(version: Version, path: &Path) -> Result<()> {
    if version == Version::V1 {
        return Ok(()); // a v1 group needs no mark for groups below it
    }
    let name =
        if rustix::process::geteuid().is_root() { "trusted.delegate" } else { "user.delegate" };
    setxattr(path, name, b"1", XattrFlags::empty()).on("mark as delegated", path)
}
