//! `jc-rootfs --bare`: a root with the mounts, nodes and settings that the command line names, and no others; the gates
//! of its start.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jc_tests::roots::busybox_root;
use jc_tests::{Cmd, Ran, Sandbox, sandbox, wait_for_line, wait_until};
use serde_json::Value;

const TOOL: &str = "jc-rootfs";

/// `jc-rootfs --bare` in a new PID, IPC and UTS namespace, with a shell command in the root.
fn bare(s: &Sandbox, options: &[&str], root: &Path, script: &str) -> Cmd {
    let link = s.bin(TOOL).display().to_string();
    let line = s.jc("jc-unshare").args(["-puin", "--", link.as_str(), "--bare"]);
    line.args(options).arg(root).args(["--", "/bin/sh", "-c", script])
}

/// Runs a line over a root in which /proc is mounted.
fn with_proc(s: &Sandbox, options: &[&str], root: &Path, script: &str) -> Ran {
    let proc = ["--mount", "proc /proc proc nosuid,nodev,noexec"];
    bare(s, &[&proc[..], options].concat(), root, script).run()
}

/// The options of the mount at a path, as mountinfo shows them, with the optional fields and the type.
fn mount_at(s: &Sandbox, options: &[&str], root: &Path, path: &str) -> String {
    let script =
        format!("grep -E '^([^ ]+ ){{4}}{path} ' /proc/self/mountinfo | tail -1 | cut -d' ' -f6-");
    with_proc(s, options, root, &script).code(0).out()
}

fn root_with(s: &Sandbox, directories: &[&str]) -> PathBuf {
    let root = busybox_root(s, "root");
    directories.iter().for_each(|name| fs::create_dir_all(root.join(name)).unwrap());
    root
}

#[test]
fn nothing_is_mounted_but_the_root() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let ran = bare(s, &[], &root, "ls /proc /sys; ls -l /dev; echo end").run();
        assert!(!ran.out().contains("random"), "{ran}");
        ran.code(0);
        let ran = with_proc(s, &[], &root, "cut -d' ' -f5 /proc/self/mountinfo");
        ran.code(0).stdout("/\n/proc\n");
        // Device files of the root can be opened, as the OCI's devices at any path demand.
        let node = ["--node", "c:1:3:0640:7:8:/some/null"];
        let script = "echo x >/some/null && stat -c '%F %a %u %g %t,%T' /some/null";
        let ran = bare(s, &node, &root, script).run();
        ran.code(0).stdout("character special file 640 7 8 1,3\n");
        // Without mode and owner the node is everybody's.
        let script = "stat -c '%a %u %g' /some/full";
        let ran = bare(s, &["--node", "c:1:7::::/some/full"], &root, script).run();
        ran.code(0).stdout("666 0 0\n");
        // An existing equal node is no error, and another file is an error.
        bare(s, &node, &root, "true").run().code(0);
        let ran = bare(s, &["--node", "c:1:5:0640:7:8:/some/null"], &root, "true").run();
        ran.code(125).fails_as(TOOL, "another file");
    });
}

#[test]
fn a_line_of_fstab_has_every_attribute() {
    sandbox(|s| {
        let root = root_with(s, &["d"]);
        fs::create_dir_all(s.path("source/sub")).unwrap();
        s.sh("mount -t tmpfs -o mode=700 sub source/sub").run().code(0);
        for (options, found) in [
            ("ro", "ro,relatime"),
            ("ro,rw", "rw,relatime"),
            ("nosuid,nodev,noexec,nosymfollow", "rw,nosuid,nodev,noexec,relatime,nosymfollow"),
            ("noatime,nodiratime", "rw,noatime,nodiratime"),
            ("strictatime", "rw"),
            ("noatime,atime", "rw,relatime"),
        ] {
            let line = format!("x /d tmpfs {options},size=1m");
            let shown = mount_at(s, &["--mount", &line], &root, "/d");
            assert_eq!(shown.split(' ').next(), Some(found), "{options}: {shown}");
            assert!(shown.contains("size=1024k"), "{shown}");
            let line = format!("/srv/source /d none rbind,{options}");
            let shown = mount_at(s, &["--mount", &line], &root, "/d");
            assert_eq!(shown.split(' ').next(), Some(found), "{options}: {shown}");
        }
        // The recursive options reach the mounts below, and the plain options do not.
        for (options, found) in
            [("rro", "ro,relatime"), ("ro", "rw,relatime"), ("rnoexec", "rw,noexec,relatime")]
        {
            let line = format!("/srv/source /d none rbind,{options}");
            let shown = mount_at(s, &["--mount", &line], &root, "/d/sub");
            assert_eq!(shown.split(' ').next(), Some(found), "{options}: {shown}");
        }
        for (options, field) in
            [("shared", "shared:"), ("unbindable", "unbindable"), ("private", "-")]
        {
            let line = format!("x /d tmpfs {options}");
            let shown = mount_at(s, &["--mount", &line], &root, "/d");
            let optional = shown.split(' ').nth(1).unwrap();
            assert!(optional.starts_with(field), "{options}: {shown}");
        }
        let remount = ["--mount", "x /d tmpfs size=1m", "--mount", "x /d none remount,ro,nosuid"];
        let shown = mount_at(s, &remount, &root, "/d");
        assert!(shown.starts_with("ro,nosuid,relatime "), "{shown}");
        s.sh("umount source/sub").run().code(0);
    });
}

