//! Pulls by an ordinary user: as root of a user namespace that jc-unshare makes.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use jc_unshare::{Context, Error, Kind, Result, exec};

use crate::store::Store;
use crate::sys;

/// Executes this program again as root of a user namespace: with all subordinate IDs of the user, or with
/// the user's own ID alone if `own_is_enough`. Returns if this process is root, or has no IDs for
/// the layers' owners. Errors are those of the store's path, which is checked before, and of exec.
pub fn enter(own_is_enough: bool, store: Option<&Path>) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(map) = sys::id_map(own_is_enough)? else { return Ok(()) };
    Store::check_path(store)?;
    let mut argv = vec![exec::locate_tool("jc-unshare".as_ref())?.into()];
    argv.extend(["-U", map, "--"].map(OsString::from));
    argv.push(env::current_exe().op("find this program")?.into());
    argv.extend(env::args_os().skip(1));
    Err(Error::with_kind(Kind::Failed, exec::exec(&argv)))
}
