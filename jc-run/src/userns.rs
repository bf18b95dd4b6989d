//! The user namespace in front of the chain: asked for, or needed because the caller is not root.

use std::ffi::OsString;
use std::fs;

use clap::ArgMatches;
use jc_unshare::{Error, Result};
use rustix::process::{geteuid, getuid};

use crate::flags::{Owner, given};
use crate::plan::words;

/// The options of the jc-unshare in front; none if there is to be none.
pub fn options(matches: &ArgMatches) -> Result<Vec<OsString>> {
    let maps = given(matches, Owner::User);
    let mode = matches.get_one::<String>("userns").map(String::as_str);
    Ok(match mode {
        None if !maps.is_empty() => [words(&["-U"]), maps].concat(),
        Some(mode) if !maps.is_empty() => {
            return Err(Error::usage(format_args!(
                "--userns {mode}: not with --uidmap or --gidmap"
            )));
        }
        Some("host") => Vec::new(),
        None if geteuid().is_root() => Vec::new(),
        Some("auto") => words(&["-U", "--map-auto"]),
        Some("keep-id") => words(&["-U", "--map-current"]),
        Some(mode) => {
            let message = format!("--userns {mode}: not auto, keep-id or host");
            return Err(Error::usage(message));
        }
        None if has_range() => words(&["-U", "--map-auto"]),
        // One ID is enough for what needs no other.
        None => words(&["-U", "--map-root"]),
    })
}

/// Whether the caller has subordinate IDs (subuid(5)), by its number or its name.
fn has_range() -> bool {
    let uid = getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let is_ours = |line: &str| {
        let owner = line.split(':').next();
        owner == Some(&uid) || owner.is_some() && owner == name
    };
    ["/etc/subuid", "/etc/subgid"]
        .iter()
        .all(|path| fs::read_to_string(path).is_ok_and(|text| text.lines().any(is_ours)))
}
