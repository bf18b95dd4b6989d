//! State directories that another user of the machine has planted or can change.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use jc_tests::roots::{busybox_root, names};
use jc_tests::{Cmd, Ran, Running, Sandbox, sandbox};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat};
use rustix::process::Signal;
use serde_json::{Value, json};

const VICTIM: u32 = 4321;
const ATTACKER: u32 = 5432;

/// The directory where other programs have the state of a user without a session.
const PLANTED: &str = "/tmp/jc-4321";

const ID: &str = "0123456789ab";

/// The programs that find a container by its name.
const LOOKUPS: [&str; 7] = [
    "jc-list -a",
    "jc-logs web",
    "jc-stop -t 0 web",
    "jc-rm -f web",
    "jc-exec web id",
    "jc-run --pid container:web --rootfs root -- true",
    "jc-run --network container:web --rootfs root -- true",
];

/// A command of an ordinary user without a session.
fn user(s: &Sandbox, uid: u32, words: &[&str]) -> Cmd {
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    let cmd = s.cmd("setpriv").args(ids).arg("--clear-groups");
    let cmd = cmd.args(["env", "-u", "JC_STORE", "-u", "XDG_RUNTIME_DIR", "-u", "JC_STATE_DIR"]);
    cmd.arg(format!("HOME=/srv/{uid}")).args(words)
}

fn as_user(s: &Sandbox, uid: u32, line: &str) -> Ran {
    user(s, uid, &["sh", "-c", line]).run()
}

/// Makes home directories for the two users, and a root that both can read.
fn homes(s: &Sandbox) {
    busybox_root(s, "root");
    for uid in [VICTIM, ATTACKER] {
        s.sh(&format!("mkdir -m 700 {uid} && chown {uid}:{uid} {uid}")).run().code(0);
    }
}

/// Makes the state directory of a container that seems to run, with a process in its state.
fn plant(base: &str, process: &Running) {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let start = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
    let process = format!("{} {start}", process.pid());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let state = json!({"ociVersion": "1.2.0", "id": ID, "status": "running", "pid": 1,
        "bundle": format!("{base}/{ID}"), "annotations": {"jc.name": "web", "jc.keep": "true", "jc.started": "1",
        "jc.boot": boot.trim_end(), "jc.process": process, "jc.supervisor": process},
        "join": {"namespaces": ["/srv/evil.sh"], "options": [["/srv/evil.sh", null]]}});
    fs::create_dir_all(format!("{base}/{ID}")).unwrap();
    fs::write(format!("{base}/{ID}/state.json"), state.to_string()).unwrap();
    symlink(ID, format!("{base}/web")).unwrap();
}

fn sleeper(s: &Sandbox, uid: u32) -> Running {
    let mut sleeper = user(s, uid, &["sh", "-c", "echo up; exec sleep 1000"]).spawn();
    sleeper.wait_for("up\n");
    sleeper
}

#[test]
fn a_link_that_another_user_planted_makes_no_program_remove_its_target() {
    sandbox(|s| {
        homes(s);
        as_user(s, VICTIM, "mkdir /srv/4321/precious; touch /srv/4321/precious/file").code(0);
        for (link, target) in [("web", "/srv/4321/precious"), (ID, "/srv/4321/precious")] {
            for line in LOOKUPS {
                let plant = format!(
                    "mkdir {PLANTED} && ln -s {target} {PLANTED}/{link} && ln -s none {PLANTED}/y"
                );
                as_user(s, ATTACKER, &plant).code(0);
                let ran = as_user(s, VICTIM, line);
                assert!(fs::exists("/srv/4321/precious/file").unwrap(), "{ran}");
                let named = as_user(s, VICTIM, &format!("JC_STATE_DIR={PLANTED} {line}"));
                let tool = line.split(' ').next().unwrap();
                named.stdout("").fails_as(tool, "belongs to another user");
                assert!(fs::exists("/srv/4321/precious/file").unwrap(), "{line}");
                s.sh(&format!("rm -r {PLANTED}")).run().code(0);
            }
        }
    });
}

