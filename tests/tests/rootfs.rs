//! `jc-rootfs` alone: the root, and the mounts in it.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use jc_tests::contract::Chain;
use jc_tests::roots::{busybox_root, names};
use jc_tests::{Cmd, Sandbox, keeps_the_contract, sandbox, tree};

const TOOL: &str = "jc-rootfs";

keeps_the_contract!(over_a_directory, ["jc-rootfs", "ROOT"], "jc-rootfs");
keeps_the_contract!(over_an_overlay, ["jc-rootfs", "--upper", "tmpfs", "ROOT"], "jc-rootfs");
keeps_the_contract!(
    by_chroot,
    ["jc-rootfs", "--chroot", "ROOT"],
    "jc-rootfs",
    [keeps_to_argv, keeps_exit_codes, keeps_stdio, forwards_signals, obeys_the_terminal]
);

/// jc-rootfs with these options over a directory, and a shell command.
fn sh(s: &Sandbox, options: &[&str], root: &Path, script: &str) -> Cmd {
    s.jc(TOOL).args(options).arg(root).args(["--", "sh", "-c", script])
}

#[test]
fn a_root_and_a_program_are_needed() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        s.jc(TOOL).run().code(125).stdout("").fails_as(TOOL, "root");
        s.jc(TOOL).arg(&root).run().code(125).stdout("").fails_as(TOOL, "program");
        for (root, cause) in
            [("/nonexistent", "No such file or directory"), ("/etc/passwd", "Not a directory")]
        {
            let ran = s.jc(TOOL).args([root, "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, root);
            let ran = s.jc(TOOL).args([root, "echo", "ran"]).run();
            ran.code(125).fails_as(TOOL, cause);
            let ran = s.jc(TOOL).args(["--layer", root, "--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, root);
        }
    });
}

#[test]
fn the_root_is_the_directory_and_nothing_else() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::write(root.join("only-here"), "x\n").unwrap();
        for options in [&[][..], &["--upper", "tmpfs"], &["--read-only"], &["--chroot"]] {
            let all = names(&root);
            sh(s, options, &root, "ls -A /; pwd").run().code(0).stdout(&format!("{all}/\n"));
            // The root has no parent.
            sh(s, options, &root, "cd /../..; ls -A").run().code(0).stdout(&all);
            sh(s, options, &root, "cat /only-here").run().code(0).stdout("x\n");
        }
        // With a PID namespace, no process leads back to the host.
        let ran = s.jc("jc-unshare").args(["-p", TOOL]).arg(&root);
        let script = "cd /proc; for p in [0-9]*; do ls -A $p/root; done | sort -u";
        ran.args(["--", "sh", "-c", script]).run().code(0).stdout(&names(&root));
    });
}

/// Without any mount, the parts of the contract that /proc shows hold too.
#[test]
fn a_chroot_keeps_signals_and_descriptors() {
    sandbox(|s| {
        let chain = Chain::new(s, &[TOOL, "--chroot", "ROOT"], TOOL);
        s.sh("mount -t proc proc root/proc").run().code(0);
        chain.keeps_default_signals();
        chain.keeps_descriptors();
        s.sh("umount root/proc").run().code(0);
    });
}

#[test]
fn a_program_of_the_host_is_not_there() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for program in ["/usr/bin/env", "perl", "/srv/root/bin/sh"] {
            let ran = s.jc(TOOL).arg(&root).args(["--", program]).run();
            ran.code(127).stdout("").fails_as(TOOL, program);
        }
    });
}

#[test]
fn only_what_belongs_there_is_mounted() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for options in [&[][..], &["--upper", "tmpfs"], &["--layer", "/srv/root"]] {
            let script = "awk '{print $5}' /proc/self/mountinfo | grep -v ^/sys/fs/ | sort";
            let cmd = s.jc(TOOL).args(options);
            let cmd = if options == ["--layer", "/srv/root"] { cmd } else { cmd.arg(&root) };
            let expected = "/\n/dev\n/dev/mqueue\n/dev/pts\n/dev/shm\n/proc\n/sys\n";
            cmd.args(["--", "sh", "-c", script]).run().code(0).stdout(expected);
        }
    });
}

#[test]
fn no_mount_reaches_the_caller() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        // The mounts are shared, as service managers make them.
        s.sh("mount --make-rshared /").run().code(0);
        let count = "wc -l < /proc/self/mountinfo";
        let before = s.sh(count).run().out();
        let script = "mount -t tmpfs x /tmp && echo mounted; touch /tmp/x";
        sh(s, &["--tmpfs", "/var"], &root, script).run().code(0).stdout("mounted\n");
        s.sh(count).run().stdout(&before);
        assert_eq!(names(&root.join("tmp")), "");
        s.sh("mount --make-rprivate /").run().code(0);
    });
}

#[test]
fn proc_shows_the_pid_namespace() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let ran = s
            .jc("jc-unshare")
            .args(["-p", "--", TOOL])
            .arg(&root)
            .args(["--", "sh", "-c", "echo $$; echo /proc/[0-9]*"])
            .run();
        ran.code(0).stdout("1\n/proc/1\n");
    });
}

