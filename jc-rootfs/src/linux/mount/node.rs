//! Device nodes of `--node`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_at;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, major, makedev, minor,
    mknodat, openat,
};
use rustix::io::Errno;
use rustix::process::umask;

use super::fscontext::{attach, clone_fd};
use super::resolve::{Missing, resolve};
use crate::linux::args::values::below_root;

/// A device node, or a FIFO.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    kind: FileType,
    number: (u32, u32),
    /// `None`: 0666.
    mode: Option<u32>,
    /// `None`: root.
    owner: (Option<u32>, Option<u32>),
    /// The absolute path in the root.
    path: PathBuf,
}

/// Parses `TYPE:MAJOR:MINOR:MODE:UID:GID:PATH`, as mknod(1) names the types. MODE, UID and GID may be empty.
pub fn node(word: &str) -> std::result::Result<Node, String> {
    let fields: Vec<&str> = word.splitn(7, ':').collect();
    let [kind, major, minor, mode, uid, gid, path] = fields[..] else {
        return Err("not TYPE:MAJOR:MINOR:MODE:UID:GID:PATH".to_owned());
    };
    let kind = match kind {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return Err(format!("no type {kind:?}")),
    };
    let number = |word: &str| word.parse::<u32>().map_err(|_| format!("not a number: {word:?}"));
    let bits = |word: &str| {
        let bits = u32::from_str_radix(word, 8).ok().filter(|bits| *bits <= 0o7777);
        bits.ok_or_else(|| format!("not an octal mode: {word:?}"))
    };
    let given = |word| Some(word).filter(|word: &&str| !word.is_empty());
    Ok(Node {
        kind,
        number: (number(major)?, number(minor)?),
        mode: given(mode).map(bits).transpose()?,
        owner: (given(uid).map(number).transpose()?, given(gid).map(number).transpose()?),
        path: below_root(path).map_err(|error| format!("PATH is {error}"))?,
    })
}

impl Node {
    /// Makes the node below `root`. A user namespace cannot make devices (EPERM), and gets a bind mount of the host's
    /// node of the same path. A file that is there already must be the same device.
    pub fn create(&self, root: BorrowedFd<'_>) -> Result<()> {
        let path = &self.path;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().ok_or_else(|| Error::usage("--node: PATH has no name"))?;
        let directory = resolve(root, parent, Missing::MakeDir)?;
        let number = makedev(self.number.0, self.number.1);
        // The node has all bits of its mode, without a second lookup of its name.
        let mask = umask(Mode::empty());
        let mode = Mode::from_raw_mode(self.mode.unwrap_or(0o666));
        let made = mknodat(&directory, name, self.kind, mode, number);
        umask(mask);
        match made {
            Err(Errno::EXIST) => {
                let found = open_at(&directory, name).on("open", path)?;
                return if self.is(&fstat(&found).on("stat", path)?) {
                    Ok(())
                } else {
                    let path = path.display();
                    Err(Error::new(format_args!("mknod {path}: another file is there")))
                };
            }
            Err(Errno::PERM) if self.kind != FileType::Fifo => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let target = openat(&directory, name, flags, Mode::from_raw_mode(0o666));
                return self.bind(&target.on("create", path)?);
            }
            made => made.on("mknod", path)?,
        }
        let (uid, gid) = (self.owner.0.unwrap_or(0), self.owner.1.unwrap_or(0));
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(&directory, name, Some(uid), Some(gid), flags).on("chown", path)
    }

    fn is(&self, stat: &Stat) -> bool {
        let number = (major(stat.st_rdev), minor(stat.st_rdev));
        FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || number == self.number)
    }

    /// Binds the host's node, whose owner and mode stay. Others are an error.
    fn bind(&self, target: &OwnedFd) -> Result<()> {
        let host = open_at(CWD, &self.path).on("open", &self.path)?;
        let (stat, path) = (fstat(&host).on("stat", &self.path)?, self.path.display());
        if !self.is(&stat) {
            return Err(Error::new(format_args!("bind {path}: the host has another file there")));
        }
        let found = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        let asked = (
            self.mode.unwrap_or(found.0),
            self.owner.0.unwrap_or(found.1),
            self.owner.1.unwrap_or(found.2),
        );
        if asked != found {
            let text = |(mode, uid, gid)| format!("mode {mode:04o}, owner {uid}:{gid}");
            let (asked, found) = (text(asked), text(found));
            let fault = format_args!("bind {path}: asked for {asked}, the host's node has {found}");
            return Err(Error::new(fault).hint("a user namespace cannot make devices"));
        }
        attach(clone_fd(&host, false, &self.path)?, target.as_fd(), &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_seven_fields_and_a_path_may_have_colons() {
        let found = node("c:10:229:0666:1:2:/dev/a:b").unwrap();
        assert_eq!((found.number, found.mode), ((10, 229), Some(0o666)));
        assert_eq!(
            (found.owner, found.path.as_path()),
            ((Some(1), Some(2)), Path::new("/dev/a:b"))
        );
        let found = node("c:10:229::::/dev/a").unwrap();
        assert_eq!((found.mode, found.owner), (None, (None, None)));
        for word in [
            "c:1:2:3:4:5",
            "c::3:666:0:0:/a",
            "x:1:3:666:0:0:/a",
            "c:1:3:888:0:0:/a",
            "c:1:3:17777:0:0:/a",
            "c:-1:3:666:0:0:/a",
            "c:1:3:666:0:0:a",
            "c:1:3:666:0:0:/",
        ] {
            assert!(node(word).is_err(), "{word}");
        }
    }
}
