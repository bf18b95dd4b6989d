//! The options that `jc-run` passes to links: one table with the owner of each and its spelling there. A new option of
//! a link is one row here.

use std::ffi::{OsStr, OsString};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jc_unshare::on_demand::{self, needs};

use super::args;
use crate::link::Opt;

/// The link that gets an option, in the order of the chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// `jc-trace` in front, which the chain has only with one of its options.
    Trace,
    /// `jc-cgroup`, which the chain has only with one of its options.
    Cgroup,
    /// `jc-unshare` in front: the user namespace.
    User,
    /// `jc-net`.
    Net,
    /// `jc-egress`, in place of `jc-net` when one of its options is given.
    Egress,
    /// `jc-unshare`
    Unshare,
    /// `jc-rootfs`: options about the root.
    Rootfs,
    /// `jc-rootfs`: options about the payload, which `jc-exec` uses again.
    Payload,
}

impl Owner {
    /// The heading in `--help`.
    fn heading(self) -> &'static str {
        match self {
            Self::Trace => "Recording, for jc-trace",
            Self::Cgroup => "Limits, for jc-cgroup",
            Self::Net => "Network, for jc-net",
            Self::Egress => "Outgoing connections, for jc-egress",
            Self::User | Self::Unshare => "Namespaces, for jc-unshare",
            Self::Rootfs => "Files, for jc-rootfs",
            Self::Payload => "The program, for jc-rootfs",
        }
    }
}

