//! Without root: the same again, as the root of a user namespace that jc-unshare makes.

use std::path::Path;

use jc_unshare::Result;

/// Goes on in a user namespace where this process is root, with all of its user's subordinate IDs; or,
/// if true owners are not wanted (`alone`) and there are none, with its own. Returns where that is
/// not needed or cannot be: what is then impossible is told when it is tried.
#[cfg(target_os = "linux")]
pub fn enter(alone: bool, store: Option<&Path>) -> Result<()> {
    use std::env;
    use std::ffi::OsString;

    use jc_unshare::{Context, Error, Kind, exec, has_ranges};

    use crate::store::Store;

    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let map = match (has_ranges()?, alone) {
        (true, _) => "--map-auto",
        (false, true) => "--map-root",
        (false, false) => return Ok(()),
    };
    Store::check_path(store)?;
    let mut argv = vec![exec::tool("jc-unshare".as_ref())?.into()];
    argv.extend(["-U", map, "--"].map(OsString::from));
    argv.push(env::current_exe().op("find this program")?.into());
    argv.extend(env::args_os().skip(1));
    Err(Error::with_kind(Kind::Failed, exec::exec(&argv)))
}

/// There are no user namespaces.
#[cfg(not(target_os = "linux"))]
pub fn enter(_: bool, _: Option<&Path>) -> Result<()> {
    Ok(())
}
