//! The command line of `jc-pull`.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{Parser, ValueEnum};
use jc_unshare::record::Record;
use jc_unshare::{Context, Error, Result, Tool, print, size};
use rustix::fs::Mode;

use crate::cancel::Cancel;
use crate::documents::pull_documents;
use crate::flatten::flatten;
use crate::http;
use crate::limits::{Allowance, DEFAULT_SIZE};
use crate::output;
use crate::pack::pack;
use crate::parallel::{lock, parallel};
use crate::progress::{Progress, Style, Words};
use crate::pull::{self, Image, pull};
use crate::registry_args::{RegistryArgs, at_least_one};
use crate::resolve::{ImageRequest, Policy, resolve};
use crate::rootless;
use crate::source::Opener;
use crate::store::Store;
use jc_unshare::image::Name;
use jc_unshare::image::Platform;
use jc_unshare::image::registries::{Registries, parse_name};

/// The program that pulls images.
pub const TOOL: Tool = Tool::source("jc-pull");

/// Fetch container images into a verified store, and print a record for each.
///
/// An IMAGE is a reference to a registry (alpine, user/x, host:port/a/b:tag, x@sha256:...; the defaults
/// are docker.io and latest), or an image in an OCI layout (oci:DIR[:TAG], oci-archive:FILE[:TAG]), or an
/// archive of `docker save` (docker-archive:FILE[:REF]). FILE can be - for stdin. jc-run reads the records
/// on stdout, one line of JSON for each image.
#[derive(Parser)]
#[command(name = "jc-pull", version, next_display_order = None)]
pub struct PullArgs {
    /// Give all files to root, for a user namespace that maps no other users
    #[arg(long)]
    ignore_chown: bool,
    /// Fetch N layers at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    jobs: usize,
    /// Limit the unpacked size of a layer: 512M, 1.5G, or a number of bytes
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_SIZE, value_parser = size::parse)]
    max_size: u64,
    /// Fetch no layers: jc-push copies them from where the image is
    #[arg(long, conflicts_with_all = ["ignore_chown", "tar", "to", "print"])]
    no_layers: bool,
    /// Do not wait until the data is on the disk
    #[arg(long)]
    no_sync: bool,
    /// Pull for this platform, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Ask the registry always, only for images missing in the store, or never
    #[arg(long, value_name = "WHEN", default_value = "always")]
    policy: Policy,
    /// Print this of each image
    #[arg(long, value_name = "WHAT", default_value = "record")]
    print: PrintFormat,
    /// Keep layers in DIR [default: $JC_STORE, or /var/lib/jc, or ~/.local/share/jc]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the merged file system to FILE, as a tar; - is stdout, without a record
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "print"])]
    tar: Option<PathBuf>,
    /// Write the merged file system to DIR, which becomes the record's rootfs
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// The images to pull
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PrintFormat {
    /// The record that jc-run reads
    Record,
    /// The manifest's digest
    Digest,
    /// The manifest; no layer is fetched
    Manifest,
    /// The configuration; no layer is fetched
    Config,
    /// The directories of the layers, the lowest first
    Rootfs,
}

impl PrintFormat {
    const fn is_document(self) -> bool {
        matches!(self, Self::Manifest | Self::Config)
    }
}

/// Pulls the images, and prints a record or a document of each, in their order on the command line. The
/// error is that of the first image that fails.
pub fn run(args: PullArgs) -> Result<ExitCode> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let (registries, names) = names(&args)?;
    if !args.print.is_document() {
        rootless::enter(args.ignore_chown, args.store.as_deref())?;
    }
    if args.registry.style() != Style::None {
        http::report_pauses(|fault| TOOL.report(fault));
    }
    let opener = opener(&args, registries)?;
    let store = Store::open_for(TOOL, args.store.as_deref())?;
    // The image decides about the modes of its files.
    rustix::process::umask(Mode::empty());
    let request = ImageRequest { store: &store, policy: args.policy, platform: platform.as_ref() };
    let (images, known) = resolve_all(&opener, &names, &request, args.jobs);
    if known.is_err() && (args.to.is_some() || args.tar.is_some()) {
        return known.map(|()| ExitCode::SUCCESS);
    }
    let outcome = match args.print {
        PrintFormat::Manifest => images.iter().try_for_each(|i| print(&i.resolved.manifest_bytes)),
        PrintFormat::Config => images.iter().try_for_each(|i| print(&i.resolved.config_bytes)),
        _ if args.no_layers => {
            let records = pull_documents(&store, &images, args.no_sync)?;
            records.iter().try_for_each(|record| print(record.to_line()?))
        }
        _ => pull_all(&args, &store, &images, known.is_ok()),
    };
    outcome.and(known).map(|()| ExitCode::SUCCESS)
}

/// The configuration of registries, and the names with its aliases expanded.
fn names(args: &PullArgs) -> Result<(Registries, Vec<Name>)> {
    let mut registries = args.registry.mirrors()?;
    let names: Vec<Name> = if args.policy == Policy::Never {
        // No registry is asked, and names with a registry have no alias. Two small files of TOML cost 0.2 to 0.4 ms.
        args.images.iter().map(|image| parse_name(image)).collect::<Result<_>>()?
    } else {
        // A name that is wrong is a usage error, whatever the configuration has.
        let parsed = args.images.iter().map(|image| Name::parse(image));
        let parsed: Vec<Name> = parsed.collect::<Result<_>>()?;
        if parsed.iter().any(|name| matches!(name, Name::Registry(_))) {
            registries.load()?;
        }
        let expanded = args.images.iter().map(|image| Name::parse(&registries.expand(image)));
        expanded.collect::<Result<_>>()?
    };
    if names.len() > 1 && (args.to.is_some() || args.tar.is_some()) {
        return Err(Error::usage("--to and --tar take one image"));
    }
    let readers = names.iter().filter(|name| name.is_stdin()).count();
    if readers > 0 && args.no_layers {
        return Err(Error::usage("--no-layers: an archive on stdin cannot be read again"));
    }
    if readers + usize::from(args.registry.password_stdin) > 1 {
        return Err(Error::usage("only one of the images and the password can be read from stdin"));
    }
    Ok((registries, names))
}

