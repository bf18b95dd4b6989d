//! The command line of `jc-push`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use jc_unshare::record::Record;
use jc_unshare::{Error, Result, Tool, print};
use serde_json::Value;

use crate::cancel::Cancel;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::encode::Compression;
use crate::http::{self, Http};
use crate::limits::{Allowance, DEFAULT_SIZE};
use crate::manifest::Document;
use crate::outgoing::Origins;
use crate::progress::{Progress, Style, Words};
use crate::push::{Options, Outbound, Pushed, Pusher};
use crate::record_input::read_records;
use crate::registry_args::{RegistryArgs, at_least_one};
use crate::rootless;
use crate::sink::{Sink, SinkOpener};
use crate::source::{Opener, Source};
use crate::store::Store;
use crate::stored::StoredImage;
use jc_unshare::image::registries::Registries;
use jc_unshare::image::{Name, Transport};

/// The program that pushes images.
pub const TOOL: Tool = Tool::source("jc-push");

/// Send images to registries, layouts and archives.
///
/// Standard input has the records of the images, one line of JSON for each, as jc-pull and jc-commit print them. A DEST
/// is a name in a registry (registry.example/team/x:1; the default tag is latest), an OCI layout (oci:DIR[:TAG],
/// oci-archive:FILE[:TAG]), or an archive for `docker load` (docker-archive:FILE[:REF]). FILE can be - for stdout. One
/// image goes to every DEST, and several images go to one DEST each.
#[derive(Parser)]
#[command(name = "jc-push", version, next_display_order = None)]
pub struct PushArgs {
    /// Compress new layers so: gzip[:LEVEL], zstd[:LEVEL] or none
    #[arg(long, value_name = "FORM", default_value = "gzip")]
    compression: Compression,
    /// Write an index of all images to each DEST
    #[arg(long)]
    index: bool,
    /// Send N layers at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    jobs: usize,
    /// Do not wait until layouts and archives are on the disk
    #[arg(long)]
    no_sync: bool,
    /// Print this of each image that was sent
    #[arg(long, value_name = "WHAT")]
    print: Option<PrintFormat>,
    /// Make layers anew from the store if their origin is gone; their digests change
    #[arg(long)]
    recompress: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Find layers in DIR [default: $JC_STORE, or /var/lib/jc, or ~/.local/share/jc]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The destinations
    #[arg(required = true, value_name = "DEST")]
    destinations: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PrintFormat {
    /// The digest of the manifest or index
    Digest,
}

/// Pushes the images of the records on stdin. The error is that of the first destination that fails.
pub fn run(args: PushArgs) -> Result<ExitCode> {
    let (registries, names) = names(&args)?;
    rootless::enter(true, args.store.as_deref())?;
    if args.registry.style() != Style::None {
        http::report_pauses(|fault| TOOL.report(fault));
    }
    let given = args.registry.login()?;
    let records = read_records(&mut std::io::stdin().lock())?;
    let absent = || Error::new("the store is absent").hint("jc-pull makes it");
    let store = Store::open_existing(TOOL, args.store.as_deref())?.ok_or_else(absent)?;
    let means = Means {
        http: Arc::new(args.registry.http()),
        own: Arc::new(args.registry.credentials(None)?),
        given: Arc::new(args.registry.credentials(given)?),
        registries,
        args: &args,
        scratch: store.scratch(),
        registry_names: names.iter().filter_map(registry_of).map(str::to_owned).collect(),
    };
    let open = |name: &Name| means.open_origin(name);
    let outbound = |record: &Record| -> Result<Outbound<'_>> {
        let image = StoredImage::of(&store, record)?;
        let origins = origins(&store, record, &image)?;
        let repositories = means.repositories(&origins)?;
        Ok(Outbound { image, origins: Origins::new(&open, origins), repositories })
    };
    let images: Vec<Outbound<'_>> = records.iter().map(outbound).collect::<Result<_>>()?;
    push_all(&args, &means, &store, &images, &names).map(|()| ExitCode::SUCCESS)
}

/// The configuration of registries, and the destinations with its aliases expanded.
fn names(args: &PushArgs) -> Result<(Registries, Vec<Name>)> {
    let mut registries = args.registry.mirrors()?;
    // A name that is wrong is a usage error, whatever the configuration has.
    args.destinations.iter().try_for_each(|name| Name::parse_destination(name).map(drop))?;
    registries.load()?;
    let expanded = args.destinations.iter().map(|name| Name::parse(&registries.expand(name)));
    let names: Vec<Name> = expanded.collect::<Result<_>>()?;
    let mut files = BTreeSet::new();
    for name in &names {
        let Name::Path { transport, path, .. } = name else { continue };
        if *transport != Transport::Oci && !files.insert(path.as_path()) {
            let path = path.display();
            return Err(Error::usage(format_args!("{path}: an archive is one destination")));
        }
        if name.is_stdin() && args.print.is_some() {
            return Err(Error::usage("--print and an archive both go to stdout"));
        }
    }
    Ok((registries, names))
}

/// The means of all requests.
struct Means<'a> {
    http: Arc<Http>,
    /// The logins of files alone, for origins.
    own: Arc<Credentials>,
    /// The login of the command line, for destinations.
    given: Arc<Credentials>,
    registries: Registries,
    args: &'a PushArgs,
    scratch: PathBuf,
    /// The registries of the destinations.
    registry_names: BTreeSet<String>,
}

fn registry_of(name: &Name) -> Option<&str> {
    match name {
        Name::Registry(reference) => Some(&reference.registry),
        Name::Path { .. } => None,
    }
}

