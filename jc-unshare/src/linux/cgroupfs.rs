//! Files of cgroups (cgroups(7)), which disappear with their group.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Absent, Context, Result};

const ENODEV: i32 = Errno::NODEV.raw_os_error();
const EOPNOTSUPP: i32 = Errno::OPNOTSUPP.raw_os_error();

/// Reads a file of a group. `None`: the group was removed meanwhile (ENOENT, or ENODEV after the open), or has no such
/// value (EOPNOTSUPP: a threaded group, or disabled pressure).
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path).on("read", path) {
        Err(error) if matches!(error.errno(), Some(ENODEV | EOPNOTSUPP)) => Ok(None),
        read => read.absent(),
    }
}
