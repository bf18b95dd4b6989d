//! The limits, the report and the actions of `jc-cgroup`, in all hierarchies of this machine.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use jc_tests::cgroups::{Controller, ParentGroup, can_limit};
use jc_tests::{Ran, Running, Sandbox, sandbox, skip, wait_until};
use serde_json::Value;

const TOOL: &str = "jc-cgroup";

/// Runs a script under limits, and reads the report.
fn billed(s: &Sandbox, options: &[&str], script: &str) -> (Ran, Value) {
    let bill = s.path("bill.json");
    let command = s.jc(TOOL).args(options).arg("--report").arg(&bill);
    let ran = command.args(["--", "sh", "-c", script]).run();
    let bill = serde_json::from_slice(&fs::read(bill).unwrap()).unwrap();
    (ran, bill)
}

fn waiting(s: &Sandbox, options: &[&str]) -> Running {
    let mut running =
        s.jc(TOOL).args(options).args(["--", "sh", "-c", "echo ready; sleep 1000; :"]).spawn();
    running.wait_for("ready");
    running
}

#[test]
fn cpu_time_is_limited_and_reported() {
    sandbox(|s| {
        if !can_limit("cpu") {
            skip!("this host has no cpu controller");
        }
        // Five seconds of a loop use a quarter of a second of CPU time, which a loaded machine has too.
        let script = "timeout 5 sh -c 'while :; do :; done'; exit 3";
        let (ran, bill) = billed(s, &["--cpus", "0.05"], script);
        ran.code(3);
        let figure = |name: &str| bill[name].as_f64().unwrap();
        let share = (figure("cpu_user_usec") + figure("cpu_system_usec")) / figure("wall_usec");
        // Other load on the machine reduces this share and the throttled time.
        assert!((0.005..=0.1).contains(&share), "{share} of {bill}");
        assert!(figure("throttled_periods") > 5.0, "{bill}");
        assert!(figure("throttled_usec") > 1e5, "{bill}");
        assert_eq!((&bill["exit_code"], &bill["signal"]), (&3.into(), &Value::Null));
    });
}

#[test]
fn memory_and_processes_are_billed() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let script =
            "dd if=/dev/zero of=/dev/null bs=30M count=1 status=none; sleep 0.1 & kill -15 $$";
        let (ran, bill) = billed(s, &["-m", "64M"], script);
        ran.code(143);
        let peak = bill["memory_peak_bytes"].as_u64().unwrap();
        assert!((30 << 20..64 << 20).contains(&peak), "{bill}");
        assert_eq!((&bill["signal"], &bill["exit_code"]), (&15.into(), &Value::Null));
        assert_eq!(bill["oom_kills"], 0, "{bill}");
        assert!(bill["pids_peak"].as_u64().is_none_or(|peak| peak >= 2), "{bill}");
    });
}

#[test]
fn a_kill_for_lack_of_memory_is_reported() {
    sandbox(|s| {
        if !can_limit("memory") {
            skip!("this host has no memory controller");
        }
        let script = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";
        let (ran, bill) = billed(s, &["-m", "64M"], script);
        let told = format!("{TOOL}: out of memory: killed at the limit of 64M, the peak was ");
        assert!(ran.code(137).err().starts_with(&told), "{told}");
        assert_eq!(bill["oom_kills"], 1, "{bill}");
        // The limit is exact to the page.
        assert_eq!(bill["memory_peak_bytes"], 64 << 20, "{bill}");
    });
}

#[test]
fn a_set_of_cpus_pins_the_program() {
    sandbox(|s| {
        if !can_limit("cpuset") {
            skip!("this host has no cpuset controller");
        }
        let show = ["--", "grep", "-w", "Cpus_allowed_list:", "/proc/self/status"];
        let ran = s.jc(TOOL).args(["--cpuset-cpus", "0"]).args(show).run();
        ran.code(0).stdout("Cpus_allowed_list:\t0\n");
        let ran = s.jc(TOOL).args(["--cpuset-cpus", "4095", "--", "true"]).run();
        assert!(ran.code(125).err().contains("4095 is not online"));
    });
}

