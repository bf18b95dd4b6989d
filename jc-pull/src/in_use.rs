//! Layers and upper directories in use: those of overlays in all mount namespaces of processes
//! (proc_pid_mountinfo(5)).

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use jc_unshare::descriptor::is_same;
use jc_unshare::mountinfo::{MountInfo, unescape};
use jc_unshare::{Context, Result};
use rustix::io::Errno;

use crate::containers::{Listed, list};

/// The directories of overlays.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct OverlayDirs {
    /// Each lower directory with a process that sees the overlay.
    dirs: BTreeSet<(PathBuf, u32)>,
    /// The same for upper directories.
    uppers: BTreeSet<(PathBuf, u32)>,
}

impl OverlayDirs {
    /// Reads procfs. Processes that end meanwhile are passed over, and processes that this user may not inspect,
    /// since they belong to other users, who cannot enter this store. All other errors are returned.
    pub fn read() -> Result<Self> {
        let mut lower = Self::default();
        let mut namespaces = BTreeSet::new();
        for entry in fs::read_dir("/proc").on("read", "/proc")? {
            let entry = entry.on("read", "/proc")?;
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid else { continue };
            let path = entry.path().join("ns/mnt");
            let Some(namespace) = inspected(fs::read_link(&path), &path)? else { continue };
            if !namespaces.insert(namespace) {
                continue;
            }
            let path = entry.path().join("mountinfo");
            if let Some(text) = inspected(fs::read(&path), &path)? {
                lower.add(&text, pid);
            }
        }
        Ok(lower)
    }

    fn add(&mut self, text: &[u8], pid: u32) {
        for line in text.split(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some(mount) = MountInfo::parse(&line).filter(|mount| mount.kind == "overlay")
            else {
                continue;
            };
            for option in split(mount.options, ',') {
                let value = option.strip_prefix("lowerdir=").or(option.strip_prefix("lowerdir+="));
                for path in value.into_iter().flat_map(|value| split(value, ':')) {
                    self.dirs.insert((unescape(&path), pid));
                }
                let upper = option.strip_prefix("upperdir=");
                self.uppers.extend(upper.map(|path| (unescape(path), pid)));
            }
        }
    }

    /// A process with the directory as a lower directory.
    pub fn user_of(&self, directory: &Path) -> Option<u32> {
        self.dirs.iter().find(|(path, _)| path == directory).map(|(_, pid)| *pid)
    }

    /// A process with an open directory as its upper directory. A path that this process cannot follow is another
    /// directory's.
    pub fn user_of_upper(&self, directory: impl AsFd) -> Result<Option<u32>> {
        let own = rustix::fs::fstat(directory).op("stat")?;
        let is_own = |path: &PathBuf| rustix::fs::stat(path).is_ok_and(|stat| is_same(&stat, &own));
        Ok(self.uppers.iter().find(|(path, _)| is_own(path)).map(|(_, pid)| *pid))
    }

    /// A process with a layer of unknown path: jc-rootfs names the layer by a descriptor, or by a
    /// relative path of one component. Longer relative paths are layers of other programs.
    pub fn unnamed_user(&self) -> Option<u32> {
        let is_unnamed = |path: &Path| {
            path.starts_with("/proc") || path.is_relative() && path.components().count() == 1
        };
        self.dirs.iter().find(|(path, _)| is_unnamed(path)).map(|(_, pid)| *pid)
    }
}

/// The content of a file of a process. The result is `None` if the process has ended or may not be
/// inspected. A process that ends has no namespaces: mountinfo fails with EINVAL, other files with ESRCH
/// or ENOENT.
pub fn inspected<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>> {
    const PASSED_OVER: [Errno; 5] =
        [Errno::NOENT, Errno::SRCH, Errno::INVAL, Errno::ACCESS, Errno::PERM];
    match result {
        Err(e)
            if PASSED_OVER.iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            Ok(None)
        }
        other => other.on("read", path).map(Some),
    }
}

/// The name or the ID of the container of a process: jc-list has the payload, which is in the same mount namespace. The
/// result is part of a message, so each failure is `None`.
pub fn container_of(pid: u32) -> Option<String> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let wanted = namespace(pid)?;
    let containers = list(None, Stdio::null()).ok()?;
    let has_namespace = |one: &Listed| one.pid.and_then(namespace).as_ref() == Some(&wanted);
    let container = containers.into_iter().find(has_namespace)?;
    Some(container.name().unwrap_or(&container.id).to_owned())
}

/// Splits at separators without a backslash in front.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.last_mut();
        match (c, last) {
            (c, _) if c == separator => parts.push(String::new()),
            ('\\', Some(last)) => {
                last.push(c);
                last.extend(chars.next());
            }
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_directories_are_read_as_kernels_write_them() {
        let mut lower = OverlayDirs::default();
        lower.add(
            b"30 1 0:26 / / rw - overlay jc rw,lowerdir=/s/a:/s/b\\040c:/s/d\\:e,upperdir=/u\n\
              31 1 0:27 / /x rw shared:1 - overlay x rw,lowerdir+=/s/f,lowerdir+=/s/g,workdir=/w\n\
              32 1 0:28 / /y rw - ext4 /dev/x rw,lowerdir=/s/no\n",
            7,
        );
        for (path, pid) in [
            ("/s/a", Some(7)),
            ("/s/b c", Some(7)),
            ("/s/d:e", Some(7)),
            ("/s/f", Some(7)),
            ("/s/g", Some(7)),
            ("/s/no", None),
            ("/u", None),
        ] {
            assert_eq!(lower.user_of(Path::new(path)), pid, "{path}");
        }
        assert_eq!(lower.uppers, BTreeSet::from([("/u".into(), 7)]));
        for (line, nameless) in [
            ("1 1 0:9 / / rw - overlay o rw,lowerdir=l/AB:l/CD,upperdir=AB/diff\n", None),
            ("1 1 0:9 / / rw - overlay o rw,lowerdir+=/proc/self/fd/4\n", Some(9)),
            ("1 1 0:9 / / rw - overlay o rw,lowerdir=0:1:1f\n", Some(9)),
        ] {
            let mut lower = OverlayDirs::default();
            lower.add(line.as_bytes(), 9);
            assert_eq!(lower.unnamed_user(), nameless, "{line}");
        }
    }
}
