//! Settings of the network namespace in which this process is, below `/proc/sys/net`.

use std::io::{Read, Write};

use jc_unshare::procfs::open_net_setting;
use jc_unshare::{Absent, Context, Result};
use rustix::fs::OFlags;

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

/// The value of a setting. `None`: the kernel or the link lacks the setting.
pub fn get(name: &str) -> Result<Option<String>> {
    let Some(mut file) = open_net_setting(name, OFlags::RDONLY).absent()? else { return Ok(None) };
    let mut value = String::new();
    file.read_to_string(&mut value).on("read", path(name))?;
    Ok(Some(value.trim().to_owned()))
}

/// Writes a setting. ENOENT: the kernel or the link lacks the setting. EROFS: the procfs is read-only.
pub fn set(name: &str, value: &str) -> Result<()> {
    let mut file = open_net_setting(name, OFlags::WRONLY)?;
    file.write_all(value.as_bytes()).on("write", path(name))
}

/// Writes a setting that has another value. Returns whether it had another value. A read-only procfs is no error if the
/// setting has the value.
pub fn ensure(name: &str, value: &str) -> Result<bool> {
    if get(name)?.as_deref() == Some(value) {
        return Ok(false);
    }
    set(name, value).map(|()| true)
}

/// Writes a setting if it exists. A kernel without IPv6 lacks the settings of IPv6.
pub fn ensure_if_present(name: &str, value: &str) -> Result<()> {
    match set(name, value).absent() {
        Err(_) if get(name)?.as_deref() == Some(value) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Prepares a link that is down for addresses of jc-net. The link ignores router advertisements, which any
/// neighbour can send. Duplicate address detection is off, since an address could not be used for a second.
pub fn quiet_ipv6(link: &str) -> Result<()> {
    let settings = ["accept_ra", "accept_dad"];
    settings.iter().try_for_each(|name| ensure_if_present(&format!("ipv6/conf/{link}/{name}"), "0"))
}

/// Whether new links have IPv6: the kernel has IPv6, and no setting disables IPv6.
pub fn has_ipv6() -> Result<bool> {
    Ok(get("ipv6/conf/all/disable_ipv6")?.as_deref() == Some("0"))
}
