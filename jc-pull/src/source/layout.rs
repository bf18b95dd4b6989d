//! An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/`
//! (image-spec image-layout.md).

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jc_unshare::{Context, Error, Result, read_at_most};
use rustix::fs::{CWD, Mode, OFlags};
use serde::Deserialize;
use serde_json::Value;

use super::archive::{Archive, Spool};
use super::{RawDocument, Source};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Index, MAX_DOCUMENT};
use crate::sys;
use jc_unshare::image::{PLAIN, Transport};

/// The file that makes a directory a layout.
const MARKER: &str = "oci-layout";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub struct Layout {
    path: PathBuf,
    files: Files,
    tag: Option<String>,
    chosen: Descriptor,
}

/// The files of a layout.
enum Files {
    Directory(OwnedFd),
    Archive(Archive),
}

impl Files {
    fn open(&self, path: &Path, name: &str) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Directory(fd) => {
                let file = sys::open_regular(fd, name, OFlags::empty());
                Ok(Box::new(file.on("open", path.join(name))?))
            }
            Self::Archive(archive) => match archive.file(name) {
                Some((file, _)) => Ok(Box::new(file)),
                None => {
                    let error = Error::new(format_args!("{}: no {name} in it", path.display()));
                    Err(if name == MARKER {
                        let hint =
                            format_args!("docker-archive:FILE is one of docker save; {PLAIN}");
                        error.hint(hint)
                    } else {
                        error
                    })
                }
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// Opens a layout in a directory, and selects the only image, or the image with a tag. Another number
    /// of images is an error.
    pub fn open(directory: &Path, tag: Option<&str>) -> Result<Self> {
        let path = std::fs::canonicalize(directory).on("open", directory)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty()).on("open", &path)?;
        Self::new(path, Files::Directory(fd), tag)
    }

    /// Opens a layout in a tar archive, or on stdin for `-`. The errors are those of [`Layout::open`] and
    /// of the archive.
    pub fn open_archive(file: &Path, tag: Option<&str>, spool: Spool<'_>) -> Result<Self> {
        let archive = Archive::open(file, spool)?;
        Self::new(archive.path().to_owned(), Files::Archive(archive), tag)
    }

    fn new(path: PathBuf, files: Files, tag: Option<&str>) -> Result<Self> {
        let marker: Marker = serde_json::from_slice(&read(&files, &path, MARKER)?)
            .map_err(|e| Error::new(format_args!("{}/oci-layout: {e}", path.display())))?;
        if marker.image_layout_version != "1.0.0" {
            let version = marker.image_layout_version;
            let path = path.display();
            return Err(Error::new(format_args!("{path}: unknown image layout {version:?}")));
        }
        let index = match Document::parse(&read(&files, &path, "index.json")?, None) {
            Ok(Document::Index(index)) => index,
            Ok(Document::Manifest(_)) => {
                return Err(Error::new(format_args!("{}/index.json: no index", path.display())));
            }
            Err(e) => return Err(e.context(format_args!("{}/index.json", path.display()))),
        };
        let chosen = select(index, tag).map_err(|e| e.context(path.display()))?;
        Ok(Self { path, files, tag: tag.map(str::to_owned), chosen })
    }

    fn open_blob(&self, digest: &Digest) -> Result<Box<dyn Read + Send>> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        self.files.open(&self.path, &name)
    }
}

impl Source for Layout {
    fn name(&self) -> String {
        let transport = match self.files {
            Files::Directory(_) => Transport::Oci,
            Files::Archive(_) => Transport::OciArchive,
        };
        transport.image(&self.path, self.tag.as_deref())
    }

    fn current(&self) -> Result<Option<Digest>> {
        Ok(Some(self.chosen.digest.clone()))
    }

    fn document(&self, digest: Option<&Digest>) -> Result<RawDocument> {
        let digest = digest.unwrap_or(&self.chosen.digest);
        let bytes = read_at_most(self.open_blob(digest)?, MAX_DOCUMENT, &self.path)?;
        let declared = Some(&self.chosen.media_type).filter(|t| !t.is_empty());
        let media_type = declared.filter(|_| *digest == self.chosen.digest).cloned();
        Ok(RawDocument { bytes, media_type })
    }

    fn blob(self: Arc<Self>, blob: &Descriptor, _: &Cancel) -> Result<Box<dyn Read + Send>> {
        self.open_blob(&blob.digest)
    }
}

fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(REF_NAME).and_then(Value::as_str)
}

fn select(index: Index, tag: Option<&str>) -> Result<Descriptor> {
    let tags: Vec<&str> = index.manifests.iter().filter_map(ref_name).collect();
    let tags = if tags.is_empty() { "none".to_owned() } else { tags.join(", ") };
    let fits = |d: &Descriptor| tag.is_none() || ref_name(d) == tag;
    let mut found: Vec<Descriptor> = index.manifests.iter().filter(|d| fits(d)).cloned().collect();
    match (found.len(), tag) {
        (1, _) => Ok(found.remove(0)),
        (0, None) => Err(Error::new("the layout holds no image")),
        (0, Some(tag)) => Err(Error::new(format_args!("no image {tag:?}; the tags are {tags}"))),
        (n, Some(tag)) => Err(Error::new(format_args!("{n} images are called {tag:?}"))),
        (n, None) => Err(Error::new(format_args!("the layout holds {n} images"))
            .hint(format_args!("choose one as oci:DIR:TAG; the tags are {tags}"))),
    }
}

fn read(files: &Files, path: &Path, name: &str) -> Result<Vec<u8>> {
    read_at_most(files.open(path, name)?, MAX_DOCUMENT, path.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(names: &[Option<&str>]) -> Index {
        let entries: Vec<String> = names
            .iter()
            .map(|name| {
                let notes = name.map_or("{}".to_owned(), |n| format!(r#"{{"{REF_NAME}":"{n}"}}"#));
                format!(r#"{{"digest":"{D}","size":1,"annotations":{notes}}}"#)
            })
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        match Document::parse(text.as_bytes(), None).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("{text}"),
        }
    }

    #[test]
    fn the_tag_or_the_only_image_is_chosen() {
        for (names, tag, fault) in [
            (vec![None], None, None),
            (vec![Some("a")], None, None),
            (vec![Some("a"), Some("b")], Some("b"), None),
            (vec![Some("a"), Some("b")], None, Some("the layout holds 2 images")),
            (vec![Some("a"), Some("b")], Some("c"), Some("no image \"c\"; the tags are a, b")),
            (vec![Some("a"), Some("a")], Some("a"), Some("2 images are called \"a\"")),
            (vec![], None, Some("the layout holds no image")),
        ] {
            let found = select(index(&names), tag).err().map(|e| e.to_string());
            assert_eq!(found.as_deref(), fault, "{names:?} {tag:?}");
        }
    }
}
