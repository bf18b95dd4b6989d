//! The command line of `jc-commit`.

use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use jc_unshare::time::since_epoch;
use jc_unshare::{Context, Error, Result, Tool, print, read_at_most, size, strerror};
use rustix::fs::{CWD, Mode, OFlags};

use crate::cancel::Cancel;
use crate::changes::{LayerOptions, Marks, Opened, Operand, open, write_tree};
use crate::commit::{Base, Commit, NewTar};
use crate::compress::Decoder;
use crate::config_edit::{Edits, parse_command, parse_pair, parse_path, parse_port};
use crate::limits::{Allowance, DEFAULT_SIZE};
use crate::only::{MAX_LIST, select};
use crate::outgoing::Bytes;
use crate::pack::pack_some;
use crate::pipe::{PieceWriter, Pipe};
use crate::record_input::read_record;
use crate::rootless;
use crate::store::Store;
use jc_unshare::image::Name;
use jc_unshare::image::Platform;
use jc_unshare::image::registries::parse_name;

/// The program that makes images.
pub const TOOL: Tool = Tool::source("jc-commit");

/// Make an image of a record and one more layer, and print its record.
///
/// Standard input has the record of the image to begin with, one line of JSON as jc-pull prints it. The new layer is in
/// the store; jc-push sends the image to a registry or archive.
#[derive(Parser)]
#[command(name = "jc-commit", version, next_display_order = None)]
pub struct CommitArgs {
    /// Set the author
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Add what UPPER, or the container ID of jc-run --keep, changes
    #[arg(long, value_name = "UPPER|ID", group = "new")]
    changes: Option<OsString>,
    /// Set the arguments: an array of JSON, or a line for a shell
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    cmd: Option<std::vec::Vec<String>>,
    /// Add the files of DIR
    #[arg(long, value_name = "DIR", group = "new")]
    dir: Option<PathBuf>,
    /// Set the program, and remove the arguments: an array of JSON, or a line for a shell
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    entrypoint: Option<std::vec::Vec<String>>,
    /// Set a variable of the environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// Add a port that the image listens on
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = parse_port)]
    expose: Vec<String>,
    /// Set a label
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Add the files of a tar archive; - is stdin, behind the line of the record
    #[arg(long, value_name = "TAR", group = "new")]
    layer: Option<PathBuf>,
    /// Limit the unpacked size of the layer: 512M, 1.5G, or a number of bytes
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_SIZE, value_parser = size::parse)]
    max_size: u64,
    /// Do not wait until the data is on the disk
    #[arg(long)]
    no_sync: bool,
    /// Keep only the files that LIST has, one on a line, and what leads to them
    #[arg(long, value_name = "LIST", group = "new", conflicts_with = "scratch")]
    only: Option<PathBuf>,
    /// Set the platform, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print this of the image
    #[arg(long, value_name = "WHAT", default_value = "record")]
    print: PrintFormat,
    /// Begin with no image, and read no record
    #[arg(long)]
    scratch: bool,
    /// Send this signal to stop a container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Keep layers in DIR [default: $JC_STORE, or /var/lib/jc, or ~/.local/share/jc]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Name the image in the store
    #[arg(short, long, value_name = "NAME")]
    tag: Option<String>,
    /// Set the user
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Add a volume
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    volume: Vec<String>,
    /// Set the working directory
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    workdir: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PrintFormat {
    /// The record that jc-run and jc-push read
    Record,
    /// The manifest's digest
    Digest,
}

