//! The chain for a record: what the image says, then what the command line says.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stdin};
use std::path::Path;

use clap::ArgMatches;
use jc_unshare::record::{Record, Root};
use jc_unshare::{Error, Result, signals};
use rustix::process::geteuid;

use crate::anonymous::{self, VOLUMES};
use crate::chain::{Chain, quote, to_json};
use crate::flags::{Owner, given, option, values};
use crate::image::Config;
use crate::network::Network;
use crate::place::Place;
use crate::plan::{Plan, StatusFds, words};
use crate::state::State;
use crate::volumes::volumes;
use crate::{dir, harden, network, userns};

/// Where the joined process's number goes in the chain of jc-exec.
pub const PID: &str = "PID";

/// Plans a container of this ID.
pub fn compose(matches: &ArgMatches, record: &Record, id: &str, place: &Place) -> Result<Plan> {
    let (config, payload) = Config::asked(record, matches)?;
    let root = record.root()?;
    let state_dir = place.path.join(id);
    let hostname = hostname(matches, id);
    let spaces = Spaces::of(matches, place)?;
    let network = Network::of(matches, place)?;
    let (binds, mut directories) = volumes(matches, &config, &root, &state_dir)?;

    let reports = values(matches, "report").filter_map(|word| word.to_str()?.parse().ok());
    let mut taken: Vec<u32> = reports.collect();
    let (others, last) = (free_descriptor(&mut taken), free_descriptor(&mut taken));
    let status_fds = StatusFds { last, others };
    let is_told = is_kept(matches) || matches.contains_id("status-fd");
    let reports = |is_needed| match is_needed {
        true => words(&["--status-fd", &others.to_string()]),
        false => Vec::new(),
    };
    let end = reports(spaces.makes_pids && is_told);

    let init = match matches.get_flag("init") {
        true => words(&["--init-fd", &free_descriptor(&mut taken).to_string()]),
        false => Vec::new(),
    };

    let limits = given(matches, Owner::Cgroup);
    let measures = is_told && (matches.contains_id("memory") || !spaces.makes_pids);
    let mut report = reports(measures);
    if measures && !matches.contains_id("report") {
        report.extend(words(&["--measure", "limited"]));
    }
    let has_cgroup = !limits.is_empty() || !spaces.makes_pids;
    let user = userns::options(matches)?;
    harden::check_net_admin(matches, !user.is_empty())?;
    let cable = network.options(matches, &config, &hostname, &state_dir, others);
    let has_cable = cable != words(&["--network", "none"]);
    // One process that waits is enough, where jc-unshare itself need not see how PID 1 ends, be it, or map
    // IDs for it, and jc-net does not wait in between.
    let is_one = has_cgroup
        && !is_told
        && !matches.get_flag("init")
        && user.is_empty()
        && !network.is_held(matches);
    let pid = |here| if spaces.makes_pids && here { words(&["-p"]) } else { Vec::new() };

    let mut links = Vec::new();
    if has_cgroup {
        links.push(link("jc-cgroup", [pid(is_one), words(&["--name", id]), report, limits]));
    }
    // In front of jc-net: without root, only that of a user namespace may make a network. With root,
    // the network is to be the host's, and one jc-unshare makes all namespaces, as without a cable.
    let (in_front, mut at_once) = match has_cable && !geteuid().is_root() {
        true => (user.clone(), Vec::new()),
        false => (Vec::new(), user.clone()),
    };
    if !in_front.is_empty() {
        links.push(link("jc-unshare", [in_front]));
    }
    match has_cable {
        true => links.push(link("jc-net", [cable])),
        false => at_once.extend(words(&["-n", "--loopback"])),
    }
    let named = spaces.has_own_name() && !matches.contains_id("hostname");
    let host = if named { option("--hostname", hostname.as_ref()) } else { Vec::new() };
    let options = given(matches, Owner::Unshare);
    links.push(link(
        "jc-unshare",
        [at_once, spaces.words.clone(), pid(!is_one), host, end, init.clone(), options],
    ));
    let payload_options = [
        environment(&config, matches, &hostname),
        defaults(&config, matches),
        harden::payload(matches)?,
        given(matches, Owner::Payload),
    ]
    .concat();
    let upper = upper(matches, &root, &state_dir, &mut directories);
    links.push(link(
        "jc-rootfs",
        [
            network::binds(&state_dir),
            binds,
            harden::root(matches)?,
            given(matches, Owner::Rootfs),
            supervised(matches, &state_dir, last),
            init,
            spaces.rootfs.clone(),
            payload_options.clone(),
            upper,
        ],
    ));

    let mut state = State::new(id, &state_dir);
    note(&mut state, matches, record, &config, &payload)?;
    let kinds = spaces.kinds(!user.is_empty(), !network.is_hosts());
    let joining = [
        has_cgroup.then(|| link("jc-cgroup", [parent(matches), words(&["--join", id])])),
        Some(link("jc-unshare", [words(&["--join", &format!("{PID}:{kinds}")])])),
        Some(link("jc-rootfs", [words(&["--join", PID]), resolved(&payload_options)?])),
    ];
    let exec = to_json(&joining.into_iter().flatten().collect::<Vec<_>>())?;
    let chain = Chain::new(links, payload);
    let files = network.files(&hostname)?;
    let log_size = matches.get_one("log-size").copied().unwrap_or_default();
    let has_volumes = directories.iter().any(|directory| directory.name.starts_with(VOLUMES));
    let volumes = has_volumes.then(|| anonymous::path(id)).transpose()?;
    Ok(Plan { state, files, volumes, directories, exec, status_fds, chain, is_told, log_size })
}

