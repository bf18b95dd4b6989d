//! jc-changes: the list of changes, of directories and of containers.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::volume::volume;
use jc_tests::{Ann, Sandbox, require, sandbox, tree};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

/// Runs a shell command in a root whose changes go to `u`.
fn run_in(s: &Sandbox, root: &str, script: &str) {
    fs::create_dir_all(s.path("u")).unwrap();
    s.jc("jc-rootfs")
        .args(["--upper", "u", root, "--", "sh", "-c", script])
        .run()
        .code(0)
        .stderr("");
}

/// A small image of two layers, in an OCI layout.
fn image(s: &Sandbox) -> &'static str {
    let upper = Layer::new()
        .extend(["d/", "d/sub/", "e/", "from/", "was/", "lone/"].map(Entry::dir))
        .extend(
            ["f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "d/f", "d/sub/f"]
                .map(|name| Entry::file(name, "old")),
        )
        .extend(["e/f", "e/g", "from/f", "was/f"].map(|name| Entry::file(name, "old")))
        .entry(Entry::file(".wh.hidden", ""))
        .extend(["s1", "s2", "s3"].map(|name| Entry::symlink(name, "f1")));
    let lower =
        busybox_layer().entry(Entry::file("hidden", "old")).entry(Entry::file("deep", "old"));
    Layout::new(s.path("image")).image("x", &Image::new().layer(lower).layer(upper));
    "oci:/srv/image:x"
}

/// Changes of 31 kinds, for a root of [`image`].
const KINDS: &str = "set -e; cd /
    echo x >new; mkdir newdir; mkdir -p nest/a/b; echo x >nest/a/b/c; echo x >>f1; : >f2
    echo x >t && mv t f3; rm f4; rm -r d/sub; chmod 600 f5; chown 5:6 f6; touch -d '2001-02-03 04:05' f7
    chmod 700 lone; ln -s nowhere link; ln -sfn f2 s1; rm s2; ln f8 same; echo y >one; ln one two
    mkfifo pipe; mknod node c 5 1; rm f9 && mkdir f9; rm -r was && echo x >was
    rm -r e && mkdir e && echo x >e/f && echo x >e/h; rm d/f && ln -s ../f1 d/f
    mv from/f from/g; echo x >hidden; rm deep && echo x >deep; chmod 4755 f8; echo x >'a b'; echo x >é
    mkdir -m 1777 sticky; rm s3 && echo x >s3";

/// The entries of a list with NULs.
fn entries(list: &[u8]) -> BTreeSet<String> {
    let entries = list.split(|b| *b == 0).filter(|entry| !entry.is_empty());
    entries.map(|entry| String::from_utf8(entry.to_vec()).unwrap()).collect()
}

#[test]
fn the_list_agrees_with_podman() {
    sandbox(|s| {
        require(s, "podman", "podman");
        let image = image(s);
        fs::create_dir(s.path("u")).unwrap();
        s.sh(&format!("jc-pull -q {image} >record")).run().code(0);
        let run = ["--record", "record", "--upper", "u", "--", "sh", "-c", KINDS];
        s.jc("jc-rootfs").args(run).run().code(0).stderr("");
        let ours = entries(s.sh("jc-changes -z u/").run().code(0).stderr("").out_bytes());
        let podman = format!(
            "export TMPDIR=/srv; podman() {{ command podman --root /srv/storage --runroot /run/storage \
                --storage-driver overlay --events-backend file \"$@\"; }}
             id=$(podman pull -q {image}) && podman create -q --name c --network none $id sh >/dev/null &&
             root=$(podman mount c) && chroot \"$root\" /bin/sh -c \"$KINDS\" && podman umount c >/dev/null &&
             podman diff c"
        );
        let ran = s.cmd("sh").args(["-c", &podman]).env("KINDS", KINDS).run().code(0);
        let theirs: BTreeSet<String> = ran
            .out()
            .lines()
            .map(|line| line.replacen("C /", "M /", 1).replacen(" /", " ", 1))
            .collect();
        s.sh("umount -R /srv/storage/overlay; rm -rf /run/storage /run/libpod /run/crun /run/lock /tmp/* /var/tmp/*").run();
        // A directory that was made again has one line of podman's, and parents of changes have lines.
        let again = |line: &&String| {
            line.strip_prefix("A ").is_some_and(|path| ours.contains(&format!("D {path}")))
        };
        let mine: BTreeSet<String> = ours.iter().filter(|line| !again(line)).cloned().collect();
        let is_parent = |line: &&String| {
            let path = line.strip_prefix("M ").unwrap_or("/");
            ours.iter().any(|other| other[2..].starts_with(&format!("{path}/")))
        };
        let rest: BTreeSet<String> = theirs
            .iter()
            .filter(|line| mine.contains(*line) || !is_parent(line))
            .cloned()
            .collect();
        assert_eq!(mine, rest);
        assert!(mine.len() >= 30, "{mine:?}");
    });
}

