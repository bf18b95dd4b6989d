//! The command lines of `jc-images` and `jc-rmi`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::escape::{self, Escaped};
use jc_unshare::{Error, Result, Tool, print, table};
use serde::Serialize;

use crate::check::check;
use crate::progress::human;
use crate::rootless;
use crate::store::{ImageEntry, Removed, Store, Usage};
use jc_unshare::image::Name;
use jc_unshare::image::registries::parse_name;

/// List the images in the store.
///
/// The columns are the name, the platform, the manifest's digest, the disk space, and the bytes that only
/// this image uses.
#[derive(Parser)]
#[command(name = "jc-images", version)]
pub struct ImagesArgs {
    /// Verify instead of listing: all documents by their digests, all files of all layers
    #[arg(long, conflicts_with = "json")]
    check: bool,
    /// Print an object of JSON for each image
    #[arg(long)]
    json: bool,
    /// Keep layers in DIR [default: $JC_STORE, or /var/lib/jc, or ~/.local/share/jc]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// Remove images from the store, and the layers that no other image uses.
#[derive(Parser)]
#[command(name = "jc-rmi", version)]
pub struct RmiArgs {
    /// Keep layers in DIR [default: $JC_STORE, or /var/lib/jc, or ~/.local/share/jc]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Remove the layers that neither an image nor a running container uses
    #[arg(long, conflicts_with = "images")]
    unused: bool,
    /// The images to remove, for every platform
    #[arg(required_unless_present = "unused", value_name = "IMAGE")]
    images: Vec<String>,
}

/// An image with its disk usage.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    entry: &'a ImageEntry,
    size: u64,
    own: u64,
}

/// The program that lists images.
pub const IMAGES: Tool = Tool::source("jc-images");
/// The program that removes images.
pub const RMI: Tool = Tool::source("jc-rmi");

/// Lists or verifies images. With `--check`, an image that differs from its digests is an error.
pub fn images(args: ImagesArgs) -> Result<ExitCode> {
    rootless::enter(true, args.store.as_deref())?;
    let store = Store::open_existing(IMAGES, args.store.as_deref())?;
    let images = store.as_ref().map_or(Ok(Vec::new()), Store::images)?;
    if args.check {
        let checked = store.map_or(Ok(()), |store| check(&store, &images));
        return checked.map(|()| ExitCode::SUCCESS);
    }
    let usage = store.map_or(Ok(Vec::new()), |store| store.usage(&images))?;
    let text = if args.json { json(&images, &usage)? } else { lines(&images, &usage) };
    print(text).map(|()| ExitCode::SUCCESS)
}

fn json(images: &[ImageEntry], usage: &[Usage]) -> Result<String> {
    let mut text = String::new();
    for (entry, usage) in images.iter().zip(usage) {
        let listed = Listed { entry, size: usage.size, own: usage.own };
        let line = serde_json::to_string(&listed).map_err(|e| Error::new(format_args!("{e}")))?;
        text.push_str(&escape::json(&line));
        text.push('\n');
    }
    Ok(text)
}

fn lines(images: &[ImageEntry], usage: &[Usage]) -> String {
    let mut rows = vec![["IMAGE", "PLATFORM", "DIGEST", "SIZE", "OWN"].map(str::to_owned)];
    rows.extend(images.iter().zip(usage).map(|(image, usage)| {
        let digest = image.manifest.short().to_owned();
        let [size, own] = [usage.size, usage.own].map(human);
        let [reference, platform] =
            [&image.reference, &image.platform].map(|text| Escaped(text).to_string());
        [reference, platform, digest, size, own]
    }));
    table::table(&rows, 3)
}

/// Removes images or layers. An unknown image is an error, and so is an image in use.
pub fn rmi(args: RmiArgs) -> Result<ExitCode> {
    rootless::enter(true, args.store.as_deref())?;
    let store = Store::open_existing(RMI, args.store.as_deref())?;
    if args.unused {
        let removed = store.map_or(Ok(Vec::new()), |store| Ok(store.remove_unused()?.layers))?;
        return print(lines_of(&[], &removed)).map(|()| ExitCode::SUCCESS);
    }
    let (mut done, mut removed, mut errors) = (Vec::<ImageEntry>::new(), Vec::new(), Vec::new());
    for name in &args.images {
        let choose = |known: &[ImageEntry]| {
            // The command line may have a name twice.
            let mut chosen = chosen(name, &[known, &done].concat())?;
            chosen.retain(|image| !done.contains(image));
            Ok(chosen)
        };
        let gone = match &store {
            Some(store) => store.remove_images(choose),
            None => choose(&[]).map(|_| Removed::default()),
        };
        match gone {
            Ok(gone) => {
                removed.extend(gone.layers);
                done.extend(gone.images);
            }
            Err(error) => errors.push(error),
        }
    }
    print(lines_of(&done, &removed))?;
    Ok(errors.iter().fold(ExitCode::SUCCESS, |_, error| RMI.fail(error)))
}

/// The images of the store that a name means, or the beginning of a digest as jc-images prints it.
fn chosen(name: &str, known: &[ImageEntry]) -> Result<Vec<ImageEntry>> {
    let full = full_name(name)?;
    let named: Vec<ImageEntry> =
        known.iter().filter(|image| image.reference == full).cloned().collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let is_digest = name.len() >= 12 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let begins = |image: &&ImageEntry| {
        is_digest
            && [&image.target, &image.manifest].iter().any(|digest| digest.hex().starts_with(name))
    };
    match known.iter().filter(begins).cloned().collect::<Vec<_>>() {
        found if found.is_empty() => Err(Error::new(format_args!("{full}: no such image"))
            .hint("jc-images lists the images of the store")),
        found => Ok(found),
    }
}

/// A line for each image and layer that is removed.
fn lines_of(images: &[ImageEntry], layers: &[String]) -> String {
    let images = images.iter().map(|image| format!("{}\n", Escaped(&image.reference)));
    images.chain(layers.iter().map(|layer| format!("{layer}\n"))).collect()
}

/// The name of an image in the store. The file or directory of the image may be gone, and the store has its
/// absolute path.
fn full_name(text: &str) -> Result<String> {
    Ok(match parse_name(text)? {
        Name::Registry(reference) => reference.to_string(),
        Name::Path { transport, path, tag } => {
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            transport.image(&path, tag.as_deref())
        }
    })
}
