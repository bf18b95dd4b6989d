//! `--info-fd` and `--block-fd`, as in bwrap(1): the namespaces of the program, and a wait before its execution.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::io::read;

use super::namespaces::Kind;
use crate::error::{Context, Error, Result};

/// Writes one JSON object about this process, which executes the program later: its PID and the inode numbers
/// of its namespaces. The PID is that in the procfs on /proc, so its number for the caller.
pub fn write_info(mut file: &File) -> Result<()> {
    let mut json = format!("{{\"child-pid\":{}", proc_number()?);
    for kind in Kind::ALL {
        let path = format!("/proc/self/ns/{}", kind.name());
        let number = fs::metadata(&path).on("stat", &path)?.ino();
        // Writing to a String cannot fail.
        let _: std::fmt::Result = write!(json, ",\"{}-namespace\":{number}", kind.name());
    }
    json.push_str("}\n");
    file.write_all(json.as_bytes()).op("write --info-fd")
}

/// The number of this process in the procfs on /proc, which may belong to another PID namespace.
pub fn proc_number() -> Result<u32> {
    let number = fs::read_link("/proc/self").on("readlink", "/proc/self")?;
    let parsed = number.to_str().and_then(|number| number.parse().ok());
    parsed.ok_or_else(|| Error::new("readlink /proc/self: not a PID"))
}

/// Waits until a byte can be read, or the other end is closed.
pub fn wait_for_release(fd: &OwnedFd) -> Result<()> {
    read(fd, &mut [0; 1]).op("read --block-fd").map(|_| ())
}

/// Checks that no two options name the same descriptor. A usage error names both.
pub fn check_distinct<'a>(options: impl IntoIterator<Item = (&'a str, Option<u32>)>) -> Result<()> {
    let mut given: Vec<(&str, u32)> = Vec::new();
    for (name, number) in options {
        let Some(number) = number else { continue };
        if let Some((other, _)) = given.iter().find(|(_, taken)| *taken == number) {
            return Err(Error::usage(format_args!(
                "{other} and {name}: both have descriptor {number}"
            )));
        }
        given.push((name, number));
    }
    Ok(())
}

/// Takes over a descriptor of the caller, which the program does not inherit. Usage errors: a standard stream, or a
/// descriptor that is not open.
pub fn inherit_fd(number: u32, option: &str) -> Result<OwnedFd> {
    if number <= 2 {
        return Err(Error::usage(format_args!(
            "{option} {number}: descriptors up to 2 belong to the program"
        )));
    }
    super::sys::take_fd(number)
        .map_err(|e| Error::usage(format_args!("{option} {number}: {}", crate::strerror(&e))))
}