#[test]
fn a_link_in_the_callers_own_directory_is_a_name_only_if_its_text_is_an_id() {
    sandbox(|s| {
        homes(s);
        s.sh("mkdir -m 700 states precious; touch precious/file").run().code(0);
        for (link, target) in
            [("web", "/srv/precious"), ("web", "../precious"), (ID, "/srv/precious")]
        {
            symlink(target, s.path("states").join(link)).unwrap();
            symlink("none", s.path("states/y")).unwrap();
            for line in LOOKUPS {
                let line = line.replace("web", link);
                let ran = s.sh(&format!("JC_STATE_DIR=/srv/states {line}")).run();
                if line != LOOKUPS[0] {
                    let tool = line.split(' ').next().unwrap();
                    ran.stdout("").fails_as(tool, "no such container");
                }
                assert!(fs::exists(s.path("precious/file")).unwrap(), "{line}");
            }
            fs::remove_file(s.path("states").join(link)).unwrap();
            fs::remove_file(s.path("states/y")).unwrap();
        }
    });
}

#[test]
fn a_chain_that_another_user_recorded_is_not_executed() {
    sandbox(|s| {
        homes(s);
        let process = sleeper(s, VICTIM);
        fs::write(s.path("evil.sh"), "#!/bin/sh\necho evil > /srv/4321/evil\n").unwrap();
        s.sh("chmod 755 evil.sh").run().code(0);
        plant(PLANTED, &process);
        s.sh(&format!("chown -Rh {ATTACKER} {PLANTED}")).run().code(0);
        let ran = as_user(s, VICTIM, "jc-exec web id");
        assert!(!fs::exists(s.path("4321/evil")).unwrap(), "{ran}");
        ran.code(125).fails_as("jc-exec", "no such container");
        for base in [PLANTED, "/tmp/own"] {
            let line = format!("jc-exec --state-dir {base} web id");
            as_user(s, VICTIM, &line).code(125).fails_as("jc-exec", "belongs to another user");
            // The base may belong to the victim, but each state directory must belong to the victim too.
            s.sh(&format!("mv {base} /tmp/own; chown {VICTIM} /tmp/own; chmod 700 /tmp/own")).run();
        }
        assert!(!fs::exists(s.path("4321/evil")).unwrap());
        s.sh("rm -r /tmp/own").run().code(0);
        process.signal(Signal::TERM);
        process.wait();
    });
}

#[test]
fn a_process_that_another_user_recorded_is_not_killed() {
    sandbox(|s| {
        homes(s);
        let process = sleeper(s, VICTIM);
        plant(PLANTED, &process);
        s.sh(&format!("chown -Rh {ATTACKER} {PLANTED}")).run().code(0);
        for line in ["jc-stop -t 0 web", "jc-rm -f web"] {
            for set in ["", "JC_STATE_DIR=/tmp/jc-4321"] {
                let ran = as_user(s, VICTIM, &format!("{set} {line}"));
                assert!(fs::read_link(format!("/proc/{}/exe", process.pid())).is_ok(), "{ran}");
                ran.code(1);
            }
        }
        assert!(fs::exists(format!("{PLANTED}/{ID}/state.json")).unwrap());
        s.sh(&format!("rm -r {PLANTED}")).run().code(0);
        process.signal(Signal::TERM);
        process.wait().killed_by(Signal::TERM);
    });
}

