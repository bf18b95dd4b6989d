//! Whatever system call of a chain a signal meets, or fails: no program hangs or panics, the payload has all
//! of its isolation or does not start, and after one jc-list nothing is left.
//!
//! `JC_TEST_FAULTS` is how many faults each command line gets, or `all`, `KILL` or `each`
//! ([`jc_tests::campaign::chosen`]); `JC_TEST_SEED` chooses which. The file that `JC_FAULTS_LOG` names gets a
//! line of results for each.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use jc_tests::campaign::{chosen, note, seed};
use jc_tests::cgroups::can_limit;
use jc_tests::faults::{Act, Ended, Fault, reap, run};
use jc_tests::http::{FakeRegistry, Manners};
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::leaks::Snapshot;
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::{Sandbox, sandbox_for};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;

/// The payload prints what it is allowed, and has.
const REPORT: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn)' /proc/self/status; \
    cat /proc/self/limits; cut -d' ' -f4- /proc/self/mountinfo; for kind in /proc/self/ns/*; do readlink $kind; done; ls -a / /dev; \
    grep -qsx 67108864 /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max && echo memory limit; \
    hostname; env | sort; echo complete";

/// A command line that faults meet.
struct Line<'a> {
    /// Shell that comes before, undisturbed.
    before: &'a str,
    words: Vec<&'a str>,
    /// Shell that comes after jc-list.
    after: &'a str,
    /// Whether the payload reports.
    reports: bool,
}

/// A report without the words that differ between starts: IDs of containers, and the numbers of namespaces.
fn normal(report: &str) -> String {
    // A supervisor that fails removes files while the kernel kills the payload, and script(1) ends its input.
    let report = ["//deleted", "\r", "^@", "^D\x08\x08"]
        .iter()
        .fold(report.to_owned(), |report, noise| report.replace(noise, ""));
    report.split_inclusive('\n').map(normal_line).collect()
}

fn normal_line(line: &str) -> String {
    let is_namespace = line.contains(":[");
    let is_id = |word: &str| {
        let hex = word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        hex || is_namespace && word.len() > 3 && word.bytes().all(|b| b.is_ascii_digit())
    };
    let mut text = String::new();
    for part in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        text += if is_id(word) { "ID" } else { word };
        text += &part[word.len()..];
    }
    text
}

/// Whether the namespaces of a report are other than those of this process.
fn own_namespaces(report: &str) -> BTreeSet<String> {
    let links = report.lines().filter_map(|line| line.split_once(":["));
    let is_own = |(kind, _): &(&str, &str)| {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        !report.contains(&host.display().to_string())
    };
    links.filter(is_own).map(|(kind, _)| kind.to_owned()).collect()
}

/// A report without what another test shows for a moment, a cgroup hierarchy, and without what jc-rootfs takes
/// from the host or leaves out where the kernel says EPERM, as it does in a user namespace that does not own a
/// cgroup, a device or a message queue.
fn comparable(report: &str, fault: Fault, good: &Ended) -> String {
    let host: &[&str] = match fault.act {
        // The last process of a start becomes jc-rootfs, and shows the limit or the host's.
        Act::Fail(Errno::EPERM) if fault.process + 1 == good.calls.len() => {
            &[" /sys/fs/cgroup", " /dev/", "mqueue", "memory limit"]
        }
        Act::Fail(Errno::EPERM) => &[" /sys/fs/cgroup", " /dev/", "mqueue"],
        _ => &["name=jc-tests"],
    };
    // At a terminal an error of a link is among the output.
    let is_shown =
        |line: &&str| !line.starts_with("jc-") && !host.iter().any(|host| line.contains(host));
    report.split_inclusive('\n').filter(is_shown).collect()
}

