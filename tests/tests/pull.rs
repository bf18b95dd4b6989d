//! `jc-pull` of good images from an OCI layout: the record, and the content of the layers.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jc_tests::cgroups::can_limit;
use jc_tests::image::{Format, Image, Layout, Packing, architecture};
use jc_tests::layer::{Entry, Layer, MTIME};
use jc_tests::pty::Terminal;
use jc_tests::pulled::{layer_dirs, paths, record};
use jc_tests::roots::{busybox_layer, names};
use jc_tests::{sandbox, skip, tree, workspace_dir};
use serde_json::{Value, json};

const TOOL: &str = "jc-pull";

fn small(content: &str) -> Layer {
    Layer::new().entry(Entry::file("file", content))
}

#[test]
fn the_record_is_the_result_and_the_only_one() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let config = json!({"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"x": "ü\n"}, "Other": null});
        let image = Image::new().layer(small("1")).layer(small("2")).config(config.clone());
        let written = layout.image("x", &image);
        let record = s.pull("oci:image:x");
        assert_eq!(record["jc"], json!(1));
        assert_eq!(record["digest"], json!(written.digest()));
        assert_eq!(record["platform"], json!(format!("linux/{}", architecture())));
        assert_eq!(record["config"], config);
        assert!(record["ref"].as_str().unwrap().contains("image"));
        let layers = layer_dirs(&record);
        assert_eq!(layers.len(), 2);
        for (layer, content) in layers.iter().zip(["1", "2"]) {
            assert!(layer.is_absolute() && layer.starts_with(s.store()), "{}", layer.display());
            assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), content);
        }
        // The page documents every key of the record.
        let page = fs::read_to_string(workspace_dir().join("man/jc-record.5")).unwrap();
        for key in record.as_object().unwrap().keys() {
            assert!(page.contains(&format!(".It Cm {key}\n")), "{key} is not in jc-record(5)");
        }
    });
}

#[test]
fn the_tag_may_be_left_out_where_there_is_one_image() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let digest = layout.image("x", &Image::new().layer(small("1"))).digest().to_owned();
        assert_eq!(s.pull("oci:image")["digest"], json!(digest));
        assert_eq!(s.pull("oci:/srv/image:x")["digest"], json!(digest));
        let other = layout.image("y", &Image::new().layer(small("2"))).digest().to_owned();
        assert_eq!(s.pull("oci:image:y")["digest"], json!(other));
        s.refuse("oci:image:z");
        s.refuse("oci:image");
    });
}

#[test]
fn several_images_give_several_records() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let digests = ["x", "y", "z"]
            .map(|tag| layout.image(tag, &Image::new().layer(small(tag))).digest().to_owned());
        let images = ["oci:image:z", "oci:image:x", "oci:image:y"];
        let ran = s.jc(TOOL).args(images).run().code(0);
        let records: Vec<Value> =
            ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let pulled: Vec<&Value> = records.iter().map(|record| &record["digest"]).collect();
        assert_eq!(pulled, [&json!(digests[2]), &json!(digests[0]), &json!(digests[1])]);
        // The images in front of the one that fails have been pulled.
        let ran = s.jc(TOOL).args(["-q", "oci:image:x", "oci:image:none", "oci:image:y"]).run();
        assert_eq!(ran.out().lines().count(), 1);
        ran.code(1).fails_as(TOOL, "none");
    });
}

#[test]
fn every_form_of_a_layer_is_the_same_layer() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let mut seen = Vec::new();
        for (tag, packing, format) in [
            ("a", Packing::Gzip, Format::Oci),
            ("b", Packing::Plain, Format::Oci),
            ("c", Packing::Gzip, Format::Docker),
            ("d", Packing::Plain, Format::Docker),
        ] {
            layout.image(tag, &Image::new().packed(busybox_layer(), packing).format(format));
            let layers = layer_dirs(&s.pull(&format!("oci:image:{tag}")));
            seen.push(tree::manifest(&layers[0]));
        }
        assert!(seen.iter().all(|manifest| *manifest == seen[0]));
        assert!(seen[0].contains_key(Path::new("bin/busybox")));
    });
}

