//! `jc-rootfs` alone: the mounts of the command line, and images that would redirect them.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jc_tests::roots::{busybox_root, names};
use jc_tests::{Cmd, Sandbox, sandbox, tree};

const TOOL: &str = "jc-rootfs";

/// jc-rootfs with these options over a directory, and a shell command.
fn sh(s: &Sandbox, options: &[&str], root: &Path, script: &str) -> Cmd {
    s.jc(TOOL).args(options).arg(root).args(["--", "sh", "-c", script])
}

/// A directory of the host with a file `f` and another file system on `sub`.
fn source(s: &Sandbox) -> PathBuf {
    let dir = s.path("source");
    fs::create_dir_all(dir.join("sub")).unwrap();
    s.sh("mount -t tmpfs sub source/sub").run().code(0);
    fs::write(dir.join("f"), "f\n").unwrap();
    fs::write(dir.join("sub/g"), "g\n").unwrap();
    dir
}

#[test]
fn a_bind_shows_a_directory_with_what_is_mounted_below() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let dir = source(s);
        for option in ["-v", "--bind"] {
            let script = "cat /data/f /data/sub/g; echo from-inside > /data/new";
            let ran = sh(s, &[option, "/srv/source:/data"], &root, script).run();
            ran.code(0).stdout("f\ng\n");
            assert_eq!(fs::read(dir.join("new")).unwrap(), b"from-inside\n");
        }
        // A relative source belongs to the caller, a file is bound over a file, and one bind lies in another.
        let options =
            ["-v", "source/f:/etc/passwd", "-v", "source:/d", "--bind=source/sub:/d/sub/deeper"];
        fs::create_dir(dir.join("sub/deeper")).unwrap();
        let ran = sh(s, &options, &root, "cat /etc/passwd /d/f /d/sub/deeper/g").run();
        ran.code(0).stdout("f\nf\ng\n");
        assert!(fs::read_to_string(root.join("etc/passwd")).unwrap().starts_with("root:"));
        s.sh("umount source/sub").run().code(0);
    });
}

#[test]
fn missing_directories_of_a_mount_point_are_made() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::write(s.path("f"), "f\n").unwrap();
        fs::create_dir(s.path("d")).unwrap();
        let before = tree::manifest(&root);
        let options = ["--upper", "tmpfs", "-v", "f:/new/deep/file", "-v", "d:/other/dir"];
        let script = "cat /new/deep/file; test -d /other/dir && touch /other/dir/x";
        sh(s, &options, &root, script).run().code(0).stdout("f\n");
        assert_eq!(tree::changes(&before, &tree::manifest(&root)), "");
        assert_eq!(names(&s.path("d")), "x\n");
    });
}

#[test]
fn a_read_only_bind_is_so_all_the_way_down() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let dir = source(s);
        let script = "echo x > /d/f; echo x > /d/sub/g; rm /d/f; touch /d/new; cat /d/f /d/sub/g";
        let ran = sh(s, &["-v", "/srv/source:/d:ro"], &root, script).run();
        assert_eq!(ran.err().matches("Read-only file system").count(), 4, "{ran}");
        ran.stdout("f\ng\n");
        assert_eq!(names(&dir), "f\nsub\n");
        // The directory of the caller is unchanged.
        s.sh("echo y > source/f && echo y > source/sub/g").run().code(0);
        s.sh("umount source/sub").run().code(0);
    });
}

#[test]
fn binds_have_the_options_that_they_are_given() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let dir = s.path("d");
        fs::create_dir(&dir).unwrap();
        fs::copy(root.join("bin/busybox"), dir.join("true")).unwrap();
        s.sh("chmod 4755 d/true; mknod d/null c 1 3").run().code(0);
        let run = |option: &str, script: &str| {
            sh(s, &["-v", &format!("d:/d{option}")], &root, script).run()
        };
        run("", "/d/true").code(0);
        let ran = run(":noexec", "/d/true").code(126);
        assert!(ran.err().contains("Permission denied"), "{ran}");
        // Devices work only if an option says so.
        for option in ["", ":ro", ":noexec"] {
            let ran = run(option, "cat /d/null");
            assert!(ran.err().contains("Permission denied"), "{ran}");
        }
        run(":dev", "cat /d/null && echo x > /d/null").code(0);
        for (option, flag) in [("", false), (":nosuid", true), (":ro,nosuid", true)] {
            let script = "awk '$5 == \"/d\" { print \",\" $6 \",\" }' /proc/self/mountinfo";
            assert_eq!(run(option, script).out().contains(",nosuid,"), flag, "{option}");
        }
    });
}

