//! The user namespace in front of the chain: asked for, or needed because the caller is not root.

use std::ffi::OsString;

use clap::ArgMatches;
use jc_unshare::{Error, Result, has_ranges};
use rustix::process::geteuid;

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
        None if has_ranges()? => words(&["-U", "--map-auto"]),
        // One ID is enough for what needs no other.
        None => words(&["-U", "--map-root"]),
    })
}