/// The faults of a start that a disturbance has met.
fn faulty(line: &Line<'_>, good: &Ended, ended: &Ended, fault: Fault) -> Vec<String> {
    let mut wrong = Vec::new();
    if !ended.hung.is_empty() {
        wrong.push(format!("hangs: {}", ended.hung.join(", ")));
    }
    wrong.extend(ended.crashed.iter().cloned());
    for word in ["panicked", "internal error", "memory allocation"] {
        if ended.stderr.contains(word) {
            wrong.push(format!("says {:?}", ended.stderr));
        }
    }
    if line.reports {
        let report = |ended: &Ended| comparable(&normal(&ended.stdout), fault, good);
        let (expected, found) = (report(good), report(ended));
        let whole = ended.code == 0 && matches!(fault.act, Act::Fail(_));
        let same = if whole { expected == found } else { expected.starts_with(&found) };
        if !same {
            wrong.push(jc_tests::diff(&expected, &found).to_string());
        } else if whole && own_namespaces(&ended.stdout) != own_namespaces(&good.stdout) {
            wrong.push(format!("has only {:?}", own_namespaces(&ended.stdout)));
        }
    }
    wrong
}

/// The objects that remain after a sweep.
fn left(s: &Sandbox, line: &Line<'_>, before: &Snapshot) -> Vec<String> {
    let list = s.jc("jc-list").arg("-aq").run();
    let after = s.sh(line.after).run();
    reap();
    let mut wrong = Vec::new();
    for ran in [list, after] {
        if !ran.status().success() {
            wrong.push(ran.to_string());
        }
    }
    // The kernel takes a network namespace apart in its own time, and the bridge is in use until then.
    let start = Instant::now();
    while jc_tests::leaks::has_link("jc0") && start.elapsed().as_secs() < 5 {
        s.jc("jc-net").arg("--gc").run();
    }
    let rules = s.sh("nft list ruleset").run().out();
    if !rules.is_empty() {
        wrong.push(rules);
        s.sh("nft flush ruleset").run();
    }
    wrong.extend(before.leaks());
    reap();
    wrong
}

/// Meets the line with faults, and panics with all that is wrong then.
fn survives(s: &Sandbox, line: &Line<'_>) {
    let clean = |s: &Sandbox| {
        reap();
        s.sh(line.after).run().code(0);
        s.sh("jc-list -aq; jc-net --gc").run().code(0);
    };
    let start = || {
        s.sh(line.before).run().code(0);
        let ended = run(s, &line.words, None);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        clean(s);
        ended
    };
    let (good, again) = (start(), start());
    let is_complete = normal(&good.stdout).ends_with("complete\n");
    assert_eq!(line.reports, is_complete, "{}", good.stdout);
    assert_eq!(normal(&good.stdout), normal(&again.stdout), "two starts differ");
    // The programs make the directory of states, and remove it when it is empty.
    s.sh("mkdir -p -m 700 /run/jc").run().code(0);
    let before = Snapshot::take();
    let faults = chosen(&good.calls);
    let (mut fired, mut wrong) = (0, Vec::new());
    let mut slowest = Duration::ZERO;
    for fault in &faults {
        s.sh(line.before).run().code(0);
        let start = Instant::now();
        let ended = run(s, &line.words, Some(*fault));
        slowest = slowest.max(start.elapsed());
        fired += u32::from(ended.has_fired);
        let mut found = faulty(line, &good, &ended, *fault);
        found.extend(left(s, line, &before));
        if !found.is_empty() {
            let calls = ended.calls.get(fault.process);
            let call = calls.and_then(|calls| calls.get(fault.call)).map(|call| call.number);
            wrong.push(format!(
                "{fault:?}, call number {call:?}, code {}:\n{}",
                ended.code,
                found.join("\n")
            ));
        }
    }
    s.sh("rmdir /run/jc").run();
    let calls: Vec<usize> = good.calls.iter().map(Vec::len).collect();
    note(&format!(
        "{}: calls {calls:?}, {} faults, {fired} fired, {} wrong, slowest {slowest:?}, seed {}",
        line.words.join(" ").replace(REPORT, "REPORT"),
        faults.len(),
        wrong.len(),
        seed()
    ));
    assert!(
        wrong.is_empty(),
        "{}\n{} in all",
        wrong[..wrong.len().min(30)].join("\n"),
        wrong.len()
    );
}

/// How long a line may take.
const LONG: Duration = Duration::from_secs(8 * 3600);

fn jc_run<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&["jc-run"], options, &["--rootfs", "/srv/root", "--", "sh", "-c", REPORT]].concat()
}

