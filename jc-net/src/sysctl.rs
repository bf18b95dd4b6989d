//! Settings of the network namespace in which this process is, below `/proc/sys/net`.

use std::fs;

use jc_unshare::{Context, Result};

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

/// A setting, if it is there.
pub fn get(name: &str) -> Option<String> {
    fs::read_to_string(path(name)).ok().map(|value| value.trim().to_owned())
}

/// Sets it.
pub fn set(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).on("write", &path)
}

/// Sets it if it has another value, and says whether that was so. The file system may be read-only,
/// which is no reason to fail if all is well already.
pub fn ensure(name: &str, value: &str) -> Result<bool> {
    if get(name).as_deref() == Some(value) {
        return Ok(false);
    }
    set(name, value).map(|()| true)
}

/// Lets a link that is down yet use IPv6 in the way of bridges that give out the addresses: it believes
/// nobody who says that he is a router, as any neighbour could; and it does not wait for a second
/// whether another has its address, during which this host could not ask for neighbours.
pub fn quiet_ipv6(link: &str) -> Result<()> {
    for name in ["accept_ra", "accept_dad"] {
        let name = format!("ipv6/conf/{link}/{name}");
        match set(&name, "0") {
            // A kernel without IPv6; or a procfs that is read-only, in which it may be so already.
            Err(_) if get(&name).is_none_or(|value| value == "0") => {}
            outcome => outcome?,
        }
    }
    Ok(())
}
