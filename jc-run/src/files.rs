//! The files that a container has of its own in /etc: made in the state dir, bound over the root's.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use jc_unshare::{Context, Result};

use crate::flags::option;

/// The files, each with its place.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// What every host knows.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Their contents with these options of jc-net, which itself adds addresses and name servers that it
/// knows. On the host's network they are the host's.
pub fn files(network: &[OsString], hostname: &str) -> Result<Vec<(&'static str, String)>> {
    let is = |mode: &str| network.iter().any(|word| word == mode);
    let (hosts, resolv_conf) = match (is("host"), is("none")) {
        (true, _) => (of_host("/etc/hosts")?, of_host("/etc/resolv.conf")?),
        (false, true) => (format!("{LOCALHOST}127.0.1.1\t{hostname}\n"), String::new()),
        (false, false) => (LOCALHOST.to_owned(), String::new()),
    };
    let contents = [format!("{hostname}\n"), hosts, resolv_conf];
    Ok(FILES.into_iter().map(|(name, _)| name).zip(contents).collect())
}

/// The options that put them in their places.
pub fn binds(state_dir: &Path) -> Vec<OsString> {
    let bind = |(name, place): &(&str, &str)| {
        let mut spec = OsString::from(state_dir.join(name));
        spec.push(":");
        spec.push(place);
        option("-v", &spec)
    };
    FILES.iter().flat_map(bind).collect()
}

fn of_host(path: &str) -> Result<String> {
    match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.on("read", path).map(|text| String::from_utf8_lossy(&text).into_owned()),
    }
}
