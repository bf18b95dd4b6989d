//! A command line of a campaign of faults. The line runs undisturbed, and then once for each fault. A panic at the
//! end has all errors.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::Sandbox;
use crate::campaign::{chosen, note, seed};
use crate::faults::{Act, Ended, Fault, reap, run};
use crate::leaks::{Snapshot, has_link};
use crate::processes::running;
use crate::wait::give_pauses;

/// The time limit of a line.
pub const LONG: Duration = Duration::from_secs(8 * 3600);

/// A payload that prints its privileges and its environment.
pub const REPORT: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn)' /proc/self/status; \
    cat /proc/self/limits; cut -d' ' -f4- /proc/self/mountinfo; for kind in /proc/self/ns/*; do readlink $kind; done; ls -a / /dev; \
    grep -qsx 67108864 /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max && echo memory limit; \
    hostname; env | sort; echo complete";

/// A command line for faults.
pub struct Line<'a> {
    /// A shell script that runs before the line, without faults.
    pub before: &'a str,
    /// The words of the command line.
    pub words: Vec<&'a str>,
    /// A shell script that runs after jc-list.
    pub after: &'a str,
    /// Whether the payload prints a report.
    pub reports: bool,
}

/// A report without text that comes between the words of the payload at no fixed place.
fn without_noise(report: &str) -> String {
    // A supervisor that fails removes files while the kernel kills the payload, and script(1) ends its input.
    let report = ["//deleted", "\r", "^@", "^D\x08\x08"]
        .iter()
        .fold(report.to_owned(), |report, noise| report.replace(noise, ""));
    // At a terminal, the error of a relay follows the last byte of the payload.
    let shown = report.split_inclusive('\n').map(|line| {
        let error = ["jc-run: ", "jc-exec: "].iter().filter_map(|program| line.find(program)).min();
        &line[..error.unwrap_or(line.len())]
    });
    shown.collect()
}

/// A report without words that differ between starts: IDs of containers, and numbers of namespaces.
fn normal(report: &str) -> String {
    without_noise(report).split_inclusive('\n').map(normal_line).collect()
}

fn normal_line(line: &str) -> String {
    let is_namespace = line.contains(":[");
    let is_id = |word: &str| {
        let hex = word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        hex || is_namespace && !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
    };
    let mut text = String::new();
    for part in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        text += if is_id(word) { "ID" } else { word };
        text += &part[word.len()..];
    }
    text
}

/// The namespaces of a report that differ from those of this process.
fn own_namespaces(report: &str) -> BTreeSet<String> {
    let report = without_noise(report);
    let links = report.lines().filter_map(|line| line.split_once(":["));
    let is_own = |(kind, _): &(&str, &str)| {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        !report.contains(&host.display().to_string())
    };
    links.filter(is_own).map(|(kind, _)| kind.to_owned()).collect()
}

/// A report without a cgroup hierarchy of a concurrent test, and without the objects that jc-rootfs takes from the
/// host or leaves out after EPERM. The kernel returns EPERM in a user namespace that does not own a cgroup, a device
/// or a message queue.
fn comparable(report: &str, fault: Fault, good: &Ended) -> String {
    let host: &[&str] = match fault.act {
        // The last process of a start executes jc-rootfs, and shows its own limit or that of the host.
        Act::Fail(Errno::EPERM) if fault.process + 1 == good.calls.len() => {
            &[" /sys/fs/cgroup", " /dev/", "mqueue", "memory limit"]
        }
        Act::Fail(Errno::EPERM) => &[" /sys/fs/cgroup", " /dev/", "mqueue"],
        _ => &["name=jc-tests"],
    };
    // At a terminal, the error of a link is part of the output.
    let is_shown =
        |line: &&str| !line.starts_with("jc-") && !host.iter().any(|host| line.contains(host));
    report.split_inclusive('\n').filter(is_shown).collect()
}