#[test]
fn a_directory_has_its_changes_in_three_formats() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        fs::write(root.join("etc/old"), "old").unwrap();
        let script = "echo new >/etc/group; rm /etc/old; mkdir -m 700 \"/a
b\"; chown 33:34 /a*; ln -s x /etc/link";
        run_in(s, "root", script);
        // /proc, /dev and /sys are mount points of the root, and no changes.
        let lines = "A a\\nb\nM etc/group\nA etc/link\nD etc/old\n";
        s.jc("jc-changes").arg("./u").run().code(0).stdout(lines).stderr("");
        // A word without a slash is a directory if no container has it.
        s.jc("jc-changes").arg("u").run().code(0).stdout(lines);
        let zero = s.jc("jc-changes").args(["-z", "./u"]).run().code(0);
        assert_eq!(zero.out_bytes(), b"A a\nb\0M etc/group\0A etc/link\0D etc/old\0");
        let ran = s.jc("jc-changes").args(["--json", "./u"]).run().code(0);
        let objects: Vec<Value> =
            ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            objects[0],
            json!({"kind": "A", "path": "a\nb", "type": "directory",
            "mode": "0700", "uid": 33, "gid": 34, "size": objects[0]["size"]})
        );
        assert_eq!(
            objects[1],
            json!({"kind": "M", "path": "etc/group", "type": "file",
            "mode": "0644", "uid": 0, "gid": 0, "size": 4})
        );
        assert_eq!(objects[3], json!({"kind": "D", "path": "etc/old"}));
        let some = s.jc("jc-changes").args(["./u", "*l*", "/a*"]).run().code(0);
        some.stdout("A a\\nb\nA etc/link\nD etc/old\n");
        // The same comparison with a copy of the lower directory, and with another directory.
        s.jc("jc-changes")
            .args(["--base", "root", "./u/upper"])
            .run()
            .code(0)
            .stdout("A a\\nb\nM etc/group\nA etc/link\nD etc/old\n");
        fs::create_dir(s.path("empty")).unwrap();
        let other = s.jc("jc-changes").args(["--base", "empty", "./u"]).run().code(0);
        other.stdout("A a\\nb\nA etc\nA etc/group\nA etc/link\n");
    });
}

#[test]
fn mount_points_that_jc_made_are_left_out() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for name in ["proc", "sys", "dev"] {
            fs::remove_dir(root.join(name)).unwrap();
        }
        fs::create_dir_all(s.path("data")).unwrap();
        fs::create_dir(s.path("u")).unwrap();
        let script = "mkdir /etc/kept; touch /new";
        let options = "--upper u -v data:/a/b/c -v data:/etc/d -v root/etc/group:/etc/file";
        let line = format!("jc-rootfs {options} root -- sh -c '{script}'");
        s.sh(&line).run().code(0).stderr("");
        s.jc("jc-changes").arg("./u").run().code(0).stdout("A etc/kept\nA new\n");
        s.sh("jc-changes --tar - ./u | tar -t").run().code(0).stdout("etc/\netc/kept/\nnew\n");
        // A file of the payload at such a path counts.
        s.sh("jc-rootfs --upper u root -- sh -c 'touch /a/b/c/mine'").run().code(0);
        let lines = "A a\nA a/b\nA a/b/c\nA a/b/c/mine\nA etc/kept\nA new\n";
        s.jc("jc-changes").arg("./u").run().code(0).stdout(lines);
        assert!(fs::read_to_string(s.path("u/lower")).unwrap().contains("\"/srv/root\""));
    });
}