/// Pulls images whose documents are known, and prints their records.
fn pull_all(args: &PullArgs, store: &Store, images: &[Image], all_known: bool) -> Result<()> {
    let words = Words { transferred: "fetched", others: "reused" };
    let progress = Progress::new(TOOL, words, args.registry.style());
    let options = pull::Options {
        jobs: args.jobs,
        allowance: Allowance::new(args.max_size),
        policy: args.policy,
        no_sync: args.no_sync,
        ignore_chown: args.ignore_chown,
    };
    let (records, outcome) = pull(store, images, options, &progress);
    let layers = images.iter().map(|i| i.resolved.manifest.layers.len()).sum();
    progress.finish(layers, outcome.is_ok() && all_known);
    for record in records {
        if let Some(record) = write(args, store, record)? {
            print(text(args.print, &record)?)?;
        }
    }
    outcome
}

fn opener(args: &PullArgs, registries: Registries) -> Result<Opener> {
    let given = args.registry.login()?;
    Ok(Opener {
        http: Arc::new(args.registry.http()),
        credentials: Arc::new(args.registry.credentials(given)?),
        registries,
        insecure: args.registry.insecure,
        allowance: Allowance::new(args.max_size),
    })
}

/// Resolves names, several at a time. Returns the images in front of the first name that fails, and the
/// error of that name.
fn resolve_all(
    opener: &Opener,
    names: &[Name],
    request: &ImageRequest<'_>,
    at_a_time: usize,
) -> (Vec<Image>, Result<()>) {
    let all = Cancel::default();
    let found: Mutex<Vec<Option<Result<Image>>>> = Mutex::new(names.iter().map(|_| None).collect());
    parallel(at_a_time, names.iter().enumerate().collect(), |(number, name)| {
        let cancel = all.for_image(number);
        let resolve_one = || -> Result<Image> {
            let source = opener.open(name, &request.store.scratch(), &cancel)?;
            let resolved = resolve(&source, request, &cancel)?;
            Ok(Image { source, resolved, cancel: cancel.clone() })
        };
        if cancel.is_given_up() {
            return;
        }
        let outcome = resolve_one().inspect_err(|_| cancel.give_up());
        if let Some(slot) = lock(&found).get_mut(number) {
            *slot = Some(outcome);
        }
    });
    let mut images = Vec::new();
    for outcome in lock(&found).drain(..).flatten() {
        match outcome {
            Ok(image) => images.push(image),
            Err(error) => return (images, Err(error)),
        }
    }
    (images, Ok(()))
}

/// Writes the image to the place of `--to` or `--tar`. Returns the record that is left to print.
fn write(args: &PullArgs, store: &Store, record: Record) -> Result<Option<Record>> {
    if args.to.is_none() && args.tar.is_none() {
        return Ok(Some(record));
    }
    let mut layers = Vec::new();
    for path in record.layers.iter().flatten().rev() {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let gone = || Error::new(format_args!("layer {name} has been removed from the store"));
        layers.push(store.hold_layer(name)?.ok_or_else(gone)?);
    }
    if let Some(to) = &args.to {
        flatten(&layers, to, args.no_sync)?;
        let rootfs = std::fs::canonicalize(to).on("open", to)?;
        return Ok(Some(Record { layers: None, rootfs: Some(rootfs), ..record }));
    }
    match args.tar.as_deref() {
        Some(path) => {
            let write = |to: &mut dyn Write| pack(&layers, to);
            let is_stdout = output::write("--tar", path, args.no_sync, write)?;
            Ok(if is_stdout { None } else { Some(record) })
        }
        None => Ok(Some(record)),
    }
}

fn text(format: PrintFormat, record: &Record) -> Result<String> {
    Ok(match format {
        PrintFormat::Digest => format!("{}\n", record.digest.as_deref().unwrap_or_default()),
        PrintFormat::Rootfs => {
            let directories = record.layers.iter().flatten().chain(&record.rootfs);
            directories.map(|directory| format!("{}\n", directory.display())).collect()
        }
        _ => record.to_line()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_grammar_of_all_options() {
        let max_size = |word: &str| {
            let args = ["jc-pull", "--max-size", word, "alpine"];
            PullArgs::try_parse_from(args).ok().map(|args| args.max_size)
        };
        for (word, size) in [
            ("100", Some(100)),
            ("1K", Some(1024)),
            ("2m", Some(2 << 20)),
            ("100mb", Some(100 << 20)),
            ("1.5g", Some(3 << 29)),
            (".5G", Some(1 << 29)),
            (DEFAULT_SIZE, Some(32 << 30)),
            ("3T", Some(3 << 40)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("+1", None),
            ("99999999999T", None),
        ] {
            assert_eq!(max_size(word), size, "{word}");
        }
    }
}
