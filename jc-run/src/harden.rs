//! What a payload may do by default: what podman's may, seen through Docker's filter. All of it is in
//! the chain that `--print` shows.

use std::ffi::OsString;

use clap::ArgMatches;
use jc_unshare::{Error, Result};

use crate::flags::{option, values};
use crate::plan::words;

/// podman's default capabilities (containers.conf(5)).
const CAPABILITIES: &str = "CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,NET_BIND_SERVICE,SETFCAP,SETGID,SETPCAP,\
                            SETUID,SYS_CHROOT";

/// What `--security-opt` says.
#[derive(Default)]
struct Security<'a> {
    seccomp: Option<&'a str>,
    new_privileges: bool,
    unmasked: bool,
    host_net_admin: bool,
}

impl<'a> Security<'a> {
    fn of(matches: &'a ArgMatches) -> Result<Self> {
        let mut security = Self::default();
        for word in matches.get_many::<String>("security-opt").into_iter().flatten() {
            match word.split_once(['=', ':']).unwrap_or((word, "")) {
                ("seccomp", profile) if !profile.is_empty() => security.seccomp = Some(profile),
                ("no-new-privileges", "" | "true") => security.new_privileges = false,
                ("no-new-privileges", "false") => security.new_privileges = true,
                ("systempaths", "unconfined") => security.unmasked = true,
                ("net-admin", "host") => security.host_net_admin = true,
                _ => {
                    return Err(Error::usage(format_args!("--security-opt {word}: not known"))
                        .hint(
                            "seccomp=FILE|unconfined, no-new-privileges=false, \
                         systempaths=unconfined, net-admin=host",
                        ));
                }
            }
        }
        Ok(security)
    }
}

/// Refuses CAP_NET_ADMIN in the caller's user namespace, unless an option accepts what it allows:
/// rtnetlink(7) resolves `IFLA_TARGET_NETNSID` and `IFLA_LINK_NETNSID` to the host's network namespace,
/// whose links the payload then lists, makes, moves and deletes.
pub fn check_net_admin(matches: &ArgMatches, has_user_namespace: bool) -> Result<()> {
    let names = |option: &str, accepted: &[&str]| {
        values(matches, option).any(|word| {
            let word = word.to_string_lossy().to_ascii_uppercase();
            word.split(',').any(|name| accepted.contains(&name.trim_start_matches("CAP_")))
        })
    };
    let is_held = names("cap-add", &["NET_ADMIN", "ALL"]) && !names("cap-drop", &["NET_ADMIN"]);
    let is_accepted = has_user_namespace
        || matches.get_flag("privileged")
        || matches.get_one::<String>("network").is_some_and(|mode| mode == "host")
        || Security::of(matches)?.host_net_admin;
    if !is_held || is_accepted {
        return Ok(());
    }
    Err(Error::new("--cap-add NET_ADMIN: without a user namespace it controls the host's links")
        .hint("--userns auto makes a user namespace; --security-opt net-admin=host accepts it"))
}

/// The options about the payload.
pub fn payload(matches: &ArgMatches) -> Result<Vec<OsString>> {
    let security = Security::of(matches)?;
    if matches.get_flag("privileged") {
        return Ok(Vec::new());
    }
    let all_dropped = values(matches, "cap-drop")
        .any(|word| word.to_string_lossy().split(',').any(|name| name.eq_ignore_ascii_case("ALL")));
    let mut options = words(&["--cap-drop", "ALL"]);
    if !all_dropped {
        options.extend(words(&["--cap-add", CAPABILITIES]));
    }
    if !security.new_privileges {
        options.push("--no-new-privs".into());
    }
    options.extend(option("--seccomp", security.seccomp.unwrap_or("default").as_ref()));
    Ok(options)
}

/// The options about the root.
pub fn root(matches: &ArgMatches) -> Result<Vec<OsString>> {
    if matches.get_flag("privileged") {
        return Ok(words(&["--dev", "host", "--sys", "rw"]));
    }
    let unmasked = Security::of(matches)?.unmasked;
    Ok(if unmasked { Vec::new() } else { words(&["--mask", "default"]) })
}