#[test]
fn a_bill_goes_where_it_is_asked_to_go() {
    sandbox(|s| {
        let line = "jc-cgroup --report 3 -- true 3>bill; jq -e .wall_usec bill >/dev/null";
        s.sh(line).run().code(0).stdout("").stderr("");
        // The targets are no regular files, and a rename replaces none of them.
        let line = "mkfifo fifo; ln -s log link; echo before >log; jc-cgroup --report link -- true
            jc-cgroup --report fifo -- true & jq -e .wall_usec fifo >/dev/null && wait $!";
        s.sh(line).run().code(0);
        s.sh("test -p fifo && test -h link && head -1 log && tail -1 log | jq .exit_code")
            .run()
            .code(0)
            .stdout("before\n0\n");
        s.sh("mknod null c 1 3; jc-cgroup --report null -- true; test -c null").run().code(0);
        for (target, message) in [
            ("-", "stdout is the program's"),
            ("1", "it is the program's"),
            ("9", "Bad file descriptor"),
            ("/nowhere/x", "No such file or directory"),
            ("/srv", "Is a directory"),
        ] {
            let ran = s.jc(TOOL).args(["--report", target, "--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, message);
        }
    });
}

#[test]
fn a_group_can_be_acted_on_by_name() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        let name = "jc-tests-actions";
        let running = waiting(s, &["--name", name, "-m", "64M", "--pids", "9"]);
        let pid = running.pid();
        let child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let memory = Controller::of(child.trim().parse().unwrap(), "memory").unwrap();
        let act = |words: &[&str]| s.jc(TOOL).args(words).run();

        let listed = act(&["--list"]).code(0).out();
        assert!(listed.lines().any(|line| line.starts_with(&format!("{name}\t2\t"))), "{listed}");
        let stat: Value = serde_json::from_str(&act(&["--stat", name]).code(0).out()).unwrap();
        assert_eq!((&stat["name"], &stat["pids"]), (&name.into(), &2.into()));

        act(&["--update", name, "-m", "32M"]).code(0);
        assert_eq!(memory.read("memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
        act(&["--update", name]).code(125).fails_as(TOOL, "no limit given");
        act(&["--update", name, "-m", "1e9"]).code(125);

        act(&["--freeze", name]).code(0);
        let states = format!(
            "find /sys/fs/cgroup -path '*/jc+{name}/*' -exec grep -hx 'frozen 1\\|FROZEN' {{}} +"
        );
        let states = s.sh(&states).run().out();
        assert_eq!(states.lines().count(), 1, "{states}");
        act(&["--thaw", name]).code(0);
        assert!(act(&["--remove", name]).code(125).err().contains("in use"));
        act(&["--name", name, "--", "echo", "ran"]).code(125).stdout("").fails_as(TOOL, "in use");
        act(&["--kill", name, "echo", "ran"]).code(125).stdout("").fails_as(TOOL, "no program");

        let watch = s.jc(TOOL).args(["--stat", name, "--watch", "0.05"]).spawn();
        wait_until("three lines", || watch.stdout_so_far().lines().count() >= 3);
        act(&["--kill", name]).code(0);
        running.wait().code(137);
        watch.wait().code(0);
        act(&["--stat", name]).code(125).fails_as(TOOL, "no such group");
    });
}

#[test]
fn exec_leaves_the_group_to_others() {
    sandbox(|s| {
        let name = "jc-tests-exec";
        let command = s.jc(TOOL).args(["--exec", "--name", name, "--", "sh", "-c"]);
        command.arg("sleep 1000 >/dev/null 2>&1 & exit 5").run().code(5);
        // A sweep of dead groups leaves a delegated group.
        s.jc(TOOL).args(["--", "true"]).run().code(0);
        let listed = s.jc(TOOL).arg("--list").run().code(0).out();
        assert!(listed.contains(&format!("{name}\t1\t")), "{listed}");
        s.jc(TOOL).args(["--remove", name]).run().code(0);
        s.wait_for_no_process();
        assert!(!s.jc(TOOL).arg("--list").run().out().contains(name));
    });
}

/// A list removes dead groups in the whole hierarchy.
#[test]
fn dead_groups_are_removed_in_the_whole_hierarchy() {
    sandbox(|s| {
        let place = ParentGroup::make("jc-tests-elsewhere");
        let parent = ["--parent", place.name()];
        let live = waiting(s, &[&parent[..], &["--name", "live"]].concat());
        let exec = "sleep 1000 >/dev/null 2>&1 &";
        let unattended = s.jc(TOOL).args(parent).args(["--exec", "--name", "later"]);
        unattended.args(["--", "sh", "-c", exec]).run().code(0);
        // Groups as a SIGKILL leaves them. A group below a locked group belongs to the owner of the lock.
        let made: Vec<PathBuf> = place.directories();
        let alive: Vec<&PathBuf> = made.iter().filter(|top| top.join("jc+live").exists()).collect();
        assert!(!alive.is_empty());
        for top in &made {
            for name in ["jc+dead", "deep/er/jc+dead", "foreign"] {
                fs::create_dir_all(top.join(name)).unwrap();
            }
        }
        alive.iter().for_each(|top| fs::create_dir(top.join("jc+live/jc+inside")).unwrap());
        let mut orphan = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(made[0].join("deep/er/jc+dead/cgroup.procs"), orphan.id().to_string()).unwrap();

        let user = s.cmd("setpriv").args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
        user.arg(s.bin(TOOL)).arg("--list").run().code(0).stdout("").stderr("");
        assert!(made[0].join("deep/er/jc+dead").exists(), "another user has swept");
        let listed = s.jc(TOOL).arg("--list").run().code(0).stderr("").out();
        assert!(!listed.contains("live"), "that is another place's: {listed}");
        let ended = orphan.try_wait().unwrap();
        assert_eq!(ended.and_then(|status| status.signal()), Some(9));
        for top in &made {
            assert!(!top.join("jc+dead").exists() && !top.join("deep/er/jc+dead").exists());
            assert!(top.join("foreign").exists() && top.join("deep/er").exists());
        }
        assert!(alive.iter().all(|top| top.join("jc+live/jc+inside").exists()));
        let listed = s.jc(TOOL).args(parent).arg("--list").run().code(0).out();
        let names: Vec<&str> = listed.lines().map(|l| l.split('\t').next().unwrap()).collect();
        assert_eq!(names, ["later", "live"]);

        for (action, name) in [("--kill", "live"), ("--remove", "later")] {
            s.jc(TOOL).args(parent).args([action, name]).run().code(0);
        }
        live.wait().code(137);
        for top in &made {
            for name in ["foreign", "deep/er", "deep"] {
                fs::remove_dir(top.join(name)).unwrap();
            }
        }
        place.remove();
    });
}

#[test]
fn a_place_that_is_not_there_is_not_made() {
    sandbox(|s| {
        let ran = s.jc(TOOL).args(["--parent", "jc-tests-nowhere", "--", "echo", "ran"]).run();
        let error = ran.code(125).stdout("").err();
        assert!(error.contains("no such cgroup\njc-cgroup: hint: mkdir makes it"), "{error}");
        if can_limit("memory") {
            let limited = s.jc(TOOL).args(["--parent", "jc-tests-nowhere", "-m", "64M"]);
            limited.args(["--", "echo", "ran"]).run().code(125).stdout("");
        }
        let elsewhere =
            s.sh("find /sys/fs/cgroup -ignore_readdir_race -name jc-tests-nowhere").run().code(0);
        elsewhere.stdout("");
    });
}

/// A machine with containers may have thousands of mounts to read.
#[test]
fn the_usual_layout_needs_no_table_of_mounts() {
    sandbox(|s| {
        let reads_none = |mounts: &str, options: &str| {
            let strace = "exec strace -f -e trace=open,openat,mkdir";
            let script = format!("{mounts}; {strace} jc-cgroup {options} -- true");
            let trace =
                s.cmd("unshare").args(["--mount", "sh", "-ec", &script]).run().code(0).err();
            assert!(trace.contains("/jc+") && !trace.contains("mountinfo"), "{trace}");
        };
        reads_none(":", "");
        let is_hybrid = PathBuf::from("/sys/fs/cgroup/unified/cgroup.procs").exists();
        if is_hybrid && can_limit("memory") {
            reads_none(":", "-m 64M");
            reads_none("umount /sys/fs/cgroup/unified", "-m 64M");
        }
        // The kernel may still have hierarchies of version 1 that are not mounted here.
        reads_none("umount -R /sys/fs/cgroup; mount -t cgroup2 c /sys/fs/cgroup", "");
    });
}

#[test]
fn a_limit_that_the_kernel_does_not_store_is_an_error() {
    sandbox(|s| {
        let refused = |words: &[&str], message: &str| {
            let ran = s.jc(TOOL).args(words).args(["--", "echo", "ran"]).run().code(125).stdout("");
            assert!(ran.err().contains(message), "{ran}");
        };
        refused(&["-m", "1e9"], "not a size");
        refused(&["-m", "5"], "less than a page");
        refused(&["-m", "64M", "--memory-swap", "32M"], "not less than -m");
        refused(&["--memory-swap", "1G"], "--memory");
        refused(&["--cpus", "0"], "not a number of CPUs");
        refused(&["--cpu-weight", "0"], "--cpu-weight");
        refused(&["--io-max", "/proc:rbps=1M"], "is no block device");
        refused(&["--set", "memory"], "not FILE=VALUE");
        refused(&["--set", "nosuch.max=1"], "nosuch: not available");
        refused(&["--name", "a/b"], "not a name");
    });
}

/// A directory that cannot be removed is reported, and does not stop the removal of others. The next sweep removes
/// it.
#[test]
fn a_directory_that_cannot_be_removed_keeps_none_of_the_others() {
    sandbox(|s| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let directory = |controller: &str| {
            let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let mut v1 = fields.filter(|fields| fields[2] == "cgroup");
            let mount =
                v1.find(|fields| fields[3].split(',').any(|option| option == controller))?;
            Some(PathBuf::from(mount[1]).join("jc+tests-undone"))
        };
        let (Some(memory), Some(pids)) = (directory("memory"), directory("pids")) else {
            skip!("this host has one hierarchy for all");
        };
        for (kept, gone) in [(&memory, &pids), (&pids, &memory)] {
            let options = ["-m", "64M", "--pids", "9", "--name", "tests-undone", "--", "true"];
            let ran = s
                .cmd("strace")
                .args(["--output=/dev/null", "--quiet=all", "--inject=rmdir:error=EPERM"])
                .arg(format!("--trace-path={}", kept.display()))
                .arg("--")
                .arg(s.bin(TOOL))
                .args(options)
                .run();
            ran.code(125).stdout("").fails_as(TOOL, "Operation not permitted");
            assert!(kept.exists() && !gone.exists(), "{}", kept.display());
            s.jc(TOOL).args(options).run().code(0).stdout("").stderr("");
            assert!(!kept.exists(), "{}", kept.display());
        }
    });
}
