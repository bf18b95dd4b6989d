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
    mode: u32,
    owner: (u32, u32),
    /// The absolute path in the root.
    path: PathBuf,
}

/// Parses `TYPE:MAJOR:MINOR:MODE:UID:GID:PATH`, as mknod(1) names the types.
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
    let bits = u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777);
    Ok(Node {
        kind,
        number: (number(major)?, number(minor)?),
        mode: bits.ok_or_else(|| format!("not an octal mode: {mode:?}"))?,
        owner: (number(uid)?, number(gid)?),
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
        let made = mknodat(&directory, name, self.kind, Mode::from_raw_mode(self.mode), number);
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
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(&directory, name, Some(uid), Some(gid), flags).on("chown", path)
    }

    fn is(&self, stat: &Stat) -> bool {
        let number = (major(stat.st_rdev), minor(stat.st_rdev));
        FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || number == self.number)
    }

    /// Binds the host's node, whose owner and mode stay.
    fn bind(&self, target: &OwnedFd) -> Result<()> {
        let host = open_at(CWD, &self.path).on("open", &self.path)?;
        if !self.is(&fstat(&host).on("stat", &self.path)?) {
            let path = self.path.display();
            return Err(Error::new(format_args!("bind {path}: the host has another file there")));
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
        assert_eq!((found.number, found.mode, found.owner), ((10, 229), 0o666, (1, 2)));
        assert_eq!(found.path, Path::new("/dev/a:b"));
        for word in [
            "c:1:2:3:4:5",
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
