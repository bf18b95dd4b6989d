//! An OCI image layout in a directory as a destination.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jc_unshare::{Absent, Context, Error, Result, lock as file_lock, read_at_most, temporary};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::index::{MARKER, with_entry};
use super::{Document, Image, Outgoing, Sink, Written, blobs};
use crate::atomic::{AtomicPath, sweep};
use crate::digest::{Algorithm, Digest};
use crate::manifest::MAX_DOCUMENT;
use crate::parallel::lock;
use crate::sys;
use jc_unshare::image::Transport;

/// The beginning of the names of unfinished files.
const UNFINISHED: &str = ".jc-push-";

pub struct Layout {
    path: PathBuf,
    tag: Option<String>,
    no_sync: bool,
    /// The directory with `index.json`.
    root: OwnedFd,
    /// A new layout, before it is complete.
    new: Mutex<Option<AtomicPath>>,
    /// The document for the index.
    top: Mutex<Option<Document>>,
}

impl Layout {
    /// Opens a layout to add to it, or makes one if the directory is absent or empty. A new layout appears
    /// complete. Another directory with files is an error.
    pub fn open(path: &Path, tag: Option<String>, no_sync: bool) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened =
            rustix::fs::openat(CWD, path, flags, Mode::empty()).on("open", path).absent()?;
        let is_new = opened.as_ref().map_or(Ok(true), is_empty).on("read", path)?;
        let (root, new) = match opened {
            Some(root) if !is_new => {
                check_marker(&root, path)?;
                (root, None)
            }
            _ => {
                let new = AtomicPath::directory(path)?;
                let root = new.fd.try_clone().op("dup")?;
                // The mode that mkdir(1) gives.
                let mask = rustix::process::umask(Mode::empty());
                rustix::process::umask(mask);
                rustix::fs::fchmod(&root, Mode::from_raw_mode(0o777) & !mask).on("chmod", path)?;
                (root, Some(new))
            }
        };
        let (new, top) = (Mutex::new(new), Mutex::default());
        let layout = Self { path: path.to_owned(), tag, no_sync, root, new, top };
        layout.make("blobs")?;
        let directory = layout.directory(Algorithm::Sha256)?;
        for unfinished in [&directory, &layout.root] {
            sweep(unfinished, UNFINISHED.as_bytes()).on("sweep", path)?;
        }
        if is_new {
            layout.write(&layout.root, "oci-layout", MARKER)?;
        }
        Ok(layout)
    }

    fn make(&self, name: &str) -> Result<()> {
        match rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e).on("mkdir", self.path.join(name)),
        }
    }

    /// The directory of the blobs of an algorithm.
    fn directory(&self, algorithm: Algorithm) -> Result<OwnedFd> {
        let name = format!("blobs/{}", algorithm.name());
        self.make(&name)?;
        let path = self.path.join(&name);
        let blobs = sys::open_dir_to_read(&self.root, "blobs").on("open", &path)?;
        sys::open_dir_to_read(&blobs, algorithm.name().as_bytes()).on("open", path)
    }

    /// Writes a file that appears complete. `name` decides after the content has been written.
    fn create<T>(
        &self,
        directory: &OwnedFd,
        write: impl FnOnce(&mut File) -> Result<T>,
        name: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let path = &self.path;
        let (unfinished, fd) = temporary::create_file(directory, UNFINISHED).on("create", path)?;
        let mut file = File::from(fd);
        let renamed = write(&mut file).and_then(|written| {
            let name = name(&written);
            rustix::fs::renameat(directory, &unfinished, directory, &name)
                .on("rename", path.join(&name))
                .map(|()| written)
        });
        renamed.inspect_err(|_| {
            // The next push removes a file that stays.
            let _: rustix::io::Result<()> =
                rustix::fs::unlinkat(directory, &unfinished, AtFlags::empty());
        })
    }

    fn write(&self, directory: &OwnedFd, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let write = |file: &mut File| file.write_all(bytes).on("write", &path);
        self.create(directory, write, |()| name.to_owned())
    }

    fn put_document(&self, document: Document, named: bool) -> Result<()> {
        let directory = self.directory(document.digest.algorithm())?;
        self.write(&directory, document.digest.hex(), &document.bytes)?;
        if named {
            *lock(&self.top) = Some(document);
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        if self.no_sync { Ok(()) } else { sys::sync(&self.root).on("sync", &self.path) }
    }

    /// Adds the document to `index.json`, which other programs may change meanwhile.
    fn add(&self, document: &Document) -> Result<()> {
        let held = sys::open_dir_to_read(&self.root, ".").on("open", &self.path)?;
        // Only this process has the directory of a new layout, and has it locked.
        if lock(&self.new).is_none() {
            file_lock::exclude(&held, &self.path)?;
        }
        let path = self.path.join("index.json");
        let file = sys::open_file(&self.root, b"index.json").on("read", &path)?;
        let old = file.map(|file| read_at_most(file, MAX_DOCUMENT, &path)).transpose()?;
        let new = with_entry(old.as_deref(), document, self.tag.as_deref())
            .map_err(|e| e.context(self.path.display()))?;
        self.write(&self.root, "index.json", &new)?;
        self.sync()
    }

    /// Moves the blobs of a new layout into the one that another push has made at the path, and adds the document there.
    fn join(&self, document: Document) -> Result<()> {
        let other = Self::open(&self.path, self.tag.clone(), self.no_sync)?;
        let blobs = sys::open_dir_to_read(&self.root, "blobs").on("open", &self.path)?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let from = match sys::open_dir_to_read(&blobs, algorithm.name().as_bytes()) {
                Err(Errno::NOENT) => continue,
                from => from.on("open", &self.path)?,
            };
            let to = other.directory(algorithm)?;
            let mut names = Vec::new();
            let listed = sys::for_each_name(&from, |name| {
                names.push(name.to_vec());
                Ok(())
            });
            listed.on("read", &self.path)?;
            for name in names {
                rustix::fs::renameat(&from, name.as_slice(), &to, name.as_slice())
                    .on("rename", self.path.join(sys::as_path(&name)))?;
            }
        }
        *lock(&other.top) = Some(document);
        other.finish()
    }
}

