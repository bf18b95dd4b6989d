//! jc-rootfs: the mounts in a root, and their options.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::{Sandbox, sandbox, skip};

mod rootfs_support;
use rootfs_support::{in_layer, root};

#[test]
fn the_kernels_directories_are_as_asked_for() {
    sandbox(|s| {
        root(s, "root");
        let mounted = "grep -c ' '$0 /proc/mounts || :";
        for (options, directory, count) in [
            (&[][..], "/proc", "1\n"),
            (&["--proc", "new"], "/proc", "1\n"),
            (&["--dev", "none"], "/dev", "0\n"),
            (&["--sys", "none"], "/sys", "0\n"),
        ] {
            in_layer(s, options, mounted).arg(directory).run().code(0).stdout(count);
        }
        in_layer(s, &["--proc", "none"], "ls -A /proc").run().code(1);
        in_layer(s, &["--proc", "new"], "test -e /proc/self/status").run().code(0);
        // The present procfs shows the PID namespace of the test, which is its PID 1.
        in_layer(
            s,
            &["--proc", "bind"],
            "readlink /proc/1/ns/pid; readlink /proc/self/ns/pid | uniq",
        )
        .run()
        .code(0);
        s.sh("mknod /dev/jc-tests-mark c 1 3").run().code(0);
        in_layer(s, &["--dev", "host"], "test -c /dev/jc-tests-mark").run().code(0);
        in_layer(s, &[], "test -e /dev/jc-tests-mark").run().code(1);
        s.sh("rm /dev/jc-tests-mark").run().code(0);
        in_layer(s, &[], "mkdir /sys/kernel/mm/x").run().code(1);
        let flags = "grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1";
        in_layer(s, &[], flags).run().code(0).stdout("ro\n");
        in_layer(s, &["--sys", "rw"], flags).run().code(0).stdout("rw\n");
    });
}

#[test]
fn dev_has_what_the_runtime_specification_names() {
    sandbox(|s| {
        root(s, "root");
        let expected =
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n";
        in_layer(s, &[], "echo $(ls /dev)").run().code(0).stdout(expected);
        let nodes = "cd /dev && stat -c '%n %t %T %a' null zero full random urandom tty";
        in_layer(s, &[], nodes).run().code(0).stdout(
            "null 1 3 666\nzero 1 5 666\nfull 1 7 666\nrandom 1 8 666\nurandom 1 9 666\ntty 5 0 666\n",
        );
        in_layer(s, &["--shm-size", "3m"], "df -k /dev/shm | awk 'END { print $2 }'")
            .run()
            .code(0)
            .stdout("3072\n");
        in_layer(s, &["--shm-size", "lots"], ":")
            .run()
            .code(125)
            .fails_as("jc-rootfs", "--shm-size");
    });
}

