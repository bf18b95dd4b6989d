//! `jc-cgroup` among hostile users: locks, delegated groups, planted files, and paths out of the hierarchy. The tests
//! run one at a time, since a hostile group of one test looks like a dead group to another.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use jc_tests::cgroups::ParentGroup;
use jc_tests::time::alone;
use jc_tests::{Cmd, Sandbox, sandbox, sandbox_for, skip};
use rustix::fs::{XattrFlags, setxattr};
use rustix::process::Signal;

const TOOL: &str = "jc-cgroup";
const OTHER: u32 = 65534;

fn as_other(s: &Sandbox) -> Cmd {
    s.cmd("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"])
}

/// The directory of the group in the unified hierarchy, if this host has one.
fn unified(place: &ParentGroup) -> Option<PathBuf> {
    place.directories().into_iter().find(|path| path.join("cgroup.type").exists())
}

/// Gives a directory of the unified hierarchy to another user, as a manager delegates it.
fn delegate(directory: &Path) {
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(directory.join(file), Some(OTHER), Some(OTHER)).unwrap();
    }
}

fn sleeping() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_user_reads_the_files_of_a_group_and_cannot_lock_it() {
    let _one = alone();
    sandbox(|s| {
        for umask in ["000", "022", "077"] {
            let place = ParentGroup::make("jc-tests-lock");
            let script = format!(
                "umask {umask}; exec jc-cgroup --parent {} -- sh -c 'echo ready; exec sleep 1000'",
                place.name()
            );
            let mut running = s.sh(&script).spawn();
            running.wait_for("ready");
            let groups = place.groups();
            assert!(!groups.is_empty());
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
            for group in &groups {
                assert_eq!(group.metadata().unwrap().mode() & 0o7777, 0o711, "umask {umask}");
                as_other(s).arg("cat").arg(group.join("cgroup.procs")).run().code(0);
                let lock = as_other(s).args(["flock", "-s", "-n"]).arg(group).arg("true").run();
                assert!(lock.err().contains("Permission denied"), "{lock}");
            }
            s.jc(TOOL).args(["--parent", place.name(), "--list"]).run().code(0).stdout("");
            place.remove();
        }
    });
}

#[test]
fn a_group_that_is_only_locked_is_said_to_be_so() {
    let _one = alone();
    sandbox(|s| {
        let place = ParentGroup::make("jc-tests-locked");
        let groups: Vec<PathBuf> =
            place.directories().iter().map(|top| top.join("jc+dead")).collect();
        groups.iter().for_each(|group| fs::create_dir(group).unwrap());
        let mut holder =
            s.sh("exec 9<\"$0\"; flock -s 9; echo ready; exec sleep 1000").arg(&groups[0]).spawn();
        holder.wait_for("ready");
        let parent = ["--parent", place.name()];
        let ran = s.jc(TOOL).args(parent).args(["--remove", "dead"]).run().code(125);
        let hint = format!("nothing runs in it, and a process has locked {}", groups[0].display());
        assert!(ran.err().contains(&hint), "{ran}");
        holder.signal(Signal::KILL);
        holder.wait();
        s.jc(TOOL).args(parent).arg("--list").run().code(0).stdout("").stderr("");
        place.remove();
    });
}

#[test]
fn a_threaded_group_of_another_user_is_reported_and_keeps_no_other() {
    let _one = alone();
    sandbox(|s| {
        let place = ParentGroup::make("jc-tests-threaded");
        let Some(top) = unified(&place) else { skip!("this host has no cgroup version 2") };
        let theirs = top.join("theirs");
        fs::create_dir(&theirs).unwrap();
        let names = ["jc+a", "jc+m", "jc+z"].map(|name| theirs.join(name));
        names.iter().for_each(|group| fs::create_dir(group).unwrap());
        fs::write(names[1].join("cgroup.type"), "threaded").unwrap();
        delegate(&theirs);
        delegate(&names[1]);
        let hidden = sleeping();
        fs::write(theirs.join("cgroup.procs"), hidden.id().to_string()).unwrap();
        fs::write(names[1].join("cgroup.threads"), hidden.id().to_string()).unwrap();
        let ran = s.jc(TOOL).arg("--list").run();
        let left: Vec<bool> = names.iter().map(|group| group.exists()).collect();
        end(hidden);
        s.jc(TOOL).arg("--list").run().code(0).stderr("");
        fs::remove_dir(&theirs).unwrap();
        place.remove();
        let said = format!("{TOOL}: {}: a threaded cgroup, whose processes", names[1].display());
        assert!(ran.err().starts_with(&said) && ran.err().lines().count() == 1, "{ran}");
        ran.code(0);
        assert_eq!(left, [false, true, false]);
    });
}

