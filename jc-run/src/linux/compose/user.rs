//! The user namespace, which an option names or an ordinary user needs.

use std::ffi::OsStr;

use jc_unshare::userns::is_initial;
use jc_unshare::{Error, Result, has_ranges};
use rustix::process::{getegid, geteuid};

use crate::link::Opt;
use crate::options::NamespaceOptions;

/// The options of the user namespace. The list is empty without a user namespace.
pub fn options(options: &NamespaceOptions) -> Result<Vec<Opt>> {
    let maps = options.id_maps.clone();
    let mapped = |option| vec![Opt::flag("-U"), Opt::flag(option)];
    Ok(match options.user.as_deref() {
        None if !maps.is_empty() => {
            require_root(&maps)?;
            [vec![Opt::flag("-U")], maps].concat()
        }
        Some(mode) if !maps.is_empty() => {
            return Err(Error::usage(format_args!(
                "--userns {mode}: not with --uidmap or --gidmap"
            )));
        }
        Some("host") => Vec::new(),
        None if geteuid().is_root() => Vec::new(),
        Some("auto") => mapped("--map-auto"),
        Some("map-root") => mapped(ONE_ID),
        Some(KEEP) if geteuid().is_root() && is_initial()? => {
            vec![
                Opt::flag("-U"),
                Opt::new("--map-users", ALL_IDS),
                Opt::new("--map-groups", ALL_IDS),
            ]
        }
        Some(KEEP) if geteuid().is_root() => mapped("--map-current"),
        Some(KEEP) => {
            let map = if has_ranges()? { "--map-keep" } else { "--map-current" };
            vec![Opt::flag("-U"), Opt::flag(map), Opt::flag("--keep-caps")]
        }
        Some(mode) => {
            let message = format_args!("--userns {mode}: not auto, keep-id, map-root or host");
            return Err(Error::usage(message));
        }
        None if has_ranges()? => mapped("--map-auto"),
        None => mapped(ONE_ID),
    })
}

/// An error if root, whose files the state directory and the store have, has no ID in the user namespace.
fn require_root(maps: &[Opt]) -> Result<()> {
    let is_root = |map: &Opt| {
        let value = map.value().and_then(OsStr::to_str).unwrap_or_default();
        map.name() == "--uidmap" && value.split(':').nth(1) == Some("0")
    };
    if !geteuid().is_root() || maps.iter().any(is_root) {
        return Ok(());
    }
    Err(Error::usage("--uidmap: no ID for root of the host, who owns the state directory")
        .hint("--uidmap 0:0:1 --uidmap 1:100001:65535 gives root one"))
}

/// The options of the user namespace for jc-pull, which is root there.
pub fn store_namespace(options: &NamespaceOptions) -> Result<Vec<Opt>> {
    match options.user.as_deref() {
        Some(KEEP) if has_ranges()? => Ok(vec![Opt::flag("-U"), Opt::flag("--map-auto")]),
        Some(KEEP) => Ok(vec![Opt::flag("-U"), Opt::flag(ONE_ID)]),
        _ => self::options(options),
    }
}

/// Each ID as itself. The highest number is none (user_namespaces(7)).
const ALL_IDS: &str = "0:0:4294967295";

/// The mode that gives the payload the number of the caller.
const KEEP: &str = "keep-id";

/// The user of a payload whose namespace keeps the IDs of the caller.
pub fn kept_user(options: &NamespaceOptions) -> Option<String> {
    let is_kept = options.user.as_deref() == Some(KEEP);
    is_kept.then(|| format!("{}:{}", geteuid().as_raw(), getegid().as_raw()))
}

/// The option that maps one ID alone, for a caller without ranges of IDs.
const ONE_ID: &str = "--map-root";

/// Whether the options map one ID alone, so that no file can belong to another ID.
pub fn maps_one_id(options: &[Opt]) -> bool {
    options.contains(&Opt::flag(ONE_ID))
}