fn is_empty(directory: &OwnedFd) -> rustix::io::Result<bool> {
    let mut is_empty = true;
    sys::for_each_name(directory, |_| {
        is_empty = false;
        Ok(())
    })?;
    Ok(is_empty)
}

fn check_marker(root: &OwnedFd, path: &Path) -> Result<()> {
    let marker = path.join("oci-layout");
    match sys::open_file(root, b"oci-layout").on("read", &marker)? {
        Some(_) => Ok(()),
        None => Err(Error::new(format_args!("{}: no OCI image layout", path.display()))
            .hint("oci:DIR is a layout, or an empty or absent directory")),
    }
}

impl Sink for Layout {
    fn name(&self) -> String {
        Transport::Oci.image(&self.path, self.tag.as_deref())
    }

    fn has(&self, blob: &Written) -> Result<bool> {
        let directory = self.directory(blob.digest.algorithm())?;
        match sys::stat(&directory, blob.digest.hex().as_bytes()) {
            Ok(stat) => Ok(sys::file_type(&stat) == FileType::RegularFile
                && u64::try_from(stat.st_size) == Ok(blob.size)),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e).on("stat", self.path.join(blob.digest.hex())),
        }
    }

    fn put(&self, blob: &Outgoing<'_>) -> Result<Written> {
        let algorithm = blob.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let directory = self.directory(algorithm)?;
        let write = |file: &mut File| blobs::copy(blob, file, &self.path);
        self.create(&directory, write, |written| written.digest.hex().to_owned())
    }

    fn put_image(&self, image: Image, named: bool) -> Result<()> {
        self.put_document(image.manifest, named)
    }

    fn put_index(&self, index: Document) -> Result<()> {
        self.put_document(index, true)
    }

    fn finish(&self) -> Result<()> {
        let Some(document) = lock(&self.top).take() else { return Ok(()) };
        // The blobs are on the disk before the index names them.
        self.sync()?;
        self.add(&document)?;
        let Some(new) = lock(&self.new).take() else { return Ok(()) };
        match new.publish() {
            Err(e) if e.errno() == Some(Errno::NOTEMPTY.raw_os_error()) => self.join(document),
            published => published,
        }
    }
}