/// The lowest number that a link's descriptor can have beside those that are taken.
fn free_descriptor(taken: &mut Vec<u32>) -> u32 {
    let mut number = 3;
    while taken.contains(&number) {
        number += 1;
    }
    taken.push(number);
    number
}

fn link<const N: usize>(name: &str, options: [Vec<OsString>; N]) -> Vec<OsString> {
    std::iter::once(name.into()).chain(options.into_iter().flatten()).collect()
}

/// Which namespaces are the container's own, and how jc-unshare makes or enters them.
struct Spaces {
    /// The options of jc-unshare, but for a PID namespace to be made.
    words: Vec<OsString>,
    /// The options of jc-rootfs.
    rootfs: Vec<OsString>,
    makes_pids: bool,
    own: Vec<&'static str>,
}

impl Spaces {
    fn of(matches: &ArgMatches, place: &Place) -> Result<Self> {
        let mut spaces = Self {
            words: words(&["-C"]),
            rootfs: Vec::new(),
            makes_pids: false,
            own: vec!["cgroup"],
        };
        for (kind, letter) in [("pid", "-p"), ("uts", "-u"), ("ipc", "-i")] {
            let mode = matches.get_one::<String>(kind).map_or("private", String::as_str);
            match mode.split_once(':').unwrap_or((mode, "")) {
                ("private", "") if kind == "pid" => spaces.makes_pids = true,
                ("private", "") => spaces.words.push(letter.into()),
                ("host", "") => continue,
                ("container", word) => {
                    let pid = dir::find(place, word)?.state.payload()?.pid;
                    // jc-rootfs enters a PID namespace last: see Spaces::kinds.
                    match kind {
                        "pid" => spaces.rootfs = words(&["--join-pid", &pid.to_string()]),
                        _ => spaces.words.extend(words(&["--join", &format!("{pid}:{kind}")])),
                    }
                }
                _ => {
                    let message = format!("--{kind} {mode}: not private, host or container:ID");
                    return Err(Error::usage(message));
                }
            }
            spaces.own.push(kind);
        }
        Ok(spaces)
    }

