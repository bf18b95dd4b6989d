//! The place of the changes to a root: an upper and a work directory for each overlay, and the file that names the
//! lower directories (`jc_unshare::lower`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::{is_named, open_dir, open_dir_to_read};
use jc_unshare::lower::{self, Lower, PathText};
use jc_unshare::mountinfo::{MountInfo, unescape};
use jc_unshare::{Context, Error, Result, lock, read_at_most, userns};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, StatxFlags, Uid, fchmod, fchown, fstat, fsync,
    mkdirat, openat, renameat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::layer::Layer;
use crate::linux::args::values::Upper;
use crate::linux::mount::fscontext::{attach, detach_top, new_mount};
use crate::linux::sys::attr;

/// The name of the file until it is complete.
const NEW: &str = "lower.new";

/// The place of the changes.
pub struct Changes {
    base: OwnedFd,
    /// A shared lock on the directory until the end of the start, so that jc-changes does not drop what is not mounted yet.
    _start: Option<OwnedFd>,
    shown: PathBuf,
    /// The path at which the payload finds the root of the changes.
    target: PathBuf,
    /// Whether the directories are in a tmpfs that is mounted over "/".
    on_slash: bool,
    overlays: Vec<lower::Overlay>,
    /// The IDs of the mounts of the overlays.
    mounts: BTreeSet<u64>,
    read_only: Vec<PathText>,
}

/// The upper and the work directory of an overlay.
pub struct Writable {
    /// The directory that gets the changes of the overlay.
    pub upper: OwnedFd,
    /// The directory in which overlayfs prepares files.
    pub work: OwnedFd,
    /// The path of the upper directory in the place of the changes.
    name: PathBuf,
}

impl Changes {
    /// Opens the directory of an option, or makes a tmpfs. The tmpfs is mounted over `slash`, the directory "/", since
    /// before Linux 6.15 overlayfs takes no directory of a detached mount.
    pub fn open(upper: &Upper, target: &Path, slash: &OwnedFd) -> Result<Self> {
        let (base, shown, on_slash) = match upper {
            Upper::Directory(path) => (open_or_make_place(path)?, path.clone(), false),
            Upper::Tmpfs { size } => {
                let mut options = vec![("mode", "0700")];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let tmpfs = new_mount("tmpfs", &options, attr::NODEV)?;
                attach(&tmpfs, slash, Path::new("tmpfs"))?;
                (tmpfs, PathBuf::from("tmpfs"), true)
            }
        };
        let lock = || -> Result<OwnedFd> {
            let directory = open_dir_to_read(&base, ".").on("open", &shown)?;
            lock::share(&directory, &shown).map(|()| directory)
        };
        Ok(Self {
            _start: (!on_slash).then(lock).transpose()?,
            base,
            shown,
            target: target.to_owned(),
            on_slash,
            overlays: Vec::new(),
            mounts: BTreeSet::new(),
            read_only: Vec::new(),
        })
    }

    /// Makes the directories for the overlay at a path in the root of the changes. `top` is the uppermost lower directory.
    pub fn writable(&self, at: &Path, top: Option<&Layer>) -> Result<Writable> {
        if at == Path::new("/") {
            return self.make(&self.base, Path::new(""), top);
        }
        let (mounts, _) = open_or_make(&self.base, lower::MOUNTS, &self.shown)?;
        let name = file_name(at)?;
        let (base, _) = open_or_make(&mounts, &name, &self.shown.join(lower::MOUNTS))?;
        self.make(&base, &Path::new(lower::MOUNTS).join(&name), top)
    }

    fn make(&self, base: &OwnedFd, name: &Path, top: Option<&Layer>) -> Result<Writable> {
        let shown = self.shown.join(name);
        let (work, _) = open_or_make(base, lower::WORK, &shown)?;
        // overlayfs empties the directory when it is mounted, as long as no other start does the same.
        lock::exclude(&work, shown.join(lower::WORK))?;
        let (upper, is_new) = open_or_make(base, lower::UPPER, &shown)?;
        if is_new && let Some(top) = top {
            copy_owner_and_mode(&top.fd, &upper)?;
        }
        Ok(Writable { upper, work, name: name.join(lower::UPPER) })
    }

