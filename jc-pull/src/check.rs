//! `jc-images --check`: compares the store with the digests and sums of verified pulls.

use std::collections::BTreeSet;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;

use flate2::CrcWriter;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::store::{ImageEntry, Store};
use crate::sums::{FileSum, LayerSums};
use crate::sys;
use crate::walk::{NonDirectory, Visitor, walk};

/// Reads all documents and all files of images. The first one that differs is an error.
pub fn check(store: &Store, images: &[ImageEntry]) -> Result<()> {
    let mut checked = BTreeSet::new();
    for image in images {
        if check_image(store, image, &mut checked).is_err() {
            // Another process may have removed the image meanwhile.
            let _lock = store.keep_layers()?;
            if store.image(&image.key())?.as_ref() == Some(image) {
                check_image(store, image, &mut checked).map_err(|error| {
                    error.context(&image.reference).hint("jc-rmi it, and pull it again")
                })?;
            }
        }
    }
    Ok(())
}

/// Checks an image, and adds its layers to those that are `checked`.
fn check_image<'a>(
    store: &Store,
    image: &'a ImageEntry,
    checked: &mut BTreeSet<&'a str>,
) -> Result<()> {
    check_documents(store, image)?;
    for name in &image.layers {
        if !checked.contains(name.as_str()) {
            check_layer(store, name).map_err(|e| e.context(format_args!("layer {name}")))?;
            checked.insert(name);
        }
    }
    Ok(())
}

fn check_documents(store: &Store, image: &ImageEntry) -> Result<()> {
    for digest in image.documents() {
        if store.blob(digest).is_none() {
            return Err(Error::new(format_args!("document {digest} is missing or broken")));
        }
    }
    Ok(())
}

fn check_layer(store: &Store, name: &str) -> Result<()> {
    let root = store.layer(name)?.ok_or_else(|| Error::new("is missing"))?;
    let sums = store.sums(name)?.ok_or_else(|| Error::new("its sums are missing"))?;
    let mut record = LayerSums::read(sums).op("read sums")?;
    walk(&[root], &mut record)?;
    match record.files.keys().next() {
        Some(path) => Err(fault(path, "is missing")),
        None => Ok(()),
    }
}

fn fault(path: &[u8], why: &str) -> Error {
    Error::new(format_args!("file {} {why}", String::from_utf8_lossy(path)))
}

/// Compares each file with its sum, and removes the sum, so that the sums of missing files are left.
impl Visitor for LayerSums {
    fn non_directory(&mut self, entry: &NonDirectory<'_>) -> Result<()> {
        let NonDirectory { path, parent, name, stat, .. } = entry;
        if sys::file_type(stat) != FileType::RegularFile {
            // The sums list each hard link, also those to devices and symbolic links, without a sum.
            if let Some(None) = self.files.get(*path) {
                self.files.remove(*path);
            }
            return Ok(());
        }
        match self.files.remove(*path) {
            None => Err(fault(path, "is not of the layer")),
            Some(None) => Ok(()),
            Some(Some(known)) => check_file(parent, name, stat, &known)
                .on("read", sys::as_path(path))?
                .map_or(Ok(()), |why| Err(fault(path, why))),
        }
    }
}

/// The way in which a file differs from its sum, if it does.
fn check_file(
    directory: &OwnedFd,
    name: &[u8],
    stat: &Stat,
    known: &FileSum,
) -> io::Result<Option<&'static str>> {
    if u64::try_from(stat.st_size) != Ok(known.size) {
        return Ok(Some("has another size"));
    }
    if (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) != (known.uid, known.gid, known.mode) {
        return Ok(Some("has another owner or mode"));
    }
    if sys::mtime(stat) != known.mtime {
        return Ok(Some("has been written to"));
    }
    let Some(expected) = known.crc else { return Ok(None) };
    let file = sys::open_file(directory, name)?.ok_or(Errno::NOENT)?;
    let mut crc = CrcWriter::new(io::sink());
    io::copy(&mut BufReader::with_capacity(128 << 10, file), &mut crc)?;
    Ok((crc.crc().sum() != expected).then_some("has another content"))
}
