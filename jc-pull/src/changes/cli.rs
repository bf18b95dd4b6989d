//! The command line of `jc-changes`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::{Error, Result, Tool, print};

use super::apply::apply;
use super::base::Base;
use super::conflict::conflicts;
use super::discard::discard;
use super::layer::LayerOptions;
use super::operand::{self, Opened, Operand};
use super::pattern::Patterns;
use super::text::{Format, conflict_lines, lines};
use crate::output;

/// The program that shows, applies and drops changes.
pub const TOOL: Tool = Tool::source("jc-changes");

/// List what a run changed, apply it to a directory, or drop it.
///
/// UPPER is the directory of jc-rootfs --upper, or an upper directory of another program, with --base. ID is a container of
/// jc-run --keep: its name, its ID, or the beginning of exactly one ID. A container that runs is stopped meanwhile. Each line
/// is A (added), M (modified) or D (deleted), and a path.
#[derive(Parser)]
#[command(
    name = "jc-changes",
    version,
    override_usage = "jc-changes [options] UPPER|ID [PATTERN...]"
)]
pub struct ChangesArgs {
    /// Print paths as they are, each entry with a NUL at its end
    #[arg(short = 'z', conflicts_with_all = ["json", "tar", "discard"])]
    zero: bool,
    /// Print an object of JSON for each change
    #[arg(long, conflicts_with_all = ["tar", "discard"])]
    json: bool,
    /// Compare with this record or directory, in place of the recorded lower directories
    #[arg(long, value_name = "RECORD|DIR")]
    base: Option<PathBuf>,
    /// Write the changes to FILE, as the tar of an OCI layer; - is stdout
    #[arg(long, value_name = "FILE", conflicts_with_all = ["apply", "discard"])]
    tar: Option<PathBuf>,
    /// Apply the changes to DIR; with --base, a file that changed there meanwhile is a conflict
    #[arg(long, value_name = "DIR", conflicts_with = "discard")]
    apply: Option<PathBuf>,
    /// Apply the changes in spite of conflicts
    #[arg(long, requires = "apply")]
    force: bool,
    /// Drop the changes
    #[arg(long)]
    discard: bool,
    /// Look for containers in DIR [default: $JC_STATE_DIR, or as in jc-state(5)]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The upper directory, or a container
    #[arg(value_name = "UPPER|ID")]
    upper: OsString,
    /// Paths: those that match one of the patterns, with all below them [default: all]
    #[arg(value_name = "PATTERN")]
    patterns: Vec<OsString>,
}

/// Lists, applies or drops changes, or writes them as a layer.
pub fn run(args: ChangesArgs) -> Result<ExitCode> {
    let words = args.patterns.iter().map(|word| word.as_bytes());
    let patterns = Patterns::parse(words).map_err(|e| Error::usage(format_args!("pattern {e}")))?;
    let operand = match operand::open(&args.upper, args.state_dir.as_deref(), false)? {
        Opened::Here(operand) => operand,
        Opened::Done(code) => return Ok(code),
    };
    let base = args.base.as_deref().map(Base::open).transpose()?;
    let (args, mut upper) = (Checked { args, patterns, base }, operand);
    match (&args.args.tar, &args.args.apply, args.args.discard) {
        (Some(_), ..) => args.write_tar(&upper),
        (_, Some(_), _) => args.apply(&upper),
        (_, _, true) => {
            discard(&mut upper, args.base.as_ref(), &args.patterns).map(|()| ExitCode::SUCCESS)
        }
        _ => args.list(&upper),
    }
}

/// Arguments with the meanings of words.
struct Checked {
    args: ChangesArgs,
    patterns: Patterns,
    base: Option<Base>,
}

impl Checked {
    fn format(&self) -> Format {
        match (self.args.zero, self.args.json) {
            (true, _) => Format::Zero,
            (_, true) => Format::Json,
            _ => Format::Lines,
        }
    }

    fn list(&self, operand: &Operand) -> Result<ExitCode> {
        if self.base.is_none() {
            operand.upper.require_recorded()?;
        }
        let changes = operand.upper.changes(self.base.as_ref(), &self.patterns)?;
        print(lines(&changes, self.format())?).map(|()| ExitCode::SUCCESS)
    }

    fn write_tar(&self, operand: &Operand) -> Result<ExitCode> {
        let Some(path) = &self.args.tar else { return Ok(ExitCode::SUCCESS) };
        let options = LayerOptions { patterns: self.patterns.clone(), ..LayerOptions::from_env()? };
        let write = |to: &mut dyn std::io::Write| {
            operand.upper.write_layer(self.base.as_ref(), &options, to)
        };
        output::write("--tar", path, false, write).map(|_| ExitCode::SUCCESS)
    }

    fn apply(&self, operand: &Operand) -> Result<ExitCode> {
        let Some(directory) = &self.args.apply else { return Ok(ExitCode::SUCCESS) };
        let base = self.base.as_ref();
        let found = match base {
            Some(base) if !self.args.force => {
                conflicts(&operand.upper, base, directory, &self.patterns)?
            }
            _ => Vec::new(),
        };
        if found.is_empty() {
            apply(&operand.upper, base, directory, &self.patterns)?;
            return Ok(ExitCode::SUCCESS);
        }
        print(conflict_lines(&found, self.format())?)?;
        let (count, directory) = (found.len(), directory.display());
        let message = format!("{directory}: {count} conflicts, nothing applied");
        Err(Error::new(message).hint("--force applies the changes in spite of them"))
    }
}
