//! Upper directories: of jc-rootfs, of a container that is kept, or of another program.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use jc_unshare::lower::{self, Lower, PathText};
use jc_unshare::{Context, Error, Result, read_at_most};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::base::{Base, open_dir};
use super::layer::{LayerOptions, LayerWriter};
use super::list::{Change, list};
use super::lookup::Position;
use super::marks::Marks;
use super::pattern::Patterns;
use crate::sys;

/// The upper directories of one root.
pub struct Upper {
    path: PathBuf,
    parts: Vec<Part>,
    /// Whether root mounted the overlay, perhaps that of a user namespace.
    is_of_root: bool,
}

/// The upper directory of one overlay.
pub struct Part {
    /// The path in the root: the components, separated by slashes.
    pub at: Vec<u8>,
    pub root: OwnedFd,
    pub marks: Marks,
    /// The recorded lower directories, the lowest first.
    layers: Option<Vec<PathBuf>>,
    /// The recorded mount points, relative to `at`.
    mounts: Vec<Vec<u8>>,
}

/// A part with its lower directories.
pub struct Placed<'a> {
    pub part: &'a Part,
    base: BaseOf<'a>,
    /// The paths of mount points that jc made.
    pub skipped: BTreeSet<Vec<u8>>,
}

enum BaseOf<'a> {
    /// The lower directories of the part alone.
    Own(Base),
    /// The whole root.
    Whole(&'a Base),
    Unknown,
}

impl Placed<'_> {
    pub fn position(&self) -> Position<'_> {
        match &self.base {
            BaseOf::Own(base) => Position::over(base, &self.part.at),
            BaseOf::Whole(base) => Position::within(base, &self.part.at),
            BaseOf::Unknown => Position::unknown(),
        }
    }
}

impl Upper {
    /// Opens the directory of `jc-rootfs --upper`, which has the file `lower`, or an upper directory itself.
    pub fn open(path: &Path) -> Result<Self> {
        match Self::open_once(path) {
            // Another process drops the changes, and with them the file.
            Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {
                Self::open_once(path)
            }
            opened => opened,
        }
    }

    fn open_once(path: &Path) -> Result<Self> {
        let directory = open_dir(path).on("open", path)?;
        let file = sys::open_file(&directory, lower::FILE.as_bytes());
        let named = path.join(lower::FILE);
        let recorded = match file.on("open", &named) {
            Ok(Some(file)) => {
                let content = read_at_most(file, lower::MAX_SIZE, &named)?;
                Some(Lower::parse(&content).map_err(|e| e.context(named.display()))?)
            }
            Ok(None) => None,
            // A raw upper directory may have another kind of file of that name.
            Err(error) if error.errno().is_none() => None,
            Err(error) => return Err(error),
        };
        let is_of_root = recorded.as_ref().is_some_and(|recorded| recorded.uid == 0);
        let parts = match recorded {
            Some(recorded) => Part::recorded(&directory, path, recorded)?,
            None => vec![Part::raw(directory)],
        };
        Ok(Self { path: path.to_owned(), parts, is_of_root })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether root made the changes, perhaps root of a user namespace, in which files have other owners.
    pub const fn is_of_root(&self) -> bool {
        self.is_of_root
    }

    /// The upper directories, sorted by their places in the root.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The parts over their lower directories: those of `base`, or else the recorded ones.
    pub fn placed<'a>(&'a self, base: Option<&'a Base>) -> Result<Vec<Placed<'a>>> {
        self.parts.iter().map(|part| part.place(base)).collect()
    }

    /// Requires that lower directories are recorded.
    pub fn require_recorded(&self) -> Result<()> {
        if self.parts.iter().all(|part| part.layers.is_some()) {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::new(format_args!("{path}: has no file {:?}", lower::FILE))
            .hint("--base names the record or the directory that the upper directory lies over"))
    }

    /// The changes to `base`, or to the recorded lower directories, sorted by path.
    pub fn changes(&self, base: Option<&Base>, patterns: &Patterns) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for placed in self.placed(base)? {
            let Part { root, marks, .. } = placed.part;
            changes.extend(list(root, *marks, &placed.position(), &placed.skipped, patterns)?);
        }
        changes.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
        Ok(changes)
    }

    /// Writes the changes as a layer. Whiteouts of names that the known lower directories lack are left out.
    pub fn write_layer(
        &self,
        base: Option<&Base>,
        options: &LayerOptions,
        to: impl Write,
    ) -> Result<()> {
        let mut writer = LayerWriter::new(to, options);
        for placed in self.placed(base)? {
            let Part { root, marks, .. } = placed.part;
            writer.tree(root, *marks, &placed.position(), &placed.skipped)?;
        }
        writer.finish()
    }
}

