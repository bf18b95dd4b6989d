//! Settings of the network namespace in which this process is, below `/proc/sys/net`.

use std::fs;
use std::path::Path;

use jc_unshare::{Context, Result};

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

/// A setting, if it is there.
pub fn get(name: &str) -> Option<String> {
    fs::read_to_string(path(name)).ok().map(|value| value.trim().to_owned())
}

/// Whether it is there.
pub fn exists(name: &str) -> bool {
    Path::new(&path(name)).exists()
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