#[test]
fn a_device_is_shown_where_it_is_asked_for() {
    sandbox(|s| {
        root(s, "root");
        s.sh("mkdir plain").run().code(0);
        let show = |spec: &str, at: &str| {
            let script = format!("stat -c '%t %T %a' {at}; head -c 1 {at} | wc -c");
            in_layer(s, &["--device", spec], &script).run().code(0).stdout("1 5 640\n1\n");
        };
        // The directory of the test is nodev, so the node is made in the /dev of the host.
        s.sh("mknod /dev/jc-tests-device c 1 5 && chmod 640 /dev/jc-tests-device").run().code(0);
        show("/dev/jc-tests-device", "/dev/jc-tests-device");
        show("/dev/jc-tests-device:/dev/a/b", "/dev/a/b");
        show("/dev/jc-tests-device:/elsewhere", "/elsewhere");
        s.sh("rm /dev/jc-tests-device").run().code(0);
        in_layer(s, &["--device", "/srv/plain"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: device /srv/plain: not a device file\n");
        in_layer(s, &["--device", "/dev/none"], ":")
            .run()
            .code(125)
            .fails_as("jc-rootfs", "open_tree /dev/none: No such file or directory");
    });
}

#[test]
fn programs_find_their_cgroup() {
    sandbox(|s| {
        if !fs::exists("/sys/fs/cgroup/cgroup.procs").unwrap()
            && !fs::exists("/sys/fs/cgroup/memory").unwrap()
        {
            skip!("this host has no cgroups");
        }
        root(s, "root");
        let limit =
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
        let chain =
            s.jc("jc-cgroup").args(["-m", "64M", "--", "jc-unshare", "-C", "--", "jc-rootfs"]);
        let ran = chain.args(["--layer", "root", "--", "sh", "-c", limit]).run();
        assert_eq!(ran.out(), "67108864\n", "{ran}");
        let write =
            "for d in /sys/fs/cgroup /sys/fs/cgroup/memory; do mkdir $d/x && echo made; done";
        in_layer(s, &[], write).run().stdout("");
    });
}

fn tree(s: &Sandbox) {
    root(s, "root");
    s.sh("mkdir -p src/sub && mount -t tmpfs sub src/sub && touch src/a src/sub/b").run().code(0);
}

#[test]
fn a_bind_brings_what_is_mounted_below_it() {
    sandbox(|s| {
        tree(s);
        let touch = "cd /x && find . -type f | sort && touch new sub/new";
        let read_only =
            "touch: new: Read-only file system\ntouch: sub/new: Read-only file system\n";
        for (options, found, error) in [
            ("", "./a\n./sub/b\n", ""),
            (":norec", "./a\n", ""),
            (":ro", "./a\n./sub/b\n", read_only),
            (":rec,ro", "./a\n./sub/b\n", read_only),
        ] {
            let spec = format!("src:/x{options}");
            in_layer(s, &["-v", &spec], touch).run().stdout(found).stderr(error);
            s.sh("rm -f src/new src/sub/new").run().code(0);
        }
        s.sh("umount src/sub").run().code(0);
    });
}

#[test]
fn a_source_is_made_only_if_that_is_asked_for() {
    sandbox(|s| {
        root(s, "root");
        let missing = in_layer(s, &["-v", "new:/x"], ":")
            .run()
            .code(125)
            .fails_as("jc-rootfs", "open_tree new: No such file or directory");
        assert!(missing.err().contains("hint: SRC:DST:create"), "{missing}");
        in_layer(s, &["-v", "new:/x:create"], "touch /x/a").run().code(0);
        in_layer(s, &["-v", "new:/x:create"], "ls /x").run().code(0).stdout("a\n");
        assert!(s.path("new/a").exists());
    });
}

#[test]
fn mounts_propagate_only_as_asked_for() {
    sandbox(|s| {
        tree(s);
        in_layer(s, &["-v", "src:/x:shared"], ":")
            .run()
            .code(125)
            .fails_as("jc-rootfs", "bind src: its mount has no peer group");
        s.sh("mount --bind src src && mount --make-shared src && mkdir src/m").run().code(0);
        for (option, on_host) in [("private", false), ("slave", false), ("shared", true)] {
            let spec = format!("src:/x:{option}");
            in_layer(s, &["-v", &spec], "mount -t tmpfs new /x/m").run().code(0);
            let found = s.sh("grep -q /srv/src/m /proc/mounts && umount src/m").run();
            assert_eq!(found.status().success(), on_host, "{option}");
        }
        // Propagation in the other direction.
        for (option, inside) in [("private", false), ("slave", true), ("shared", true)] {
            let spec = format!("src:/x:{option}");
            let wait = "echo ready; until [ -e /go/$0 ]; do sleep 0.01; done; grep -q ' /x/m ' /proc/mounts";
            fs::create_dir_all(s.path("go")).unwrap();
            let mut waits = in_layer(s, &["-v", &spec, "-v", "go:/go"], wait).arg(option).spawn();
            waits.wait_for("ready");
            s.sh("mount -t tmpfs new src/m").run().code(0);
            fs::write(s.path("go").join(option), "").unwrap();
            waits.wait().code(i32::from(!inside));
            s.sh("umount src/m").run().code(0);
        }
        s.sh("umount src && umount src/sub").run().code(0);
    });
}

#[test]
fn files_are_bound_over_files_and_the_image_stays_as_it_is() {
    sandbox(|s| {
        root(s, "root");
        s.sh("echo image >root/etc/hosts && echo host >hosts && echo r >resolv").run().code(0);
        let before = s.sh("find root | sort").run().out();
        let options = ["-v", "hosts:/etc/hosts", "-v", "resolv:/etc/resolv.conf:ro"];
        in_layer(
            s,
            &options,
            "cat /etc/hosts /etc/resolv.conf; echo x >/etc/hosts; echo y >/etc/new",
        )
        .run()
        .code(0)
        .stdout("host\nr\n");
        assert_eq!(fs::read_to_string(s.path("hosts")).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(s.path("root/etc/hosts")).unwrap(), "image\n");
        assert_eq!(s.sh("find root | sort").run().out(), before);
    });
}

#[test]
fn hundreds_of_layers_are_mounted() {
    sandbox(|s| {
        root(s, "root");
        s.sh("for n in $(seq 300); do mkdir -p l/$n; echo $n >l/$n/same; echo >l/$n/f$n; done")
            .run()
            .code(0);
        let layers = (1..=300).flat_map(|n| ["--layer".to_owned(), format!("l/{n}")]);
        let chain = s.jc("jc-rootfs").args(["--layer", "root"]).args(layers);
        chain
            .args(["--", "sh", "-c", "cat /same; ls -d /f* | wc -l"])
            .run()
            .code(0)
            .stdout("300\n300\n");
        let too_many = (1..=600).flat_map(|_| ["--layer", "root"]);
        s.jc("jc-rootfs")
            .args(too_many)
            .args(["--", "true"])
            .run()
            .code(125)
            .fails_as("jc-rootfs", "set lowerdir+ overlay: Invalid argument (overlay: too many");
    });
}

#[test]
fn a_user_namespace_is_enough() {
    sandbox(|s| {
        root(s, "root");
        s.sh("mkdir -p l1/d l2 && touch l1/d/x l1/gone && mknod l2/gone c 0 0").run().code(0);
        let inside =
            "id -u; ls -A /d; ls /gone; rm -r /d && mkdir /d && ls -A /d && ls /dev | wc -w";
        let ran = s
            .cmd("unshare")
            .args(["-Ur", "jc-unshare", "-pi", "--", "jc-rootfs"])
            .args(["--layer", "root", "--layer", "l1", "--layer", "l2", "--", "sh", "-c", inside])
            .run()
            .code(0);
        assert_eq!(ran.out(), "0\nx\n14\n", "{ran}");
        // A process without its own PID namespace cannot mount its own procfs.
        let chain = |proc: &str| {
            let words = ["-Ur", "jc-rootfs", "--layer", "root", "--proc", proc, "--", "ps"];
            s.cmd("unshare").args(words).run()
        };
        chain("auto").code(0);
        chain("bind").code(0);
        chain("new").code(125).fails_as("jc-rootfs", "create proc: Operation not permitted");
    });
}

/// jc-rmi reads from the kernel which layers are mounted, and waits for no container.
#[test]
fn the_kernel_knows_the_layers_and_none_is_taken_away_meanwhile() {
    sandbox(|s| {
        root(s, "root");
        s.sh("mkdir l1 && ln -s l1 link").run().code(0);
        let show = "tr ' ,' '\\n\\n' </proc/self/mountinfo | grep ^lowerdir";
        in_layer(s, &["--layer", "link"], show)
            .run()
            .code(0)
            .stdout("lowerdir+=/srv/l1\nlowerdir+=/srv/root\n");
        // jc-rmi locks a layer exclusively while it removes it.
        s.sh("exec flock -x l1 jc-rootfs --layer root --layer l1 -- true")
            .run()
            .code(125)
            .stderr("jc-rootfs: layer l1: is being removed\n");
        // A shared lock of another container, or of the payload, delays no start.
        s.sh("exec flock -s l1 jc-rootfs --layer root --layer l1 -- true").run().code(0);
        let mut waits = in_layer(s, &["--layer", "l1"], "echo ready; read -r x").input("").spawn();
        waits.wait_for("ready");
        s.sh("exec flock -n -x l1 true").run().code(0);
        waits.wait().code(1);
    });
}

#[test]
fn restrictions_of_the_hosts_mount_cannot_be_lifted() {
    sandbox(|s| {
        root(s, "root");
        s.sh("mkdir src && mount -t tmpfs src src && mknod src/null c 1 3").run().code(0);
        for (has, wanted) in
            [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")]
        {
            s.sh(&format!("mount -o remount,bind,{has} src")).run().code(0);
            let spec = format!("src:/x:{wanted}");
            in_layer(s, &["-v", &spec], ":").run().code(125).stderr(&format!(
                "jc-rootfs: bind src: its mount is {has}\n\
                 jc-rootfs: hint: mount -o remount,bind,{wanted}, on the mount that src is in\n"
            ));
            // Without the option, the mount keeps the options of its source. A later word replaces an earlier one.
            in_layer(s, &["-v", "src:/x"], ":").run().code(0);
            in_layer(s, &["-v", &format!("{spec},{has}")], ":").run().code(0);
            s.sh(&format!("mount -o remount,bind,{wanted} src")).run().code(0);
            in_layer(s, &["-v", &spec], ":").run().code(0);
        }
        s.sh("mount -o remount,bind,nodev src").run().code(0);
        in_layer(s, &["--device", "/srv/src/null:/dev/x"], ":")
            .run()
            .code(125)
            .fails_as("jc-rootfs", "device /srv/src/null: its mount is nodev");
        s.sh("umount src").run().code(0);
    });
}