    fn has_own_name(&self) -> bool {
        self.words.iter().any(|word| word == "-u")
    }

    /// What jc-exec has to enter by jc-unshare. Not the PID namespace: jc-rootfs does that, last, where
    /// those inside cannot look at the host through it any more.
    fn kinds(&self, has_user: bool, has_net: bool) -> String {
        let (user, net) = (has_user.then_some("user"), has_net.then_some("net"));
        let own = self.own.iter().copied().filter(|kind| *kind != "pid");
        let all: Vec<&str> = user.into_iter().chain(own).chain(net).collect();
        all.join(",")
    }
}

fn hostname(matches: &ArgMatches, id: &str) -> String {
    match matches.get_one::<OsString>("hostname") {
        Some(name) => name.to_string_lossy().into_owned(),
        None if matches.get_one::<String>("uts").is_some_and(|mode| mode != "private") => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        None => id.to_owned(),
    }
}

/// Whether it stays recorded when it has ended.
fn is_kept(matches: &ArgMatches) -> bool {
    matches.get_flag("keep") || matches.get_flag("detach") && !matches.get_flag("rm")
}

fn parent(matches: &ArgMatches) -> Vec<OsString> {
    values(matches, "cgroup-parent").flat_map(|parent| option("--parent", parent)).collect()
}

/// The environment of a container is the image's and its user's, not the caller's.
fn environment(config: &Config, matches: &ArgMatches, hostname: &str) -> Vec<OsString> {
    let mut options = words(&["--clear-env"]);
    if matches.get_flag("tty") || stdin().is_terminal() {
        options.extend(words(&["-e", "TERM"]));
    }
    options.extend(option("-e", OsStr::new(&format!("HOSTNAME={hostname}"))));
    options.extend(config.env_options());
    options
}

/// What the image says and the command line does not.
fn defaults(config: &Config, matches: &ArgMatches) -> Vec<OsString> {
    let mut options = Vec::new();
    if !matches.contains_id("user") {
        options.extend(option("-u", config.user().as_ref()));
    }
    options.extend(config.dir_option(matches));
    options
}

/// How the supervisor hears of the payload, and speaks with it.
fn supervised(matches: &ArgMatches, state_dir: &Path, status_fd: u32) -> Vec<OsString> {
    let mut options = words(&["--status-fd", &status_fd.to_string()]);
    if matches.get_flag("tty") {
        options.extend(option("--console-socket", state_dir.join("console").as_os_str()));
    }
    options
}

/// Layers get a fresh upper directory: in memory, or if the changes are to be kept, in the state dir.
/// A directory is used as it is; if nothing may be changed in it, an upper in memory has its mount
/// points.
fn upper(
    matches: &ArgMatches,
    root: &Root,
    state_dir: &Path,
    directories: &mut Vec<crate::plan::Directory>,
) -> Vec<OsString> {
    let layers = match root {
        Root::Directory(directory) => {
            let unchanged = matches.get_flag("read-only") && !matches.contains_id("upper");
            let upper = if unchanged { words(&["--upper", "tmpfs"]) } else { Vec::new() };
            return [upper, vec![directory.into()]].concat();
        }
        Root::Layers(layers) => layers,
    };
    let layers = layers.iter().flat_map(|layer| option("--layer", layer.as_os_str()));
    let upper = match (matches.contains_id("upper"), matches.get_flag("keep")) {
        (true, _) => Vec::new(),
        (false, true) => {
            let name = "changes".to_owned();
            directories.push(crate::plan::Directory { name, mode: 0o700, owner: None });
            option("--upper", state_dir.join("changes").as_os_str())
        }
        (false, false) => words(&["--upper", "tmpfs"]),
    };
    layers.chain(upper).collect()
}