#[test]
fn a_path_that_another_user_can_change_is_refused_by_every_program() {
    sandbox(|s| {
        homes(s);
        let own = "mkdir -m 700 /srv/4321/st";
        as_user(s, VICTIM, own).code(0);
        let prepare = [
            ("evil/st", "mkdir evil evil/st; chown 5432 evil; chmod 755 evil"),
            ("evil/new", "mkdir evil; chown 5432 evil; chmod 755 evil"),
            ("evil/deep/st", "mkdir -p evil/deep/st; chown 5432 evil"),
            ("open/st", "mkdir -p open/st; chmod 777 open"),
            ("group/st", "mkdir -p group/st; chmod 775 group"),
            ("link/st", "ln -s 4321 link; chown -h 5432 link"),
            ("4321/st", "true"),
        ];
        for (base, line) in prepare {
            s.sh(line).run().code(0);
            for line in LOOKUPS.iter().chain(&["jc-run --network none --rootfs root -- true"]) {
                let tool = line.split(' ').next().unwrap();
                let ran = s.sh(&format!("JC_STATE_DIR=/srv/{base} {line}")).run();
                if base == "evil/new" && ran.err().contains("no such container") {
                    continue;
                }
                let code = if ["jc-run", "jc-exec"].contains(&tool) { 125 } else { 1 };
                ran.code(code).stdout("").fails_as(tool, "state directory");
            }
            let top = base.split('/').next().unwrap();
            if top != "4321" {
                s.sh(&format!("rm -r {top}")).run().code(0);
            }
        }
    });
}

#[test]
fn a_path_through_links_and_sticky_directories_of_roots_is_used() {
    sandbox(|s| {
        homes(s);
        s.sh("mkdir -m 1777 sticky; ln -s sticky a; ln -s /srv/a b; mkdir a/c").run().code(0);
        for base in ["/srv/sticky/st", "/srv/a/st", "/srv/b/../a/./c/new/st"] {
            let run = format!("jc-run -d --name n --state-dir {base} --network none --rootfs root");
            s.sh(&format!("{run} -- sleep 1000")).run().code(0).stderr("");
            s.sh(&format!("jc-exec --state-dir {base} n echo in")).run().code(0).stdout("in\n");
            s.sh(&format!("jc-rm -f --state-dir {base} n")).run().code(0).stderr("");
        }
    });
}

#[test]
fn state_goes_to_the_first_place_that_is_the_users_own() {
    sandbox(|s| {
        homes(s);
        s.sh("chown -R 4321:4321 root; mkdir -p /run/user/4321 runtime").run().code(0);
        s.sh("chown 4321 /run/user/4321 runtime; chmod 700 /run/user/4321 runtime").run().code(0);
        let run = "jc-run -d --name n --network none --rootfs /srv/root -- sleep 1000";
        for (set, base) in [
            ("XDG_RUNTIME_DIR=/srv/runtime", "/srv/runtime/jc"),
            ("JC_STATE_DIR=/srv/4321/st XDG_RUNTIME_DIR=/srv/runtime", "/srv/4321/st"),
            ("", "/run/user/4321/jc"),
            ("HOME=/srv/4321", "/srv/4321/.local/state/jc"),
        ] {
            if set.starts_with("HOME") {
                // A directory of another user is no session directory.
                s.sh("chown 5432 /run/user/4321").run().code(0);
            }
            as_user(s, VICTIM, &format!("{set} {run}")).code(0).stderr("");
            assert!(fs::exists(Path::new(base).join("n/state.json")).unwrap(), "{base}");
            as_user(s, VICTIM, &format!("{set} jc-rm -f n")).code(0).stderr("");
        }
        assert!(!fs::exists(PLANTED).unwrap());
        let none = "unset HOME XDG_RUNTIME_DIR JC_STATE_DIR;";
        let ran = as_user(s, VICTIM, &format!("{none} {run}")).code(125).stdout("");
        assert!(ran.err().contains("--state-dir") && ran.err().contains("JC_STATE_DIR"), "{ran}");
        ran.fails_as("jc-run", "state directory");
        as_user(s, VICTIM, &format!("{none} jc-list"))
            .code(1)
            .fails_as("jc-list", "state directory");
        s.sh("rm -r /run/user").run().code(0);
    });
}