#[test]
fn dev_is_minimal_and_works() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::write(root.join("dev/of-the-image"), "").unwrap();
        let run = |script: &str| sh(s, &[], &root, script).run();
        // The runtime-spec's default devices and links, and the file systems of config-linux.md.
        let all = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
        run("echo $(ls -A /dev)").code(0).stdout(&format!("{all}\n"));
        for (node, numbers) in [
            ("null", "1:3"),
            ("zero", "1:5"),
            ("full", "1:7"),
            ("random", "1:8"),
            ("urandom", "1:9"),
            ("tty", "5:0"),
        ] {
            run(&format!("stat -c %F,%a,%t:%T /dev/{node}"))
                .stdout(&format!("character special file,666,{numbers}\n"));
        }
        run("echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 5 /dev/urandom | wc -c")
            .code(0)
            .stdout("3\n5\n");
        let full = run("echo x > /dev/full");
        assert!(full.err().contains("No space left on device"), "{full}");
        run("echo x | cat /dev/stdin; echo y > /dev/stdout; echo z > /dev/fd/1")
            .stdout("x\ny\nz\n");
        run("stat -c %a /dev/shm && echo x > /dev/shm/y && cat /dev/shm/y").stdout("1777\nx\n");
        for kind in ["devpts /dev/pts devpts", "mqueue /dev/mqueue mqueue"] {
            run(&format!("grep -c '^{kind} ' /proc/mounts")).stdout("1\n");
        }
        run("exec 3<>/dev/ptmx && ls /dev/pts").code(0).stdout("0\nptmx\n");
        // No other device of the host can be used.
        fs::create_dir(root.join("d")).unwrap();
        s.sh("mknod root/d/null c 1 3; mknod root/d/kmsg c 1 11").run().code(0);
        for upper in [&[][..], &["--upper", "tmpfs"]] {
            let ran = sh(s, upper, &root, "cat /d/null || cat /d/kmsg").run();
            assert!(ran.err().contains("Permission denied"), "{ran}");
        }
        assert_eq!(names(&root.join("dev")), "of-the-image\n");
    });
}

#[test]
fn sys_is_read_only() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let ran = sh(s, &[], &root, "ls /sys/kernel >/dev/null && mkdir /sys/x").run();
        assert!(ran.err().contains("Read-only file system"), "{ran}");
        // The mounts below /sys are read-only too.
        let script = "awk '$5 ~ /^.sys/ && $6 !~ /^ro/' /proc/self/mountinfo";
        sh(s, &[], &root, script).run().code(0).stdout("");
    });
}

#[test]
fn changes_go_where_they_should() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let change = "echo new > /new && rm /etc/group && echo x >> /etc/passwd && chmod 700 /root
            mkdir -p /a/b /proc2 && ln -s x /link && mv /var/www /var/moved && cat /new";
        let before = tree::manifest(&root);
        for upper in ["tmpfs", "tmpfs:10m", "/srv/upper"] {
            fs::create_dir_all(s.path("upper")).unwrap();
            sh(s, &["--upper", upper], &root, change).run().code(0).stdout("new\n");
            assert_eq!(tree::changes(&before, &tree::manifest(&root)), "");
        }
        // The changes stay in that directory for the next start.
        assert_eq!(names(&s.path("upper")), "lower\nupper\nwork\n");
        assert_eq!(fs::read(s.path("upper/upper/new")).unwrap(), b"new\n");
        let look = "ls /new /var; ls /etc; readlink /link";
        let looked = sh(s, &["--upper", "/srv/upper"], &root, look).run();
        looked.code(0).stdout("/new\n\n/var:\nmoved\npasswd\nx\n");

        let ran = sh(s, &["--read-only"], &root, "touch /x; touch /tmp/x; touch /dev/shm/x").run();
        assert_eq!(ran.err().matches("Read-only file system").count(), 2, "{ran}");
        assert_eq!(tree::changes(&before, &tree::manifest(&root)), "");

        sh(s, &[], &root, change).run().code(0);
        assert_eq!(fs::read(root.join("new")).unwrap(), b"new\n");
        assert_ne!(tree::changes(&before, &tree::manifest(&root)), "");
    });
}

#[test]
fn a_full_upper_is_full() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let write = "dd if=/dev/zero of=/big bs=1M count=8";
        sh(s, &["--upper", "tmpfs:16m"], &root, write).run().code(0);
        let ran = sh(s, &["--upper", "tmpfs:4m"], &root, write).run();
        assert!(ran.err().contains("No space left on device"), "{ran}");
        for bad in ["tmpfs:", "tmpfs:0", "tmpfs:x", "/nonexistent/u"] {
            let ran = sh(s, &["--upper", bad], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, bad);
        }
    });
}

