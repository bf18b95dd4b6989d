//! `jc-commit`: layers from directories, archives and containers, and the configuration of an image.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jc_tests::image::{Format, Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, failure_of, layer_dirs, paths, record};
use jc_tests::roots::busybox_layer;
use jc_tests::{Ann, Cmd, Sandbox, require, sandbox, tree};
use serde_json::{Value, json};

/// The record of an image with busybox, two directories and a file to remove.
fn base(s: &Sandbox) -> String {
    let layout = Layout::new(s.path("image"));
    let layer = busybox_layer()
        .entry(Entry::dir("etc/"))
        .entry(Entry::file("etc/old", "old"))
        .entry(Entry::dir("opaque/"))
        .entry(Entry::file("opaque/below", ""));
    layout.image("x", &Image::new().format(Format::Docker).layer(layer));
    s.jc("jc-pull").args(["-q", "oci:image"]).run().code(0).out()
}

fn commit(s: &Sandbox, base: &str, words: &[&str]) -> Cmd {
    s.jc("jc-commit").args(words).input(base)
}

fn committed(s: &Sandbox, base: &str, words: &[&str]) -> Value {
    record(&commit(s, base, words).run())
}

/// The document of a kind, as jc-push writes it to a layout.
fn documents(s: &Sandbox, record: &Value) -> (Value, Value) {
    let line = record.to_string() + "\n";
    s.sh("rm -rf out").run().code(0);
    s.jc("jc-push").args(["-q", "oci:out:t"]).input(line).run().code(0);
    let read = |what: &str| {
        let ran = s.jc("jc-pull").args(["--print", what, "oci:out"]).run().code(0);
        serde_json::from_str(&ran.out()).unwrap()
    };
    (read("manifest"), read("config"))
}

/// The files of an image, as an overlay shows them.
fn merged(s: &Sandbox, record: &Value) -> BTreeMap<PathBuf, String> {
    let lower: Vec<String> =
        layer_dirs(record).iter().rev().map(|l| l.display().to_string()).collect();
    fs::create_dir_all(s.path("merged")).unwrap();
    // overlayfs takes no single directory.
    fs::create_dir_all(s.path("empty")).unwrap();
    let options = format!("lowerdir={}:empty", lower.join(":"));
    s.cmd("mount").args(["-t", "overlay", "-o", &options, "none", "merged"]).run().code(0);
    let files = tree::manifest(&s.path("merged"));
    s.sh("umount merged").run().code(0);
    files
}

/// Files of every kind, in the directory `d`.
const MAKE: &str = r#"
mkdir -p d/plain d/closed d/etc && cd d
echo content > plain/file; ln plain/file plain/same; ln plain/file closed/same
ln -s ../absent plain/link; mkfifo plain/pipe; mknod plain/char c 5 300; mknod plain/block b 259 70000
: > "$(printf 'new\nline\377')"; echo s > plain/setuid; chown 33:34 plain/setuid; chmod 6755 plain/setuid
chown 4000000000:7 closed; chmod 700 closed; chmod 1777 plain; truncate -s 300k plain/hole
echo long > "plain/$(printf 'f%.0s' $(seq 200))"; touch -d @1.5 plain/file; touch -h -d @77 plain/link
setfattr -n user.x -v y plain/file 2>/dev/null || python3 -c 'import os; os.setxattr("plain/file","user.x",b"y")'
python3 -c 'import os; os.setxattr("plain/setuid","security.capability",bytes.fromhex("0100000200200000000000000000000000000000"))'
touch -d @5.25 closed plain etc .; chmod 700 .
"#;

#[test]
fn the_files_of_a_directory_become_a_layer() {
    sandbox(|s| {
        require(s, "umoci", "umoci");
        s.sh(MAKE).run().code(0);
        let base = base(s);
        let new = committed(s, &base, &["--dir", "d"]);
        let old: Value = serde_json::from_str(&base).unwrap();
        let (before, after) = (merged(s, &old), merged(s, &new));
        let files = tree::manifest(&s.path("d"));
        assert!(files.len() > 14, "{}", files.len());
        for (path, line) in &files {
            if !path.as_os_str().is_empty() {
                assert_eq!(after.get(path), Some(line), "{}", path.display());
            }
        }
        assert_eq!(after[Path::new("")], before[Path::new("")], "the root of the image");
        assert!(after.contains_key(Path::new("etc/old")));
        // Another program unpacks the same files, and the image came unchanged.
        let (manifest, config) = documents(s, &new);
        assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        s.sh("umoci unpack --image out:t bundle").run().code(0);
        let theirs = tree::manifest(&s.path("bundle/rootfs"));
        for (path, line) in &files {
            if !path.as_os_str().is_empty() {
                assert_eq!(theirs.get(path), Some(line), "{}", path.display());
            }
        }
        let again = Store::new(s);
        let pulled = again.pull(&["-q", &format!("oci:{}", s.path("out").display())]);
        let names = |record: &Value| -> Vec<_> {
            layer_dirs(record).iter().map(|dir| dir.file_name().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&pulled[0]), names(&new));
    });
}