#[test]
fn a_container_has_its_changes_while_it_runs_and_afterwards() {
    sandbox(|s| {
        let image = image(s);
        s.sh(&format!("jc-pull -q {image} >record")).run().code(0);
        let loops = "echo x >/ready; while :; do echo x >>/log; done";
        let run = |options: &str, script: &str| {
            let line = format!("jc-run {options} --network none <record -- sh -c '{script}'");
            s.sh(&line).run().code(0).out()
        };
        run("--keep --name ended", "rm /f1");
        s.jc("jc-changes").arg("ended").run().code(0).stdout("D f1\n").stderr("");
        run("--name gone", "rm /f1");
        let none = s.jc("jc-changes").arg("gone").run();
        none.code(1).fails_as("jc-changes", "gone: no such container and no such directory");
        let id = run("-d --keep --name runs", loops);
        let ready = "while ! jc-exec runs test -e /ready; do :; done; jc-changes runs";
        for word in ["runs", id.trim(), &id[..8]] {
            let line = format!("{ready} >/dev/null; jc-changes {word}");
            s.sh(&line).run().code(0).stdout("A log\nA ready\n").stderr("");
        }
        // The size of a file that is written all the time does not change during the copy.
        s.sh("for n in 1 2 3 4 5; do jc-changes --tar - runs | tar -x -O >/dev/null || exit; done")
            .run()
            .code(0)
            .stderr("");
        let size = || fs::metadata(s.path("log-size")).map_or(0, |meta| meta.size());
        s.sh("jc-exec runs cat /log >log-size").run().code(0);
        let before = size();
        s.sh("sleep 0.1; jc-exec runs cat /log >log-size").run().code(0);
        assert!(size() > before, "the container has not been resumed");
        let refused = s.jc("jc-changes").args(["--discard", "runs"]).run();
        refused.code(1).fails_as("jc-changes", "the container runs");
        s.sh("jc-stop -t 0 runs").run();
        s.sh("jc-changes --discard runs && jc-changes runs").run().code(0).stdout("").stderr("");
        run("-d --name memory", "sleep 1000");
        let memory = s.jc("jc-changes").arg("memory").run();
        memory.code(1).fails_as("jc-changes", "memory: its changes are in memory");
        s.sh("jc-rm -f memory runs ended").run().code(0);
        s.wait_for_no_process();
    });
}

/// The examples of jc-changes(1), as root and as an ordinary user with subordinate IDs.
#[test]
fn a_container_of_an_ordinary_user_has_its_changes() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        let pull = "jc-unshare -U --map-auto -- jc-pull -q oci:/srv/image:x";
        let run = |options: &str, script: &str| {
            let line = format!("{pull} | jc-run {options} --network none -- sh -c '{script}'");
            ann.sh(&line).run().code(0).stderr("");
        };
        let script = "rm /f1; mkdir /own; echo x >/own/f; chown -R 33:34 /own; chmod 700 /own";
        run("--keep --name k", script);
        ann.sh("jc-changes k").run().code(0).stdout("D f1\nA own\nA own/f\n").stderr("");
        let owner = "jc-changes --json k own/f | jq -c '[.uid, .gid, .mode]'";
        ann.sh(owner).run().code(0).stdout("[33,34,\"0644\"]\n");
        let tar =
            "jc-changes --tar layer.tar k && tar -tvf layer.tar --numeric-owner | cut -c 1-20";
        ann.sh(tar)
            .run()
            .code(0)
            .stdout("-rw------- 0/0      \ndrwx------ 33/34    \n-rw-r--r-- 33/34    \n");
        run("-d --keep --name r", "while :; do echo x >>/log; done");
        let ready = "until jc-exec r test -e /log; do :; done";
        ann.sh(&format!("{ready}; jc-changes r")).run().code(0).stdout("A log\n").stderr("");
        let grows =
            "a=$(jc-exec r stat -c %s /log); sleep 0.1; test $(jc-exec r stat -c %s /log) -gt $a";
        ann.sh(grows).run().code(0).stderr("");
        ann.sh("jc-changes --tar - r | tar -x -O >/dev/null").run().code(0).stderr("");
        ann.sh("jc-changes --discard r").run().code(1).fails_as("jc-changes", "the container runs");
        ann.sh("jc-changes --discard k && jc-changes k && jc-rm -f r k")
            .run()
            .code(0)
            .stdout("")
            .stderr("");
        s.wait_for_no_process();
    });
}

#[test]
fn a_killed_jc_changes_leaves_a_container_that_runs() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        s.sh("jc-pull --version >/dev/null").run().code(0);
        assert!(root.exists());
        let image = image(s);
        s.sh(&format!("jc-pull -q {image} | jc-run -d --keep --name c --network none -- sh -c 'while :; do echo x >>/log; sleep 0.01; done'"))
            .run()
            .code(0);
        s.sh("while ! jc-exec c test -e /log; do :; done; jc-exec c sh -c 'head -c 50000000 /dev/zero >/big'").run().code(0);
        // The reader of the archive does not read, so jc-changes waits with the container stopped.
        s.sh("mkfifo pipe; (exec 3<>pipe; jc-changes --tar - c >&3 & sleep 0.3; kill -9 $!; wait)")
            .run();
        let grows = "a=$(jc-exec c stat -c %s /log); sleep 0.1; b=$(jc-exec c stat -c %s /log); test $b -gt $a";
        s.sh(grows).run().code(0);
        s.sh("jc-rm -f c").run().code(0);
        s.wait_for_no_process();
    });
}