#[test]
fn lines_are_mounted_in_their_order_at_targets_that_are_made() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        fs::create_dir(s.path("a b,c")).unwrap();
        fs::write(s.path("a b,c/f"), "f\n").unwrap();
        let options = [
            "--mount",
            "x /new/t tmpfs mode=750",
            "--mount",
            "/srv/a\\040b\\054c /new/t/deep\\040er none bind,ro",
            "--mount",
            "/srv/a\\040b\\054c/f /new/t/file none bind",
            "--mount",
            "x /new/t2 tmpfs",
        ];
        let script = "cat '/new/t/deep er/f' /new/t/file; stat -c %a /new/t /new/t2";
        with_proc(s, &options, &root, script).code(0).stdout("f\nf\n750\n1777\n");
        // A symbolic link of the root leads only into the root.
        symlink("/srv", root.join("out")).unwrap();
        let options = ["--mount", "x /out/inner tmpfs mode=701"];
        with_proc(s, &options, &root, "stat -c %a /srv/inner").code(0).stdout("701\n");
        assert!(!s.path("inner").exists());
        symlink("/srv", root.join("sys")).ok();
        fs::remove_dir(root.join("proc")).ok();
        symlink("/srv", root.join("proc")).unwrap();
        let ran = bare(s, &["--mount", "proc /proc proc"], &root, "true").run();
        ran.code(125).fails_as(TOOL, "symbolic link");
        for (line, error) in [
            ("x /d tmpfs size=x", "size"),
            ("x /d nosuchfs", "nosuchfs"),
            ("/none /d none bind", "/none"),
        ] {
            let ran = bare(s, &["--mount", line], &root, "true").run();
            ran.code(125).fails_as(TOOL, error);
        }
    });
}

#[test]
fn a_tmpfs_copies_up_what_it_covers() {
    sandbox(|s| {
        let root = root_with(s, &["d/sub"]);
        fs::write(root.join("d/sub/f"), "f\n").unwrap();
        fs::set_permissions(root.join("d/sub/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/etc/none", root.join("d/link")).unwrap();
        s.sh("mkfifo -m 604 root/d/fifo; chown 5:6 root/d/sub; chmod 751 root/d").run().code(0);
        let options = ["--mount", "x /d tmpfs tmpcopyup,ro"];
        let script =
            "cat /d/sub/f; cd /d; stat -c '%n %F %a %u' . sub sub/f fifo; readlink link; touch x";
        let ran = with_proc(s, &options, &root, script);
        let expected = "f\n. directory 751 0\nsub directory 755 5\nsub/f regular file 4751 0\n\
                        fifo fifo 604 0\n/etc/none\n";
        assert!(ran.err().contains("Read-only file system"), "{ran}");
        ran.stdout(expected);
    });
}

#[test]
fn the_root_has_the_propagation_that_is_asked_for() {
    sandbox(|s| {
        let root = root_with(s, &["d"]);
        s.sh("mount --bind root root && mount --make-shared root").run().code(0);
        for (how, field) in [
            ("shared", "shared:"),
            ("slave", "master:"),
            ("private", "-"),
            ("unbindable", "unbindable"),
        ] {
            let shown = mount_at(s, &["--root-propagation", how], &root, "/");
            assert!(shown.split(' ').nth(1).unwrap().starts_with(field), "{how}: {shown}");
        }
        let shown = mount_at(s, &[], &root, "/");
        assert_eq!(shown.split(' ').nth(1), Some("-"), "{shown}");
        s.sh("umount root").run().code(0);
    });
}

#[test]
fn default_devices_are_made_in_a_dev_that_is_mounted_or_not() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let options = [
            "--mount",
            "x /dev tmpfs nosuid,mode=755",
            "--mount",
            "x /dev/pts devpts newinstance,ptmxmode=0666",
            "--dev",
            "nodes",
        ];
        let script = "ls /dev; echo x >/dev/null && readlink /dev/fd && readlink /dev/ptmx";
        let list = "fd\nfull\nnull\nptmx\npts\nrandom\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
        let links = "/proc/self/fd\npts/ptmx\n";
        with_proc(s, &options, &root, script).code(0).stdout(&format!("{list}{links}"));
    });
}