#[test]
fn an_index_gives_the_image_for_this_machine() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        for (tag, format) in [("oci", Format::Oci), ("docker", Format::Docker)] {
            let image = |of: &str| Image::new().layer(small(of)).architecture(of).format(format);
            let written =
                layout.index(tag, &[image("s390x"), image(architecture()), image("riscv64")]);
            let record = s.pull(&format!("oci:image:{tag}"));
            assert_eq!(record["digest"], json!(written[1].digest()));
            let other = s.jc(TOOL).args(["--platform", "linux/s390x"]);
            let other = other.arg(format!("oci:image:{tag}")).run().code(0);
            let other: Value = serde_json::from_str(&other.out()).unwrap();
            assert_eq!(other["digest"], json!(written[0].digest()));
            assert_eq!(other["platform"], json!("linux/s390x"));
            layout.index(&format!("{tag}-none"), &[image("s390x"), image("riscv64")]);
            s.refuse(&format!("oci:image:{tag}-none"));
        }
    });
}

/// All metadata of a tar entry is set on the unpacked file.
#[test]
fn a_layer_is_unpacked_exactly() {
    sandbox(|s| {
        let long = format!("d/{}/{}", "a".repeat(90), "ü".repeat(60));
        let layer =
            Layer::new()
                .entry(Entry::dir("d/").mode(0o2751).owner(7, 70_000).mtime(11))
                .entry(Entry::file("d/file", "content").mode(0o640).owner(1, 2).mtime(12))
                .entry(Entry::file("d/setuid", "x").mode(0o6755))
                .entry(Entry::hardlink("d/same", "d/file"))
                .entry(Entry::symlink("d/link", "../absent").owner(3, 4).mtime(13))
                .entry(Entry::symlink("d/absolute", "/etc/passwd"))
                .entry(Entry::device("d/null", 1, 3).mode(0o666))
                .entry(Entry::fifo("d/fifo").mode(0o622))
                .entry(Entry::file("d/colour", "").xattr("user.colour", b"\0red\n"))
                .entry(Entry::file("d/capable", "").xattr(
                    "security.capability",
                    b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                ))
                .entry(Entry::dir("d/closed/").mode(0o000))
                .entry(Entry::file("d/closed/in", "in").mode(0o000))
                .entry(Entry::file(&long, "long"))
                .entry(Entry::file("./dotted/made", "its parent has no entry"));
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(layer));
        // The umask of the caller changes no mode.
        let ran = s.sh("umask 077; exec jc-pull oci:image:x").run();
        let root = layer_dirs(&record(&ran)).remove(0);
        let of = |name: &str| {
            let meta = fs::symlink_metadata(root.join(name)).unwrap();
            (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec())
        };
        let mtime = i64::try_from(MTIME).unwrap();
        assert_eq!(of("d"), (0o42751, 7, 70_000, 11, 0));
        assert_eq!(of("d/file"), (0o100640, 1, 2, 12, 0));
        assert_eq!(of("d/setuid"), (0o106755, 0, 0, mtime, 0));
        assert_eq!(of("d/link"), (0o120777, 3, 4, 13, 0));
        assert_eq!(of("d/null"), (0o20666, 0, 0, mtime, 0));
        assert_eq!(of("d/fifo"), (0o10622, 0, 0, mtime, 0));
        assert_eq!(of("d/closed"), (0o40000, 0, 0, mtime, 0));
        assert_eq!(of("dotted").0, 0o40755);
        let inode = |name: &str| fs::symlink_metadata(root.join(name)).unwrap().ino();
        assert_eq!(inode("d/file"), inode("d/same"));
        assert_eq!(fs::symlink_metadata(root.join("d/null")).unwrap().rdev(), 0x103);
        assert_eq!(fs::read_link(root.join("d/link")).unwrap(), Path::new("../absent"));
        assert_eq!(fs::read_link(root.join("d/absolute")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(tree::xattrs(&root.join("d/colour"))["user.colour"], b"\0red\n");
        let capable = &tree::xattrs(&root.join("d/capable"))["security.capability"];
        assert_eq!(capable.len(), 20);
        assert_eq!(fs::read(root.join(&long)).unwrap(), b"long");
        assert_eq!(fs::read(root.join("d/closed/in")).unwrap(), b"in");
    });
}

#[test]
fn whiteouts_become_overlayfs_own() {
    sandbox(|s| {
        let layer = Layer::new()
            .entry(Entry::dir("d/"))
            .entry(Entry::file("d/.wh.gone", ""))
            .entry(Entry::dir("opaque/"))
            .entry(Entry::file("opaque/.wh..wh..opq", ""))
            .entry(Entry::file("opaque/new", "new"))
            .entry(Entry::file(".wh.top", ""));
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(layer));
        let root = layer_dirs(&s.pull("oci:image:x")).remove(0);
        assert_eq!(names(&root), "d\nopaque\ntop\n");
        assert_eq!(
            (names(&root.join("d")), names(&root.join("opaque"))),
            ("gone\n".into(), "new\n".into())
        );
        for whiteout in ["top", "d/gone"] {
            let meta = fs::symlink_metadata(root.join(whiteout)).unwrap();
            assert_eq!((meta.mode() & 0o170000, meta.rdev()), (0o20000, 0), "{whiteout}");
        }
        assert_eq!(tree::xattrs(&root.join("opaque"))["trusted.overlay.opaque"], b"y");
        assert!(!tree::xattrs(&root.join("d")).contains_key("trusted.overlay.opaque"));
    });
}