#[test]
fn a_bind_that_cannot_be_is_an_error() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for bind in [
            "/nonexistent:/d",
            "/srv",
            "/srv:d",
            ":/d",
            "/srv:/",
            "/srv:/d:nonsense",
            "/srv:",
            "",
            // The target has another type.
            "/etc:/etc/passwd",
            "/etc/passwd:/etc",
        ] {
            let ran = sh(s, &["-v", bind], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
    });
}

#[test]
fn a_tmpfs_has_its_size_and_mode() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::write(root.join("var/hidden"), "").unwrap();
        let run = |tmpfs: &str, script: &str| sh(s, &["--tmpfs", tmpfs], &root, script).run();
        run("/var", "stat -c %a /var; ls /var; touch /var/x").code(0).stdout("1777\n");
        run("/var:mode=0750", "stat -c %a /var").stdout("750\n");
        run("/new/one", "stat -c %a /new/one").stdout("1777\n");
        let write = "dd if=/dev/zero of=/var/x bs=1M count=3";
        run("/var:size=4m,mode=700", write).code(0);
        let ran = run("/var:size=2m", write);
        assert!(ran.err().contains("No space left on device"), "{ran}");
        s.sh("mknod n c 1 3").run().code(0);
        run("/var", "mknod /var/n c 1 3 && cat /var/n").code(1);
        assert_eq!(names(&root.join("var")), "hidden\nwww\n");
        for bad in ["var", "/", "/var:size=0", "/var:size=x", "/var:mode=9", "/var:nonsense=1", ""]
        {
            let ran = sh(s, &["--tmpfs", bad], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
    });
}

/// Symbolic links in the image are resolved as for the payload, and none leads out of the root.
#[test]
fn no_link_of_the_image_leads_out_of_it() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::create_dir(s.path("outside")).unwrap();
        fs::write(s.path("f"), "f\n").unwrap();
        symlink("/srv/outside", root.join("absolute")).unwrap();
        symlink("../../../srv/outside", root.join("relative")).unwrap();
        symlink("/proc/1/root/srv/outside", root.join("magic")).unwrap();
        symlink("/srv/outside/file", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for link in ["absolute", "relative"] {
            for options in [
                &["-v", &format!("f:/{link}/file")][..],
                &["-v", &format!("/etc:/{link}/dir")],
                &["--tmpfs", &format!("/{link}/tmpfs")],
                &["-w", &format!("/{link}/work")],
            ] {
                // Inside the root the same name can be made.
                sh(s, options, &root, "echo ran").run().code(0).stdout("ran\n");
                assert_eq!(names(&s.path("outside")), "", "{options:?}");
                assert!(root.join("srv/outside").is_dir());
                fs::remove_dir_all(root.join("srv")).unwrap();
            }
        }
        for bind in ["f:/loop/file", "f:/loop"] {
            let ran = sh(s, &["-v", bind], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
        // The mount takes place inside the root in any case.
        for options in [["-v", "f:/dangling"], ["-v", "f:/magic/file"], ["-w", "/magic/work"]] {
            sh(s, &options, &root, "true").run();
            assert_eq!(names(&s.path("outside")), "", "{options:?}");
        }
    });
}

/// Users are looked up in the image and not through its links on the host, and no lookup hangs.
#[test]
fn the_images_passwd_is_the_images() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let outside = s.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
        fs::remove_dir_all(root.join("etc")).unwrap();
        for target in ["/srv/outside", "../../srv/outside"] {
            symlink(target, root.join("etc")).unwrap();
            let ran = sh(s, &["-u", "evil"], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, "evil");
            fs::remove_file(root.join("etc")).unwrap();
        }
        fs::create_dir(root.join("etc")).unwrap();
        for make in
            ["mkfifo root/etc/passwd", "mkdir root/etc/passwd", "mknod root/etc/passwd c 1 5"]
        {
            s.sh(make).run().code(0);
            let ran = sh(s, &["-u", "web"], &root, "echo ran").run();
            ran.code(125).stdout("").fails_as(TOOL, "");
            s.sh("rm -r root/etc/passwd").run().code(0);
        }
    });
}