#[test]
fn a_path_that_the_root_lacks_need_not_be_masked() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let options = ["--mask=-/none", "--ro-path=-/none/sub", "--mask=-/bin"];
        let ran =
            s.jc(TOOL).args(["--bare", "--mask=/none"]).arg(&root).args(["--", "/bin/sh"]).run();
        ran.code(125).fails_as(TOOL, "/none");
        let ran = with_proc(s, &options[..2], &root, "echo done");
        ran.code(0).stdout("done\n");
        // The program is in the masked directory.
        with_proc(s, &options, &root, "true").code(127);
    });
}

#[test]
fn a_setting_is_one_of_a_namespace_that_is_not_the_hosts() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let options = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4321"];
        let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax";
        with_proc(s, &options, &root, script).code(0).stdout("1\n4321\n");
        let ran = s.jc(TOOL).args(["--bare", "--sysctl", "kernel.msgmax=4321"]).arg(&root);
        ran.args(["--", "/bin/true"]).run().code(125).fails_as(TOOL, "the host's");
        // A user namespace that may not inspect PID 1.
        let user = s.jc("jc-unshare").args(["-U", "-r", "--net", "--"]).arg(s.bin(TOOL));
        let ran = user.args(["--bare", "--sysctl", "kernel.msgmax=4321"]).arg(&root);
        ran.args(["--", "/bin/true"]).run().code(125).fails_as(TOOL, "the host's");
        for word in ["kernel.panic=1", "net=1", "net/../kernel/panic=1", "kernel.msgmax"] {
            let ran = s
                .jc(TOOL)
                .args(["--bare", "--sysctl", word])
                .arg(&root)
                .args(["--", "/bin/true"])
                .run();
            ran.code(125).fails_as(TOOL, "--sysctl");
        }
        let ran = bare(s, &["--sysctl", "net.ipv4.none=1"], &root, "true").run();
        ran.code(125).fails_as(TOOL, "net/ipv4/none");
    });
}

/// The hierarchies of a container without and with a cgroup namespace.
#[test]
fn a_container_sees_its_own_groups() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let group = "/jc-tests-own-groups";
        let link = s.bin(TOOL).display().to_string();
        for unshare in [&["jc-unshare", "-p"][..], &["jc-unshare", "-pC"]] {
            let script = "for g in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do \
                          [ ! -e $g ] || grep -q . $g || echo $g; done; touch /sys/fs/cgroup/x";
            let ran = s.jc("jc-cgroup").args(["--path", group]).args(unshare);
            let ran = ran.args([
                link.as_str(),
                "--bare",
                "--mount",
                "proc /proc proc",
                "--mount",
                "sysfs /sys sysfs ro",
            ]);
            let ran = ran
                .args(["--mount", "cgroup /sys/fs/cgroup cgroup ro,nosuid,nodev,noexec"])
                .arg(&root);
            let ran = ran.args(["--", "/bin/sh", "-c", script]).run();
            assert!(ran.err().contains("Read-only file system"), "{ran}");
            ran.stdout("");
        }
        s.jc("jc-cgroup").args(["--remove", group]).run().code(0);
    });
}