/// What jc-list shows and jc-stop needs.
fn note(
    state: &mut State,
    matches: &ArgMatches,
    record: &Record,
    config: &Config,
    payload: &[OsString],
) -> Result<()> {
    let rootfs = record.rootfs.as_ref().map(|path| path.display().to_string());
    let name = matches.get_one::<String>("name").cloned();
    for (key, value) in [
        ("name", name),
        ("image", record.reference.clone().or(rootfs)),
        ("digest", record.digest.clone()),
        ("stop-signal", stop_signal(matches, config)?),
        ("keep", is_kept(matches).then(|| "true".to_owned())),
        ("command", Some(command(payload))),
    ] {
        if let Some(value) = value {
            state.set(key, value);
        }
    }
    let labels = matches.get_many::<(String, String)>("label").into_iter().flatten();
    state.annotations.extend(labels.cloned());
    Ok(())
}

/// The words of a payload as a shell takes them.
fn command(payload: &[OsString]) -> String {
    let words: Vec<Vec<u8>> = payload.iter().map(|word| quote(word)).collect();
    String::from_utf8_lossy(&words.join(&b' ')).into_owned()
}

/// The signal that jc-stop is to send. What an image has and is none must not keep it from stopping.
fn stop_signal(matches: &ArgMatches, config: &Config) -> Result<Option<String>> {
    let is_signal = |word: &&String| signals::number(word).is_some();
    match matches.get_one::<String>("stop-signal") {
        None => Ok(config.stop_signal.as_ref().filter(is_signal).cloned()),
        Some(word) if is_signal(&word) => Ok(Some(word.clone())),
        Some(word) => Err(Error::usage(format_args!("--stop-signal {word}: not a signal"))),
    }
}