/// The errors of a start with a disturbance.
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
    let has_failed = matches!(fault.act, Act::Fail(_));
    if !line.reports && has_failed && ended.code == 0 {
        let (expected, found) = (normal(&good.stdout), normal(&ended.stdout));
        if expected != found {
            wrong.push(crate::diff(&expected, &found).to_string());
        }
    }
    // A payload whose terminal is hung up ends with a code of its own.
    let has_terminal = line.words.iter().any(|word| word.contains("script"));
    let hung_up = has_terminal && [1, 128 + Signal::SIGHUP as i32].contains(&ended.code);
    if line.reports && !hung_up && !is_right(ended.code, fault.act) {
        wrong.push(format!("exit code {}: {}", ended.code, ended.stderr));
    }
    if line.reports {
        let report = |ended: &Ended| comparable(&normal(&ended.stdout), fault, good);
        let (expected, found) = (report(good), report(ended));
        let whole = ended.code == 0 && has_failed;
        let same = if whole { expected == found } else { expected.starts_with(&found) };
        if !same {
            wrong.push(crate::diff(&expected, &found).to_string());
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
    // The kernel removes a network namespace asynchronously, and the bridge is in use until then.
    let start = Instant::now();
    while has_link("jc0") && start.elapsed().as_secs() < 5 {
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

/// Whether an exit code is that of the program, of the signal, or of a link that another link has killed.
fn is_right(code: i32, act: Act) -> bool {
    let own: &[i32] = match act {
        Act::Send(_) => &[125],
        Act::Fail(_) => &[125, 126, 127],
    };
    let signal = match act {
        Act::Send(signal) => 128 + signal as i32,
        Act::Fail(_) => 128 + Signal::SIGKILL as i32,
    };
    code == 0 || code == signal || code == 128 + Signal::SIGKILL as i32 || own.contains(&code)
}

/// Runs the line without a fault, and cleans up.
fn start(s: &Sandbox, line: &Line<'_>) -> Ended {
    s.sh(line.before).run().code(0);
    let ended = run(s, &line.words, None);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    reap();
    s.sh(line.after).run().code(0);
    s.sh("jc-list -aq; jc-net --gc").run().code(0);
    ended
}

/// Waits for processes that die with the links, and reaps them as PID 1. A zombie in the PID namespace of another
/// container would keep that container from its end.
fn settle(known: &BTreeSet<i32>) {
    give_pauses((2000, Duration::from_millis(1)), || {
        running().iter().all(|(pid, _)| known.contains(pid))
    });
    reap();
}

/// Runs the line with one fault. Returns whether the fault has met its call, and all errors.
fn meet(
    s: &Sandbox,
    line: &Line<'_>,
    good: &Ended,
    before: &Snapshot,
    fault: Fault,
) -> (bool, Option<String>) {
    let prepared = s.sh(line.before).run();
    if !prepared.status().success() {
        // The fault before this one has left something, which its own report has.
        return (false, Some(format!("{fault:?}: not met: {prepared}")));
    }
    let known = running().into_iter().map(|(pid, _)| pid).collect();
    let ended = run(s, &line.words, Some(fault));
    settle(&known);
    let mut found = faulty(line, good, &ended, fault);
    if line.reports && line.after == ":" && fault.call.is_multiple_of(8) {
        // A start needs no sweep before it.
        let next = run(s, &line.words, None);
        if next.code != 0 {
            found.push(format!("the next start: {} {}", next.code, next.stderr));
        }
    }
    found.extend(left(s, line, before));
    if found.is_empty() {
        return (ended.has_fired, None);
    }
    let calls = ended.calls.get(fault.process);
    let number = calls.and_then(|calls| calls.get(fault.call)).map(|call| call.number);
    let (code, found) = (ended.code, found.join("\n"));
    let wrong = format!("{fault:?}, call number {number:?}, code {code}:\n{found}");
    (ended.has_fired, Some(wrong))
}

/// Runs the line with faults, and panics with all errors.
pub fn survives(s: &Sandbox, line: &Line<'_>) {
    let (good, again) = (start(s, line), start(s, line));
    let is_complete = normal(&good.stdout).ends_with("complete\n");
    assert_eq!(line.reports, is_complete, "{}", good.stdout);
    assert_eq!(normal(&good.stdout), normal(&again.stdout), "two starts differ");
    // The programs make the directory of state directories, and remove it when it is empty.
    s.sh("mkdir -p -m 700 /run/jc").run().code(0);
    let before = Snapshot::take();
    let faults = chosen(&good.calls);
    let since = Instant::now();
    let outcomes: Vec<_> =
        faults.iter().map(|fault| meet(s, line, &good, &before, *fault)).collect();
    let fired = outcomes.iter().filter(|(has_fired, _)| *has_fired).count();
    let wrong: Vec<String> = outcomes.into_iter().filter_map(|(_, wrong)| wrong).collect();
    s.sh("rmdir /run/jc").run();
    let calls: Vec<usize> = good.calls.iter().map(Vec::len).collect();
    note(&format!(
        "{}: calls {calls:?}, {} faults, {fired} fired, {} wrong, {:?}, seed {}",
        line.words.join(" ").replace(REPORT, "REPORT"),
        faults.len(),
        wrong.len(),
        since.elapsed(),
        seed()
    ));
    let shown = wrong[..wrong.len().min(30)].join("\n");
    assert!(wrong.is_empty(), "{shown}\n{} in all", wrong.len());
}
