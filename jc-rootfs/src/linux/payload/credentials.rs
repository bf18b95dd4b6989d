//! The user and groups of the payload.

use jc_unshare::{Context, Error, Result};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getgroups, setgroups, setresgid, setresuid};

use super::directories::ContainerRoot;
use crate::linux::args::Args;
use crate::user::{self, Identity};

/// The credentials of the payload that differ from those of this process.
pub struct Credentials {
    /// The IDs of `--user`.
    pub identity: Option<Identity>,
    /// The supplementary groups. `None`: they do not change.
    groups: Option<Vec<Gid>>,
}

impl Credentials {
    /// Finds the credentials in the files of the root. `keeps_groups`: the user namespace denies setgroups(2). A
    /// user or group that the files lack is an error.
    pub fn find(args: &Args, root: &ContainerRoot, keeps_groups: bool) -> Result<Self> {
        let identity = args.user.as_deref().map(|user| user::find(user, root)).transpose()?;
        let groups = if keeps_groups { None } else { groups(args, identity.as_ref(), root)? };
        Ok(Self { identity, groups })
    }

    /// The UID of the payload.
    pub fn uid(&self) -> u32 {
        self.identity.as_ref().map_or_else(|| Uid::current().as_raw(), |user| user.uid)
    }

    /// Changes the credentials of this process. EPERM: this process lacks CAP_SETUID or CAP_SETGID. EINVAL: the user
    /// namespace does not map an ID.
    pub fn apply(&self) -> Result<()> {
        let hint = |e: Error| {
            match e.errno() == Some(Errno::EINVAL as i32) {
            true => e.hint(
                "the user namespace does not map this ID: jc-run --userns keep-id maps the caller's, and \
                 usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER gives others",
            ),
            false => e.hint("changing user needs CAP_SETUID and CAP_SETGID"),
        }
        };
        if let Some(groups) = &self.groups {
            setgroups(groups).op("setgroups").map_err(hint)?;
        }
        let Some(identity) = &self.identity else { return Ok(()) };
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        setresgid(gid, gid, gid).on("setresgid", gid.to_string()).map_err(hint)?;
        setresuid(uid, uid, uid).on("setresuid", uid.to_string()).map_err(hint)
    }
}

fn groups(
    args: &Args,
    identity: Option<&Identity>,
    root: &ContainerRoot,
) -> Result<Option<Vec<Gid>>> {
    let mut groups: Vec<Gid> = match identity {
        Some(identity) => identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
        None if args.groups.is_empty() => return Ok(None),
        None => getgroups().op("getgroups")?,
    };
    for gid in user::group_ids(&args.groups, root)?.into_iter().map(Gid::from_raw) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(Some(groups))
}