fn report<'a>(words: Vec<&'a str>) -> Line<'a> {
    Line { before: ":", words, after: ":", reports: true }
}

#[test]
fn no_fault_breaks_a_container() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        survives(s, &report(jc_run(&["--network", "none"])));
    });
}

#[test]
fn no_fault_breaks_a_container_with_limits_and_ports() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let limits: &[&str] = if can_limit("memory") { &["-m", "64M"] } else { &[] };
        let options = [&["--network", "bridge", "-p", "8080:80"], limits].concat();
        survives(s, &report(jc_run(&options)));
    });
}

#[test]
fn no_fault_breaks_a_container_with_volumes_and_a_user_namespace() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        s.sh("mkdir data").run().code(0);
        let maps = ["--uidmap", "0:0:65536", "--gidmap", "0:0:65536"];
        let options =
            [&["--network", "none", "-v", "/srv/data:/data", "--tmpfs", "/tmp"][..], &maps]
                .concat();
        survives(s, &report(jc_run(&options)));
    });
}

#[test]
fn no_fault_breaks_a_container_that_is_kept() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = jc_run(&["--network", "none", "--keep", "--name", "c"]);
        survives(s, &Line { before: ":", words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_container_with_a_terminal() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        // The links' errors do not go to the terminal, so that only the report is there.
        let line = "exec script -qec 'exec jc-run -t --network none --rootfs /srv/root -- \
            sh -c \"$REPORT\" 2>&3' /dev/null 3>&2";
        let variable = format!("REPORT={REPORT}");
        let words = vec!["env", &variable, "sh", "-c", line];
        survives(s, &report(words));
    });
}

#[test]
fn no_fault_breaks_a_container_of_an_ordinary_user() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        s.sh("mkdir home; chown -R 4321:4321 home root").run().code(0);
        let user = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "--"];
        let words = ["env", "-u", "JC_STORE", "HOME=/srv/home"];
        let words = [&user[..], &words, &jc_run(&["--network", "none"])].concat();
        let list = "setpriv --reuid=4321 --regid=4321 --clear-groups -- \
            env -u JC_STORE HOME=/srv/home jc-list -aq";
        survives(s, &Line { before: ":", words, after: list, reports: true });
    });
}

#[test]
fn no_fault_breaks_a_detached_container() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words =
            ["jc-run", "-d", "--rm", "--network", "none", "--rootfs", "/srv/root", "--", "true"];
        survives(s, &Line { before: ":", words: words.to_vec(), after: ":", reports: false });
    });
}

const RUNNING: &str =
    "jc-run -d --name c --network none --rootfs /srv/root -- sleep 1000 >/dev/null";
const REMOVED: &str = "jc-list -aq | xargs -r jc-rm -f";

#[test]
fn no_fault_breaks_jc_exec() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = vec!["jc-exec", "c", "sh", "-c", REPORT];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: true });
    });
}

#[test]
fn no_fault_breaks_jc_stop() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = vec!["jc-stop", "-t", "1", "c"];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: false });
    });
}

#[test]
fn no_fault_breaks_jc_rm() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let words = vec!["jc-rm", "-f", "c"];
        survives(s, &Line { before: RUNNING, words, after: REMOVED, reports: false });
    });
}

/// A list that sweeps what a killed container has left.
#[test]
fn no_fault_breaks_jc_list() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let limits = if can_limit("memory") { "-m 64M" } else { "" };
        let before = format!(
            "jc-run {limits} -p 8080:80 --network bridge --rootfs /srv/root -- sh -c \
             'echo ready; exec sleep 1000' > ready & while ! grep -q ready ready; do sleep 0.01; done
             kill -9 $!; rm ready"
        );
        let words = vec!["jc-list", "-aq"];
        survives(s, &Line { before: &before, words, after: ":", reports: false });
    });
}

#[test]
fn no_fault_breaks_the_sweep_of_networks() {
    sandbox_for(LONG, |s| {
        let before = "jc-net -p 8080:80 -- true";
        let words = vec!["jc-net", "--gc"];
        survives(s, &Line { before, words, after: ":", reports: false });
    });
}

