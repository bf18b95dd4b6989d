//! The default restrictions of a payload: the capabilities of podman, and the system calls of Docker's filter. The
//! chain that `--print` shows has all of them.

use jc_unshare::{Error, Result};
use rustix::process::geteuid;

use crate::link::Opt;
use crate::options::{Options, PayloadOptions};

/// podman's default capabilities (containers.conf(5)).
const CAPABILITIES: &str = "CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,NET_BIND_SERVICE,SETFCAP,SETGID,SETPCAP,\
                            SETUID,SYS_CHROOT";

/// Checks that the payload has no CAP_NET_ADMIN in the caller's user namespace, unless an option accepts that:
/// rtnetlink(7) resolves `IFLA_TARGET_NETNSID` and `IFLA_LINK_NETNSID` to the host's network namespace,
/// whose links the payload could then list, make, move and delete.
pub fn check_net_admin(options: &Options, has_user_namespace: bool) -> Result<()> {
    let payload = &options.payload;
    let is_accepted = has_user_namespace
        || payload.privileged
        || options.network.mode.as_deref() == Some("host")
        || payload.security.controls_host_network;
    if !adds(payload, "NET_ADMIN") || is_accepted {
        return Ok(());
    }
    Err(Error::new("--cap-add NET_ADMIN: without a user namespace it controls the host's links")
        .hint("--userns auto makes a user namespace; --security-opt net-admin=host accepts it"))
}

/// Refuses CAP_SYS_ADMIN in a user namespace that maps root of the host, unless an option accepts what it allows: the
/// payload makes /proc/sys writable, and the kernel lets user 0 of the host change all settings there.
pub fn check_sys_admin(payload: &PayloadOptions, user_namespace: &[Opt]) -> Result<()> {
    let is_accepted = payload.privileged || payload.security.is_unmasked;
    if !adds(payload, "SYS_ADMIN") || is_accepted || !user_namespace.iter().any(maps_root) {
        return Ok(());
    }
    let message = "--cap-add SYS_ADMIN: the user namespace maps root of the host, who may change its settings";
    Err(Error::new(message)
        .hint("an ordinary user may add it; --security-opt systempaths=unconfined accepts it"))
}

/// Whether an option of jc-unshare maps user 0 of the user namespace of this process, in which the caller is root.
fn maps_root(option: &Opt) -> bool {
    match option.name() {
        "--map-auto" | "--map-current" | "--map-root" => geteuid().is_root(),
        "--map-users" | "--uidmap" => option.value().is_some_and(|map| {
            map.to_string_lossy().split(':').nth(1).is_some_and(|outside| outside.parse() == Ok(0))
        }),
        _ => false,
    }
}

fn adds(payload: &PayloadOptions, name: &str) -> bool {
    let has = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
    (has(&payload.added, name) || has(&payload.added, "ALL")) && !has(&payload.dropped, name)
}

/// The options about the payload.
pub fn payload(payload: &PayloadOptions) -> Vec<Opt> {
    if payload.privileged {
        return Vec::new();
    }
    let mut options = vec![Opt::new("--cap-drop", "ALL")];
    if !payload.dropped.iter().any(|name| name == "ALL") {
        options.push(Opt::new("--cap-add", CAPABILITIES));
    }
    if !payload.security.gains_privileges {
        options.push(Opt::flag("--no-new-privs"));
    }
    options.push(Opt::new("--seccomp", payload.security.seccomp.as_deref().unwrap_or("default")));
    options
}

/// The options about the root.
pub fn root(payload: &PayloadOptions) -> Vec<Opt> {
    if payload.privileged {
        return vec![Opt::new("--dev", "host"), Opt::new("--sys", "rw")];
    }
    let is_masked = !payload.security.is_unmasked;
    is_masked.then(|| Opt::new("--mask", "default")).into_iter().collect()
}