#[test]
fn a_layer_is_kept_once() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")).layer(small("2")));
        layout.image("y", &Image::new().layer(small("1")).layer(small("3")));
        let [x, y] = ["x", "y"].map(|tag| layer_dirs(&s.pull(&format!("oci:image:{tag}"))));
        assert_eq!(x[0], y[0]);
        assert_ne!(x[1], y[1]);
        // A second pull changes nothing.
        let layers = s.store().join("layers");
        let before = (tree::manifest(&layers), paths(&s.store()));
        assert_eq!(layer_dirs(&s.pull("oci:image:x")), x);
        assert_eq!(tree::changes(&before.0, &tree::manifest(&layers)), "");
        assert_eq!(paths(&s.store()), before.1);
    });
}

#[test]
fn the_store_is_where_one_says() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")));
        let in_dir = |ran, dir: &str| {
            let layers = layer_dirs(&record(&ran));
            assert!(layers[0].starts_with(dir), "{layers:?}");
        };
        in_dir(s.jc(TOOL).args(["--store", "/srv/a", "oci:image"]).run(), "/srv/a");
        in_dir(s.jc(TOOL).args(["--store=b", "oci:image"]).run(), "/srv/b");
        in_dir(s.jc(TOOL).env("JC_STORE", "/srv/c").arg("oci:image").run(), "/srv/c");
        let both = s.jc(TOOL).env("JC_STORE", "/srv/d").args(["--store", "e", "oci:image"]);
        in_dir(both.run(), "/srv/e");
        let made: BTreeSet<String> = names(&s.path("")).lines().map(str::to_owned).collect();
        assert!(!made.contains("d") && !made.contains("store"), "{made:?}");
        let ran = s.jc(TOOL).args(["--store", "/etc/passwd/x", "oci:image"]).run();
        ran.code(1).stdout("").fails_as(TOOL, "/etc/passwd");
    });
}

#[test]
fn pulls_at_the_same_time_do_not_disturb_each_other() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let big: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
        let image = Image::new().layer(busybox_layer());
        let image = image.layer(Layer::new().entry(Entry::file("big", big.clone())));
        layout.image("x", &image);
        let all: Vec<_> = (0..6).map(|_| s.jc(TOOL).arg("oci:image").spawn()).collect();
        let records: BTreeSet<String> =
            all.into_iter().map(|running| record(&running.wait()).to_string()).collect();
        assert_eq!(records.len(), 1, "{records:?}");
        let layers = layer_dirs(&s.pull("oci:image"));
        assert!(fs::read(layers[1].join("big")).unwrap() == big);
        assert_eq!(names(&s.store().join("layers")).lines().count(), 2);
    });
}