fn image() -> Image {
    let more = Layer::new().entry(Entry::file("more", "more")).entry(Entry::dir("data/"));
    Image::new().layer(busybox_layer()).layer(more)
}

/// A pull that a fault has met does not stop the next pull, which is whole.
const PULLED: &str = "jc-pull -q IMAGE >/dev/null && jc-images --check && jc-rmi IMAGE &&
    rm -rf /srv/store";

#[test]
fn no_fault_breaks_a_container_of_layers() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &image());
        s.sh("jc-pull -q oci:layout:x > record").run().code(0);
        let line = "jc-run --network none -- sh -c \"$0\" < /srv/record";
        let words = vec!["sh", "-c", line, REPORT];
        survives(s, &report(words));
    });
}

#[test]
fn no_fault_breaks_a_pull_from_a_layout() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &image());
        let words = vec!["jc-pull", "-q", "oci:/srv/layout:x"];
        let after = PULLED.replace("IMAGE", "oci:/srv/layout:x");
        survives(s, &Line { before: ":", words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_a_pull_from_a_registry() {
    sandbox_for(LONG, |s| {
        let layout = Layout::new(s.path("layout"));
        layout.image("x", &image());
        let registry = FakeRegistry::serve(&layout, Manners::default());
        let image = registry.image("x");
        let words = vec!["jc-pull", "-q", &image];
        let after = PULLED.replace("IMAGE", &image);
        survives(s, &Line { before: ":", words, after: &after, reports: false });
    });
}

#[test]
fn no_fault_breaks_the_removal_of_an_image() {
    sandbox_for(LONG, |s| {
        Layout::new(s.path("layout")).image("x", &image());
        let before = "jc-pull -q oci:/srv/layout:x >/dev/null";
        let words = vec!["jc-rmi", "oci:/srv/layout:x"];
        let after = PULLED.replace("IMAGE", "oci:/srv/layout:x");
        survives(s, &Line { before, words, after: &after, reports: false });
    });
}

/// The places of system calls with one of these numbers in the main of the first process.
fn places(ended: &Ended, numbers: &[i64]) -> Vec<usize> {
    let calls = ended.calls[0].iter().enumerate();
    let named = calls.filter(|(_, call)| call.has_begun && numbers.contains(&(call.number as i64)));
    named.map(|(place, _)| place).collect()
}

#[test]
fn a_supervisor_that_cannot_wait_kills_its_chain_before_it_removes_the_state() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let line = ["jc-run", "--network", "none", "--rootfs", "/srv/root", "--", "sleep", "0.2"];
        let call = places(&run(s, &line, None), &[libc::SYS_poll, libc::SYS_ppoll])[0];
        let act = Act::Fail(Errno::ENOMEM);
        let ended = run(s, &line, Some(Fault { process: 0, call, act }));
        assert_eq!((ended.code, ended.has_fired), (125, true), "{}", ended.stderr);
        let reaped = places(&ended, &[libc::SYS_wait4]);
        let removed = places(&ended, &[libc::SYS_unlink, libc::SYS_unlinkat]);
        assert!(reaped.iter().any(|reaped| call < *reaped && *reaped < removed[0]), "{reaped:?}");
    });
}

#[test]
fn a_removal_that_is_killed_leaves_a_container_with_its_name_or_nothing() {
    sandbox_for(LONG, |s| {
        busybox_root(s, "root");
        let start =
            "jc-run --keep --name c --network none --rootfs /srv/root -- true; mkdir -p /run/jc";
        s.sh(start).run().code(0);
        let removals = places(&run(s, &["jc-rm", "c"], None), &[libc::SYS_unlinkat]);
        assert!(removals.len() > 2);
        for call in removals {
            s.sh(start).run().code(0);
            let act = Act::Send(Signal::SIGKILL);
            let ended = run(s, &["jc-rm", "c"], Some(Fault { process: 0, call, act }));
            assert!(ended.has_fired);
            s.sh("test -z $(jc-list -aq) || jc-rm c").run().code(0);
            assert_eq!(s.sh("ls -A /run/jc").run().out(), "", "{call}");
        }
        s.sh("rmdir /run/jc").run();
    });
}
