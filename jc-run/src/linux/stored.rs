//! The record of an image in the store (jc-store(5)), read in this process: a start of jc-pull takes 1.8 ms. Images that
//! need more than the files of one entry are left to jc-pull, which also reports all errors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::open_dir_to_read;
use jc_unshare::image::registries::{is_read_once, parse_name};
use jc_unshare::image::{Digest, ImageEntry, Name, Platform, Reference, has_registry};
use jc_unshare::private_dir::{WRITABLE, open_chain};
use jc_unshare::record::{Record, VERSION};
use jc_unshare::store::{self, OPAQUE, UNOWNED};
use jc_unshare::{Context, Error, Result};
use rustix::fd::AsFd;
use rustix::fs::{fgetxattr, fstat};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::anonymous::PURPOSE;
use super::files::StateDir;
use crate::options::ImageSource;

/// The part of an image configuration that is in the record.
#[derive(Deserialize)]
struct Config {
    config: Option<Map<String, Value>>,
}

/// The record that `jc-pull --policy never` prints. `None`: only jc-pull knows the record.
pub fn record(image: &ImageSource, is_unowned: bool) -> Result<Option<Record>> {
    let Some(reference) = full_name(image)? else { return Ok(None) };
    let Some(store) = Store::open()? else { return Ok(None) };
    let Some(entry) = store.entry(&reference)? else { return Ok(None) };
    let Some(layers) = store.layers(&entry.layers, is_unowned)? else { return Ok(None) };
    let Some(config) = store.config(&entry.config)? else { return Ok(None) };
    Ok(Some(Record {
        jc: VERSION,
        reference: Some(entry.reference),
        origin: entry.origin,
        digest: Some(entry.manifest.to_string()),
        platform: Some(entry.platform),
        layers: Some(layers),
        rootfs: None,
        config: config.config.unwrap_or_default(),
    }))
}

/// The full name of an image in a registry, by the aliases of containers-registries.conf(5) if the name is a short one.
/// `None`: only jc-pull may read the file.
fn full_name(image: &ImageSource) -> Result<Option<Reference>> {
    if image.platform.is_some() || !has_registry(&image.reference) && is_read_once() {
        return Ok(None);
    }
    Ok(match parse_name(&image.reference)? {
        Name::Registry(reference) => Some(reference),
        Name::Path { .. } => None,
    })
}

/// The open directories of the store.
struct Store {
    path: PathBuf,
    images: StateDir,
    blobs: StateDir,
    layers: StateDir,
}

impl Store {
    /// Opens the default store. `None`: the store is absent.
    fn open() -> Result<Option<Self>> {
        let given = store::default_path()?;
        let Some(directory) = open_chain(&given, PURPOSE, false)? else { return Ok(None) };
        check(&directory, &given)?;
        // No other user can change the path after the check.
        let path = std::fs::canonicalize(&given).on("open", &given)?;
        let part = |name: &str| -> Result<Option<StateDir>> {
            let part = StateDir::open(&directory, Path::new(name), &path.join(name))?;
            part.as_ref().map_or(Ok(()), |part| check(part, part.path()))?;
            Ok(part)
        };
        Ok(match (part("images")?, part("blobs")?, part("layers")?) {
            (Some(images), Some(blobs), Some(layers)) => Some(Self { path, images, blobs, layers }),
            _ => None,
        })
    }

    /// The entry of an image for the platform of the host.
    fn entry(&self, reference: &Reference) -> Result<Option<ImageEntry>> {
        let host = Platform::host();
        for platform in [Platform { variant: None, ..host.clone() }, host] {
            let (name, platform) = (reference.to_string(), platform.to_string());
            if let Some(line) = self.images.read(&ImageEntry::key_of(&name, &platform))? {
                let entry = ImageEntry::parse(&line)?;
                let is_own = entry.reference == name && entry.platform == platform;
                return Ok(is_own.then_some(entry));
            }
        }
        Ok(None)
    }

    /// The paths of the layers. `None` if a layer is absent or made for other owners, or if an overlay does not show all
    /// layers: that of an image with a layer twice, or with an opaque root.
    fn layers(&self, names: &[String], is_unowned: bool) -> Result<Option<Vec<PathBuf>>> {
        let directory = self.path.join("layers");
        let mut known = BTreeSet::new();
        let mut paths = Vec::new();
        for name in names {
            if name.starts_with(UNOWNED) != is_unowned || !known.insert(name) {
                return Ok(None);
            }
            let path = directory.join(name);
            let layer = match open_dir_to_read(&self.layers, name.as_str()) {
                Err(Errno::NOENT) => return Ok(None),
                opened => opened.on("open", &path)?,
            };
            for key in OPAQUE {
                match fgetxattr(&layer, key, &mut [0; 2]) {
                    Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    other => return other.map(|_| None).on("getxattr", &path),
                }
            }
            paths.push(path);
        }
        Ok(Some(paths).filter(|paths| !paths.is_empty()))
    }

    fn config(&self, digest: &Digest) -> Result<Option<Config>> {
        let Some(bytes) = self.blobs.read(&digest.file_name())? else { return Ok(None) };
        digest.check(&bytes)?;
        serde_json::from_slice(&bytes).map(Some).map_err(Error::new)
    }
}

/// An error if other users can write to a directory.
fn check(directory: impl AsFd, path: &Path) -> Result<()> {
    if fstat(directory).on("stat", path)?.st_mode & WRITABLE == 0 {
        return Ok(());
    }
    Err(Error::new(format_args!("store {}: is writable by other users", path.display())))
}