#[test]
fn a_run_that_writes_everywhere_leaves_the_image_alone() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        let layer = s.path("layer");
        fs::create_dir_all(layer.join("etc/deep/er")).unwrap();
        fs::write(layer.join("etc/deep/er/file"), "x").unwrap();
        fs::create_dir(s.path("shared")).unwrap();
        let before = (tree::manifest(&root), tree::manifest(&layer));
        let script = "find / -xdev -type f | grep -v ^/bin/ | while read f; do echo x >> $f; done
            find / -xdev -type d | while read d; do touch $d/new; chmod 711 $d; chown 5:5 $d; done
            for a in /bin/*; do touch -h $a; done; mv /etc/deep /etc/moved; rm -r /var/www
            ln /etc/passwd /etc/linked; echo x > /bin/busybox; mkdir /dev/x /etc/x /proc/x 2>/dev/null
            cat /etc/linked | grep -c x";
        for root in [&["/srv/root"][..], &["--layer", "/srv/root", "--layer", "/srv/layer"]] {
            let options =
                ["--upper", "tmpfs", "-v", "shared:/data/in/new/place", "--tmpfs", "/t/u/v"];
            let more = ["-w", "/a/new/place"];
            let ran =
                s.jc(TOOL).args(options).args(more).args(root).args(["--", "sh", "-c", script]);
            let ran = ran.run();
            assert_ne!(ran.out(), "", "it has written nothing\n{ran}");
        }
        assert_eq!(tree::changes(&before.0, &tree::manifest(&root)), "");
        assert_eq!(tree::changes(&before.1, &tree::manifest(&layer)), "");
    });
}

/// Files of a directory of user 1000, as a payload sees them, and files of the payload, as the host sees them.
#[test]
fn an_id_mapped_bind_exchanges_the_owner_and_the_payload() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        s.sh("mkdir src && echo text > src/f && chown -R 1000:1001 src && touch src/root")
            .run()
            .code(0);
        let script = "stat -c '%u:%g' /src /src/f /src/root; touch /src/new";
        for (options, seen, made) in [
            (vec!["-v", "src:/src"], "1000:1001\n1000:1001\n0:0\n", "0:0\n"),
            (vec!["-v", "src:/src:idmap"], "0:0\n0:0\n1000:1001\n", "1000:1001\n"),
            (vec!["-v", "src:/src:idmap", "-u", "33:34"], "33:34\n33:34\n0:0\n", "1000:1001\n"),
            (
                vec!["-v", "src:/src:idmap", "-u", "1000:1001"],
                "1000:1001\n1000:1001\n0:0\n",
                "1000:1001\n",
            ),
            (vec!["-v", "src:/src:idmap=1000:0:2"], "0:1\n0:1\n65534:65534\n", "1000:1000\n"),
            (
                vec!["-v", "src:/src:idmap=1000:0:1/1001:0:1"],
                "0:0\n0:0\n65534:65534\n",
                "1000:1001\n",
            ),
        ] {
            let ran = sh(s, &options, &root, script).run();
            ran.code(0).stdout(seen);
            s.sh("stat -c '%u:%g' src/new; rm src/new").run().stdout(made);
        }
        // The user of the root's file of users.
        fs::write(root.join("etc/passwd"), "web:x:7:8::/:/bin/sh\n").unwrap();
        let options = ["-v", "src:/src:idmap", "-u", "web"];
        sh(s, &options, &root, "stat -c '%u:%g' /src/f").run().code(0).stdout("7:8\n");
        let run = "jc-run --network none --rootfs root -v $PWD/src:/src:idmap -- stat -c %u /src/f";
        s.sh(run).run().code(0).stdout("0\n");
        let user = format!("jc-unshare -U --map-root -- {run}").replace("idmap", "idmap=1000:0:1");
        let ran = s.sh(&format!("JC_STATE_DIR=/srv/state {user}")).run().code(125);
        assert!(ran.err().contains("jc-run --userns keep-id"), "{ran}");
    });
}