#[test]
fn a_container_of_another_boot_is_dead_and_its_numbers_mean_nothing() {
    sandbox(|s| {
        let process = sleeper(s, 0);
        fs::create_dir("/run/jc").unwrap();
        s.sh("chmod 700 /run/jc").run().code(0);
        plant("/run/jc", &process);
        let path = format!("/run/jc/{ID}/state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        state["annotations"]["jc.boot"] = json!("00000000-0000-0000-0000-000000000000");
        fs::write(&path, state.to_string()).unwrap();
        // A process of another host that shares the file system may have locked the directory.
        let lock = fs::File::open(format!("/run/jc/{ID}")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let listed = s.sh("jc-list -a").run().code(0).out();
        assert!(listed.contains("exited (unknown)"), "{listed}");
        s.sh("jc-list").run().code(0);
        s.sh("jc-exec web id").run().code(125).fails_as("jc-exec", "has ended");
        s.sh("jc-stop -t 0 web").run().code(0).stderr("");
        assert!(fs::exists(format!("/proc/{}/exe", process.pid())).unwrap());
        s.sh("jc-rm web").run().code(1).fails_as("jc-rm", "another process holds");
        drop(lock);
        s.sh("jc-rm web").run().code(0).stderr("");
        assert!(fs::exists(format!("/proc/{}/exe", process.pid())).unwrap());
        assert!(!fs::exists("/run/jc").unwrap());
        process.signal(Signal::TERM);
        process.wait().killed_by(Signal::TERM);
    });
}

#[test]
fn a_state_that_cannot_be_read_hides_no_other_container_and_can_be_removed() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("jc-run -d --name good --network none --rootfs root -- sleep 1000").run().code(0);
        let large = "head -c 17000000 /dev/zero | tr '\\0' ' ' > state.json";
        for make in [
            "mkfifo state.json",
            "ln -s /dev/zero state.json",
            "ln -s /run/jc/good/state.json state.json",
            "mkdir state.json",
            "echo garbage > state.json",
            "cp ../good/state.json .",
            large,
        ] {
            let line = format!("mkdir -m 700 /run/jc/{ID}; cd /run/jc/{ID}; {make}; touch stdout");
            s.sh(&line).run().code(0).stderr("");
            let listed = s.sh("jc-list -a").run().code(1).fails_as("jc-list", "state.json");
            assert_eq!(listed.out().lines().count(), 2, "{listed}");
            assert!(listed.out().contains("good"), "{listed}");
            s.sh(&format!("jc-stop -t 0 {ID}")).run().code(0).stderr("");
            s.sh(&format!("jc-exec {ID} id")).run().code(125).fails_as("jc-exec", "has ended");
            s.sh(&format!("jc-rm {ID}")).run().code(0).stderr("");
            assert!(!fs::exists(format!("/run/jc/{ID}")).unwrap(), "{make}");
            s.sh("jc-list -q").run().code(0).stderr("");
        }
        s.sh("jc-rm -f good").run().code(0).stderr("");
    });
}

/// A stopped process of the caller may have locked the names.
#[test]
fn a_lock_on_names_that_no_process_gives_back_is_an_error() {
    sandbox(|s| {
        busybox_root(s, "root");
        let run = "jc-run --network none --rootfs root";
        s.sh(&format!("{run} -d --name one -- sleep 1000")).run().code(0);
        let hold = "exec 9</run/jc; flock -x 9; echo ready; exec sleep 1000";
        let mut holder = s.sh(hold).spawn();
        holder.wait_for("ready");
        s.sh(&format!("{run} -- echo ran")).run().code(0).stdout("ran\n");
        let two = s.sh(&format!("{run} --name two -- echo ran"));
        let ran = two.run().code(125).stdout("");
        assert!(ran.err().contains("/run/jc: held by another process for 20 seconds"), "{ran}");
        holder.signal(Signal::KILL);
        holder.wait();
        s.sh("jc-rm -f one").run().code(0).stderr("");
    });
}

