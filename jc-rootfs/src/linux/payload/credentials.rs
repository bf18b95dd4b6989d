//! The user and groups of the payload.

use jc_unshare::{Context, Error, Result};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, geteuid, getgroups, setgroups, setresgid, setresuid};
use rustix::fs::{FileType, Gid as FileGid, Uid as FileUid, fchown, fstat};
use rustix::io::Errno as IoErrno;
use rustix::stdio::{stderr, stdin, stdout};

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

    /// Makes the user the owner of the standard streams, which the user can then open again by /dev/stdout and the like.
    /// Devices are those of all. A stream from outside of the user namespace keeps its owner, as does one on a read-only
    /// file system.
    pub fn own_streams(&self) -> Result<()> {
        let Some(identity) = self.identity.as_ref().filter(|user| user.uid != geteuid().as_raw())
        else {
            return Ok(());
        };
        let (uid, gid) = (identity.uid, identity.gid);
        for (name, stream) in [("stdin", stdin()), ("stdout", stdout()), ("stderr", stderr())] {
            let stat = match fstat(stream) {
                // A closed stream has no owner.
                Err(IoErrno::BADF) => continue,
                found => found.on("stat", name)?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
            if is_device || (stat.st_uid, stat.st_gid) == (uid, gid) {
                continue;
            }
            let changed =
                fchown(stream, Some(FileUid::from_raw(uid)), Some(FileGid::from_raw(gid)));
            match changed {
                Err(IoErrno::INVAL | IoErrno::PERM | IoErrno::ROFS) => {}
                changed => changed.on("chown", name)?,
            }
        }
        Ok(())
    }

    /// Changes the credentials of this process. EPERM: this process lacks CAP_SETUID or CAP_SETGID. EINVAL: the user
    /// namespace does not map an ID.
    pub fn apply(&self) -> Result<()> {
        let hint = |e: Error| {
            if e.errno() == Some(Errno::EINVAL as i32) {
                e.hint(
                "the user namespace does not map this ID: jc-run --userns keep-id maps the caller's, and \
                 usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER gives others",
            )
            } else {
                e.hint("changing user needs CAP_SETUID and CAP_SETGID")
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
    let added = user::group_ids(&args.groups, root)?.into_iter().map(Gid::from_raw);
    // The kernel keeps a group that the command line has twice.
    let added: Vec<Gid> = added.filter(|gid| !groups.contains(gid)).collect();
    groups.extend(added);
    Ok(Some(groups))
}
