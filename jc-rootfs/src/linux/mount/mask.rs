//! Paths that the payload must not see, or not write to.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context, Error, Result};
use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open, openat};

use super::dev::NOTHING_RUNS;
use super::fscontext::{attach, clone_fd, new_mount, restrict_tree};
use super::resolve::{Missing, resolve};
use super::sysfs::is_sysfs;
use crate::linux::args::Args;
use crate::linux::args::values::{Proc, Sys};
use crate::linux::sys::attr;
use jc_unshare::procfs::is_procfs;

/// What `--mask` names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Mask {
    /// The lists below.
    Default,
    /// This file or directory of the root.
    Path(PathBuf),
}

/// What container runtimes hide of the kernel: it tells about the host, or lets it be attacked.
const HIDDEN_IN_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const HIDDEN_IN_SYS: [&str; 2] = ["devices/virtual/powercap", "firmware"];

/// What they let nobody write to.
const READ_ONLY_IN_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Hides what `--mask` names and makes read-only what `--ro-path` names, in a root that has all its
/// mounts.
pub fn mask_paths(root: BorrowedFd<'_>, args: &Args) -> Result<()> {
    if args.masks.is_empty() && args.ro_paths.is_empty() {
        return Ok(());
    }
    let mut cover = Cover::default();
    for mask in &args.masks {
        match mask {
            Mask::Default => mask_kernel(root, args, &mut cover)?,
            Mask::Path(path) => cover.hide(&resolve(root, path, Missing::Fail)?, path)?,
        }
    }
    for path in &args.ro_paths {
        make_read_only(&resolve(root, path, Missing::Fail)?, path)?;
    }
    Ok(())
}

/// Covers the paths of the lists above, in a procfs and a sysfs. A name that this kernel lacks needs no
/// cover.
fn mask_kernel(root: BorrowedFd<'_>, args: &Args, cover: &mut Cover) -> Result<()> {
    if let Some(proc) = mounted(root, "/proc", args.proc != Proc::None, is_procfs)? {
        for name in HIDDEN_IN_PROC {
            cover.hide_below(&proc, name, Path::new("/proc"))?;
        }
        for name in READ_ONLY_IN_PROC {
            if let Some(fd) = open_below(&proc, name, Path::new("/proc"))? {
                make_read_only(&fd, &Path::new("/proc").join(name))?;
            }
        }
    }
    if let Some(sys) = mounted(root, "/sys", args.sys != Sys::None, is_sysfs)? {
        for name in HIDDEN_IN_SYS {
            cover.hide_below(&sys, name, Path::new("/sys"))?;
        }
        hide_throttling(&sys, cover)?;
    }
    Ok(())
}

/// The directory at `path`, if `has_type` finds the file system there to be the kernel's: a directory
/// of the image shows no kernel. Only a root in which jc-rootfs has mounted nothing at `path` may lack
/// the directory; every other failure is an error.
fn mounted(
    root: BorrowedFd<'_>,
    path: &str,
    must_exist: bool,
    has_type: impl Fn(BorrowedFd<'_>) -> Result<bool>,
) -> Result<Option<OwnedFd>> {
    let found = resolve(root, Path::new(path), Missing::Fail);
    let found = if must_exist { found.map(Some)? } else { found.absent()? };
    Ok(match found {
        Some(fd) if has_type(fd.as_fd())? => Some(fd),
        _ => None,
    })
}

/// Counts of thermal events, a side channel, which processors of some kinds have each.
fn hide_throttling(sys: &OwnedFd, cover: &mut Cover) -> Result<()> {
    let name = |cpu: u32| format!("devices/system/cpu/cpu{cpu}/thermal_throttle");
    if open_below(sys, &name(0), Path::new("/sys"))?.is_none() {
        return Ok(());
    }
    let path = "/sys/devices/system/cpu/possible";
    let possible = fs::read_to_string(path).on("read", path)?;
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok());
    let last: u32 = last.ok_or_else(|| Error::new(format_args!("read {path}: no number")))?;
    (0..=last).try_for_each(|cpu| cover.hide_below(sys, &name(cpu), Path::new("/sys")))
}

/// Opens a path of a kernel's file system, if this kernel has the path.
fn open_below(dir: &OwnedFd, name: &str, shown: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).on("open", shown.join(name)).absent()
}

fn make_read_only(fd: &OwnedFd, shown: &Path) -> Result<()> {
    let tree = clone_fd(fd, true, shown)?;
    restrict_tree(tree.as_fd(), attr::RDONLY, shown)?;
    attach(&tree, fd, shown)
}

/// What is laid over a hidden path.
#[derive(Default)]
struct Cover {
    /// The host's null device, for files.
    null: Option<OwnedFd>,
    /// An empty directory, already mounted somewhere.
    empty: Option<OwnedFd>,
}

impl Cover {
    fn hide_below(&mut self, dir: &OwnedFd, name: &str, shown: &Path) -> Result<()> {
        match open_below(dir, name, shown)? {
            Some(fd) => self.hide(&fd, &shown.join(name)),
            None => Ok(()),
        }
    }

    fn hide(&mut self, fd: &OwnedFd, shown: &Path) -> Result<()> {
        let mode = fstat(fd).on("stat", shown)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            let null = clone_fd(self.null()?, false, shown)?;
            restrict_tree(null.as_fd(), NOTHING_RUNS & !attr::NODEV | attr::RDONLY, shown)?;
            return attach(null, fd, shown);
        }
        match &self.empty {
            Some(empty) => attach(clone_fd(empty, false, shown)?, fd, shown),
            None => {
                let options = [("mode", "0555"), ("nr_inodes", "1"), ("size", "4k")];
                let empty = new_mount("tmpfs", &options, NOTHING_RUNS | attr::RDONLY)?;
                attach(&empty, fd, shown)?;
                self.empty = Some(empty);
                Ok(())
            }
        }
    }

    /// Opened where nothing of the root can be taken for it, and looked at.
    fn null(&mut self) -> Result<&OwnedFd> {
        let path = Path::new("/dev/null");
        let null = match self.null.take() {
            Some(null) => null,
            None => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let null = open(path, flags, Mode::empty()).on("open", path)?;
                let stat = fstat(&null).on("stat", path)?;
                let number = (major(stat.st_rdev), minor(stat.st_rdev));
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind != FileType::CharacterDevice || number != (1, 3) {
                    return Err(Error::new("open /dev/null: is not the null device"));
                }
                null
            }
        };
        Ok(self.null.insert(null))
    }
}

/// Parses the word of `--mask`.
pub fn mask(word: &str) -> std::result::Result<Mask, String> {
    match word {
        "default" => Ok(Mask::Default),
        _ => path(word).map(Mask::Path),
    }
}

/// Parses a path that is to be covered.
pub fn path(word: &str) -> std::result::Result<PathBuf, String> {
    match Path::new(word) {
        path if !path.is_absolute() => Err(format!("not an absolute path: {word:?}")),
        path if path.components().count() < 2 => Err("this path is the root itself".to_owned()),
        path => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask("default"), Ok(Mask::Default));
        assert_eq!(mask("/proc/x"), Ok(Mask::Path("/proc/x".into())));
        assert_eq!(mask("defaults"), Err("not an absolute path: \"defaults\"".to_owned()));
        assert_eq!(mask("/"), Err("this path is the root itself".to_owned()));
    }
}
