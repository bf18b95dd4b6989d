//! The root itself: a directory, or an overlay of layers.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, fchmod, fchown, fstat, mkdirat, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::fscontext::{FsContext, attach, clone_tree, detach_top, new_mount, restrict_tree};
use crate::spec::Upper;
use crate::sys::{self, attr};

/// What the root is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// This directory, with what is mounted below it.
    Directory(PathBuf),
    /// An overlay: layers, lowest first, and where changes go.
    Overlay(Vec<PathBuf>, Upper),
}

impl Root {
    /// Mounts the root on top of "/" of the present mount namespace, from where [`pivot`] makes it the
    /// root, and returns its directory. Device files in it do not work.
    ///
    /// [`pivot`]: crate::pivot
    pub fn attach(&self, read_only: bool) -> Result<OwnedFd> {
        let slash = open_dir(Path::new("/"))?;
        match self {
            Self::Directory(directory) => {
                let mount = clone_tree(directory)?;
                let read_only = if read_only { attr::RDONLY } else { 0 };
                restrict_tree(mount.as_fd(), attr::NODEV | read_only, directory)?;
                attach(&mount, &slash, directory)?;
                Ok(mount)
            }
            Self::Overlay(layers, upper) => {
                let layers =
                    layers.iter().map(|path| open_dir(path)).collect::<Result<Vec<_>>>()?;
                let writable = writable(upper, &layers, &slash)?;
                let mount = overlay(&layers, &writable, &slash)?;
                if writable.on_slash {
                    detach_top()?; // overlayfs holds it by now
                }
                attach(&mount, &slash, Path::new("overlay"))?;
                Ok(mount)
            }
        }
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).on("open", path)
}

/// The two directories that overlayfs writes to.
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    /// They are in a tmpfs that is mounted over "/".
    on_slash: bool,
}

/// Makes `upper` and `work` where changes are to go. A tmpfs for them is mounted over "/", since
/// before Linux 6.15 overlayfs takes no directory of a detached mount.
fn writable(upper: &Upper, layers: &[OwnedFd], slash: &OwnedFd) -> Result<Writable> {
    let (base, shown, on_slash) = match upper {
        Upper::Directory(path) => (open_dir(path)?, path.as_path(), false),
        Upper::Tmpfs { size } => {
            let mut options = vec![("mode", "0700")];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let tmpfs = new_mount("tmpfs", &options, attr::NODEV)?;
            attach(&tmpfs, slash, Path::new("tmpfs"))?;
            (tmpfs, Path::new("tmpfs"), true)
        }
    };
    let make = |name: &str| -> Result<(OwnedFd, bool)> {
        let path = shown.join(name);
        let made = match mkdirat(&base, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => false,
            other => other.on("mkdir", &path).map(|()| true)?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok((rustix::fs::openat(&base, name, flags, Mode::empty()).on("open", &path)?, made))
    };
    let (work, _) = make("work")?;
    let (upper, fresh) = make("upper")?;
    if fresh && let Some(top) = layers.last() {
        // The root directory of an overlay is the upper one: give it the image's owner and mode.
        let stat = fstat(top).op("stat top layer")?;
        let owner = rustix::fs::Uid::from_raw(stat.st_uid);
        let group = rustix::fs::Gid::from_raw(stat.st_gid);
        fchown(&upper, Some(owner), Some(group)).op("chown upper")?;
        fchmod(&upper, Mode::from_raw_mode(stat.st_mode)).op("chmod upper")?;
    }
    Ok(Writable { upper, work, on_slash })
}

/// What a hostile layer could say by xattrs about other directories is not followed.
const SAFE: [(&str, &str); 2] = [("redirect_dir", "nofollow"), ("metacopy", "off")];

/// Makes the overlay, mounted nowhere yet.
fn overlay(layers: &[OwnedFd], writable: &Writable, slash: &OwnedFd) -> Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    // Paths by descriptor: short, free of ':' and ',', and still what was opened.
    for layer in layers.iter().rev() {
        match context.try_set("lowerdir+", &by_fd(layer)) {
            Err(Errno::INVAL) => return overlay_by_mount(layers, writable, slash),
            other => other.op("set lowerdir+")?,
        }
    }
    context.set("upperdir", &by_fd(&writable.upper))?;
    context.set("workdir", &by_fd(&writable.work))?;
    for (key, value) in SAFE {
        context.set(key, value)?;
    }
    match context.create() {
        // Before 6.5 anything can be set, and is refused only now.
        Err(refusal) if refusal.without_a_word => overlay_by_mount(layers, writable, slash),
        Err(refusal) => Err(refusal.error),
        Ok(()) => context.fsmount(attr::NODEV),
    }
}

/// For kernels before 6.7, which cannot add layers one by one: mount(2) takes one page of options.
fn overlay_by_mount(layers: &[OwnedFd], writable: &Writable, slash: &OwnedFd) -> Result<OwnedFd> {
    let lower: Vec<String> = layers.iter().rev().map(by_fd).collect();
    let (lower, upper) = (lower.join(":"), by_fd(&writable.upper));
    let mut options =
        format!("lowerdir={lower},upperdir={upper},workdir={}", by_fd(&writable.work));
    for (key, value) in SAFE {
        options = format!("{options},{key}={value}");
    }
    if options.len() >= rustix::param::page_size() {
        let count = layers.len();
        return Err(Error::new(format_args!("mount overlay: {count} layers are too many"))
            .hint("Linux 6.7 and later have no such limit"));
    }
    let options = std::ffi::CString::new(options).map_err(|_| Error::new("mount overlay: NUL"))?;
    mount("overlay", by_fd(slash), "overlay", MountFlags::NODEV, options.as_c_str())
        .op("mount overlay")?;
    // "/" names what is below; ".." of it, the uppermost mount there.
    let mount = clone_tree(Path::new("/.."))?;
    detach_top()?;
    Ok(mount)
}

fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Makes the root read-only, once everything that is needed has been made in it.
pub fn make_read_only(root: &OwnedFd) -> Result<()> {
    sys::mount_setattr(root.as_fd(), attr::RDONLY, false).op("mount_setattr /")
}