impl Means<'_> {
    /// Opens the place from which an image has come.
    fn open_origin(&self, name: &Name) -> Result<Arc<dyn Source>> {
        // The login of the command line is for the registries of destinations alone.
        let is_destination = registry_of(name).is_some_and(|own| self.registry_names.contains(own));
        let credentials = if is_destination { &self.given } else { &self.own };
        let opener = Opener {
            http: Arc::clone(&self.http),
            credentials: Arc::clone(credentials),
            registries: self.registries.clone(),
            insecure: self.args.registry.insecure,
            allowance: Allowance::new(jc_unshare::size::parse(DEFAULT_SIZE).unwrap_or(u64::MAX)),
        };
        opener.open(name, &self.scratch, &Cancel::default())
    }

    /// The repositories of origins in registries, each with its registry.
    fn repositories(&self, origins: &[Name]) -> Result<Vec<(String, String)>> {
        let mut repositories = Vec::new();
        for origin in origins {
            let Name::Registry(reference) = origin else { continue };
            let insecure = self.args.registry.insecure;
            let own = self.registries.locate(reference, insecure)?.into_iter().rfind(|l| !l.mirror);
            repositories.extend(own.map(|own| (own.authority, own.repository)));
        }
        Ok(repositories)
    }
}

/// The places from which the layers of an image may come: its own origin, and those of the images in the store that
/// have one of its layers.
fn origins(store: &Store, record: &Record, image: &StoredImage) -> Result<Vec<Name>> {
    let own = record.origin.as_ref().or(record.reference.as_ref());
    let mut names: Vec<Name> = own.and_then(|own| Name::parse(own).ok()).into_iter().collect();
    let layers: BTreeSet<_> = image.manifest.layers.iter().map(|layer| &layer.digest).collect();
    for entry in store.images()? {
        let other = store.blob(&entry.manifest).and_then(|bytes| {
            match Document::parse(&bytes, None).ok()? {
                Document::Manifest(manifest) => Some(manifest),
                Document::Index(_) => None,
            }
        });
        let has_one = other.is_some_and(|m| m.layers.iter().any(|l| layers.contains(&l.digest)));
        let name = entry.origin.as_ref().unwrap_or(&entry.reference);
        if has_one
            && let Ok(name) = Name::parse(name)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Sends each image to its destination.
fn push_all(
    args: &PushArgs,
    means: &Means<'_>,
    store: &Store,
    images: &[Outbound<'_>],
    names: &[Name],
) -> Result<()> {
    let words = Words { transferred: "sent", others: "present" };
    let progress = Progress::new(TOOL, words, args.registry.style());
    let options =
        Options { jobs: args.jobs, compression: args.compression, recompress: args.recompress };
    let pusher = Pusher { store, options, progress: &progress };
    let opener = SinkOpener {
        http: Arc::clone(&means.http),
        credentials: Arc::clone(&means.given),
        registries: &means.registries,
        insecure: args.registry.insecure,
        scratch: means.scratch.clone(),
        no_sync: args.no_sync,
        origins: images.iter().flat_map(|image| image.repositories.iter().cloned()).collect(),
    };
    let mut layers = 0;
    let outcome = deal(args, images, names)?.into_iter().try_for_each(|(name, images)| {
        let sink = opener.open(name, &Cancel::default())?;
        layers += images.iter().map(|i| i.image.manifest.layers.len()).sum::<usize>();
        let pushed = push(&pusher, args.index, &images, &*sink);
        let pushed = pushed.map_err(|e| e.context(sink.name()))?;
        match args.print {
            Some(PrintFormat::Digest) => print(format!("{}\n", shown(name, &pushed))),
            None => Ok(()),
        }
    });
    progress.finish(layers, outcome.is_ok());
    outcome
}

/// The images of each destination.
fn deal<'i, 'o, 'n>(
    args: &PushArgs,
    images: &'i [Outbound<'o>],
    names: &'n [Name],
) -> Result<Vec<(&'n Name, Vec<&'i Outbound<'o>>)>> {
    let all = || images.iter().collect::<Vec<_>>();
    if args.index || images.len() == 1 {
        return Ok(names.iter().map(|name| (name, all())).collect());
    }
    if images.len() != names.len() {
        let (images, names) = (images.len(), names.len());
        return Err(Error::usage(format_args!("{images} records for {names} destinations"))
            .hint("--index writes one index of all images"));
    }
    Ok(names.iter().zip(images).map(|(name, image)| (name, vec![image])).collect())
}

fn push(
    pusher: &Pusher<'_>,
    as_index: bool,
    images: &[&Outbound<'_>],
    sink: &dyn Sink,
) -> Result<Pushed> {
    let mut pushed = None;
    let mut descriptors = Vec::<Value>::new();
    for image in images {
        let (one, descriptor) = pusher.image(image, sink, !as_index)?;
        let platform = &image.image.config.platform;
        if descriptors.iter().any(|other| other["platform"] == descriptor["platform"]) {
            return Err(Error::new(format_args!("two images for {platform} in one index")));
        }
        descriptors.push(descriptor);
        pushed = Some(one);
    }
    if as_index {
        pushed = Some(Pusher::index(sink, descriptors)?);
    }
    sink.finish()?;
    pushed.ok_or_else(|| Error::new("no image"))
}

/// The digest of an image. In an archive of docker save, an image has only the digest of its configuration.
fn shown<'p>(name: &Name, pushed: &'p Pushed) -> &'p Digest {
    let has_manifest = !matches!(name, Name::Path { transport: Transport::DockerArchive, .. });
    pushed.config.as_ref().filter(|_| !has_manifest).unwrap_or(&pushed.digest)
}