impl Part {
    fn raw(root: OwnedFd) -> Self {
        Self { at: Vec::new(), root, marks: Marks::Both, layers: None, mounts: Vec::new() }
    }

    /// The upper directories that a file names, sorted by their paths. A mount point belongs to the nearest one.
    fn recorded(directory: &OwnedFd, path: &Path, recorded: Lower) -> Result<Vec<Self>> {
        let mut parts = Vec::new();
        for overlay in recorded.overlays {
            let named = path.join(&overlay.upper.0);
            let components = components(&overlay.upper)?;
            let opened = sys::open_beneath(directory, &components).on("open", &named)?;
            let root = sys::open_dir_to_read(&opened, ".").on("open", &named)?;
            let marks = if overlay.userxattr { Marks::User } else { Marks::Trusted };
            let layers = overlay.layers.into_iter().map(|layer| layer.0).collect();
            let at = self::components(&overlay.at)?.join(&b'/');
            parts.push(Self { at, root, marks, layers: Some(layers), mounts: Vec::new() });
        }
        parts.sort_by(|a, b| a.at.cmp(&b.at));
        for mount in &recorded.mounts {
            let mount = components(mount)?.join(&b'/');
            let below = |part: &&mut Self| beneath(&mount, &part.at).is_some();
            if let Some(part) = parts.iter_mut().rev().find(below)
                && let Some(relative) = beneath(&mount, &part.at)
            {
                part.mounts.push(relative.to_vec());
            }
        }
        Ok(parts)
    }

    fn place<'a>(&'a self, base: Option<&'a Base>) -> Result<Placed<'a>> {
        let base = match (base, &self.layers) {
            (Some(base), _) => BaseOf::Whole(base),
            (None, Some(layers)) => BaseOf::Own(Base::of_layers(layers)?),
            (None, None) => BaseOf::Unknown,
        };
        let mut placed = Placed { part: self, base, skipped: BTreeSet::new() };
        placed.skipped = self.made_mount_points(&placed.position())?;
        Ok(placed)
    }

    /// The mount points that jc made: those that the lower directories lack, and the directories that have only such
    /// ones.
    fn made_mount_points(&self, position: &Position<'_>) -> Result<BTreeSet<Vec<u8>>> {
        let mut made = BTreeSet::new();
        for mount in &self.mounts {
            let mut path = mount.as_slice();
            while !path.is_empty() && self.is_made(path, position, &made)? {
                made.insert(path.to_vec());
                path = path.iter().rposition(|b| *b == b'/').map_or(b"", |at| &path[..at]);
            }
        }
        Ok(made)
    }

    fn is_made(
        &self,
        path: &[u8],
        position: &Position<'_>,
        made: &BTreeSet<Vec<u8>>,
    ) -> Result<bool> {
        let shown = sys::as_path(path);
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let Some((name, parents)) = parts.split_last() else { return Ok(false) };
        let Some(parent) = found(sys::open_beneath(&self.root, parents)).on("open", shown)? else {
            return Ok(false);
        };
        let Some(stat) = found(sys::stat(&parent, name)).on("stat", shown)? else {
            return Ok(false);
        };
        let is_empty = match sys::file_type(&stat) {
            FileType::RegularFile => stat.st_size == 0,
            FileType::Directory => {
                let directory = sys::open_dir_to_read(&parent, *name).on("open", shown)?;
                let mut has_others = false;
                sys::for_each_name(&directory, |child| {
                    has_others |= !made.contains(&[path, b"/", child].concat());
                    Ok(())
                })
                .on("read", shown)?;
                !has_others
            }
            _ => false,
        };
        if !is_empty {
            return Ok(false);
        }
        let mut below = position.open()?;
        for parent in parents {
            below.enter(parent, false).on("read", shown)?;
        }
        below.lacks(name).on("read", shown)
    }
}

/// A file, or `None` if it is absent or the way to it leads through another kind of file.
fn found<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        other => other.map(Some),
    }
}

/// The path below a directory. `None`: the path is not below it.
fn beneath<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    if directory.is_empty() {
        return Some(path);
    }
    path.strip_prefix(directory)?.strip_prefix(b"/")
}

/// The names in a recorded path. `..` is an error.
pub fn components(path: &PathText) -> Result<Vec<&[u8]>> {
    let parts = path.0.components().filter(|part| !matches!(part, Component::RootDir));
    let name = |part: Component<'_>| match part {
        Component::Normal(_) => Ok(()),
        _ => {
            Err(Error::new(format_args!("{}: {}: not a plain path", lower::FILE, path.0.display())))
        }
    };
    parts.clone().try_for_each(name)?;
    let bytes = path.0.as_os_str().as_bytes();
    Ok(bytes.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect())
}
