//! `tmp/`: work directories of pulls, and the renames that publish their content.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use jc_unshare::{Context, Result, remove_tree, temporary};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{BLOBS, IMAGES, ImageEntry, LAYERS, PURPOSE, SUMS, Store, TMP};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::sums::Sums;
use crate::sys;

impl Store {
    /// Makes a work directory. The next pull removes it if this process dies. A read-only store is an
    /// error.
    pub fn work(&self) -> Result<Work<'_>> {
        self.check_writable()?;
        let tmp = self.path.join(TMP);
        let made = temporary::create_dir(&self.tmp, "pull-").on("mkdir", &tmp);
        let (name, fd) = made.map_err(|error| error.hint(PURPOSE.hint))?;
        Ok(Work { store: self, path: tmp.join(&name), name, fd })
    }
}

/// The content of a work directory to publish.
pub struct Publication<'a> {
    /// Layers: their numbers in the work directory, and their names.
    pub layers: &'a [(usize, String)],
    pub blobs: &'a [Digest],
    /// The images, which need the layers and documents.
    pub images: &'a [ImageEntry],
}

/// The work directory of one pull. The drop of this value removes the directory.
pub struct Work<'a> {
    store: &'a Store,
    name: String,
    path: PathBuf,
    fd: OwnedFd,
}

impl Work<'_> {
    /// Makes an empty directory for a layer.
    pub fn make_layer(&self, number: usize) -> Result<OwnedFd> {
        let (name, path) = (layer_work(number), self.path.join(layer_work(number)));
        remove_tree(&self.fd, name.as_bytes()).on("remove", &path)?;
        rustix::fs::mkdirat(&self.fd, &name, Mode::from_raw_mode(0o755)).on("mkdir", &path)?;
        let fd = sys::open_dir_to_read(&self.fd, name.as_bytes()).on("open", &path)?;
        // A new directory may inherit a group, a setgid bit or access control lists from the directory of the store.
        sys::clear_acls(&fd).on("removexattr", &path)?;
        sys::reset_owner(&fd).on("chown", &path)?;
        Ok(fd)
    }

    /// Makes the file for the sums of a layer.
    pub fn make_sums(&self, number: usize, blob: &Descriptor) -> Result<Sums> {
        let path = self.path.join(sums_work(number));
        let file = self.create(&sums_work(number))?;
        Sums::new(file, blob).on("write", &path)
    }

    /// Replaces the first record of the sums of a layer, whose blob was not known before.
    pub fn set_blob(&self, number: usize, blob: &Descriptor) -> Result<()> {
        let (name, path) = (sums_work(number), self.path.join(sums_work(number)));
        let old = sys::open_file(&self.fd, name.as_bytes()).on("open", &path)?;
        let mut old = BufReader::new(old.ok_or(Errno::NOENT).on("open", &path)?);
        old.skip_until(0).on("read", &path)?;
        // The old file stays open, and gets no name again.
        rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty()).on("remove", &path)?;
        let mut new = self.create(&name)?;
        Sums::new(new.try_clone().op("dup")?, blob).and_then(Sums::finish).on("write", &path)?;
        io::copy(&mut old, &mut new).on("write", &path)?;
        Ok(())
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Writes a verified document.
    pub fn add_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.write(&digest.file_name(), bytes)
    }

    /// Waits until a file is on the disk.
    pub fn sync_file(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        let file = sys::open_file(&self.fd, name.as_bytes()).on("open", &path)?;
        rustix::fs::fsync(file.ok_or(Errno::NOENT).on("open", &path)?).on("sync", &path)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.create(name)?.write_all(bytes).on("write", self.path.join(name))
    }

    fn create(&self, name: &str) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))
            .on("create", self.path.join(name))
            .map(File::from)
    }

    /// Publishes documents alone, each synced by itself: a sync of the file system may take long.
    pub fn publish_documents(&self, digests: &[Digest], no_sync: bool) -> Result<()> {
        if !no_sync {
            digests.iter().try_for_each(|digest| self.sync_file(&digest.file_name()))?;
        }
        self.publish(&Publication { layers: &[], blobs: digests, images: &[] }, true)?;
        if !no_sync {
            rustix::fs::fsync(&self.store.blobs).on("sync", self.store.path.join(BLOBS))?;
        }
        Ok(())
    }

    /// Publishes layers and documents, and then the images that need them, synced unless `no_sync`. A
    /// file that another pull has published meanwhile stays. `false` if a layer or a document has been
    /// removed from the store meanwhile.
    pub fn publish(&self, publication: &Publication<'_>, no_sync: bool) -> Result<bool> {
        for image in publication.images {
            self.write(&image.key(), &image.to_line()?)?;
        }
        if !no_sync {
            sys::sync(&self.fd).on("sync", &self.path)?;
        }
        // No image needs these layers yet.
        let _lock = self.store.keep_layers()?;
        for digest in publication.blobs {
            let name = digest.file_name();
            rustix::fs::renameat(&self.fd, &name, &self.store.blobs, &name)
                .on("rename", self.path.join(&name))?;
        }
        for (number, name) in publication.layers {
            // The sums of a layer appear before the layer.
            let sums = sums_work(*number);
            rustix::fs::renameat(&self.fd, &sums, &self.store.sums, name)
                .on("rename", self.path.join(&sums))?;
            let work = layer_work(*number);
            match rename_new(&self.fd, &work, &self.store.layers, name) {
                Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(e) => return Err(e).on("rename", self.store.layer_path(name)),
            }
        }
        for image in publication.images {
            if !self.store.is_whole(image)? {
                return Ok(false);
            }
        }
        if !no_sync {
            rustix::fs::fsync(&self.store.sums).on("sync", self.store.path.join(SUMS))?;
            rustix::fs::fsync(&self.store.layers).on("sync", self.store.path.join(LAYERS))?;
            rustix::fs::fsync(&self.store.blobs).on("sync", self.store.path.join(BLOBS))?;
        }
        for image in publication.images {
            let key = image.key();
            rustix::fs::renameat(&self.fd, &key, &self.store.images, &key)
                .on("rename", self.store.path.join(IMAGES).join(&key))?;
        }
        Ok(true)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // The sweep of the next pull reports a directory that stays.
        let _: rustix::io::Result<()> = remove_tree(&self.store.tmp, self.name.as_bytes());
    }
}

fn layer_work(number: usize) -> String {
    format!("layer-{number}")
}

fn sums_work(number: usize) -> String {
    format!("sums-{number}")
}

fn rename_new(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
}