/// An option with the same value in the link: short and long name, name of the value (empty without a value), owner, name
/// of the option in the owner, help.
type Row = (&'static str, &'static str, &'static str, Owner, &'static str, &'static str);

/// The options. Those with Docker's meaning have Docker's names.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("", "trace", "FILE", Owner::Trace, "--report", "Record the system calls, files, programs and connections of the program"),
    ("", "trace-all", "", Owner::Trace, "--all", "Record each event, with its time"),
    ("", "trace-calls", "", Owner::Trace, "--calls", "Record frequent harmless system calls too"),
    ("", "trace-links", "", Owner::Trace, "--links", "Record reads of symbolic links too"),
    ("m", "memory", "SIZE", Owner::Cgroup, "-m", "Limit memory; no swap unless --memory-swap allows it"),
    ("", "memory-swap", "SIZE", Owner::Cgroup, "--memory-swap", "Limit memory and swap together; -1 allows any swap"),
    ("", "cpus", "N", Owner::Cgroup, "--cpus", "Limit CPU time to that of N CPUs, such as 0.5"),
    ("", "cpu-weight", "N", Owner::Cgroup, "--cpu-weight", "Set the share of CPU time under contention, 1 to 10000 [default: 100]"),
    ("", "cpuset-cpus", "LIST", Owner::Cgroup, "--cpuset-cpus", "Run on these CPUs only"),
    ("", "cpuset-mems", "LIST", Owner::Cgroup, "--cpuset-mems", "Use memory of these NUMA nodes only"),
    ("", "pids-limit", "N", Owner::Cgroup, "--pids-limit", "Limit processes and threads"),
    ("", "io-max", "SPEC", Owner::Cgroup, "--io-max", "Limit a disk: DEV:rbps=SIZE,wbps=SIZE,..."),
    ("", "cgroup-parent", "PATH", Owner::Cgroup, "--cgroup-parent", "Make the cgroup below this one"),
    ("", "report", "FILE|FD", Owner::Cgroup, "--report", "Write the resource usage, as JSON"),
    ("p", "publish", "PORTS", Owner::Net, "-p", "Publish [[IP:]HOST:]PORT[/PROTOCOL] of the container on the host"),
    ("P", "publish-all", "", Owner::Net, "-P", "Publish all exposed ports on free ports of the host"),
    ("", "expose", "PORT[/PROTOCOL]", Owner::Net, "--expose", "Expose one more port for -P"),
    ("", "dns", "ADDRESS", Owner::Net, "--dns", "Use this name server in place of the host's"),
    ("", "dns-search", "DOMAIN", Owner::Net, "--dns-search", "Search this domain in place of the host's"),
    ("", "bridge", "NAME", Owner::Net, "--bridge", "Use this bridge instead of jc0"),
    ("", "subnet", "SUBNET", Owner::Net, "--subnet", "Make the bridge with this subnet"),
    ("", "ip", "ADDRESS", Owner::Net, "--ip", "Use this IPv4 address"),
    ("", "ip6", "ADDRESS", Owner::Net, "--ip6", "Use this IPv6 address"),
    ("", "mac-address", "ADDRESS", Owner::Net, "--mac-address", "Use this hardware address"),
    ("", "allow", "RULE", Owner::Egress, "--allow", "Allow connections to HOST:PORT[,PORT...], and no others"),
    ("", "allow-private", "RULE", Owner::Egress, "--allow-private", "Allow a name also where its address is not public"),
    ("", "allow-file", "FILE", Owner::Egress, "--allow-file", "Allow the rules of a file, one a line"),
    ("", "egress-learn", "FILE", Owner::Egress, "--learn", "Allow all connections, and write the rules that would have allowed them to a file"),
    ("", "deny", "RULE", Owner::Egress, "--deny", "Deny connections, whatever is allowed"),
    ("", "egress-log", "FILE", Owner::Egress, "--log", "Append a line of JSON for each decision to a file"),
    ("", "hostname", "NAME", Owner::Unshare, "--hostname", "Set the host name [default: the container's ID]"),
    ("", "domainname", "NAME", Owner::Unshare, "--domainname", "Set the NIS domain name"),
    ("", "uidmap", "IN:OUT:N", Owner::User, "--uidmap", "Map user IDs of a new user namespace"),
    ("", "gidmap", "IN:OUT:N", Owner::User, "--gidmap", "Map group IDs of a new user namespace"),
    ("v", "volume", "SRC:DST[:OPTIONS]|DST", Owner::Rootfs, "-v", "Show a file or directory of the host; DST alone is a fresh directory"),
    ("", "tmpfs", "DST[:OPTIONS]", Owner::Rootfs, "--tmpfs", "Mount an empty tmpfs"),
    ("", "device", "PATH[:DST]", Owner::Rootfs, "--device", "Show a device of the host"),
    ("", "read-only", "", Owner::Rootfs, "--read-only", "Make the root read-only"),
    ("", "sysctl", "KEY=VALUE", Owner::Rootfs, "--sysctl", "Set a kernel setting of the container's namespaces"),
    ("", "oom-score-adj", "N", Owner::Rootfs, "--oom-score-adj", "Set the program's score for the out-of-memory killer"),
    ("", "shm-size", "SIZE", Owner::Rootfs, "--shm-size", "Set the size of /dev/shm"),
    ("", "upper", "WHERE", Owner::Rootfs, "--upper", "Keep changes to the root in DIR or tmpfs[:SIZE]"),
    ("e", "env", "NAME[=VALUE]", Owner::Payload, "-e", "Set a variable; without a value, pass on the caller's"),
    ("", "env-file", "FILE", Owner::Payload, "--env-file", "Set the variables of a file"),
    ("u", "user", "USER", Owner::Payload, "-u", "Run as this user of the root: NAME|UID[:GROUP|GID]"),
    ("", "group-add", "GROUP", Owner::Payload, "--group-add", "Add a group of the root"),
    ("w", "workdir", "DIR", Owner::Payload, "-w", "Start in this directory"),
    ("", "ulimit", "NAME=SOFT[:HARD]", Owner::Payload, "--ulimit", "Limit a resource"),
    ("", "cap-add", "CAP,...", Owner::Payload, "--cap-add", "Give the program more capabilities, or ALL"),
    ("", "landlock", "RULE", Owner::Payload, "--landlock", "Restrict the program by a rule of jc-landlock, such as ro=PATH or connect=PORT"),
    ("", "cap-drop", "CAP,...", Owner::Payload, "--cap-drop", "Take capabilities from the program, or ALL"),
];

