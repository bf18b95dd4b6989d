//! Common parts of the tests of jc-rootfs: a small root, and shell commands in it.

#![allow(dead_code)] // each test file uses some of it

use std::path::PathBuf;

use jc_tests::accounts::Accounts;
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
        exec $0 --root /srv/state run test";
    s.cmd("unshare").args(["-m", "sh", "-c", bundle, runtime, filter, script])
}

/// An ordinary user `ann`, which exists as long as this value. With `range` the user has subordinate IDs.
pub struct Ann<'a> {
    sandbox: &'a Sandbox,
    _accounts: Accounts<'a>,
}

impl<'a> Ann<'a> {
    /// Makes the user, with the directory `/srv/ann`.
    pub fn new(s: &'a Sandbox, range: bool) -> Self {
        let range = if range { "ann:200000:65536\n" } else { "" };
        s.sh("mkdir -p ann && chown 4321:4321 ann").run().code(0);
        let user = "ann:x:4321:4321::/srv/ann:/bin/sh\n";
        Self { sandbox: s, _accounts: Accounts::new(s, user, range, range) }
    }

    /// A shell command of the user, in the user's directory.
    pub fn sh(&self, script: &str) -> Cmd {
        let user = ["--reuid=4321", "--regid=4321", "--clear-groups", "--", "env", "HOME=/srv/ann"];
        self.sandbox.cmd("setpriv").args(user).args(["sh", "-c", &format!("cd /srv/ann\n{script}")])
    }
}
