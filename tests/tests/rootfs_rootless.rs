//! jc-rootfs for an ordinary user, with subordinate IDs and without.

#![cfg(target_os = "linux")]

use jc_tests::{Ann, Ran, Sandbox, require, sandbox};
use rustix::fs::{XattrFlags, setxattr};

mod rootfs_support;
use rootfs_support::root;

/// The chains in front of jc-rootfs, with subordinate IDs and without.
const RANGE: &str = "jc-unshare -U --map-auto -- jc-unshare -puiC -- jc-rootfs";
const SINGLE: &str = "jc-unshare -U --map-root -- jc-unshare -puiC -- jc-rootfs";

/// Two layers of the user above the small root. The upper one hides files of the lower one, in the ways that the user
/// has.
fn layers(s: &Sandbox, ann: &Ann<'_>) {
    let script = "mkdir -p l1/dir l1/opaque l2/opaque && touch l1/gone l1/dir/x l1/opaque/x &&
        mknod l2/gone c 0 0";
    ann.sh(script).run().code(0);
    let opaque = s.path("ann/l2/opaque");
    setxattr(opaque, "user.overlay.opaque", b"y", XattrFlags::CREATE).unwrap();
}

const LAYERS: &str = "--layer /srv/root --layer l1 --layer l2";

/// Checks that hold with and without subordinate IDs.
fn works(s: &Sandbox, ann: &Ann<'_>, chain: &str) {
    let run = |options: &str, script: &str| -> Ran {
        ann.sh(&format!("exec {chain} {options} -- sh -c '{script}'")).run()
    };
    root(s, "root");
    layers(s, ann);

    // The layers, with hidden files.
    run(LAYERS, "id -u; ls -d /gone /dir/*; ls -A /opaque; echo x >/new && cat /new")
        .stdout("0\n/dir/x\nx\n")
        .stderr("ls: /gone: No such file or directory\n");
    // A directory for changes hides files in the same ways, and can be used as a layer later.
    ann.sh("mkdir up").run().code(0);
    let change = "rm /dir/x; rm -r /opaque; mkdir /opaque; touch /opaque/y /made";
    run(&format!("{LAYERS} --upper up"), change).code(0).stderr("");
    let again = format!("{LAYERS} --layer up/upper");
    run(&again, "ls -A /dir /opaque; ls /made").code(0).stdout("/dir:\n\n/opaque:\ny\n/made\n");
    // A directory, unchanged and with its changes in memory.
    ann.sh("cp -a /srv/root own").run().code(0);
    run("--upper tmpfs own", "touch /a && ls /a").code(0).stdout("/a\n");
    run("own", "touch /a && ls /a").code(0).stdout("/a\n");
    run("--read-only own", "touch /b 2>/dev/null || echo no").code(0).stdout("no\n");

    // The file systems of the kernel.
    let devices = "cd /dev; echo *; stat -c %t:%T null zero full random urandom tty
        echo gone >null; head -c 1 zero | wc -c; head -c 1 urandom | wc -c; echo 2>/dev/null >full || echo full
        touch shm/x; exec 3<>ptmx && ls pts";
    run(LAYERS, devices).code(0).stdout(
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n\
         1:3\n1:5\n1:7\n1:8\n1:9\n5:0\n1\n1\nfull\n0\nptmx\n",
    );
    run(LAYERS, "echo $$; cat /proc/1/comm; mkdir /sys/x 2>/dev/null || echo no")
        .code(0)
        .stdout("1\nsh\nno\n");
    // Binds and masks.
    let binds = format!(
        "{LAYERS} -v own:/own:ro --tmpfs /t:size=1m --mask default --mask /etc/group --ro-path /dir"
    );
    let script = "ls -d /own/bin; for f in /own/x /dir/x /proc/sys/kernel/hostname; do
            echo x 2>/dev/null >$f || echo no; done
        cat /etc/group /proc/timer_list | wc -c; touch /t/x && ls /t";
    run(&binds, script).code(0).stdout("/own/bin\nno\nno\nno\n0\nx\n");
    // The privileges of the payload.
    let hardened =
        format!("{LAYERS} --cap-drop ALL --no-new-privs --seccomp default --ulimit nofile=64");
    let script = "grep -E \"^(CapBnd|NoNewPrivs|Seccomp):\" /proc/self/status | cut -f2; ulimit -n
        unshare -U true 2>/dev/null || echo refused";
    run(&hardened, script).code(0).stdout("0000000000000000\n1\n2\n64\nrefused\n");
    // The user is root already, and the other options do not depend on IDs.
    run(&format!("{LAYERS} -u root -w /dir -e A=1"), "id -u; id -g; pwd; echo $A $HOME")
        .code(0)
        .stdout("0\n0\n/dir\n1 /srv/ann\n");
    // A network namespace of the user, and with it a sysfs.
    let net = chain.replace("-puiC", "-puinC");
    let script = "ls /sys/class/net; sed -n \"s/^.* .sys [^-]* - //p\" /proc/self/mountinfo";
    let ran = ann.sh(&format!("exec {net} {LAYERS} -- sh -c '{script}'")).run().code(0);
    assert!(ran.out().starts_with("lo\n"), "{ran}");
    // The store is unchanged, and no object is left.
    ann.sh("ls l1/gone l1/dir/x l1/opaque/x").run().code(0);
    s.wait_for_no_process();
}

