//! `jc-pull`'s command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::{Result, print};

use crate::http::Transport;
use crate::limits::{self, Allowance};
use crate::name::Name;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::pull::pull;
use crate::source;
use crate::store::{self, Store};

/// Fetch container images into a verified store and print what to run.
///
/// An IMAGE is a registry's reference (alpine, user/x, host:port/a/b:tag, x@sha256:...; docker.io
/// and latest are the defaults) or oci:DIR[:TAG], an image in an OCI layout. For each image one line
/// of JSON goes to stdout, which jc-run takes.
#[derive(Parser)]
#[command(name = "jc-pull", version)]
pub struct PullArgs {
    /// Where layers are kept [default: $JC_STORE, or /var/lib/jc, or ~/.local/share/jc]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The platform to pull for, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Allow plain http to other hosts than this one
    #[arg(long)]
    insecure: bool,
    /// The most that a layer may unpack to, in bytes; K, M, G, T are powers of 1024
    #[arg(long, value_name = "SIZE", default_value = limits::DEFAULT_SIZE)]
    max_size: String,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// What to pull
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Pulls the images in the order given, printing a record for each.
pub fn run(args: PullArgs) -> Result<ExitCode> {
    let names: Vec<Name> = args.images.iter().map(|i| Name::parse(i)).collect::<Result<_>>()?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let allowance = Allowance::new(limits::parse_size(&args.max_size)?);
    let store = Store::open(&args.store.map_or_else(store::default_path, Ok)?)?;
    let http = Transport::new(args.insecure);
    let progress = Progress::new(args.quiet);
    // The modes of what is unpacked are the image's business.
    rustix::process::umask(rustix::fs::Mode::empty());
    for name in &names {
        let source = source::open(name, &http)?;
        let record = pull(&*source, &store, platform.as_ref(), allowance, &progress)?;
        print(&record.to_line()?)?;
    }
    Ok(ExitCode::SUCCESS)
}