#[test]
fn a_start_waits_at_its_gates_and_runs_their_hooks() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        s.sh("mkfifo go; : >events").run().code(0);
        let hook = |gate: &str, path: &str, words: &str| {
            format!(r#"{gate}={{"path":"{path}","args":["sh","-c","{words}"],"env":["A=b"]}}"#)
        };
        // The first path is in the root of the host, and names the root of the container by its path there.
        let outside =
            hook("mounts", "/bin/sh", "cat >/srv/outer; echo $A >>/srv/outer; ls /srv/root/t");
        let inside = hook("exec", "/bin/sh", "cat >/inner; echo $A >>/inner");
        let link = s.bin(TOOL).display().to_string();
        let state = r#"{"ociVersion":"1.0.2","id":"c","bundle":"/b"}"#;
        let unshare = s.bin("jc-unshare").display().to_string();
        let open = "exec 3>events 4<>go 5<>go; exec \"$@\"";
        let line = s.cmd("sh").args(["-c", open, "sh", &unshare, "-p", "--", &link, "--bare"]);
        let line = line.args(["--status-fd", "3", "--gate", "mounts=4", "--gate", "exec=5"]);
        let line = line.args(["--mount", "x /t tmpfs", "--hook", &outside, "--hook", &inside]);
        let line = line.args(["--state", state]).arg(&root);
        let mut running = line.args(["--", "/bin/sh", "-c", "echo run"]).spawn();
        let events = wait_for_line(&s.path("events"), "gate");
        let event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
        assert_eq!((&event["event"], &event["gate"]), (&"gate".into(), &"mounts".into()));
        assert!(!s.path("outer").exists());
        s.sh("printf x >go").run().code(0);
        wait_for_line(&s.path("events"), r#""gate":"exec""#);
        let outer = fs::read_to_string(s.path("outer")).unwrap();
        let state: Value =
            serde_json::from_str(outer.lines().next().unwrap().trim_end_matches('b')).unwrap();
        assert_eq!(
            (&state["status"], &state["pid"]),
            (&"creating".into(), &event["pid"]),
            "{outer}"
        );
        assert!(!root.join("inner").exists());
        assert_eq!(running.stdout_so_far(), "");
        s.sh("printf x >go").run().code(0);
        running.wait_for("run");
        running.wait().code(0);
        let inner = fs::read_to_string(root.join("inner")).unwrap();
        assert!(inner.contains(r#""status":"created""#), "{inner}");
    });
}

#[test]
fn a_hook_that_fails_or_a_gate_that_is_closed_ends_the_start() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        for (hook, error) in [
            (r#"mounts={"path":"/bin/false"}"#, "/bin/false: exit status: 1"),
            (r#"exec={"path":"/none"}"#, "hook /none: No such file or directory"),
            (
                r#"mounts={"path":"/bin/sleep","args":["sleep","1000"],"timeout":1}"#,
                "more than 1 s",
            ),
        ] {
            let ran = bare(s, &["--hook", hook], &root, "echo run").run();
            ran.code(125).stdout("").fails_as(TOOL, error);
            s.wait_for_no_process();
        }
        let ran = s.cmd("sh").args(["-c", "exec 4</dev/null; exec \"$@\"", "sh"]);
        let ran = ran.arg(s.bin(TOOL)).args(["--bare", "--gate", "exec=4"]).arg(&root);
        ran.args(["--", "/bin/sh"]).run().code(125).fails_as(TOOL, "has closed it");
        for word in ["exec", "exec=x", "none=3"] {
            let ran =
                s.jc(TOOL).args(["--bare", "--gate", word]).arg(&root).args(["/bin/sh"]).run();
            ran.code(125).fails_as(TOOL, "--gate");
        }
    });
}

/// An engine may be in a cgroup namespace of its own, as in a container.
#[test]
fn a_container_of_an_engine_in_a_cgroup_namespace_sees_its_own_groups() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let link = s.bin(TOOL).display().to_string();
        let engine =
            s.jc("jc-cgroup").args(["--path", "/jc-tests-engine", "--", "jc-unshare", "-mC", "--"]);
        // The engine mounts the hierarchies of its namespace, as jc-rootfs does for any container.
        let script = format!(
            "set -e; for d in /sys/fs/cgroup/*/; do o=$(grep \" ${{d%/}} \" /proc/mounts | cut -d' ' -f3,4); \
               umount $d; case $o in cgroup2*) mount -t cgroup2 x $d;; *) mount -t cgroup -o ${{o##*,}} x $d;; esac; done; \
             jc-cgroup --path /inner --pids 77 -- {link} --bare --mount 'proc /proc proc' --mount 'sysfs /sys sysfs' \
               --mount 'cgroup /sys/fs/cgroup cgroup ro' root -- /bin/sh -c 'cat /sys/fs/cgroup/pids/pids.max'; \
             jc-cgroup --remove /inner"
        );
        let _ = root;
        if !Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists() {
            jc_tests::skip!("no hierarchies of version 1");
        }
        engine.args(["sh", "-c", &script]).run().code(0).stdout("77\n");
        s.jc("jc-cgroup").args(["--remove", "/jc-tests-engine"]).run().code(0);
    });
}