#[test]
fn an_ordinary_user_with_a_range_of_ids_gets_a_root() {
    sandbox(|s| {
        require(s, "newuidmap", "uidmap");
        let ann = Ann::with_range(s);
        works(s, &ann, RANGE);
        // Other users of the root belong to the user too.
        let run = |options: &str, script: &str| {
            ann.sh(&format!("exec {RANGE} {LAYERS} {options} -- sh -c '{script}'")).run()
        };
        ann.sh("mkdir up2 && mkdir -m 1777 l1/pub").run().code(0);
        run("-u web --upper up2", "id -u; id -g; id -G; touch /pub/web")
            .code(0)
            .stdout("33\n34\n34 4\n");
        s.sh("stat -c %u:%g ann/up2/upper/pub/web").run().stdout("200032:200033\n");
        run("-u 70000", ":").code(125).stderr(
            "jc-rootfs: setresuid 70000: Invalid argument\n\
             jc-rootfs: hint: the user namespace does not map this ID: jc-run --userns keep-id maps the caller's, and \
             usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER gives others\n",
        );
        s.sh("rm -r ann/up2 ann/up").run().code(0);
    });
}

#[test]
fn an_ordinary_user_with_one_id_gets_a_root() {
    sandbox(|s| {
        let ann = Ann::new(s);
        works(s, &ann, SINGLE);
        let run =
            |options: &str| ann.sh(&format!("exec {SINGLE} {LAYERS} {options} -- id -G")).run();
        run("-u web").code(125).fails_as("jc-rootfs", "setresgid 34: Invalid argument");
        run("-u root:web").code(125).fails_as("jc-rootfs", "setresgid 34: Invalid argument");
        // Groups of the root's files are left out if they have no mapping. Groups of the command line are errors.
        s.sh("echo log:x:4:root >>root/etc/group").run().code(0);
        run("-u root").code(0).stdout("0\n");
        run("-u root --group-add extra").code(125).stderr(
            "jc-rootfs: setgroups: Operation not permitted\n\
             jc-rootfs: hint: changing user needs CAP_SETUID and CAP_SETGID\n",
        );
    });
}

/// The kernel, or a filter of a container, may forbid a needed call.
#[test]
fn a_forbidden_operation_is_named() {
    use jc_tests::seccomp::{without, without_if};
    use nix::libc::{EPERM, SYS_fsconfig, SYS_fsopen};
    sandbox(|s| {
        root(s, "root");
        let ann = Ann::new(s);
        for call in [SYS_fsopen, SYS_fsconfig] {
            let ran = without(&[call], EPERM, || {
                ann.sh(&format!("exec {SINGLE} --layer /srv/root -- true")).run()
            });
            assert!(ran.err().contains("\njc-rootfs: hint: "), "{ran}");
            ran.code(125).fails_as("jc-rootfs", "Operation not permitted");
        }
        // The error names an overlay that cannot be mounted.
        const FSCONFIG_CMD_CREATE: u64 = 6;
        ann.sh("mkdir up").run().code(0);
        let ran = without_if(SYS_fsconfig, (1, FSCONFIG_CMD_CREATE), EPERM, || {
            ann.sh(&format!("exec {SINGLE} --layer /srv/root --upper up -- true")).spawn()
        });
        ran.wait().code(125).stderr(
            "jc-rootfs: create overlay: Operation not permitted\n\
             jc-rootfs: hint: a user namespace can mount overlayfs from Linux 5.11 on\n",
        );
        // The user owns none of these files.
        let ran = ann.sh("exec jc-rootfs --layer /srv/root -- true").run();
        assert!(ran.err().contains("put jc-unshare -U -r in front"), "{ran}");
        ran.code(125).fails_as("jc-rootfs", "unshare: Operation not permitted");
    });
}
