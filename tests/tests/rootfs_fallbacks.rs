//! jc-rootfs on kernels without newer system calls, or behind filters of containers.

#![cfg(target_os = "linux")]

use jc_tests::seccomp::{without, without_if};
use jc_tests::{Ran, Sandbox, sandbox};
use nix::libc::{self, EINVAL, ENOSYS, EPERM, c_long};

mod rootfs_support;
use rootfs_support::root;

/// Options that make system calls of their own.
const OPTIONS: [&str; 20] = [
    "-v",
    "dir:/bound:ro",
    "--tmpfs",
    "/t",
    "--device",
    "/dev/null:/dev/copy",
    "--mask",
    "default",
    "--ro-path",
    "/etc",
    "-u",
    "web",
    "-w",
    "/new/work",
    "--cap-drop=ALL",
    "--cap-add=CHOWN",
    "--no-new-privs",
    "--seccomp=default",
    "--ulimit",
    "nofile=64",
];

/// A script that shows the effect of the options.
const PROBE: &str = "id -u; pwd; cat /bound/f; ls -d /t; stat -c %t:%T /dev/copy
    touch /etc/x 2>/dev/null || echo no; ls /proc/self/fd | wc -l; ulimit -n
    grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2";
const FOUND: &str = "33\n/new/work\nbound\n/t\n1:3\nno\n4\n64\n0000000000000001\n1\n2\n";

fn prepare(s: &Sandbox) {
    root(s, "root");
    s.sh("mkdir dir && echo bound >dir/f").run().code(0);
}

/// A chain with all options, started by a program that has another file open.
fn chain(s: &Sandbox, root: &[&str]) -> jc_tests::Cmd {
    let open = ["-c", "exec 7</etc/passwd; exec \"$@\"", "bash", "jc-rootfs"];
    s.cmd("bash").args(open).args(OPTIONS).args(root).args(["--", "sh", "-c", PROBE])
}

const FORMS: [&[&str]; 2] = [&["--layer", "root", "--layer", "dir"], &["--upper=tmpfs", "root"]];

fn works_without(s: &Sandbox, calls: &[c_long], errno: i32) {
    prepare(s);
    for form in FORMS {
        let command = chain(s, form);
        without(calls, errno, || command.spawn()).wait().code(0).stdout(FOUND).stderr("");
    }
}

#[test]
fn a_root_is_made_without_clone3() {
    sandbox(|s| works_without(s, &[libc::SYS_clone3], ENOSYS));
}

#[test]
fn a_root_is_made_without_openat2() {
    sandbox(|s| works_without(s, &[libc::SYS_openat2], ENOSYS));
}

#[test]
fn a_root_is_made_without_close_range() {
    sandbox(|s| works_without(s, &[libc::SYS_close_range], ENOSYS));
}

#[test]
fn a_root_is_made_where_close_range_is_refused() {
    sandbox(|s| works_without(s, &[libc::SYS_close_range], EPERM));
}

#[test]
fn a_root_is_made_without_calls_that_are_not_needed() {
    sandbox(|s| {
        let calls = [libc::SYS_faccessat2, libc::SYS_pidfd_open, libc::SYS_keyctl];
        works_without(s, &calls, ENOSYS);
    });
}

/// Without these calls there is no safe way to mount into a hostile root.
#[test]
fn no_root_is_made_without_the_calls_that_mount() {
    sandbox(|s| {
        prepare(s);
        for (call, error) in [
            (libc::SYS_fsopen, "fsopen tmpfs"),
            (libc::SYS_fsconfig, "set source=tmpfs tmpfs"),
            (libc::SYS_fsmount, "fsmount tmpfs"),
            (libc::SYS_open_tree, "open_tree dir"),
            (libc::SYS_move_mount, "mount tmpfs"),
            (libc::SYS_mount_setattr, "mount_setattr dir"),
        ] {
            let fails = |errno, reason: &str, hint: &str| {
                let command = chain(s, FORMS[0]);
                let ran: Ran = without(&[call], errno, || command.spawn()).wait();
                ran.code(125)
                    .stdout("")
                    .stderr(&format!("jc-rootfs: {error}: {reason}\njc-rootfs: hint: {hint}\n"));
            };
            let hint = "jc-rootfs needs Linux 5.15, and no seccomp filter that denies its calls";
            fails(ENOSYS, "Function not implemented", hint);
            let hint = "a seccomp filter is active, as in a container, and may deny the call";
            fails(EPERM, "Operation not permitted", hint);
        }
    });
}

/// overlayfs before Linux 6.13 rejects FSCONFIG_SET_FD, so layers are named by path.
#[test]
fn layers_are_mounted_by_path_where_descriptors_are_refused() {
    const FSCONFIG_SET_FD: u64 = 5;
    sandbox(|s| {
        prepare(s);
        s.sh("mkdir -p 'l,1' 'l:2' \"$0\" && echo 1 >l,1/one && echo 2 >l:2/two && ln -s l:2 link")
            .arg("l".repeat(251))
            .run()
            .code(0);
        let long = "l".repeat(251);
        let layers = ["root", "l,1", "link", &long].into_iter().flat_map(|l| ["--layer", l]);
        let show = "cat /one /two; tr ' ,' '\\n\\n' </proc/self/mountinfo | grep ^lowerdir";
        let command = s.jc("jc-rootfs").args(layers).args(["--", "sh", "-c", show]);
        let ran =
            without_if(libc::SYS_fsconfig, (1, FSCONFIG_SET_FD), EINVAL, || command.spawn()).wait();
        let out = ran.code(0).out();
        let (first, rest) = out.split_once("lowerdir+=/proc/self/fd/").unwrap();
        assert_eq!(first, "1\n2\n", "{out}");
        assert!(
            rest.ends_with("\nlowerdir+=/srv/l:2\nlowerdir+=/srv/l\\0541\nlowerdir+=/srv/root\n"),
            "{out}"
        );
    });
}

/// A join is safe only with execveat(2).
#[test]
fn no_container_is_entered_without_execveat() {
    sandbox(|s| {
        prepare(s);
        let command = s.jc("jc-rootfs").args(["--join", "1", "--", "true"]);
        without(&[libc::SYS_execveat], ENOSYS, || command.spawn())
            .wait()
            .code(125)
            .fails_as("jc-rootfs", "execveat");
    });
}
