//! The options of `jc-run` itself, and those that become options of several links.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, value_parser};

/// The options about the record and the life of a container.
pub fn own() -> Vec<Arg> {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let text =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let path = |name, value| text(name, value).value_parser(value_parser!(PathBuf));
    vec![
        path("record", "FILE").help("Read the record from FILE instead of stdin"),
        text("image", "REF").help("Run this image, which jc-pull fetches if needed"),
        text("pull", "WHEN")
            .value_parser(["always", "missing", "never"])
            .default_value("missing")
            .hide_possible_values(true)
            .help("Ask the registry for --image: always, missing or never"),
        text("platform", "OS/ARCH[/VARIANT]")
            .help("Run --image for this platform, as on a host with qemu-user"),
        path("rootfs", "DIR").help("Use this directory as the root; changes are written to it"),
        text("name", "NAME").value_parser(name).help("Name the container"),
        Arg::new("add-host")
            .long("add-host")
            .value_name("NAME:ADDRESS")
            .action(ArgAction::Append)
            .value_parser(host)
            .help_heading("Network, for jc-net")
            .help("Add a line to /etc/hosts"),
        Arg::new("label")
            .long("label")
            .value_name("NAME[=VALUE]")
            .action(ArgAction::Append)
            .value_parser(label)
            .help("Write an annotation into the state"),
        text("entrypoint", "PROG")
            .value_parser(value_parser!(OsString))
            .help("Replace the image's entry point; empty for none"),
        text("stop-signal", "SIGNAL")
            .help("Signal that jc-stop sends [default: the image's, else TERM]"),
        flag("detach").short('d').help("Print the ID once the program runs, and leave it running"),
        flag("interactive").short('i').help("With -d, keep stdin open as a FIFO; else ignored"),
        flag("tty").short('t').help("Give the program a terminal of its own"),
        flag("keep").help("Keep state and changes after the end"),
        flag("rm").conflicts_with("keep").help("Keep nothing after the end, with -d too"),
        text("log-size", "SIZE")
            .value_parser(log_size)
            .default_value("64M")
            .requires("detach")
            .help("Limit the log of a detached container"),
        print(),
        text("status-fd", "N")
            .value_parser(value_parser!(u32))
            .help("Write events to this descriptor, as lines of JSON"),
        state_dir(),
    ]
}

/// The options that become options of several links.
pub fn composed() -> Vec<Arg> {
    let mode = |name: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name("MODE").help(help);
        arg.help_heading("Namespaces, for jc-unshare")
    };
    vec![
        mode(
            "network",
            "bridge (root's default), pasta (others'), none, host, ns:PATH or container:ID",
        )
        .value_parser(network)
        .help_heading("Network, for jc-net"),
        mode("userns", "auto (subordinate IDs), keep-id (the caller's own ID) or host"),
        mode("pid", "private, host or container:ID").value_parser(shared),
        mode("ipc", "private, host or container:ID").value_parser(shared),
        mode("uts", "private, host or container:ID").value_parser(shared),
        Arg::new("init")
            .long("init")
            .action(ArgAction::SetTrue)
            .help_heading("The program, for jc-rootfs")
            .help("Make PID 1 a process that only forwards signals and reaps orphans"),
        Arg::new("security-opt")
            .long("security-opt")
            .value_name("OPT")
            .action(ArgAction::Append)
            .help_heading("The program, for jc-rootfs")
            .help(
                "seccomp=FILE|unconfined, no-new-privileges=false, systempaths=unconfined, \
                 net-admin=host",
            ),
        Arg::new("privileged")
            .long("privileged")
            .action(ArgAction::SetTrue)
            .help_heading("The program, for jc-rootfs")
            .help("Remove all restrictions: all capabilities and devices, no masks, no filter"),
    ]
}

/// `--print`, of the programs that run a chain.
pub fn print() -> Arg {
    Arg::new("print")
        .long("print")
        .value_name("AS")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("shell")
        .value_parser(["shell", "json"])
        .hide_possible_values(true)
        .help("Print the chain instead of running it: shell or json")
}

/// `--state-dir`, of all programs that read states.
pub fn state_dir() -> Arg {
    Arg::new("state-dir")
        .long("state-dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Directory of the state directories [default: $JC_STATE_DIR, else as in jc-state(5)]")
}

/// The least that `--log-size` accepts, in bytes.
const LEAST_LOG: u64 = 4 << 10;

fn log_size(word: &str) -> Result<u64, String> {
    match jc_unshare::size::parse(word)? {
        bytes if bytes < LEAST_LOG => Err("less than 4k".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Docker's rule for names.
fn name(word: &str) -> Result<String, String> {
    let first = word.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if first && word.bytes().all(fine) && word.len() <= 64 {
        Ok(word.to_owned())
    } else {
        Err("not a name of up to 64 letters, digits, -, _ and .".to_owned())
    }
}

/// A value of `--network`.
fn network(word: &str) -> Result<String, String> {
    let is_known = ["bridge", "pasta", "none", "host"].contains(&word)
        || ["ns:", "container:"].iter().any(|prefix| word.starts_with(prefix));
    if is_known {
        return Ok(word.to_owned());
    }
    let (name, options) = word.split_once(':').unwrap_or((word, ""));
    let remedy = match (name, options) {
        ("pasta" | "slirp4netns" | "private", "") => "pasta, or no option".to_owned(),
        ("bridge", _) => "--ip ADDRESS, --mac-address ADDRESS or --bridge NAME".to_owned(),
        ("pasta" | "slirp4netns", _) => "-p HOST:PORT publishes ports".to_owned(),
        ("", _) => "bridge is the default of root".to_owned(),
        _ => format!("--bridge {word} makes a network of that name"),
    };
    Err(format!("not bridge, pasta, none, host, ns:PATH or container:ID ({remedy})"))
}

/// A value of `--pid`, `--ipc` or `--uts`.
fn shared(word: &str) -> Result<String, String> {
    if ["private", "host"].contains(&word) || word.starts_with("container:") {
        Ok(word.to_owned())
    } else {
        Err("not private, host or container:ID".to_owned())
    }
}

/// The line of /etc/hosts for `NAME:ADDRESS`.
fn host(word: &str) -> Result<String, String> {
    let (name, address) = word.split_once([':', '=']).unwrap_or((word, ""));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err("not NAME:ADDRESS".to_owned());
    }
    match address.parse::<IpAddr>() {
        Ok(address) => Ok(format!("{address}\t{name}\n")),
        Err(_) => Err(format!("{address:?} is no address; ip route has that of the host")),
    }
}

fn label(word: &str) -> Result<(String, String), String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    if name.is_empty() || name.starts_with("jc.") {
        Err("not the name of a label: empty, or begins with jc.".to_owned())
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_an_address() {
        for (word, line) in [
            ("db:10.0.0.5", "10.0.0.5\tdb\n"),
            ("db=10.0.0.5", "10.0.0.5\tdb\n"),
            ("v6:[fd00::1]", "fd00::1\tv6\n"),
            ("v6:fd00::1", "fd00::1\tv6\n"),
        ] {
            assert_eq!(host(word).unwrap(), line);
        }
        for word in ["db", "db:", ":10.0.0.5", "a b:10.0.0.5", "db:host-gateway", "db:10.0.0.5\n"] {
            assert!(host(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_log_has_at_least_four_kibibytes() {
        assert_eq!(log_size("64M"), Ok(64 << 20));
        assert_eq!(log_size("4k"), Ok(4096));
        for word in ["", "0", "4095", "1.5", "x"] {
            assert!(log_size(word).is_err(), "{word}");
        }
    }
}