#[test]
fn stdout_is_the_records_and_a_closed_one_is_no_drama() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")));
        s.jc(TOOL).args(["--quiet", "oci:image"]).run().code(0).stderr("");
        // The pipe of descriptor 3 has no reader.
        let script =
            "mkfifo pipe; exec 4<>pipe; exec 3>pipe; exec 4<&-; jc-pull -q oci:image >&3; echo $?";
        let ran = s.sh(script).run().code(0).stderr("");
        assert!(["1\n", "141\n"].contains(&ran.out().as_str()), "{ran}");
        let full = s.sh("jc-pull -q oci:image > /dev/full").run();
        full.code(1).fails_as(TOOL, "No space left on device");
    });
}

#[test]
fn progress_is_a_bar_on_a_terminal_and_plain_lines_elsewhere() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let written = layout.image("x", &Image::new().layer(busybox_layer()));
        let plain = s.jc(TOOL).arg("oci:image").run().code(0).err();
        assert!(plain.starts_with("jc-pull: ") && plain.ends_with('\n'), "{plain:?}");
        assert!(!plain.contains(['\r', '\x1b']), "{plain:?}");
        fs::remove_dir_all(s.store()).unwrap();
        // stderr decides about the progress, since stdout is a file here.
        let terminal = Terminal::start(s.sh("jc-pull oci:image > record"));
        let (status, shown) = terminal.wait();
        assert!(status.success() && shown.contains(['\r', '\x1b']), "{shown:?}");
        assert!(!shown.contains("\"jc\""), "{shown:?}");
        for part in ["total", "1 layer fetched, 0 reused, "] {
            assert!(shown.contains(part), "{part}: {shown:?}");
        }
        let layer = written.layers[0]["digest"].as_str().unwrap();
        assert!(shown.contains(&layer["sha256:".len()..][..12]), "{layer}: {shown:?}");
        let record = fs::read_to_string(s.path("record")).unwrap();
        assert!(record.starts_with('{') && record.lines().count() == 1, "{record:?}");
    });
}

#[test]
fn a_command_line_that_cannot_be_meant_is_a_usage_error() {
    sandbox(|s| {
        for args in [&[][..], &["--nonsense"], &["--store"], &["--platform", "x", "oci:image"]] {
            s.jc(TOOL).args(args).run().code(2).stdout("").fails_as(TOOL, "");
        }
        for image in [
            "",
            "UPPER",
            "a b",
            "x@sha256:12",
            "x:",
            "a/../b",
            "oci:",
            "oci:/nonexistent",
            "x:tag:tag",
        ] {
            let ran = s.jc(TOOL).args(["-q", "--", image]).run();
            assert!(matches!(ran.status().code(), Some(1 | 2)), "{ran}");
            ran.stdout("").fails_as(TOOL, "");
        }
        assert!(paths(&s.store()).iter().all(|path| path.is_dir()));
    });
}

/// Each layer needs two threads besides the thread that unpacks it.
#[test]
fn a_pull_with_few_threads_works_or_ends_with_one_line() {
    sandbox(|s| {
        if !can_limit("pids") {
            skip!("this host has no pids controller");
        }
        let layout = Layout::new(s.path("image"));
        let image = (0..4).fold(Image::new(), |image, n| image.layer(small(&n.to_string())));
        layout.image("x", &image);
        for pids in 1..=16 {
            let pids = pids.to_string();
            let pull = ["--", "jc-pull", "-q", "oci:image:x"];
            let ran = s.jc("jc-cgroup").args(["--pids", &pids]).args(pull).run();
            match ran.status().code() {
                Some(0) => assert_eq!(layer_dirs(&record(&ran)).len(), 4, "{ran}"),
                // The main thread counts too.
                _ => drop(ran.code(1).stdout("").fails_as(TOOL, "thread: Resource temporarily")),
            }
            fs::remove_dir_all(s.store()).unwrap();
        }
    });
}
