//! `--delegate`: the payload may make groups below its own.

use std::path::Path;

use jc_unshare::{Context, Result};
use rustix::fs::{XattrFlags, setxattr};

use super::hierarchy::Version;

/// Marks the group as delegated, as systemd does, so that a manager inside knows it.
pub fn mark(version: Version, path: &Path) -> Result<()> {
    if version == Version::V1 {
        return Ok(()); // any v1 group may have others below it
    }
    let name =
        if rustix::process::geteuid().is_root() { "trusted.delegate" } else { "user.delegate" };
    setxattr(path, name, b"1", XattrFlags::empty()).on("mark as delegated", path)
}