/// Builds the command line parser.
pub fn command() -> Command {
    Command::new("jc-run")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Run a container from the record on stdin, by a chain of the other programs")
        .override_usage(
            "jc-pull IMAGE | jc-run [options] [--] [PROG] [ARG...]\n       \
             jc-run [options] --image REF | --rootfs DIR | --record FILE [--] [PROG] [ARG...]",
        )
        .args(args::own().into_iter().filter(needs))
        .args(ROWS.iter().filter(|row| is_needed(row)).map(arg))
        .args(args::composed().into_iter().filter(needs))
        .arg(
            Arg::new("program")
                .value_name("PROG")
                .num_args(0..)
                .trailing_var_arg(true)
                .value_parser(value_parser!(OsString))
                .help("The program and its arguments [default: the image's]"),
        )
}

/// Whether the parser needs the option of a row.
fn is_needed((short, long, value, ..): &Row) -> bool {
    value.is_empty() || on_demand::is_needed(long, short.chars().next())
}

fn arg(&(short, long, value, owner, _, help): &Row) -> Arg {
    let arg = Arg::new(long).long(long).help(help).help_heading(owner.heading());
    let arg = match short.chars().next() {
        Some(short) => arg.short(short),
        None => arg,
    };
    match value {
        "" => arg.action(ArgAction::SetTrue),
        name => {
            let arg = arg.value_name(name).action(ArgAction::Append);
            let check = check(long);
            let parser =
                OsStringValueParser::new().try_map(move |value| check(&value).map(|()| value));
            arg.value_parser(parser).allow_negative_numbers(true)
        }
    }
}

/// The check of a value whose meaning depends on more than one link.
fn check(long: &str) -> fn(&OsStr) -> Result<(), String> {
    match long {
        "volume" => volume,
        _ => |_| Ok(()),
    }
}

/// Refuses a name in place of a directory: Docker has volumes with names, and a directory of that name that happens to
/// be in the working directory is not meant.
fn volume(value: &OsStr) -> Result<(), String> {
    let value = value.to_string_lossy();
    match value.split_once(':') {
        None if !value.starts_with('/') => Err("not SRC:DST[:OPTIONS]".to_owned()),
        Some((source, rest)) if !source.contains('/') && !matches!(source, "" | "." | "..") => {
            let line = format!("mkdir -p {source}; jc-run -v ./{source}:{rest} ...");
            Err(format!("no named volumes, but directories: {line}"))
        }
        _ => Ok(()),
    }
}

/// Whether a value of `--volume` is a fresh directory, and no directory of the host.
pub fn is_anonymous(value: &OsStr) -> bool {
    !value.as_encoded_bytes().contains(&b':')
}

/// The options on the command line for a link, with their names in the link.
pub fn given(matches: &ArgMatches, owner: Owner) -> Vec<Opt> {
    let mut options = Vec::new();
    for (_, long, value, _, spelling, _) in ROWS.iter().filter(|row| row.3 == owner) {
        if value.is_empty() {
            options.extend(matches.get_flag(long).then(|| Opt::flag(spelling)));
        } else {
            let values = values(matches, long);
            let passed = values.filter(|value| *long != "volume" || !is_anonymous(value));
            options.extend(passed.map(|value| Opt::new(spelling, value)));
        }
    }
    options
}

/// The values of an option on the command line.
pub fn values<'a>(matches: &'a ArgMatches, long: &str) -> impl Iterator<Item = &'a OsString> {
    matches.get_many::<OsString>(long).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_a_path_of_the_host_or_a_fresh_directory() {
        for value in ["/a:/b", "./a:/b:ro", ".:/b", "..:/b", "a/b:/c", "/b", ":/b"] {
            assert!(volume(value.as_ref()).is_ok(), "{value}");
        }
        for value in ["data:/b", "data:/b:ro", "data", ""] {
            assert!(volume(value.as_ref()).is_err(), "{value}");
        }
        assert!(is_anonymous("/b".as_ref()) && !is_anonymous("/a:/b".as_ref()));
    }
}