/// The options with the values that variables and files have here and now.
fn resolved(options: &[OsString]) -> Result<Vec<OsString>> {
    let mut resolved: Vec<OsString> = Vec::new();
    for word in options {
        let before = resolved.last().map_or(OsStr::new(""), OsString::as_os_str).to_owned();
        let has_value = word.as_encoded_bytes().contains(&b'=');
        if before == "-e" && !has_value {
            match std::env::var_os(word) {
                Some(value) => {
                    let mut pair = word.clone();
                    pair.push("=");
                    pair.push(value);
                    resolved.push(pair);
                }
                None => drop(resolved.pop()),
            }
        } else if before == "--env-file"
            || before == "--seccomp" && word.as_encoded_bytes().contains(&b'/')
        {
            let path = std::path::absolute(word)
                .map_err(|e| Error::new(format_args!("{before:?}: {e}")))?;
            resolved.push(path.into());
        } else {
            resolved.push(word.clone());
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str], record: &str) -> Result<Plan> {
        let matches = crate::command().try_get_matches_from([&["jc-run"], args].concat());
        let record = Record::parse(record.as_bytes())?;
        compose(
            &matches.map_err(Error::usage)?,
            &record,
            "0123456789ab",
            &Place { path: "/run/jc".into(), is_default: true },
        )
    }

    fn chain(args: &[&str], record: &str) -> Vec<OsString> {
        plan(args, record).unwrap().chain.argv()
    }

    fn has(chain: &[OsString], words: &[&str]) -> bool {
        chain.windows(words.len()).any(|window| window == words)
    }

    const IMAGE: &str = r#"{"jc":1,"layers":["/a","/b"],"config":{"Entrypoint":["/e"],"Cmd":["c"],
        "Env":["A=1"],"WorkingDir":"/w","User":"web","Volumes":{"/data":{}},"StopSignal":"QUIT"}}"#;

    #[test]
    fn the_image_speaks_unless_the_command_line_does() {
        let from_image = chain(&[], IMAGE);
        assert!(has(&from_image, &["-u", "web", "-w", "/w"]));
        assert!(has(&from_image, &["--layer", "/a", "--layer", "/b", "--upper", "tmpfs", "--"]));
        assert!(has(&from_image, &["--", "/e", "c"]));
        assert!(has(&from_image, &["-v", "/run/jc/0123456789ab/volumes/0:/data"]));
        let args = ["-u", "5", "-w", "/x", "-e", "A=2", "-m", "64M", "--hostname", "h", "--", "z"];
        let from_user = chain(&args, IMAGE);
        assert!(has(&from_user, &["-m", "64M", "--"]));
        assert!(has(&from_user, &["--hostname", "h", "--"]));
        assert!(has(&from_user, &["-e", "A=2", "-u", "5", "-w", "/x", "--layer"]));
        assert!(has(&from_user, &["--", "/e", "z"]));
        let entered = chain(&["--entrypoint", "/other", "-v", "/s:/data:ro", "x"], IMAGE);
        assert!(has(&entered, &["--", "/other", "x"]));
        assert!(!has(&entered, &["-v", "/run/jc/0123456789ab/volumes/0:/data"]));
    }

    #[test]
    fn a_value_is_never_taken_for_an_option() {
        let record = r#"{"jc":1,"rootfs":"/r","config":{"User":"-x","Cmd":["-c"]}}"#;
        let chain = chain(&["--hostname=--init"], record);
        assert!(has(&chain, &["--hostname=--init"]));
        assert!(has(&chain, &["-u-x"]) && has(&chain, &["/r", "--", "-c"]));
    }

    #[test]
    fn what_is_taken_is_not_given_again() {
        let added = |args: &[&str]| {
            let chain = chain(args, IMAGE);
            let pairs = chain.windows(2).filter(|pair| pair[0] == "--cap-add");
            pairs.map(|pair| pair[1].to_str().unwrap().split(',').count()).sum::<usize>()
        };
        assert_eq!(added(&[]), 11);
        assert_eq!(added(&["--cap-add", "SYS_PTRACE"]), 12);
        assert_eq!(added(&["--cap-drop", "all"]), 0);
        assert_eq!(added(&["--cap-drop", "KILL,all"]), 0);
        assert_eq!(added(&["--cap-drop", "ALL", "--cap-add", "KILL"]), 1);
        assert_eq!(added(&["--privileged"]), 0);
    }

    #[test]
    fn one_process_waits_for_pid_1() {
        let waits = |args: &[&str]| {
            let chain = chain(&[&["-m", "64M", "--network", "none"], args].concat(), IMAGE);
            let links = chain.split(|word| word == "--").take(3);
            let makes_pids = links.map(|link| link.contains(&"-p".into()));
            makes_pids.collect::<Vec<bool>>()
        };
        // Without root there is a user namespace, whose maps jc-unshare writes.
        let is_root = geteuid().is_root();
        assert_eq!(waits(&[]), [is_root, !is_root, false]);
        for option in ["--init", "--keep", "-d", "--status-fd=9", "--uidmap=0:0:1"] {
            assert_eq!(waits(&[option]), [false, true, false], "{option}");
        }
        assert_eq!(waits(&["--pid", "host"]), [false, false, false]);
        let with_ports = chain(&["-m", "64M", "--network", "bridge", "-p", "80:80"], IMAGE);
        assert!(has(&with_ports, &["jc-cgroup", "--name"]), "{with_ports:?}");
    }

    #[test]
    fn what_is_recorded_leads_back_into_the_container() {
        let plan = plan(&["-e", "HOME", "--label", "a=b", "--pid", "host"], IMAGE).unwrap();
        let (state, exec) = (plan.state, plan.exec);
        assert_eq!((state.get("stop-signal"), state.get("keep")), (Some("QUIT"), None));
        assert_eq!(state.annotations["a"], "b");
        let home = format!("\"HOME={}\"", std::env::var("HOME").unwrap());
        assert!(exec.contains(r#"["jc-unshare","--join","PID:cgroup,uts,ipc,net"]"#), "{exec}");
        assert!(exec.contains(&home) && exec.contains(r#""-u","web""#), "{exec}");
    }
}