/// Makes a layer directory in overlayfs format.
fn layer(s: &Sandbox, name: &str, script: &str) -> String {
    let dir = s.path(name);
    fs::create_dir(&dir).unwrap();
    s.sh(&format!("cd {name} && {script}")).run().code(0);
    dir.display().to_string()
}

#[test]
fn layers_lie_upon_each_other_the_lowest_first() {
    sandbox(|s| {
        let base = busybox_root(s, "base").display().to_string();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
        let one = layer(
            s,
            "one",
            "mkdir -p d/gone o p && echo one >file && echo one >d/one && echo one >o/one
             echo one >d/gone/x && echo one >p/one",
        );
        let two = layer(
            s,
            "two",
            "mkdir d o && echo two >file && echo two >o/two && mknod d/gone c 0 0 && mknod p c 0 0",
        );
        let opaque = rustix::fs::setxattr(
            s.path("two/o"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        );
        opaque.unwrap();
        let all = |layers: &[&String], script: &str| {
            let options = layers.iter().flat_map(|layer| ["--layer", layer]);
            s.jc(TOOL).args(options).args(["--", "sh", "-c", script]).run()
        };
        let show = "cat /file; ls /d /o; test -e /p; echo $?";
        all(&[&base, &one, &two], show).code(0).stdout("two\n/d:\none\n\n/o:\ntwo\n1\n");
        all(&[&base, &two, &one], show).code(0).stdout("one\n/d:\ngone\none\n\n/o:\none\ntwo\n0\n");

        let before = tree::manifest(&s.path(""));
        all(&[&base, &one, &two], "rm -r /d /o /file; echo x >/etc/passwd; touch /bin").code(0);
        assert_eq!(tree::changes(&before, &tree::manifest(&s.path(""))), "");
    });
}

#[test]
fn many_layers_are_as_good_as_one() {
    sandbox(|s| {
        let base = busybox_root(s, "base").display().to_string();
        // Docker allows the same number of layers.
        let layers: Vec<String> = (0..126)
            .map(|i| {
                layer(s, &format!("layer-with-a-rather-long-name-{i}"), &format!("echo {i} >{i}"))
            })
            .collect();
        let options = layers.iter().flat_map(|layer| ["--layer", layer]);
        let ran = s
            .jc(TOOL)
            .args(["--layer", &base])
            .args(options)
            .args(["--", "sh", "-c", "cat /0 /125; ls / | grep -c '^[0-9]'"])
            .run();
        ran.code(0).stdout("0\n125\n126\n");
    });
}

#[test]
fn a_record_names_the_root() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let one = layer(s, "one", "echo x >file");
        let run = |record: &str| {
            fs::write(s.path("record"), record).unwrap();
            let options = ["--record", "record", "--", "sh", "-c", "cat /file"];
            s.jc(TOOL).args(options).run()
        };
        let layers = format!("[\"{}\",\"{one}\"]", root.display());
        run(&format!("{{\"jc\":1,\"layers\":{layers},\"other\":1}}\nrest")).code(0).stdout("x\n");
        fs::write(root.join("file"), "y\n").unwrap();
        run(&format!("{{\"jc\":1,\"rootfs\":\"{}\"}}\n", root.display())).code(0).stdout("y\n");
        for bad in [
            "",
            "\n",
            "[]\n",
            "{\"jc\":1}\n",
            "{\"jc\":2,\"rootfs\":\"/srv/root\"}\n",
            "{\"jc\":1,\"rootfs\":\"root\"}\n",
            "{\"jc\":1,\"layers\":[]}\n",
            "{\"jc\":1,\"layers\":[\"/srv/one\"],\"rootfs\":\"/srv/root\"}\n",
            "{\"jc\":1,\"rootfs\":\"/nonexistent\"}\n",
        ] {
            run(bad).code(125).stdout("").fails_as(TOOL, "");
        }
        let ran = s.jc(TOOL).args(["--record", "/nonexistent", "--", "true"]).run();
        ran.code(125).fails_as(TOOL, "/nonexistent");
    });
}

#[test]
fn mount_points_are_made_where_the_image_has_none() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for dir in ["proc", "dev", "sys"] {
            fs::remove_dir(root.join(dir)).unwrap();
        }
        let before = tree::manifest(&root);
        let look = "echo $PWD; test -c /dev/null && test -d /proc/1 && test -d /sys/kernel";
        sh(s, &["--upper", "tmpfs"], &root, look).run().code(0).stdout("/\n");
        assert_eq!(tree::changes(&before, &tree::manifest(&root)), "");
        // A symbolic link is no directory, since it could lead anywhere.
        for name in ["proc", "dev", "sys"] {
            symlink("/tmp", root.join(name)).unwrap();
            for upper in [&[][..], &["--upper", "tmpfs"]] {
                sh(s, upper, &root, "echo ran").run().code(125).stdout("").fails_as(TOOL, name);
            }
            fs::remove_file(root.join(name)).unwrap();
        }
        assert_eq!(names(&root.join("tmp")), "");
    });
}