/// Makes an image, and prints its record.
pub fn run(args: CommitArgs) -> Result<ExitCode> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let name = args.tag.as_deref().map(full_name).transpose()?;
    let options = LayerOptions::from_env()?;
    let operand = match &args.changes {
        None => rootless::enter(true, args.store.as_deref()).map(|()| None)?,
        Some(word) => match open(word, None, true)? {
            Opened::Done(status) => return Ok(status),
            Opened::Here(operand) => Some(operand),
        },
    };
    let store = Store::open_for(TOOL, args.store.as_deref())?;
    store.check_writable()?;
    // The layer decides about the modes of its files.
    rustix::process::umask(Mode::empty());
    let base = if args.scratch {
        Base::empty(&platform.clone().unwrap_or_else(Platform::host))
    } else {
        Base::of(&store, &read_record(&mut std::io::stdin().lock())?)?
    };
    let created = match options.latest {
        Some(latest) => latest.seconds,
        None => i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX),
    };
    let new = new_tar(&args, options, &base, operand)?;
    let commit = Commit {
        edits: edits(&args, platform),
        created,
        name,
        allowance: Allowance::new(args.max_size),
        no_sync: args.no_sync,
    };
    let record = commit.run(&store, base, new)?;
    let text = match args.print {
        PrintFormat::Record => record.to_line()?,
        PrintFormat::Digest => format!("{}\n", record.digest.unwrap_or_default()),
    };
    print(text).map(|()| ExitCode::SUCCESS)
}

/// The name of an image in the store, as jc-pull understands it.
fn full_name(text: &str) -> Result<String> {
    match parse_name(text)? {
        Name::Registry(reference) if reference.digest.is_none() => Ok(reference.to_string()),
        _ => Err(Error::usage(format_args!("--tag {text:?}: not NAME[:TAG]"))),
    }
}

fn edits(args: &CommitArgs, platform: Option<Platform>) -> Edits {
    Edits {
        cmd: args.cmd.clone(),
        entrypoint: args.entrypoint.clone(),
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        labels: args.label.clone(),
        exposed: args.expose.clone(),
        volumes: args.volume.clone(),
        stop_signal: args.stop_signal.clone(),
        author: args.author.clone(),
        platform,
    }
}

/// The tar of the new layer, if there is one.
fn new_tar(
    args: &CommitArgs,
    options: LayerOptions,
    base: &Base,
    operand: Option<Operand>,
) -> Result<Option<NewTar>> {
    let new = |tar: Bytes, keeps_root: bool| {
        Ok(Some(NewTar { tar, keeps_root, replaces_base: false, frozen: None }))
    };
    if let Some(layer) = &args.layer {
        let tar = if layer.as_os_str() == "-" {
            // The buffer of stdin has the bytes behind the record.
            decode(BufReader::new(std::io::stdin()), layer)?
        } else {
            decode(BufReader::new(File::open(layer).on("open", layer)?), layer)?
        };
        return new(tar, false);
    }
    if let Some(directory) = &args.dir {
        let root = open_dir(directory)?;
        return new(start(move |to| write_tree(&root, Marks::None, &options, to))?, true);
    }
    if let Some(Operand { upper, frozen, .. }) = operand {
        let tar = start(move |to| upper.write_layer(None, &options, to))?;
        return Ok(Some(NewTar { tar, keeps_root: false, replaces_base: false, frozen }));
    }
    if let Some(list) = &args.only {
        let list = read_at_most(File::open(list).on("open", list)?, MAX_LIST, list)?;
        let layers = base.stored().all()?;
        let kept = select(&layers, &list)?;
        let tar = start(move |to| pack_some(&layers, &kept, to))?;
        return Ok(Some(NewTar { tar, keeps_root: false, replaces_base: true, frozen: None }));
    }
    Ok(None)
}

/// Starts a thread that writes the tar of a layer.
fn start(write: impl FnOnce(&mut PieceWriter<'_>) -> Result<()> + Send + 'static) -> Result<Bytes> {
    let write =
        move |to: &mut PieceWriter<'_>| write(to).map_err(|e| std::io::Error::other(e.to_string()));
    Ok(Box::new(Pipe::of_writer(write, Cancel::default()).op("start a thread")?))
}

fn decode(from: impl std::io::BufRead + Send + 'static, path: &Path) -> Result<Bytes> {
    let decoder = Decoder::new(from);
    decoder
        .map(|tar| Box::new(tar) as Bytes)
        .map_err(|e| Error::new(format_args!("{}: {}", path.display(), strerror(&e))))
}

fn open_dir(directory: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, directory, flags, Mode::empty()).on("open", directory)
}
