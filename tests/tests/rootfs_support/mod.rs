//! Common parts of the tests of jc-rootfs: a small root, and shell commands in it.

#![allow(dead_code)] // each test file uses some of it

use std::path::PathBuf;

use jc_tests::{Cmd, Sandbox};

/// Makes a root from busybox without mount points. Returns its directory.
pub fn root(s: &Sandbox, name: &str) -> PathBuf {
    let script = "mkdir -p $1/bin $1/etc $1/tmp && cp $(command -v busybox) $1/bin/busybox &&
        for name in $(busybox --list); do
            [ $name = busybox ] || ln -s busybox $1/bin/$name || exit
        done
        printf 'root:x:0:0::/root:/bin/sh\\nweb:x:33:34::/var/www:/bin/sh\\n' >$1/etc/passwd
        printf 'root:x:0:\\nweb:x:34:\\nlog:x:4:web\\nextra:x:77:\\n' >$1/etc/group";
    s.sh(script).args(["sh", name]).run().code(0);
    s.path(name)
}

/// Runs a shell command in a root that is a layer, with these options.
pub fn in_layer(s: &Sandbox, options: &[&str], script: &str) -> Cmd {
    s.jc("jc-rootfs").args(["--layer", "root"]).args(options).args(["--", "sh", "-c", script])
}

/// Whether a program for comparison exists.
pub fn has(s: &Sandbox, program: &str) -> bool {
    s.sh("command -v \"$0\" >/dev/null").arg(program).run().status().success()
}

/// Runs a shell command in the root by an OCI runtime, with its default configuration after a jq(1) filter.
pub fn by_runtime(s: &Sandbox, runtime: &str, filter: &str, script: &str) -> Cmd {
    let bundle =
        "rm -rf bundle && mkdir bundle && cd bundle && runc spec && ln -s ../root rootfs &&
        jq --arg script \"$2\" '.process.terminal = false | .root.path = \"/srv/root\" |
            .process.args = [\"sh\", \"-c\", $script] | '\"$1\" config.json >new &&
        mv new config.json && { umount /sys/fs/cgroup/unified 2>/dev/null || :; } &&
        exec $0 --root /srv/state run \"jc-test-$(cat /proc/sys/kernel/random/uuid)\"";
    s.cmd("unshare").args(["-m", "sh", "-c", bundle, runtime, filter, script])
}
