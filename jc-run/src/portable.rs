//! The programs on a system without namespaces: `jc-run` executes a chain of one link, with chroot(2). There is no
//! state, so the small programs find no containers.

use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use jc_unshare::record::{Record, Root};
use jc_unshare::{Error, Result, exec};

use crate::image::Config;
use crate::link::{Chain, Link, Opt};
use crate::options::{self, Options};
use crate::{TOOL, source};

/// The options that this platform has. No state is kept, and stdin belongs to the payload.
const HERE: [&str; 11] = [
    "entrypoint",
    "env",
    "env-file",
    "interactive",
    "print",
    "program",
    "record",
    "rm",
    "rootfs",
    "user",
    "workdir",
];

/// The warning about missing isolation.
const WARNING: &str =
    "warning: no namespaces and no limits on this platform, only chroot: no sandbox";

/// Builds the command line parser, which knows all options and shows those of [`HERE`].
pub fn command() -> Command {
    let usage = "jc-pull --to DIR IMAGE | jc-run [options] [--] [PROG] [ARG...]\n       \
                 jc-run [options] --rootfs DIR | --record FILE [--] [PROG] [ARG...]";
    options::table::command()
        .override_usage(usage)
        .mut_args(|arg| if HERE.contains(&arg.get_id().as_str()) { arg } else { arg.hide(true) })
}

/// Executes jc-rootfs, which executes the payload.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    check(matches)?;
    let options = Options::parse(matches)?;
    let record =
        source::read(&options.source, &options.program.arguments, |_| Err(lacks("image")))?;
    let chain = chain(&options, &record)?.locate()?;
    if let Some(form) = options.print {
        return chain.print(form, || chain.to_shell());
    }
    // A closed stderr has no reader.
    let _: io::Result<()> =
        io::stderr().write_all(Error::new(WARNING).report(TOOL.name()).as_bytes());
    Err(exec::exec(&chain.argv()))
}

/// Refuses an option that this platform lacks.
fn check(matches: &ArgMatches) -> Result<()> {
    let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let mut names = matches.ids().map(clap::Id::as_str);
    match names.find(|name| !HERE.contains(name) && is_given(name)) {
        Some(name) => Err(lacks(name)),
        None => Ok(()),
    }
}

fn lacks(name: &str) -> Error {
    let error = Error::usage(format_args!("--{name}: not supported on this platform"));
    if name == "image" { error.hint(DIRECTORY) } else { error }
}

const DIRECTORY: &str = "jc-pull --to DIR IMAGE | jc-run: a root of one directory";