#[test]
fn root_makes_no_group_in_a_subtree_of_another_user() {
    let _one = alone();
    sandbox(|s| {
        let place = ParentGroup::make("jc-tests-delegated");
        let Some(top) = unified(&place) else { skip!("this host has no cgroup version 2") };
        let (own, shell) = (top.join("own"), top.join("own/shell"));
        fs::create_dir_all(&shell).unwrap();
        let group = || {
            let script = "echo 0 >\"$0/cgroup.procs\" && exec jc-cgroup -- cat /proc/self/cgroup";
            let out = s.sh(script).arg(&shell).run().code(0).out();
            out.lines().find(|line| line.starts_with("0::")).unwrap().to_owned()
        };
        let mark = |directory: &Path, name: &str| {
            setxattr(directory, name, b"1", XattrFlags::empty()).unwrap();
        };
        // A mark by root on a directory of root counts.
        mark(&shell, "trusted.delegate");
        assert!(group().starts_with(&format!("0::/{}/own/shell/jc+", place.name())));
        delegate(&own);
        assert!(group().starts_with("0::/jc+"), "the directory above is another user's");
        fs::remove_dir(&shell).unwrap();
        fs::create_dir(&shell).unwrap();
        for name in ["user.delegate", "trusted.delegate"] {
            delegate(&shell);
            mark(&shell, name);
            assert!(group().starts_with("0::/jc+"), "{name}");
        }
        fs::remove_dir(&shell).unwrap();
        fs::remove_dir(&own).unwrap();
        place.remove();
    });
}

#[test]
fn a_parent_is_a_cgroup_in_the_hierarchy() {
    let _one = alone();
    sandbox(|s| {
        let victim = sleeping();
        let outside = s.path("outside/jc+old");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("cgroup.procs"), format!("{}\n", victim.id())).unwrap();
        let up = format!("../../../..{}", s.path("outside").display());
        for path in [&up, "..", "a/../..", "/.."] {
            for action in [&["--list"][..], &["--kill", "old"], &["--", "true"]] {
                let ran = s.jc(TOOL).args(["--parent", path]).args(action).run();
                ran.code(125).stdout("").fails_as(TOOL, "has no \"..\"");
            }
        }
        assert!(outside.exists() && Path::new(&format!("/proc/{}", victim.id())).exists());
        end(victim);
        // Another file system is mounted inside.
        let place = ParentGroup::make("jc-tests-covered");
        let mounts: Vec<String> = place
            .directories()
            .iter()
            .map(|top| format!("mount -t tmpfs t {}", top.display()))
            .collect();
        let script = format!("{}; exec jc-cgroup --parent \"$0\" -- true", mounts.join(" && "));
        let unshare = s.cmd("unshare").args(["-m", "sh", "-ec", &script, place.name()]);
        unshare.run().code(125).fails_as(TOOL, "not a cgroup");
        place.remove();
    });
}

#[test]
fn a_hierarchy_that_is_covered_is_none() {
    let _one = alone();
    sandbox(|s| {
        let under = |mounts: &str| {
            let script = format!("{mounts}; exec jc-cgroup -- cat /proc/self/cgroup");
            s.cmd("unshare").args(["-m", "sh", "-ec", &script]).run()
        };
        let ran = under("mount -t tmpfs t /sys/fs/cgroup");
        ran.code(125).stdout("").fails_as(TOOL, ": another mount covers it");
        if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
            let ran = under("mount -t tmpfs t /sys/fs/cgroup/unified").code(0).stderr("");
            assert!(ran.out().contains(":/jc+"), "a hierarchy of version 1 will do: {ran}");
        }
    });
}

#[test]
fn a_bill_goes_through_nothing_that_another_user_has_planted() {
    let _one = alone();
    sandbox(|s| {
        let shared = s.path("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(s.path("secret"), "before\n").unwrap();
        s.sh("ln -s ../secret own; mkfifo fifo").run().code(0);
        let planted = "cd shared && ln -s ../secret link && mkfifo fifo && ln -s ../fifo to-fifo";
        as_other(s).args(["sh", "-c", planted]).run().code(0);
        for name in ["link", "fifo", "to-fifo"] {
            let report = shared.join(name);
            let ran = s.jc(TOOL).arg("--report").arg(&report).args(["--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "another user has put it into a directory");
        }
        assert_eq!(fs::read_to_string(s.path("secret")).unwrap(), "before\n");
        // The report follows a symbolic link of the caller, and replaces a link that appears later.
        s.sh("ln -s ../secret shared/own && jc-cgroup --report shared/own -- true").run().code(0);
        assert_eq!(fs::read_to_string(s.path("secret")).unwrap().lines().count(), 2);
        let late = "jc-cgroup --report shared/late -- ln -s ../secret shared/late; \
            test -f shared/late && test ! -h shared/late";
        s.sh(late).run().code(0);
        assert_eq!(fs::read_to_string(s.path("secret")).unwrap().lines().count(), 2);
        assert!(!s.sh("ls -A shared").run().out().contains(".jc-"));
    });
}

#[test]
fn a_bill_waits_for_the_reader_of_a_fifo_not_for_ever() {
    let _one = alone();
    sandbox_for(Duration::from_secs(90), |s| {
        let line = "mkfifo fifo; timeout -s KILL 60 jc-cgroup --report fifo -- echo ran";
        s.sh(line)
            .timeout(Duration::from_secs(70))
            .run()
            .code(125)
            .stdout("")
            .fails_as(TOOL, "--report fifo: no reader in 10 seconds");
    });
}
