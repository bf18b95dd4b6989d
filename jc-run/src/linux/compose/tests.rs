//! The chain for options and records.

use super::*;

fn bundle(args: &[&str], record: &str) -> Result<Bundle> {
    let command = crate::options::table::command();
    let matches = command.try_get_matches_from([&["jc-run"], args].concat());
    let options = Options::parse(&matches.map_err(Error::usage)?)?;
    let base_path = BasePath { path: "/run/jc".into(), is_default: true };
    compose(&options, &Record::parse(record.as_bytes())?, "0123456789ab", &base_path)
}

fn chain(args: &[&str], record: &str) -> Vec<OsString> {
    bundle(args, record).unwrap().chain.argv()
}

fn has(chain: &[OsString], words: &[&str]) -> bool {
    chain.windows(words.len()).any(|window| window == words)
}

const IMAGE: &str = r#"{"jc":1,"layers":["/a","/b"],"config":{"Entrypoint":["/e"],"Cmd":["c"],
    "Env":["A=1"],"WorkingDir":"/w","User":"web","Volumes":{"/data":{}},"StopSignal":"QUIT"}}"#;

#[test]
fn the_command_line_replaces_values_of_the_image() {
    let from_image = chain(&[], IMAGE);
    assert!(has(&from_image, &["-u", "web", "-w", "/w"]));
    assert!(has(&from_image, &["--layer", "/a", "--layer", "/b", "--upper", "tmpfs", "--"]));
    assert!(has(&from_image, &["--", "/e", "c"]));
    assert!(has(&from_image, &["-v", "/run/jc/0123456789ab/volumes/0:/data"]));
    let args = ["-u", "5", "-w", "/x", "-e", "A=2", "-m", "64M", "--hostname", "h", "--", "z"];
    let from_user = chain(&args, IMAGE);
    assert!(has(&from_user, &["-m", "64M", "--"]));
    assert!(has(&from_user, &["--hostname", "h"]));
    assert!(has(&from_user, &["-e", "A=2", "-u", "5", "-w", "/x", "--layer"]));
    assert!(has(&from_user, &["--", "/e", "z"]));
    let entered = chain(&["--entrypoint", "/other", "-v", "/s:/data:ro", "x"], IMAGE);
    assert!(has(&entered, &["--", "/other", "x"]));
    assert!(!has(&entered, &["-v", "/run/jc/0123456789ab/volumes/0:/data"]));
}

#[test]
fn a_value_is_never_parsed_as_an_option() {
    let record = r#"{"jc":1,"rootfs":"/r","config":{"User":"-x","Cmd":["-c"]}}"#;
    let chain = chain(&["--hostname=--init"], record);
    assert!(has(&chain, &["--hostname=--init"]));
    assert!(has(&chain, &["-u-x"]) && has(&chain, &["/r", "--", "-c"]));
}

#[test]
fn dropped_capabilities_are_not_added() {
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
    for option in ["--keep", "-d", "--status-fd=9"] {
        assert_eq!(waits(&[option]), [is_root, !is_root, false], "{option}");
    }
    for option in ["--init", "--uidmap=0:0:1"] {
        assert_eq!(waits(&[option]), [false, true, false], "{option}");
    }
    assert_eq!(waits(&["--pid", "host"]), [false, false, false]);
    let limited = chain(&["-m", "64M", "--network", "host", "--hostname", "h"], IMAGE);
    assert_eq!(has(&limited, &["--hostname", "h", "--name"]), is_root, "{limited:?}");
    assert_ne!(has(&limited, &["jc-unshare"]), is_root, "{limited:?}");
    let with_ports = chain(&["-m", "64M", "--network", "bridge", "-p", "80:80"], IMAGE);
    assert!(has(&with_ports, &["jc-cgroup", "--name"]), "{with_ports:?}");
}

#[test]
fn the_network_of_the_caller_needs_no_link() {
    let hosts = chain(&["--network", "host"], IMAGE);
    assert!(has(&hosts, &["jc-unshare"]) && !has(&hosts, &["jc-net"]), "{hosts:?}");
    assert!(!has(&hosts, &["-n"]), "{hosts:?}");
    assert!(has(&chain(&["--network", "host", "-p", "80:80"], IMAGE), &["jc-net"]));
    assert!(has(&chain(&["--network", "bridge"], IMAGE), &["jc-net"]));
}

#[test]
fn links_get_no_descriptor_of_the_caller() {
    let status_fds = |args: &[&str]| {
        let chain = chain(&[args, &["-d", "--init", "-m", "64M"]].concat(), IMAGE);
        let pairs = chain.windows(2).filter(|pair| pair[0] == "--status-fd");
        pairs.map(|pair| pair[1].to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(status_fds(&["--network", "none"]), ["3", "3", "4"]);
    assert_eq!(status_fds(&["--network", "none", "--report", "3"]), ["4", "4", "5"]);
    assert_eq!(status_fds(&["--network", "none", "--report", "4"]), ["3", "3", "5"]);
}

#[test]
fn a_recorder_stands_in_front_of_the_limits() {
    let args = ["--trace", "t", "-m", "64M", "--network", "none", "x"];
    let traced = chain(&args, IMAGE);
    let front = ["jc-trace", "--report", "t", "--trace-fd", "5", "--usage", "6", "--", "jc-cgroup"];
    assert!(has(&traced, &front) && has(&traced, &["--report", "6", "--"]), "{traced:?}");
    assert!(has(&traced, &["--status-fd", "4", "--trace-fd", "5"]));
    let args = [&args[..2], &["--report", "u", "--allow", "a:1", "--egress-log", "l"]].concat();
    let traced = chain(&args, IMAGE);
    assert!(has(&traced, &["--usage", "u", "--egress-log", "l", "--"]), "{traced:?}");
    // jc-exec does not record.
    let state = bundle(&["--trace", "t"], IMAGE).unwrap().state;
    let options = state.join.unwrap().options.into_iter().map(Opt::from);
    assert!(options.into_iter().all(|option| option.name() != "--trace-fd"));
}

#[test]
fn the_record_leads_back_into_the_container() {
    let state = bundle(&["-e", "HOME", "--label", "a=b", "--pid", "host"], IMAGE).unwrap().state;
    assert_eq!((state.get("stop-signal"), state.get("keep")), (Some("QUIT"), None));
    assert_eq!(state.annotations["a"], "b");
    let join = state.join.unwrap();
    assert_eq!(join.namespaces, ["cgroup", "uts", "ipc", "net"]);
    assert_eq!(join.cgroup.unwrap().name, "0123456789ab");
    let options: Vec<Opt> = join.options.into_iter().map(Opt::from).collect();
    let home = format!("HOME={}", std::env::var("HOME").unwrap());
    assert!(options.contains(&Opt::new("-e", home)), "{options:?}");
    assert!(options.contains(&Opt::new("-u", "web")), "{options:?}");
}
