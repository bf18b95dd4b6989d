//! The default restrictions of a payload: the capabilities of podman, and the system calls of Docker's filter. The
//! chain that `--print` shows has all of them.

use jc_unshare::{Error, Result};

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
    let has = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
    let is_added = has(&payload.added, "NET_ADMIN") || has(&payload.added, "ALL");
    let is_accepted = has_user_namespace
        || payload.privileged
        || options.network.mode.as_deref() == Some("host")
        || payload.security.controls_host_network;
    if !is_added || has(&payload.dropped, "NET_ADMIN") || is_accepted {
        return Ok(());
    }
    Err(Error::new("--cap-add NET_ADMIN: without a user namespace it controls the host's links")
        .hint("--userns auto makes a user namespace; --security-opt net-admin=host accepts it"))
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
