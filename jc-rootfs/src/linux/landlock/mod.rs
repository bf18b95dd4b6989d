//! `jc-landlock`: restrictions that need no namespace and no privilege (landlock(7)).

mod rules;
mod word;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use jc_unshare::exec::exec;
use jc_unshare::{Context, Error, Kind, Result, Tool, read_at_most, require_program};
use nix::sys::prctl::set_no_new_privs;

pub use rules::Ruleset;
use rules::{Access, Port, Rule, Rules, Scope};
pub use word::{Word, ruleset, word};

/// The most bytes of a file of rules.
const MOST_RULES: u64 = 16 << 20;

/// The name of the program and the family of its exit codes.
pub const TOOL: Tool = Tool::link("jc-landlock");

/// Restrict files, TCP ports, signals and abstract sockets, then run PROG
#[derive(Debug, Parser)]
#[command(
    name = "jc-landlock",
    version,
    override_usage = "jc-landlock [options] [--] PROG [ARG...]"
)]
pub struct Args {
    /// Allow reading this file or directory, and all below (repeatable)
    #[arg(long, value_name = "PATH")]
    ro: Vec<PathBuf>,
    /// Allow reading and executing (repeatable)
    #[arg(long, value_name = "PATH")]
    rx: Vec<PathBuf>,
    /// Allow everything but executing (repeatable)
    #[arg(long, value_name = "PATH")]
    rw: Vec<PathBuf>,
    /// Allow everything (repeatable)
    #[arg(long, value_name = "PATH")]
    rwx: Vec<PathBuf>,
    /// Allow connections to this TCP port, or none (repeatable)
    #[arg(long, value_name = "PORT|none", value_parser = Port::parse)]
    connect: Vec<Port>,
    /// Allow binding to this TCP port, or none (repeatable)
    #[arg(long, value_name = "PORT|none", value_parser = Port::parse)]
    bind: Vec<Port>,
    /// Deny signals to processes outside, and connections to abstract sockets outside: signal,abstract
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    scope: Vec<Scope>,
    /// Apply the rules of a file: ro, rx, rw or rwx and a path, connect or bind and a port, one a line (repeatable)
    #[arg(long = "rules", value_name = "FILE")]
    rule_files: Vec<PathBuf>,
    /// Leave out these restrictions on a kernel that lacks them: truncate, ioctl-dev, tcp, signal or abstract
    #[arg(long, value_name = "RULE,...", value_delimiter = ',')]
    if_supported: Vec<Rule>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    program: Vec<OsString>,
}

/// Restricts this process, and becomes the program.
pub fn run(args: Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    let mut rules = args.rules();
    for path in &args.rule_files {
        let file = File::open(path).on("read", path)?;
        let text = read_at_most(file, MOST_RULES, path)?;
        rules.add_lines(&text).map_err(|error| error.context(path.display()))?;
    }
    if rules.is_empty() {
        return Err(Error::usage("no restriction given")
            .hint("jc-landlock --rx /usr --rw . --connect none -- PROG"));
    }
    if rules.restricts_files() {
        refuse_mounts(&args.program)?;
    }
    let ruleset = rules.ruleset(&args.if_supported)?;
    // A process without CAP_SYS_ADMIN needs it, and a set-user-ID program is restricted too.
    set_no_new_privs().op("PR_SET_NO_NEW_PRIVS")?;
    ruleset.restrict_self()?;
    let error = exec(&args.program);
    Err(match error.kind() {
        Kind::NotExecutable if rules.restricts_files() => {
            error.hint("--rx PATH allows executing, which the program and its ELF interpreter need")
        }
        _ => error,
    })
}

impl Args {
    fn rules(&self) -> Rules {
        let of = |paths: &[PathBuf], access| {
            paths.iter().map(move |path| (access, path.clone())).collect::<Vec<_>>()
        };
        let files = [
            of(&self.ro, Access::READ),
            of(&self.rx, Access::READ | Access::EXECUTE),
            of(&self.rw, Access::READ | Access::WRITE),
            of(&self.rwx, Access::READ | Access::WRITE | Access::EXECUTE),
        ];
        Rules {
            files: files.concat(),
            connect: self.connect.clone(),
            bind: self.bind.clone(),
            scopes: self.scope.clone(),
        }
    }
}

/// Refuses a chain that mounts behind rules for files: landlock(7) denies every later mount.
fn refuse_mounts(program: &[OsString]) -> Result<()> {
    let heads = program.split(|word| word == "--").filter_map(<[OsString]>::first);
    let names = heads.filter_map(|word| Path::new(word).file_name());
    let mut mounting = names.filter(|name| *name == "jc-rootfs" || *name == "jc-run");
    match mounting.next() {
        None => Ok(()),
        Some(name) => {
            let name = name.display();
            Err(Error::usage(format_args!("{name}: rules for files forbid its mounts")).hint(
                "jc-rootfs --landlock rx=/usr --landlock rw=/src ... restricts files as its last step, and jc-run has the \
                 same option; network and scope rules may stand here",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_mounts_is_found() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (line, is_fine) in [
            ("make jc-rootfs", true),
            ("jc-unshare -p -- sh", true),
            ("jc-rootfs / -- sh", false),
            ("jc-unshare -p -- /usr/bin/jc-rootfs / -- sh", false),
            ("jc-run --image x", false),
        ] {
            assert_eq!(refuse_mounts(&words(line)).is_ok(), is_fine, "{line}");
        }
    }
}