#[test]
fn only_regular_files_of_a_running_container_are_read() {
    sandbox(|s| {
        busybox_root(s, "root");
        s.sh("jc-run -d --name web --network none --rootfs root -- sleep 1000").run().code(0);
        for (file, line) in [
            ("state.json", "jc-exec web id"),
            ("stdout", "jc-logs web"),
            ("stdout", "jc-logs -f web"),
            ("hosts", "jc-run --network container:web --rootfs root -- true"),
        ] {
            for make in [format!("mkfifo {file}"), format!("ln -s /dev/zero {file}")] {
                s.sh(&format!("cd /run/jc/web/; mv {file} kept; {make}")).run().code(0);
                let ran = s.sh(line).run();
                let tool = line.split(' ').next().unwrap();
                let code = if tool == "jc-logs" { 1 } else { 125 };
                ran.code(code).stdout("").fails_as(tool, file);
                s.sh(&format!("cd /run/jc/web/; mv kept {file}")).run().code(0);
            }
        }
        s.sh("jc-rm -f web").run().code(0).stderr("");
    });
}

#[test]
fn a_volume_that_is_deeper_than_any_path_is_removed_and_the_status_is_the_payloads() {
    sandbox(|s| {
        busybox_root(s, "root");
        let record = r#"{"jc":1,"layers":["/srv/root"],"config":{"Volumes":{"/data":{}}}}"#;
        fs::write(s.path("record"), format!("{record}\n")).unwrap();
        let payload = "echo up; while [ ! -e /data/end ]; do sleep 0.01; done; exit 7";
        let run = s.jc("jc-run").args(["--network", "none", "--record", "record", "--"]);
        let mut running = run.args(["sh", "-c", payload]).spawn();
        running.wait_for("up\n");
        let id = s.sh("jc-list -q").run().code(0).out();
        let volume = format!("/run/jc/{}/volumes/0", id.trim());
        let mut at = fs::File::open(&volume).unwrap();
        for _ in 0..30_000 {
            mkdirat(&at, "a", Mode::RWXU).unwrap();
            at = openat(&at, "a", OFlags::DIRECTORY, Mode::empty()).unwrap().into();
        }
        drop(at);
        fs::write(format!("{volume}/end"), "").unwrap();
        running.wait().code(7).stderr("");
        assert!(!fs::exists("/run/jc").unwrap());
    });
}

/// Sets the attributes "immutable" and "append only" of its arguments, like chattr(1).
const FORBID: &str = "
    #include <fcntl.h>
    #include <linux/fs.h>
    #include <sys/ioctl.h>
    int main(int argc, char **argv)
    {
        for (int i = 1; i < argc; i++) {
            int fd = open(argv[i], O_RDONLY), flags = i % 2 ? FS_IMMUTABLE_FL : FS_APPEND_FL;
            if (fd < 0 || ioctl(fd, FS_IOC_SETFLAGS, &flags))
                return 1;
        }
        return 0;
    }";

#[test]
fn a_payload_makes_no_file_that_stays_after_its_container() {
    sandbox(|s| {
        busybox_root(s, "root");
        let compile = ["-static", "-x", "c", "-o", "root/bin/forbid", "-"];
        s.cmd("cc").args(compile).input(FORBID).run().code(0);
        let record = r#"{"jc":1,"layers":["/srv/root"],"config":{"Volumes":{"/data":{}}}}"#;
        fs::write(s.path("record"), format!("{record}\n")).unwrap();
        let payload = "mkdir /data/d /data/e; echo x >/data/f; echo x >/data/d/g; mkfifo /data/d/p
            forbid /data/d/g /data/e /data/f /data/d && forbid /data && exit 7";
        let run = s.jc("jc-run").args(["--network", "none", "--record", "record"]);
        let run = run.args(["--cap-add", "LINUX_IMMUTABLE", "--", "sh", "-c", payload]);
        run.run().code(7).stderr("");
        s.jc("jc-list").run().code(0).stderr("");
        assert!(!fs::exists("/run/jc").unwrap());
        assert_eq!(names(&s.store().join("volumes")), "");
    });
}