#[test]
fn the_same_commit_gives_the_same_digests() {
    sandbox(|s| {
        s.sh(MAKE).run().code(0);
        let base = base(s);
        let words = ["--dir", "d", "--env", "A=1", "--author", "me"];
        let run = |store: Option<&str>| {
            let commit = commit(s, &base, &words).env("SOURCE_DATE_EPOCH", "1000000000");
            let commit = match store {
                Some(store) => commit.args(["--store", store]),
                None => commit,
            };
            record(&commit.run())
        };
        let first = run(None);
        s.sh("cp -a d e && touch e/plain/setuid d/plain/setuid && rm -rf d && mv e d")
            .run()
            .code(0);
        let second = run(None);
        assert_eq!(first["digest"], second["digest"]);
        // Another store gives the same, and pushes have the same bytes, with any number of processors.
        s.jc("jc-pull").args(["-q", "--store", "other", "oci:image"]).run().code(0);
        let third = run(Some("other"));
        assert_eq!(first["digest"], third["digest"]);
        let digest = |prefix: &str| {
            let line = first.to_string() + "\n";
            let push = format!("{prefix} jc-push -q --print digest oci-archive:-");
            let push = push.replace("--print digest ", "");
            s.sh(&push).input(line).run().code(0).out_bytes().to_vec()
        };
        assert!(digest("") == digest("taskset -c 0"));
        let (_, config) = documents(s, &first);
        assert_eq!(config["created"], "2001-09-09T01:46:40Z");
        assert_eq!(config["author"], "me");
        let file = layer_dirs(&first).pop().unwrap().join("plain/setuid");
        assert_eq!(fs::metadata(file).unwrap().mtime(), 1_000_000_000);
        let bad = commit(s, &base, &["--dir", "d"]).env("SOURCE_DATE_EPOCH", "soon").run();
        bad.code(1).fails_as("jc-commit", "SOURCE_DATE_EPOCH=soon: not a number of seconds");
    });
}

#[test]
fn an_archive_is_a_layer_with_its_whiteouts() {
    sandbox(|s| {
        let base = base(s);
        let layer = Layer::new()
            .entry(Entry::file("etc/.wh.old", ""))
            .entry(Entry::file("opaque/.wh..wh..opq", ""))
            .entry(Entry::file("opaque/above", "above"))
            .entry(Entry::file("a/b/c", "deep"))
            .entry(Entry::hardlink("link", "bin/busybox"));
        let tar = layer.into_tar();
        fs::write(s.path("layer.tar"), &tar).unwrap();
        let new = committed(s, &base, &["--layer", "layer.tar"]);
        let files = merged(s, &new);
        assert!(!files.contains_key(Path::new("etc/old")));
        assert!(!files.contains_key(Path::new("opaque/below")));
        assert!(files.contains_key(Path::new("opaque/above")));
        assert!(files.contains_key(Path::new("a/b/c")) && files.contains_key(Path::new("link")));
        // The record and the archive may come in one stream, compressed or not.
        for program in ["cat", "gzip -c", "zstd -q -c"] {
            let packed = s.sh(program).input(tar.clone()).run().code(0);
            let input = [base.as_bytes(), packed.out_bytes()].concat();
            let words = ["--layer", "-", "--print", "digest"];
            let ran =
                s.jc("jc-commit").args(words).env("SOURCE_DATE_EPOCH", "5").input(input).run();
            let other = commit(s, &base, &["--layer", "layer.tar", "--print", "digest"]);
            let other = other.env("SOURCE_DATE_EPOCH", "5").run().code(0);
            assert_eq!(ran.code(0).out(), other.out(), "{program}");
        }
        // The image comes back from a layout with the same files.
        documents(s, &new);
        let again = Store::new(s);
        let pulled = again.pull(&["-q", &format!("oci:{}", s.path("out").display())]);
        assert_eq!(tree::changes(&files, &merged(s, &pulled[0])), "");
    });
}

