//! Options of Docker and podman that another program or option of jc replaces. Each is refused by name, with the
//! line that does the same.

use std::ffi::OsStr;

use clap::{Arg, ArgAction, ArgMatches};
use jc_unshare::{Error, Result};

/// Each option, with its replacement.
#[rustfmt::skip]
const INSTEAD: &[(&str, &str)] = &[
    ("add-host", "-v FILE:/etc/hosts shows the container a hosts file"),
    ("attach", "jc-run without -d is attached; jc-logs -f ID follows one that is not"),
    ("blkio-weight", "--io-max DEV:rbps=SIZE,wbps=SIZE limits a disk"),
    ("cgroupns", "the container always has a cgroup namespace of its own"),
    ("cidfile", "ID=$(jc-run -d ...)"),
    ("cpu-period", "--cpus N"),
    ("cpu-quota", "--cpus N"),
    ("cpu-shares", "--cpu-weight N"),
    ("detach-keys", "jc-run -d, and then jc-exec -it ID sh"),
    ("device-read-bps", "--io-max DEV:rbps=SIZE"),
    ("device-write-bps", "--io-max DEV:wbps=SIZE"),
    ("gpus", "--device /dev/..."),
    ("health-cmd", "jc-exec ID PROG, from whatever watches"),
    ("log-driver", "jc-run ... | logger"),
    ("log-opt", "--log-size SIZE, or jc-run ... | logger"),
    ("memory-reservation", "jc-cgroup --memory-low SIZE -- jc-run ..."),
    ("mount", "-v SRC:DST[:OPTIONS], --tmpfs DST[:OPTIONS]"),
    ("nice", "nice -n N jc-run ..."),
    ("oom-score-adj", "choom -n N -- jc-run ..."),
    ("platform", "jc-pull --platform PLATFORM IMAGE | jc-run ..."),
    ("restart", "systemd-run -p Restart=always -- jc-run ..., or: until jc-run ...; do sleep 1; done"),
    ("stop-timeout", "jc-stop -t SECONDS ID"),
    ("sysctl", "sysctl -w NAME=VALUE, in jc-net -- sh -c '...; exec jc-run --network host ...'"),
    ("timeout", "timeout SECONDS jc-run ..."),
    ("umask", "(umask MODE; jc-run ...)"),
    ("volumes-from", "-v SRC:DST, as for the other container"),
];

/// Hidden arguments for the refused options on the command line. Arguments for all 26 options would make each start
/// 5 percent slower.
pub fn args() -> impl Iterator<Item = Arg> {
    let names: Vec<String> =
        std::env::args_os().filter_map(|word| Some(name(&word)?.into())).collect();
    let named = move |(long, _): &&(&str, &str)| names.iter().any(|name| name == long);
    INSTEAD.iter().filter(named).map(|(long, _)| {
        let arg = Arg::new(*long).long(*long).hide(true).action(ArgAction::Append);
        arg.num_args(0..=1).allow_hyphen_values(true)
    })
}

/// The name of a long option, which may have a value.
fn name(word: &OsStr) -> Option<&str> {
    let option = word.to_str()?.strip_prefix("--")?;
    Some(option.split_once('=').map_or(option, |(name, _)| name))
}

/// Returns a usage error if the command line has a refused option.
pub fn check(matches: &ArgMatches) -> Result<()> {
    let given = |long: &str| matches.try_contains_id(long).unwrap_or(false);
    match INSTEAD.iter().find(|(long, _)| given(long)) {
        Some((long, instead)) => {
            Err(Error::usage(format_args!("--{long}: not an option of jc-run")).hint(instead))
        }
        None => Ok(()),
    }
}
