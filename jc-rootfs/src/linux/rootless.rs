//! Overlays of an ordinary user, who needs a user namespace to mount.

use std::env;
use std::ffi::OsString;

use jc_unshare::capability::SYS_ADMIN;
use jc_unshare::exec::{self, locate_tool};
use jc_unshare::hints::capable;
use jc_unshare::{Context, Error, Kind, Result};
use rustix::process::geteuid;

/// Executes this program again in a user namespace that has the caller's own IDs, if the caller is an ordinary user
/// without CAP_SYS_ADMIN. There this program has all capabilities. The payload has none unless options give it some:
/// with them it could make the read-only mounts writable.
pub fn enter(drops_capabilities: bool) -> Result<()> {
    if geteuid().is_root() || capable(SYS_ADMIN) {
        return Ok(());
    }
    let mut argv = vec![locate_tool("jc-unshare".as_ref())?.into_os_string()];
    argv.extend(["-U", "--map-current", "--keep-caps", "--"].map(OsString::from));
    argv.push(env::current_exe().op("find this program")?.into());
    if drops_capabilities {
        argv.extend(["--cap-drop", "ALL"].map(OsString::from));
    }
    argv.extend(env::args_os().skip(1));
    Err(Error::with_kind(Kind::Failed, exec::exec(&argv)))
}