/// Always `None`: only Linux has tee(2).
pub fn peek(_: BorrowedFd<'_>, _: usize) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

/// The chain for a record. The directories of its volumes are those of the root.
fn chain(options: &Options, record: &Record) -> Result<Chain> {
    let (config, payload) = Config::with_program(record, &options.program)?;
    let Root::Directory(root) = record.root()? else {
        return Err(Error::new("layers: not supported on this platform").hint(DIRECTORY));
    };
    let mut link = Link::new("jc-rootfs", vec![Opt::flag("--chroot"), Opt::flag("--clear-env")]);
    if io::stdin().is_terminal() {
        link.options.push(Opt::new("-e", "TERM"));
    }
    link.options.extend(config.env_options());
    if !options.payload.has_user {
        // The groups that list root, which jc-rootfs refuses here, would give it nothing more.
        let user = if config.user() == "0" { "0:0" } else { config.user() };
        link.options.push(Opt::new("-u", user));
    }
    link.options.extend(config.dir_option().filter(|_| !options.payload.has_workdir));
    link.options.extend(options.payload.passed.iter().cloned());
    link.operands.push(root.into());
    Ok(Chain::new(vec![link], payload))
}

/// The small programs, each of which fails.
macro_rules! without_containers {
    ($($module:ident: $family:ident $name:literal,)*) => {$(
        #[doc = concat!("`", $name, "`, which fails.")]
        pub mod $module {
            /// The name and exit codes of the program.
            pub const TOOL: jc_unshare::Tool = jc_unshare::Tool::$family($name);

            /// A command line of any words.
            pub fn command() -> clap::Command {
                <jc_unshare::AnyWords as clap::CommandFactory>::command().name($name)
            }

            /// Parses the command line, and fails.
            pub fn main() -> std::process::ExitCode {
                TOOL.main_with(command, run)
            }

            /// Fails, since there are no containers.
            pub fn run(_: &clap::ArgMatches) -> jc_unshare::Result<std::process::ExitCode> {
                Ok(TOOL.unsupported("containers"))
            }
        }
    )*};
}

without_containers! {
    execute: link "jc-exec",
    list: source "jc-list",
    logs: source "jc-logs",
    oci: source "jc-oci",
    remove: source "jc-rm",
    stop: source "jc-stop",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(args: &[&str]) -> ArgMatches {
        command().try_get_matches_from([&["jc-run"], args].concat()).unwrap()
    }

    fn argv(args: &[&str], record: &str) -> Result<Vec<String>> {
        let options = Options::parse(&matches(args))?;
        let chain = chain(&options, &Record::parse(record.as_bytes())?)?;
        Ok(chain.argv().iter().map(|word| word.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn the_chain_is_one_link() {
        let image = r#"{"jc":1,"rootfs":"/r","config":{"Cmd":["c"],"Env":["PATH=/b","A=1"],
            "WorkingDir":"/w","User":"web","Volumes":{"/data":{}}}}"#;
        let bare = r#"{"jc":1,"rootfs":"/r"}"#;
        let path = "-e PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        for (args, record, words) in [
            (&[][..], image, "-e PATH=/b -e A=1 -u web -w /w /r -- c"),
            (
                &["--rm", "-i", "-u", "5:5", "-w", "/x", "-e", "B=2", "z", "-v"],
                image,
                "-e PATH=/b -e A=1 -e B=2 -u 5:5 -w /x /r -- z -v",
            ),
            (&["--entrypoint", "/e", "x"], image, "-e PATH=/b -e A=1 -u web -w /w /r -- /e x"),
            (&["sh"], bare, &format!("{path} -u 0:0 /r -- sh")),
        ] {
            let mut argv = argv(args, record).unwrap();
            // Where the tests have a terminal.
            if argv[3..5] == ["-e", "TERM"] {
                argv.drain(3..5);
            }
            assert_eq!(argv.join(" "), format!("jc-rootfs --chroot --clear-env {words}"));
        }
    }

    #[test]
    fn layers_are_an_error_that_says_what_to_do() {
        let error = argv(&["sh"], r#"{"jc":1,"layers":["/a"]}"#).unwrap_err();
        let report = error.report("jc-run");
        assert!(report.starts_with("jc-run: layers: not supported on this platform\n"), "{report}");
        assert!(report.contains("hint: jc-pull --to DIR IMAGE | jc-run"), "{report}");
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (args, name) in [
            (&["-m", "1G"][..], "memory"),
            (&["-p", "80"], "publish"),
            (&["--network", "host"], "network"),
            (&["-v", "/a:/b"], "volume"),
            (&["--cap-drop", "ALL"], "cap-drop"),
            (&["--group-add", "5"], "group-add"),
            (&["-d"], "detach"),
            (&["-t"], "tty"),
            (&["--image", "alpine"], "image"),
            (&["--pull", "always"], "pull"),
            (&["--status-fd", "3"], "status-fd"),
        ] {
            let error = check(&matches(args)).unwrap_err();
            assert_eq!(error.to_string(), format!("--{name}: not supported on this platform"));
        }
        let had = ["--rm", "-i", "--print", "-e", "A", "-u", "0", "--rootfs", "/", "sh", "-m"];
        assert!(check(&matches(&had)).is_ok());
    }

    #[test]
    fn help_shows_what_can_be_had() {
        let help = command().render_help().to_string();
        for name in HERE.iter().filter(|name| **name != "program") {
            assert!(help.contains(&format!("--{name}")), "{name}");
        }
        for name in ["--memory", "--publish", "--volume", "--image", "--detach"] {
            assert!(!help.contains(name), "{help}");
        }
    }
}