#[test]
fn options_set_the_configuration() {
    sandbox(|s| {
        require(s, "skopeo", "skopeo");
        let base = base(s);
        let words = [
            "--cmd",
            r#"["a","b c"]"#,
            "--entrypoint",
            "run me",
            "--env",
            "A=1",
            "--env",
            "PATH=/x",
            "--workdir",
            "/w",
            "--user",
            "1:2",
            "--label",
            "l=m=n",
            "--expose",
            "80",
            "--expose",
            "53/udp",
            "--volume",
            "/v",
            "--stop-signal",
            "SIGUSR1",
            "--author",
            "me",
            "--platform",
            "linux/arm64/v8",
        ];
        let new = committed(s, &base, &words);
        let (manifest, config) = documents(s, &new);
        assert_eq!(
            config["config"],
            json!({
                "Cmd": ["a", "b c"], "Entrypoint": ["/bin/sh", "-c", "run me"],
                "Env": ["PATH=/x", "A=1"], "WorkingDir": "/w", "User": "1:2",
                "Labels": {"l": "m=n"}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/v": {}}, "StopSignal": "SIGUSR1",
            })
        );
        assert_eq!(new["config"], config["config"]);
        assert_eq!(new["platform"], "linux/arm64/v8");
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.len(), 2);
        assert_eq!(
            (&history[1]["empty_layer"], &history[1]["author"]),
            (&json!(true), &json!("me"))
        );
        assert_eq!(
            manifest["layers"][0]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let theirs = s.cmd("skopeo").args(["inspect", "--config", "oci:out:t"]).run().code(0);
        let theirs: Value = serde_json::from_str(&theirs.out()).unwrap();
        assert_eq!(theirs["config"]["Entrypoint"], config["config"]["Entrypoint"]);
        for words in [
            ["--cmd", "[1]"],
            ["--env", "A"],
            ["--expose", "0"],
            ["--volume", "v"],
            ["--workdir", "w"],
            ["--label", "=x"],
            ["--platform", "arm"],
            ["--tag", "a@b"],
        ] {
            commit(s, &base, &words).run().code(2).stdout("");
        }
    });
}