#[test]
fn a_layer_of_changes_unpacks_to_the_view_of_the_run() {
    sandbox(|s| {
        require(s, "umoci", "umoci");
        let image = image(s);
        s.sh(&format!("jc-pull -q {image} >record && mkdir u")).run().code(0);
        // podman diff fails on a file in a directory that was a file.
        let script = format!("{KINDS}; echo x >f9/in");
        s.jc("jc-rootfs")
            .args(["--record", "record", "--upper", "u", "--", "sh", "-c", &script])
            .run()
            .code(0);
        s.sh("jc-changes --tar a.tar ./u && jc-changes --tar - ./u | cmp - a.tar").run().code(0);
        // The layer over the image, by jc-pull and by umoci, shows the same tree as the run.
        s.sh("jc-pull --to whole -q oci:/srv/image:x >/dev/null && jc-changes --apply whole --base record ./u").run().code(0);
        s.sh("umoci raw add-layer --image image:x --tag y a.tar && umoci unpack --image image:y bundle").run().code(0);
        s.sh("jc-pull --to pulled -q oci:/srv/image:y >/dev/null").run().code(0);
        // A layer does not list a root that has not changed, so that its time is that of the image.
        let manifest = |name: &str| {
            let mut manifest = tree::manifest(&s.path(name));
            manifest.remove(Path::new(""));
            manifest
        };
        let (applied, pulled) = (manifest("whole"), manifest("pulled"));
        assert_eq!(tree::changes(&applied, &pulled), "");
        let umoci = manifest("bundle/rootfs");
        assert_eq!(tree::changes(&applied, &umoci), "");
    });
}

#[test]
fn bad_input_is_one_line() {
    sandbox(|s| {
        busybox_root(s, "root");
        run_in(s, "root", "mkdir /d; touch /d/f");
        let fails = |args: &[&str], code: i32, text: &str| {
            s.jc("jc-changes").args(args).run().code(code).stdout("").fails_as("jc-changes", text);
        };
        fails(&["./absent"], 1, "open ./absent: No such file or directory");
        fails(&["./root"], 1, "./root: has no file \"lower\"");
        fails(&["./root", "--discard"], 1, "./root: has no file \"lower\"");
        fails(&["--apply", "absent", "./u"], 1, "open absent: No such file or directory");
        fails(&["--apply", "root/bin/sh", "./u"], 1, "open root/bin/sh: Not a directory");
        fails(&["--base", "absent", "./u"], 1, "open absent: No such file or directory");
        fails(&["--base", "root/etc/group", "./u"], 1, "the line is not JSON");
        fails(&["./u", "[x"], 2, "pattern \"[x\"");
        fails(&["./u", "--force"], 2, "--apply");
        fails(&["--tar", "x", "--discard", "./u"], 2, "");
        fails(&["-z", "--json", "./u"], 2, "");
        fails(&[], 2, "");
        // The variable by which jc-changes finds a directory in a user namespace means nothing outside.
        let stray = s.jc("jc-changes").env("JC_CHANGES_DIR", "/").arg("./u").run();
        stray.code(0).stdout("A d\nA d/f\n");
        s.sh("SOURCE_DATE_EPOCH=x jc-changes --tar - ./u")
            .run()
            .code(1)
            .fails_as("jc-changes", "SOURCE_DATE_EPOCH=x: not a number of seconds");
        fs::write(s.path("u/upper/.wh.x"), "").unwrap();
        fails(&["--tar", "out", "./u"], 1, ".wh.x: has the name of a whiteout");
        assert!(!s.path("out").exists());
        fs::rename(s.path("root"), s.path("moved")).unwrap();
        fails(&["./u"], 1, "open /srv/root: No such file or directory");
        fs::write(s.path("u/lower"), "{").unwrap();
        fails(&["./u"], 1, "./u/lower: ");
    });
}

#[test]
fn links_and_neighbours_of_a_hostile_upper_directory_lead_nowhere() {
    sandbox(|s| {
        fs::create_dir_all(s.path("outside/sub")).unwrap();
        fs::write(s.path("outside/secret"), "secret content").unwrap();
        fs::write(s.path("outside/sub/secret"), "secret content").unwrap();
        fs::create_dir_all(s.path("u/a/sub")).unwrap();
        fs::create_dir(s.path("base")).unwrap();
        fs::write(s.path("u/a/secret"), "own").unwrap();
        symlink("/srv/outside", s.path("u/b")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (a, b) = (s.path("u/a"), s.path("u/b"));
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                }
            });
            for _ in 0..100 * volume() {
                let ran = s
                    .sh("jc-changes --base base --tar - ./u 2>/dev/null | tar -x -O 2>/dev/null")
                    .run();
                assert!(!ran.out().contains("secret content"), "{ran}");
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(Path::new("/srv/outside/secret").exists());
    });
}
