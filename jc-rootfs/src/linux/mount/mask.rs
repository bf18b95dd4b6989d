//! Paths of the root that are hidden from the payload or read-only (`--mask`, `--ro-path`).

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_at;
use jc_unshare::procfs::is_procfs;
use jc_unshare::{Absent, Context, Error, Result};
use rustix::fs::{CWD, FileType, fstat, major, minor};

use super::fscontext::{attach, clone_fd, new_mount, restrict_tree};
use super::resolve::{Missing, resolve};
use super::sysfs::is_sysfs;
use crate::linux::args::values::below_root;
use crate::linux::sys::attr;

/// The options of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct MaskArgs {
    /// Hide a file or directory of the root; default: the kernel files that containers hide (repeatable)
    #[arg(long = "mask", value_name = "[-]PATH|default", value_parser = parse, allow_hyphen_values = true)]
    masks: Vec<Mask>,
    /// Make a file or directory of the root read-only (repeatable)
    #[arg(long = "ro-path", value_name = "[-]PATH", value_parser = CoveredPath::parse, allow_hyphen_values = true)]
    ro_paths: Vec<CoveredPath>,
}

/// A value of `--mask`.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Mask {
    /// The lists of this module.
    Default,
    /// A file or directory of the root.
    Path(CoveredPath),
}

/// A path of the root.
#[derive(Clone, Debug, Eq, PartialEq)]
struct CoveredPath {
    path: PathBuf,
    /// Whether an absent path is an error. The form `-PATH` makes it none.
    must_exist: bool,
}

impl CoveredPath {
    fn parse(word: &str) -> std::result::Result<Self, String> {
        let path = word.strip_prefix('-');
        Ok(Self { path: below_root(path.unwrap_or(word))?, must_exist: path.is_none() })
    }

    /// Opens the path. `None`: the root lacks a path that need not exist.
    fn open(&self, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        let found = resolve(root, &self.path, Missing::Fail);
        if self.must_exist { found.map(Some) } else { found.absent() }
    }
}

/// Parses a value of `--mask`.
fn parse(word: &str) -> std::result::Result<Mask, String> {
    if word == "default" { Ok(Mask::Default) } else { CoveredPath::parse(word).map(Mask::Path) }
}

/// Paths that reveal the host or widen the attack surface of the kernel. All container runtimes hide these
/// (the OCI's `maskedPaths`).
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

/// Paths that container runtimes mount read-only (the OCI's `readonlyPaths`).
const READ_ONLY_IN_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The directories on which jc-rootfs has mounted a file system of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Mounted {
    /// Whether /proc has a procfs.
    pub proc: bool,
    /// Whether /sys has a sysfs.
    pub sys: bool,
}

impl MaskArgs {
    /// Hides paths and makes paths read-only, in a root that has all its mounts. ENOENT: the root lacks a path
    /// that the command line names.
    pub fn apply(&self, root: BorrowedFd<'_>, mounted: Mounted) -> Result<()> {
        let mut covers = Covers::default();
        for mask in &self.masks {
            match mask {
                Mask::Default => mask_kernel(root, mounted, &mut covers)?,
                Mask::Path(covered) => {
                    covered.open(root)?.map_or(Ok(()), |fd| covers.hide(&fd, &covered.path))?;
                }
            }
        }
        for covered in &self.ro_paths {
            covered.open(root)?.map_or(Ok(()), |fd| make_read_only(&fd, &covered.path))?;
        }
        Ok(())
    }
}

/// Applies the lists of this module to a procfs and a sysfs. The kernel may lack some of the names.
fn mask_kernel(root: BorrowedFd<'_>, mounted: Mounted, covers: &mut Covers) -> Result<()> {
    if let Some(proc) = open_mount(root, "/proc", mounted.proc, is_procfs)? {
        for name in HIDDEN_IN_PROC {
            covers.hide_below(&proc, name, Path::new("/proc"))?;
        }
        for name in READ_ONLY_IN_PROC {
            if let Some(fd) = open_below(&proc, name, Path::new("/proc"))? {
                make_read_only(&fd, &Path::new("/proc").join(name))?;
            }
        }
    }
    if let Some(sys) = open_mount(root, "/sys", mounted.sys, is_sysfs)? {
        for name in HIDDEN_IN_SYS {
            covers.hide_below(&sys, name, Path::new("/sys"))?;
        }
        hide_throttling(&sys, covers)?;
    }
    Ok(())
}

