//! The command lines of `jc-images` and `jc-rmi`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::escape::{self, Escaped};
use jc_unshare::{Error, Result, Tool, print, table};
use serde::Serialize;

use crate::check::check;
use crate::name::Name;
use crate::progress::human;
use crate::rootless;
use crate::store::{ImageEntry, Store, Usage};

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
    let store = Store::open_for(IMAGES, args.store.as_deref())?;
    let images = store.images()?;
    if args.check {
        return check(&store, &images).map(|()| ExitCode::SUCCESS);
    }
    let usage = store.usage(&images)?;
    let text = match args.json {
        true => json(&images, &usage)?,
        false => lines(&images, &usage),
    };
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
    let store = Store::open_for(RMI, args.store.as_deref())?;
    let mut text = String::new();
    let removed = if args.unused {
        store.remove_unused()?
    } else {
        let known = store.images()?;
        let mut chosen: Vec<ImageEntry> = Vec::new();
        for name in &args.images {
            let full = full_name(name)?;
            let before = chosen.len();
            chosen.extend(known.iter().filter(|image| image.reference == full).cloned());
            if chosen.len() == before {
                return Err(Error::new(format_args!("{full}: no such image"))
                    .hint("jc-images lists the images of the store"));
            }
        }
        chosen.sort_by_key(ImageEntry::key);
        chosen.dedup();
        let removed = store.remove_images(&chosen)?;
        chosen.iter().for_each(|image| text += &format!("{}\n", Escaped(&image.reference)));
        removed
    };
    removed.layers.iter().for_each(|layer| text += &format!("{layer}\n"));
    print(text).map(|()| ExitCode::SUCCESS)
}

/// The name of an image in the store. The file or directory of the image may be gone, and the store has its
/// absolute path.
fn full_name(text: &str) -> Result<String> {
    Ok(match Name::parse(text)? {
        Name::Registry(reference) => reference.to_string(),
        Name::Path { transport, path, tag } => {
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            transport.image(&path, tag.as_deref())
        }
    })
}
