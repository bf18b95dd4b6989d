//! The options of `jc-run`: one table of which link owns each, and how that link spells it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// A link of the chain, in the chain's order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    /// `jc-cgroup`, there only when a limit is asked for.
    Cgroup,
    /// `jc-net`
    Net,
    /// `jc-unshare`
    Unshare,
    /// `jc-rootfs`
    Rootfs,
}

/// An option that is handed on as it is.
struct Flag {
    short: Option<char>,
    long: &'static str,
    /// What its value is called; without, it has none.
    value: Option<&'static str>,
    owner: Link,
    /// The owner's spelling.
    spelling: &'static str,
    help: &'static str,
}

const fn flag(
    (short, long, value): (Option<char>, &'static str, Option<&'static str>),
    owner: Link,
    spelling: &'static str,
    help: &'static str,
) -> Flag {
    Flag { short, long, value, owner, spelling, help }
}

/// Docker's names, where they mean the same.
const FLAGS: &[Flag] = &[
    flag((Some('m'), "memory", Some("SIZE")), Link::Cgroup, "-m", "Limit memory and swap together"),
    flag((None, "pids-limit", Some("N")), Link::Cgroup, "--pids", "Limit processes and threads"),
    flag((None, "network", Some("MODE")), Link::Net, "--network", "none (the default) or host"),
    flag(
        (None, "hostname", Some("NAME")),
        Link::Unshare,
        "--hostname",
        "Host name, else the container's ID",
    ),
    flag(
        (None, "init", None),
        Link::Unshare,
        "--init",
        "Make PID 1 a process that only reaps and forwards signals",
    ),
    flag(
        (Some('e'), "env", Some("NAME[=VALUE]")),
        Link::Rootfs,
        "-e",
        "Set a variable, or pass on the one that is set here",
    ),
    flag(
        (Some('u'), "user", Some("USER")),
        Link::Rootfs,
        "-u",
        "Run as this user of the root: NAME|UID[:GROUP|GID]",
    ),
    flag((Some('w'), "workdir", Some("DIR")), Link::Rootfs, "-w", "Start in this directory"),
    flag(
        (Some('v'), "volume", Some("SRC:DST[:OPTIONS]")),
        Link::Rootfs,
        "-v",
        "Show a file or directory of the host",
    ),
    flag((None, "tmpfs", Some("DST[:OPTIONS]")), Link::Rootfs, "--tmpfs", "Mount an empty tmpfs"),
    flag(
        (None, "read-only", None),
        Link::Rootfs,
        "--read-only",
        "Let nothing be changed in the root",
    ),
];

/// Docker's options that are still to come: refused by name, so that nobody believes they did
/// something.
const ABSENT: &[(char, &str)] = &[('p', "publish"), ('d', "detach")];

/// The command line.
pub fn command() -> Command {
    let own = [
        Arg::new("record")
            .long("record")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Take the record from FILE instead of stdin"),
        Arg::new("image")
            .long("image")
            .value_name("REF")
            .help("Run this image: jc-pull gets its record"),
        Arg::new("rootfs")
            .long("rootfs")
            .value_name("DIR")
            .value_parser(value_parser!(PathBuf))
            .help("Run in this directory, which keeps the changes"),
        Arg::new("print")
            .long("print")
            .action(ArgAction::SetTrue)
            .help("Print the chain as shell instead of running it"),
    ];
    let absent = ABSENT.iter().map(|(short, long)| {
        Arg::new(*long)
            .short(*short)
            .long(*long)
            .hide(true)
            .num_args(0..=1)
            .action(ArgAction::Append)
    });
    Command::new("jc-run")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Run a container: the record on stdin, by a chain of the other tools")
        .override_usage("jc-pull IMAGE | jc-run [options] [--] [PROG] [ARG...]\n       jc-run [options] --image REF | --rootfs DIR | --record FILE [--] [PROG] [ARG...]")
        .args(own)
        .args(FLAGS.iter().map(arg))
        .args(absent)
        .arg(
            Arg::new("program")
                .value_name("PROG")
                .num_args(0..)
                .trailing_var_arg(true)
                .value_parser(value_parser!(OsString))
                .help("The program and its arguments, else the image's own"),
        )
}

fn arg(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.long).long(flag.long).help(flag.help);
    let arg = flag.short.map_or(arg.clone(), |short| arg.short(short));
    match flag.value {
        Some(name) => {
            arg.value_name(name).action(ArgAction::Append).value_parser(value_parser!(OsString))
        }
        None => arg.action(ArgAction::SetTrue),
    }
}

/// The options given for a link, in its own spelling.
pub fn given(matches: &ArgMatches, link: Link) -> Vec<OsString> {
    let mut words = Vec::new();
    for flag in FLAGS.iter().filter(|flag| flag.owner == link) {
        if flag.value.is_none() {
            words.extend(matches.get_flag(flag.long).then(|| flag.spelling.into()));
            continue;
        }
        for value in matches.get_many::<OsString>(flag.long).into_iter().flatten() {
            words.extend(option(flag.spelling, value));
        }
    }
    words
}

/// An option and its value, so that no value can be taken for an option.
pub fn option(spelling: &str, value: &OsStr) -> Vec<OsString> {
    if !value.as_encoded_bytes().starts_with(b"-") {
        return vec![spelling.into(), value.to_owned()];
    }
    let mut word = OsString::from(spelling);
    if spelling.starts_with("--") {
        word.push("=");
    }
    word.push(value);
    vec![word]
}

/// The options that were given and are not there yet.
pub fn absent(matches: &ArgMatches) -> Option<String> {
    let given = |(_, long): &&(char, &str)| matches.contains_id(long);
    ABSENT.iter().find(given).map(|(short, long)| format!("-{short}/--{long}"))
}
