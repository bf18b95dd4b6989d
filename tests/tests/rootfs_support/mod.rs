//! What the tests of jc-rootfs share: a small root, and shell in it.

#![allow(dead_code)] // each test file uses some of it

use std::path::PathBuf;

use jc_tests::{Cmd, Sandbox};

/// Makes a root from busybox, without any mount point, and gives its directory.
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

/// Runs a line of shell in a root that is a layer, with these options.
pub fn in_layer(s: &Sandbox, options: &[&str], script: &str) -> Cmd {
    s.jc("jc-rootfs").args(["--layer", "root"]).args(options).args(["--", "sh", "-c", script])
}