#[test]
fn a_program_dies_with_the_parent_that_is_named() {
    sandbox(|s| {
        let root = root_with(s, &[]);
        let link = s.bin(TOOL).display().to_string();
        let script = format!(
            "{link} --bare --user 33:33 --die-with-parent $$ {} -- /bin/sleep 1000 & echo started; wait",
            root.display()
        );
        let mut parent = s.cmd("sh").args(["-c", &script]).spawn();
        parent.wait_for("started");
        wait_until("sleep", || s.sh("pgrep -x sleep").run().status().success());
        parent.signal(rustix::process::Signal::KILL);
        parent.wait();
        s.wait_for_no_process();
        let ran = s
            .jc(TOOL)
            .args(["--bare", "--die-with-parent", "4294967"])
            .arg(&root)
            .args(["--", "/bin/true"])
            .run();
        ran.code(125).fails_as(TOOL, "the parent is");
    });
}

#[test]
fn a_link_that_fails_before_its_program_says_so_in_an_event() {
    sandbox(|s| {
        root_with(s, &[]);
        for (line, link, error) in [
            (
                "jc-rootfs --status-fd 3 --bare --mount '/none /d none bind' root -- /bin/true",
                "jc-rootfs",
                "/none",
            ),
            ("jc-unshare --status-fd 3 --join-ns net=/none -- true", "jc-unshare", "/none"),
            ("jc-rootfs --bare --ulimit x=1 --status-fd 3 root -- true", "jc-rootfs", "--ulimit"),
            (
                "jc-unshare -Ur -- jc-rootfs --status-fd 3 --bare --oom-score-adj -1000 root -- /bin/true",
                "jc-rootfs",
                "oom_score_adj",
            ),
            ("jc-unshare --status-fd=3 --nonesuch -- true", "jc-unshare", "--nonesuch"),
            (
                "jc-unshare --status-fd 3 -Ur --join-ns net=/proc/1/ns/uts -- true",
                "jc-unshare",
                "setns",
            ),
            (
                "jc-cgroup --status-fd 3 --path /jc-tests-failed --set none.x=1 -- true",
                "jc-cgroup",
                "none",
            ),
        ] {
            s.sh(&format!("{line} 3>events")).run().code(125);
            let events = fs::read_to_string(s.path("events")).unwrap();
            let event: Value = serde_json::from_str(events.trim_end()).unwrap();
            assert_eq!(
                (&event["event"], &event["link"]),
                (&"failed".into(), &link.into()),
                "{events}"
            );
            assert!(event["error"].as_str().unwrap().contains(error), "{events}");
        }
        // An option of the program is none of the link.
        s.sh("jc-unshare --nonesuch -- true --status-fd 3 3>events").run().code(125);
        assert_eq!(fs::read_to_string(s.path("events")).unwrap(), "");
        // The failure of an execution is one event.
        s.sh("jc-rootfs --status-fd 3 --bare root -- /none 3>events").run().code(127);
        let events = fs::read_to_string(s.path("events")).unwrap();
        assert!(events.contains("exec-failed") && !events.contains(r#""failed""#), "{events}");
        s.sh("for g in /sys/fs/cgroup/*/jc-tests-failed /sys/fs/cgroup/jc-tests-failed; do rmdir $g; done").run();
    });
}

#[test]
fn sources_that_root_of_the_user_namespace_cannot_reach_are_opened_before() {
    sandbox(|s| {
        root_with(s, &[]);
        s.sh("mkdir -m 700 private && mv root private/root && mkdir -m 755 private/src && echo f >private/src/f && chown -R 100000:100000 private/root")
            .run()
            .code(0);
        let run = |keep: &str, become_root: &str| {
            let line = format!(
                "jc-unshare -Up --map-users 0:100000:65536 --map-groups 0:100000:65536 {keep} -- \
                 jc-rootfs --bare {become_root} --mount 'proc /proc proc' --mount 't /t tmpfs' \
                 --mount '/srv/private/src /t/d none bind,ro' --cap-set bounding=KILL private/root -- \
                 /bin/sh -c 'id -u; cat /t/d/f; stat -c %u /t/d /t /bin; grep -c CapAmb:.*[1-9] /proc/self/status'"
            );
            s.sh(&line).run()
        };
        run("--keep-caps", "--become-root").stdout("0\nf\n65534\n0\n0\n0\n");
        run("", "").code(125).fails_as(TOOL, "Permission denied");
    });
}