#[test]
fn a_name_is_known_to_all_programs_of_the_store() {
    sandbox(|s| {
        let base = base(s);
        s.sh("mkdir -p d/etc && echo hello >d/etc/motd").run().code(0);
        let words = ["--dir", "d", "--cmd", r#"["cat","/etc/motd"]"#, "-t", "localhost/team/x:1"];
        let new = committed(s, &base, &words);
        assert_eq!(new["ref"], "localhost/team/x:1");
        assert!(s.jc("jc-images").run().code(0).out().contains("localhost/team/x:1"));
        s.jc("jc-images").arg("--check").run().code(0);
        let run = ["--image", "localhost/team/x:1", "--pull", "never"];
        s.jc("jc-run").args(run).run().code(0).stdout("hello\n");
        // The record of the name has the origin of its lower layers still.
        let again = s.jc("jc-pull").args(["-q", "--policy", "never", "localhost/team/x:1"]).run();
        let again = record(&again);
        assert_eq!((&again["digest"], &again["origin"]), (&new["digest"], &new["origin"]));
        let line = again.to_string() + "\n";
        s.jc("jc-push").args(["-q", "oci:out"]).input(line).run().code(0);
        let gone = s.jc("jc-rmi").arg("localhost/team/x:1").run().code(0).out();
        assert!(gone.contains("sha256-"), "{gone}");
        s.jc("jc-run").args(run).run().code(125);
        // Without a name, an image lasts until a sweep.
        let new = committed(s, &base, &["--dir", "d"]);
        assert_eq!(new.get("ref"), None);
        let line = new.to_string() + "\n";
        let cat = ["--", "cat", "/etc/motd"];
        s.jc("jc-run").args(cat).input(line.clone()).run().code(0).stdout("hello\n");
        s.jc("jc-rmi").arg("--unused").run().code(0);
        s.jc("jc-run").args(cat).input(line).run().code(125);
    });
}

#[test]
fn commits_stand_on_commits_and_on_nothing() {
    sandbox(|s| {
        s.sh("mkdir one two && echo 1 >one/f && echo 2 >two/f && echo 2 >two/g").run().code(0);
        let one = committed(s, "", &["--scratch", "--dir", "one"]);
        let two = committed(s, &(one.to_string() + "\n"), &["--dir", "two"]);
        let files = merged(s, &two);
        assert!(files.contains_key(Path::new("g")));
        let (manifest, config) = documents(s, &two);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert!(manifest["layers"][0].get("annotations").is_none());
        let nothing = commit(s, "", &["--scratch"]).run().code(1);
        nothing.fails_as("jc-commit", "an image without layers");
    });
}

#[test]
fn a_bad_layer_leaves_nothing_in_the_store() {
    sandbox(|s| {
        let base = base(s);
        let before = paths(&s.store());
        let long = Layer::new().entry(Entry::file("file", vec![b'x'; 100_000])).into_tar();
        for (tar, error) in [
            (Layer::new().entry(Entry::file("../x", "")).into_tar(), "entry ../x"),
            (Layer::new().entry(Entry::device("x", 0, 0)).into_tar(), "entry x"),
            (Layer::new().entry(Entry::hardlink("x", "absent")).into_tar(), "entry x"),
            (long[..50_000].to_vec(), "entry file"),
            (b"nonsense".to_vec(), ""),
            (Vec::new(), "an empty layer blob"),
        ] {
            fs::write(s.path("bad.tar"), tar).unwrap();
            let ran = commit(s, &base, &["--layer", "bad.tar"]).run();
            assert!(failure_of("jc-commit", &ran, 1).contains(error), "{error}: {ran}");
        }
        let big = commit(s, &base, &["--max-size", "10k", "--layer", "big.tar"]);
        fs::write(s.path("big.tar"), &long).unwrap();
        assert!(failure_of("jc-commit", &big.run(), 1).contains("unpacks to more than"));
        s.sh("mkdir d && touch d/.wh.x").run().code(0);
        let ran = commit(s, &base, &["--dir", "d"]).run();
        assert!(failure_of("jc-commit", &ran, 1).contains("has the name of a whiteout"));
        for words in [["--dir", "absent"], ["--layer", "absent"], ["--only", "absent"]] {
            let ran = commit(s, &base, &words).run();
            assert!(failure_of("jc-commit", &ran, 1).contains("absent"), "{words:?}");
        }
        for (input, error) in [
            ("", "no record on stdin"),
            ("{\"jc\":1,\"rootfs\":\"/srv\"}\n", "record: no \"digest\""),
        ] {
            let ran = commit(s, input, &["--dir", "d"]).run();
            assert!(failure_of("jc-commit", &ran, 1).contains(error));
        }
        assert_eq!(paths(&s.store()), before);
    });
}

/// The image of a Debian-like tree without the files that nothing uses: a program, its links, and its loader.
#[test]
fn only_the_listed_files_are_left() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let lower = busybox_layer()
            .entry(Entry::dir("etc/"))
            .entry(Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\n"))
            .entry(Entry::file("etc/unused", "x"))
            .entry(Entry::dir("usr/").mode(0o711))
            .entry(Entry::dir("usr/lib/"))
            .entry(Entry::symlink("lib", "usr/lib"))
            .entry(Entry::file("usr/lib/gone", "x"))
            .entry(Entry::file("usr/lib/a", "a").owner(33, 34).mode(0o640))
            .entry(Entry::hardlink("usr/lib/b", "usr/lib/a"))
            .entry(Entry::hardlink("usr/lib/c", "usr/lib/a"));
        let upper = Layer::new().entry(Entry::file("usr/lib/.wh.gone", ""));
        let config = json!({"Cmd": ["cat", "/lib/c"], "Env": ["PATH=/bin"]});
        layout.image("x", &Image::new().config(config).layer(lower).layer(upper));
        let base = s.jc("jc-pull").args(["-q", "oci:image"]).run().code(0).out();
        fs::write(s.path("list"), "/bin/busybox\n/bin/cat\n/lib/c\n/lib/b\n/lib/gone\n/proc/1\n")
            .unwrap();
        let slim = committed(s, &base, &["--only", "list"]);
        assert_eq!(layer_dirs(&slim).len(), 1);
        let root = &layer_dirs(&slim)[0];
        let files: Vec<String> = tree::manifest(root)
            .keys()
            .map(|path| path.display().to_string())
            .filter(|path| !path.starts_with("bin") && !path.is_empty())
            .collect();
        let expected = [
            "etc",
            "etc/group",
            "etc/passwd",
            "lib",
            "root",
            "tmp",
            "usr",
            "usr/lib",
            "usr/lib/b",
            "usr/lib/c",
        ];
        assert_eq!(files, expected);
        let [b, c] = ["b", "c"].map(|name| fs::metadata(root.join("usr/lib").join(name)).unwrap());
        assert_eq!((b.ino(), b.uid(), b.mode() & 0o777), (c.ino(), 33, 0o640));
        assert_eq!(fs::metadata(root.join("usr")).unwrap().mode() & 0o777, 0o711);
        let line = slim.to_string() + "\n";
        s.jc("jc-run").input(line).run().code(0).stdout("a");
        let (manifest, config) = documents(s, &slim);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(config["history"].as_array().unwrap().len(), 1);
        fs::write(s.path("list"), "/absent\n").unwrap();
        let ran = commit(s, &base, &["--only", "list"]).run();
        assert!(failure_of("jc-commit", &ran, 1).contains("no file of the list is in the image"));
    });
}
/// The pipeline of jc-commit(1), with a program of the test in place of a package.
#[test]
fn the_changes_of_a_run_become_an_image() {
    sandbox(|s| {
        let base = base(s);
        fs::write(s.path("base"), &base).unwrap();
        s.sh(
            "jc-run --keep --name b <base -- sh -c 'rm /etc/old; mkdir /new; echo hi >/new/hello'",
        )
        .run()
        .code(0);
        s.sh(r#"jc-commit --changes b --cmd '["cat","/new/hello"]' <base >new"#).run().code(0);
        s.sh("jc-run <new").run().code(0).stdout("hi\n");
        let new: Value = serde_json::from_str(&fs::read_to_string(s.path("new")).unwrap()).unwrap();
        let files = merged(s, &new);
        assert!(!files.contains_key(Path::new("etc/old")));
        s.sh("jc-push -q oci:out:t <new && jc-rm b").run().code(0);
        let theirs =
            s.sh("umoci unpack --image out:t bundle && ls bundle/rootfs/etc bundle/rootfs/new");
        let listed = theirs.run().code(0).out();
        assert!(listed.contains("hello") && !listed.contains("old"), "{listed}");
    });
}

/// A container is stopped while its changes are read, and then runs on.
#[test]
fn the_changes_of_a_running_container_become_an_image() {
    sandbox(|s| {
        fs::write(s.path("base"), base(s)).unwrap();
        // Processes that begin while others are being stopped.
        let forks = "for i in 1 2 3 4 5 6; do while :; do cat /dev/null; done & done";
        let loops =
            format!("{forks}; while :; do echo x >>/log; cp /log /copy; mv /copy /whole; done");
        s.sh(&format!("jc-run -d --keep --name r --network none <base -- sh -c '{loops}'"))
            .run()
            .code(0);
        let ready = "while ! jc-exec r test -e /whole; do :; done";
        let commit = "for n in 1 2 3 4 5; do jc-commit --changes r <base >new$n || exit; done";
        s.sh(&format!("{ready} 2>/dev/null; {commit}")).run().code(0).stderr("");
        for new in ["new1", "new5"] {
            let line = format!("jc-run --network none <{new} -- sh -c 'test -s /log'");
            s.sh(&line).run().code(0).stdout("");
        }
        let grows = "a=$(jc-exec r stat -c %s /log); sleep 0.1; \
            test $(jc-exec r stat -c %s /log) -gt $a";
        s.sh(grows).run().code(0);
        s.sh("jc-rm -f r").run().code(0);
        s.wait_for_no_process();
    });
}

#[test]
fn an_ordinary_user_makes_images_of_changes() {
    sandbox(|s| {
        base(s);
        for range in [true, false] {
            let ann = if range { Ann::with_range(s) } else { Ann::new(s) };
            let map = if range { "" } else { "--ignore-chown" };
            let run = |script: &str| ann.sh(&format!("set -e; {script}")).run().code(0).stderr("");
            run(&format!(
                "rm -rf .local; jc-pull -q {map} oci:/srv/image >base
                 jc-run --keep --name b --network none <base -- \
                     sh -c 'rm /etc/old; mkdir /new; echo hi >/new/hello; chmod 600 /new/hello'
                 jc-commit --changes b --cmd '[\"cat\",\"/new/hello\"]' <base >new"
            ));
            run("jc-run --network none <new").stdout("hi\n");
            run("rm -rf out; jc-push -q oci:out:t <new; jc-rm b");
            let theirs = s.jc("jc-pull").args(["-q", "oci:ann/out"]).run();
            let top = layer_dirs(&record(&theirs)).pop().unwrap();
            assert_eq!(fs::read(top.join("new/hello")).unwrap(), b"hi\n");
            assert_eq!(fs::metadata(top.join("new/hello")).unwrap().mode(), 0o10_0600);
        }
        s.wait_for_no_process();
    });
}
