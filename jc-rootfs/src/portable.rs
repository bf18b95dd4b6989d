//! jc-rootfs on platforms without mount namespaces: `--chroot` only. All other forms are errors.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use jc_unshare::exec::replace;
use jc_unshare::{Context, Error, Result, require_program};

use crate::TOOL;
use crate::environment::{self, Environment};
use crate::user;

/// Enter a root directory, then run PROG in it
#[derive(Debug, Parser)]
#[command(
    name = "jc-rootfs",
    version,
    override_usage = "jc-rootfs --chroot [options] ROOT [--] PROG [ARG...]"
)]
struct Args {
    /// Only chroot(2) into ROOT: all that this platform has
    #[arg(long)]
    chroot: bool,
    /// Run as this user of the root: NAME|UID[:GROUP|GID]
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// Start in this directory of the root, which must exist
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    #[command(flatten)]
    environment: environment::EnvironmentArgs,
    /// The root; the program and its arguments
    #[arg(trailing_var_arg = true, value_name = "ROOT PROG")]
    operands: Vec<OsString>,
}

/// Options of Linux with a value. The program refuses them by name.
const WITH_VALUE: [&str; 21] = [
    "layer",
    "record",
    "upper",
    "proc",
    "dev",
    "sys",
    "shm-size",
    "device",
    "bind",
    "tmpfs",
    "mask",
    "ro-path",
    "group-add",
    "cap-add",
    "cap-drop",
    "cap-ambient",
    "seccomp",
    "ulimit",
    "join",
    "console-socket",
    "preserve-fds",
];
/// Options of Linux without a value.
const WITHOUT_VALUE: [&str; 3] = ["read-only", "no-new-privs", "new-session"];

/// Runs `jc-rootfs`. Returns its exit code.
pub fn main() -> ExitCode {
    TOOL.main_with(command, run)
}

/// The command line, including the options that this program refuses.
fn command() -> clap::Command {
    let refused = |name: &'static str| Arg::new(name).long(name).hide(true);
    let valued = WITH_VALUE.map(|name| match name {
        "bind" => refused(name).short('v').action(ArgAction::Append),
        _ => refused(name).action(ArgAction::Append),
    });
    let flags = WITHOUT_VALUE.map(|name| refused(name).action(ArgAction::SetTrue));
    Args::command().args(valued).args(flags)
}

/// Replaces this process by the payload.
fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    if let Some(name) = WITH_VALUE.iter().chain(&WITHOUT_VALUE).find(|name| given(name)) {
        return Err(Error::usage(format_args!("--{name}: not supported on this platform")));
    }
    let args = Args::from_arg_matches(matches).map_err(|e| Error::usage(e.kind()))?;
    if !args.chroot {
        return Err(Error::new("mount namespaces: not supported on this platform")
            .hint("only --chroot is supported here"));
    }
    Err(enter(&args)?)
}

/// Changes the root and executes the program. Returns only an error.
fn enter(args: &Args) -> Result<Error> {
    let Some((root, program)) = args.operands.split_first() else {
        return Err(Error::usage("no root given: ROOT"));
    };
    let program = program.strip_prefix(&[OsString::from("--")][..]).unwrap_or(program);
    require_program(program)?;
    let variables = args.environment.read_files()?;
    nix::unistd::chdir(Path::new(root)).on("chdir", root)?;
    nix::unistd::chroot(".").on("chroot", root)?;
    let workdir = args.workdir.as_deref().unwrap_or(Path::new("/"));
    nix::unistd::chdir(workdir).on("chdir", workdir)?;
    let (name, rest) = (program.first().cloned().unwrap_or_default(), program.get(1..));
    let mut command = Command::new(name);
    command.args(rest.unwrap_or_default());
    let identity = args.user.as_deref().map(|user| user::find(user, &Root)).transpose()?;
    let mut environment = Environment::new(&args.environment, &variables);
    if !environment.has_home() {
        let uid = identity.as_ref().map_or_else(|| nix::unistd::getuid().as_raw(), |user| user.uid);
        environment.set("HOME", Some(user::home(uid, &Root)?.into()));
    }
    environment.apply(&mut command);
    if let Some(identity) = identity {
        if !identity.groups.is_empty() {
            return Err(Error::new("supplementary groups: not supported on this platform")
                .hint("name one group: -u USER:GROUP"));
        }
        // The standard library also drops the supplementary groups of the caller.
        command.gid(identity.gid).uid(identity.uid);
    }
    Ok(replace(&mut command))
}

/// A program of Linux that fails here.
macro_rules! without {
    ($($module:ident: $name:literal lacks $object:literal,)*) => {$(
        #[doc = concat!("`", $name, "`, which fails.")]
        pub mod $module {
            /// The name and exit codes of the program.
            pub const TOOL: jc_unshare::Tool = jc_unshare::Tool::link($name);

            /// Fails, since the system lacks the kernel object.
            pub fn run(_: jc_unshare::AnyWords) -> jc_unshare::Result<std::process::ExitCode> {
                Ok(TOOL.unsupported($object))
            }
        }
    )*};
}

without! {
    landlock: "jc-landlock" lacks "Landlock",
    trace: "jc-trace" lacks "seccomp",
}

/// No targets: the parsers belong to Linux.
pub mod fuzz {}

/// The root, after chroot(2).
struct Root;

impl user::Files for Root {
    fn open(&self, path: &Path) -> Result<Option<File>> {
        match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.on("open", path).map(Some),
        }
    }
}
