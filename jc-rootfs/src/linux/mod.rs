//! jc-rootfs on Linux: the choice between its forms.

mod args;
mod assemble;
mod chroot;
pub mod fuzz;
mod join;
mod joined;
pub mod landlock;
mod mount;
mod payload;
mod root;
mod rootless;
mod seccomp;
mod socket;
mod sys;
pub mod trace;

use std::ffi::OsString;
use std::process::ExitCode;

use jc_unshare::hints::is_filtered;
use jc_unshare::process::deny_tracing;
use jc_unshare::record::{self, Record};
use jc_unshare::supervise::NewChild;
use jc_unshare::{Error, Result};
use nix::libc;

use crate::TOOL;
use args::Args;
use args::values::Upper;
use payload::Invocation;
use payload::init::started_as_init;
use root::Root;

/// Runs `jc-rootfs`, which is PID 1 of `--init-fd` or a link. Returns its exit code.
pub fn main() -> ExitCode {
    started_as_init().unwrap_or_else(|| TOOL.main(run))
}

/// Replaces this process by the payload. With another PID namespace, or if this process leads a process group and
/// so cannot lead a session (setsid(2)), the payload is a child, and the result is its exit code.
fn run(args: Args) -> Result<ExitCode> {
    start(&args).map_err(|error| match error.errno() {
        Some(libc::ENOSYS) => {
            error.hint("jc-rootfs needs Linux 5.15, and no seccomp filter that denies its calls")
        }
        Some(libc::EPERM) if is_filtered() => {
            error.hint("a seccomp filter is active, as in a container, and may deny the call")
        }
        _ => error,
    })
}

fn start(args: &Args) -> Result<ExitCode> {
    // Before execve(2) this process has the capabilities of the payload, but the host's file as its program, and
    // for a while the host's root (CVE-2019-5736, CVE-2016-9962).
    deny_tracing()?;
    if let Some(pid) = args.process.join {
        return join::enter(Invocation::new(args, &args.operands)?, pid);
    }
    // clap does not require what another option excludes.
    if args.process.no_wait {
        return Err(Error::usage("--no-wait needs --join"));
    }
    let (root, program) = operands(args)?;
    if let Root::Protected(..) = root {
        rootless::enter(args.caps.is_default())?;
    }
    let invocation = Invocation::new(args, program)?;
    if let Some(pid) = args.process.join_pid
        && let Some(code) = assemble::enter_joined(invocation, &root, pid)?
    {
        return Ok(code);
    }
    let enter = || match &root {
        Root::Directory(directory) if args.chroot => chroot::enter(invocation, directory),
        root => assemble::enter(invocation, root),
    };
    if payload::needs_child_to_lead(args) {
        let child = NewChild::of(TOOL).spawn(|_| enter())?;
        return child.wait_keeping(&[]).map(Into::into);
    }
    Err(enter())
}

/// Splits the operands into ROOT, unless an option gives the root, and the program.
fn operands(args: &Args) -> Result<(Root, &[OsString])> {
    let (root, program) = match (&args.record, args.layers.is_empty()) {
        (Some(file), _) => (Record::read(file)?.root()?, args.operands.as_slice()),
        (None, false) => (record::Root::Layers(args.layers.clone()), args.operands.as_slice()),
        (None, true) => {
            let Some((root, program)) = args.operands.split_first() else {
                return Err(Error::usage("no root given: ROOT, --layer or --record"));
            };
            (record::Root::Directory(root.into()), after_root(program)?)
        }
    };
    let root = match (root, args.upper.clone()) {
        (record::Root::Directory(directory), None) => Root::Directory(directory),
        (record::Root::Directory(directory), Some(upper)) => Root::Protected(directory, upper),
        (record::Root::Layers(layers), upper) => {
            Root::Overlay(layers, upper.unwrap_or(Upper::Tmpfs { size: None }))
        }
    };
    Ok((root, program))
}

/// The program behind ROOT and an optional "--". An option behind ROOT is a usage error, since it would be the name
/// of the program.
fn after_root(program: &[OsString]) -> Result<&[OsString]> {
    match program.split_first() {
        Some((dashes, program)) if dashes == "--" => Ok(program),
        Some((option, _)) if option.as_encoded_bytes().starts_with(b"-") => {
            let option = option.display();
            Err(Error::usage(format_args!("{option} after ROOT: options come before it")))
        }
        _ => Ok(program),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;

    fn parse(words: &[&str]) -> Result<(Root, Vec<OsString>)> {
        let words = ["jc-rootfs"].iter().chain(words);
        let args = Args::try_parse_from(words).map_err(Error::usage)?;
        operands(&args).map(|(root, program)| (root, program.to_vec()))
    }

    #[test]
    fn the_root_is_the_first_operand_unless_an_option_names_it() {
        let tmpfs = Upper::Tmpfs { size: None };
        let directory = || Root::Directory("/r".into());
        let overlay = |layers: &[&str], upper: &Upper| {
            Root::Overlay(layers.iter().map(PathBuf::from).collect(), upper.clone())
        };
        for (words, root) in [
            (&["/r", "--", "sh", "-c"][..], directory()),
            (&["/r", "sh", "-c"], directory()),
            (&["--", "/r", "sh", "-c"], directory()),
            (&["--upper", "tmpfs", "/r", "sh", "-c"], Root::Protected("/r".into(), tmpfs.clone())),
            (&["--layer", "/a", "--layer=/b", "--", "sh", "-c"], overlay(&["/a", "/b"], &tmpfs)),
            (
                &["--layer", "/a", "--upper", "/u", "sh", "-c"],
                overlay(&["/a"], &Upper::Directory("/u".into())),
            ),
        ] {
            let (found, program) = parse(words).unwrap();
            assert_eq!(found, root, "{words:?}");
            assert_eq!(program, ["sh", "-c"], "{words:?}");
        }
    }

    #[test]
    fn options_after_the_root_are_refused() {
        let error = parse(&["/r", "--tmpfs", "/tmp", "--", "sh"]).unwrap_err();
        assert_eq!(error.to_string(), "--tmpfs after ROOT: options come before it");
        let error = parse(&[]).unwrap_err();
        assert_eq!(error.to_string(), "no root given: ROOT, --layer or --record");
    }
}