/// Opens the directory at `path` if it is the root of a file system of the kernel, which `has_type` tests. Any
/// other directory is the image's and hides nothing of the host. Only a root in which jc-rootfs has mounted
/// nothing at `path` may lack the directory.
fn open_mount(
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

/// Hides the counters of thermal events, which are a side channel. Processors of some models have a directory of
/// these counters each.
fn hide_throttling(sys: &OwnedFd, covers: &mut Covers) -> Result<()> {
    let name = |cpu: u32| format!("devices/system/cpu/cpu{cpu}/thermal_throttle");
    if open_below(sys, &name(0), Path::new("/sys"))?.is_none() {
        return Ok(());
    }
    let path = "/sys/devices/system/cpu/possible";
    let possible = fs::read_to_string(path).on("read", path)?;
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok());
    let last: u32 = last.ok_or_else(|| Error::new(format_args!("read {path}: no number")))?;
    (0..=last).try_for_each(|cpu| covers.hide_below(sys, &name(cpu), Path::new("/sys")))
}

/// Opens a path of a file system of the kernel. `None`: this kernel lacks the path.
fn open_below(dir: &OwnedFd, name: &str, shown: &Path) -> Result<Option<OwnedFd>> {
    open_at(dir, name).on("open", shown.join(name)).absent()
}

fn make_read_only(fd: &OwnedFd, shown: &Path) -> Result<()> {
    let tree = clone_fd(fd, true, shown)?;
    restrict_tree(tree.as_fd(), attr::RDONLY, shown)?;
    attach(&tree, fd, shown)
}

/// The mounts that cover hidden paths, each a clone of the one of the first use.
#[derive(Default)]
struct Covers {
    /// The null device of the host, which covers files.
    null: Option<OwnedFd>,
    /// An empty directory, which covers directories.
    empty: Option<OwnedFd>,
}

impl Covers {
    fn hide_below(&mut self, dir: &OwnedFd, name: &str, shown: &Path) -> Result<()> {
        match open_below(dir, name, shown)? {
            Some(fd) => self.hide(&fd, &shown.join(name)),
            None => Ok(()),
        }
    }

    fn hide(&mut self, fd: &OwnedFd, shown: &Path) -> Result<()> {
        let mode = fstat(fd).on("stat", shown)?.st_mode;
        let (cover, create): (_, fn() -> Result<OwnedFd>) = match FileType::from_raw_mode(mode) {
            FileType::Directory => (&mut self.empty, empty_directory),
            _ => (&mut self.null, null_device),
        };
        if let Some(cover) = cover {
            return attach(clone_fd(cover, false, shown)?, fd, shown);
        }
        // The kernel clones a mount only when it is attached.
        attach(cover.insert(create()?), fd, shown)
    }
}

/// Creates a detached mount of an empty directory.
fn empty_directory() -> Result<OwnedFd> {
    let options = [("mode", "0555"), ("nr_inodes", "1"), ("size", "4k")];
    new_mount("tmpfs", &options, attr::DATA_ONLY | attr::RDONLY)
}

/// Creates a detached mount of the null device of the host, not of the one of the root, and checks its number.
fn null_device() -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let host = open_at(CWD, path).on("open", path)?;
    let stat = fstat(&host).on("stat", path)?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::CharacterDevice || number != (1, 3) {
        return Err(Error::new("open /dev/null: is not the null device"));
    }
    let null = clone_fd(host, false, path)?;
    restrict_tree(null.as_fd(), attr::DATA_ONLY & !attr::NODEV | attr::RDONLY, path)?;
    Ok(null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_a_path_below_the_root_or_the_default_list() {
        assert_eq!(parse("default"), Ok(Mask::Default));
        let covered =
            |must_exist| Ok(Mask::Path(CoveredPath { path: "/proc/x".into(), must_exist }));
        assert_eq!((parse("/proc/x"), parse("-/proc/x")), (covered(true), covered(false)));
        assert_eq!(parse("defaults"), Err("not an absolute path: \"defaults\"".to_owned()));
        assert_eq!(parse("/"), Err("the root itself".to_owned()));
    }
}