    /// Adds the mount of an overlay to the file.
    pub fn add(
        &mut self,
        at: &Path,
        writable: &Writable,
        layers: Vec<PathBuf>,
        mount: &OwnedFd,
    ) -> Result<()> {
        let stat = statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).op("statx overlay")?;
        self.mounts.insert(stat.stx_mnt_id);
        self.overlays.push(lower::Overlay {
            at: at.into(),
            upper: writable.name.clone().into(),
            layers: layers.into_iter().map(PathText).collect(),
            userxattr: !userns::is_initial()?,
        });
        Ok(())
    }

    /// Adds a file or directory that is read-only to the file.
    pub fn add_read_only(&mut self, at: &Path) {
        self.read_only.push(at.into());
    }

    /// Detaches the tmpfs, to which the overlays have a reference.
    pub fn detach(&self) -> Result<()> {
        if self.on_slash { detach_top() } else { Ok(()) }
    }

    /// The path of the directory, if the payload may find it in its root.
    pub fn directory(&self) -> Result<Option<PathBuf>> {
        if self.on_slash {
            return Ok(None);
        }
        let link = super::layer::path_of_fd(&self.base);
        fs::read_link(&link).on("readlink", &link).map(Some)
    }

    /// Writes the file, after all mounts are made. Nothing is written for changes in memory.
    pub fn record(mut self) -> Result<()> {
        if self.on_slash {
            return Ok(());
        }
        let mut content = Lower::new(geteuid().as_raw(), std::mem::take(&mut self.overlays));
        content.mounts = self.mount_points()?;
        content.read_only = std::mem::take(&mut self.read_only);
        let shown = self.shown.join(lower::FILE);
        if self.content(&content, &shown)?.is_none() {
            return Ok(());
        }
        let mut new = self.lock_new(&shown)?;
        // Another start may have written the file before the lock.
        let Some(json) = self.content(&content, &shown)? else {
            return unlinkat(&self.base, NEW, AtFlags::empty()).on("remove", &shown);
        };
        new.set_len(0).on("truncate", &shown)?;
        new.write_all(&json).on("write", &shown)?;
        fsync(&new).on("sync", &shown)?;
        renameat(&self.base, NEW, &self.base, lower::FILE).on("rename", &shown).map_err(foreign)?;
        let directory = open_dir_to_read(&self.base, ".").on("open", &self.shown)?;
        fsync(&directory).on("sync", &self.shown)
    }

    /// The content for the file, with that of earlier runs. `None`: the file has it.
    fn content(&self, new: &Lower, shown: &Path) -> Result<Option<Vec<u8>>> {
        let (earlier, mut content) = (self.read(shown)?, new.clone());
        if let Some(earlier) = &earlier {
            content.keep(Lower::parse(earlier).map_err(|e| foreign(e.context(shown.display())))?);
        }
        let json = content.to_json()?;
        Ok((earlier.as_ref() != Some(&json)).then_some(json))
    }

    /// Opens the incomplete file and locks it, since several starts at once may have the same directory.
    fn lock_new(&self, shown: &Path) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let mode = Mode::from_raw_mode(0o644);
            let new: File = openat(&self.base, NEW, flags, mode).on("create", shown)?.into();
            lock::exclude(&new, shown)?;
            // Another start may have renamed or removed the file before the lock.
            if is_named(&self.base, NEW, &new, shown)? {
                return Ok(new);
            }
        }
    }

    /// The content of the file of an earlier run.
    fn read(&self, shown: &Path) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.base, lower::FILE, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.on("open", shown)?,
        };
        if FileType::from_raw_mode(fstat(&file).on("stat", shown)?.st_mode) != FileType::RegularFile
        {
            return Err(foreign(Error::new(format_args!("{}: not a file", shown.display()))));
        }
        read_at_most(File::from(file), lower::MAX_SIZE, shown).map(Some)
    }

    /// The places in the overlays where something else is mounted.
    fn mount_points(&self) -> Result<Vec<PathText>> {
        let table = "/proc/self/mountinfo";
        let text = fs::read_to_string(table).on("read", table)?;
        let is_own = |id: &str| id.parse().is_ok_and(|id| self.mounts.contains(&id));
        let mounts = text.lines().filter_map(MountInfo::parse);
        let mounts = mounts.filter(|mount| is_own(mount.parent) && !is_own(mount.id));
        let below = |mount: MountInfo<'_>| {
            let point = unescape(mount.point);
            Some(Path::new("/").join(point.strip_prefix(&self.target).ok()?))
        };
        Ok(mounts.filter_map(below).map(PathText).collect())
    }
}

fn foreign(error: Error) -> Error {
    error.hint("--upper has a directory of its own, with upper, work and lower")
}

/// The name of the directory for a mount point: its path with `%2F` for each slash. A path of more than 255 bytes has
/// none.
fn file_name(at: &Path) -> Result<PathBuf> {
    let bytes = at.as_os_str().as_bytes();
    let mut name = Vec::new();
    for byte in bytes.strip_prefix(b"/").unwrap_or(bytes) {
        match byte {
            b'/' | b'%' => name.extend(format!("%{byte:02X}").bytes()),
            _ => name.push(*byte),
        }
    }
    if name.len() > 255 {
        return Err(Errno::NAMETOOLONG).on("mkdir", at);
    }
    Ok(std::ffi::OsString::from_vec(name).into())
}

/// Opens the directory that the user names for changes. A first run makes it, below a directory that is there.
fn open_or_make_place(path: &Path) -> Result<OwnedFd> {
    match open_dir(path) {
        Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {
            mkdirat(CWD, path, Mode::from_raw_mode(0o700)).on("mkdir", path)?;
            open_dir(path)
        }
        opened => opened,
    }
}

/// Opens a directory, and returns whether this call has made it.
fn open_or_make(base: impl AsFd, name: impl AsRef<Path>, shown: &Path) -> Result<(OwnedFd, bool)> {
    let (name, path) = (name.as_ref(), shown.join(&name));
    let is_new = match mkdirat(&base, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => false,
        made => made.on("mkdir", &path).map(|()| true)?,
    };
    Ok((open_dir_to_read(base, name).on("open", &path)?, is_new))
}

/// Gives a new upper directory, which is the root directory of the overlay, the attributes of the top layer.
fn copy_owner_and_mode(layer: &OwnedFd, upper: &OwnedFd) -> Result<()> {
    let stat = fstat(layer).op("stat top layer")?;
    match fchown(upper, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))) {
        // EINVAL: the user namespace does not map the owner.
        Err(Errno::INVAL) => {}
        changed => changed.op("chown upper")?,
    }
    fchmod(upper, Mode::from_raw_mode(stat.st_mode)).op("chmod upper")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mount_point_has_a_directory_of_its_own() {
        for (at, name) in [("/home", "home"), ("/a/b%2Fc", "a%2Fb%252Fc"), ("/ä /x", "ä %2Fx")] {
            assert_eq!(file_name(Path::new(at)).unwrap(), Path::new(name));
        }
        assert!(file_name(Path::new(&format!("/{}", "x".repeat(256)))).is_err());
    }
}
