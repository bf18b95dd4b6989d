//! Removal of trees that may hold files of a user namespace.

use std::path::Path;
use std::process::{Command, Stdio};

use jc_unshare::exec::locate_tool;
use jc_unshare::{Context, Error, Result, remove_tree};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::geteuid;

/// Removes a directory in `parent` with its content. `path` is for the error. An ordinary user can remove some files
/// only as root of the user namespace that made them.
pub fn remove(parent: impl AsFd, name: &str, path: &Path) -> Result<()> {
    match remove_tree(parent, name.as_bytes()) {
        Err(Errno::ACCESS | Errno::PERM) if !geteuid().is_root() => remove_as_mapped(path),
        removed => removed.on("remove", path),
    }
}

/// Runs `rm -r` in the user namespace of the caller's subordinate IDs.
fn remove_as_mapped(path: &Path) -> Result<()> {
    let status = Command::new(locate_tool("jc-unshare".as_ref())?)
        .args(["-U", "--map-auto", "--", "rm", "-rf", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .status()
        .op("run jc-unshare")?;
    if status.success() {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(format_args!("remove {path}: rm -r in a user namespace failed")))
}
