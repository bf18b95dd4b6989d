//! The path of the store, and names in it (jc-store(5)).

use std::path::PathBuf;

use rustix::process::geteuid;

use crate::error::{Absent, Error, Result};
use crate::tool::path_variable;
use crate::userns;

/// The attributes that make a directory hide the lower ones (overlayfs.rst, "Whiteouts and opaque directories"): the
/// first for overlays that root mounts, the second for overlays in a user namespace, with `userxattr`.
pub const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// The beginning of the names of layers whose files all belong to root.
pub const UNOWNED: &str = "unowned-";

/// Whether this process is root of the initial user namespace (user_namespaces(7)). Without a procfs the
/// namespace counts as the initial one.
pub fn is_root() -> Result<bool> {
    let is_initial = || Ok(userns::is_initial().absent()?.unwrap_or(true));
    if geteuid().is_root() { is_initial() } else { Ok(false) }
}

/// The default path: `$JC_STORE`, or else for root `/var/lib/jc`, and for other users `$XDG_DATA_HOME/jc` or
/// `~/.local/share/jc`.
pub fn default_path() -> Result<PathBuf> {
    if let Some(path) = path_variable("JC_STORE") {
        return Ok(path);
    }
    if is_root()? {
        return Ok("/var/lib/jc".into());
    }
    // The base directory specification: a path there that is not absolute counts as not set.
    let data = path_variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(path_variable("HOME")?.join(".local/share")));
    data.map(|data| data.join("jc"))
        .ok_or_else(|| Error::new("no store: neither JC_STORE nor HOME is set").hint("use --store"))
}
