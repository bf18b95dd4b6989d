//! jc-images and jc-rmi, and the layers that jc-rmi keeps.

#![cfg(target_os = "linux")]

use std::process::Command;

use jc_tests::http::Registry;
use jc_tests::image::{Built, Image, Layout, Packed};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, layer_dirs};
use jc_tests::{Ran, Running, Sandbox, sandbox};
use rustix::process::Signal;
use serde_json::Value;

fn images(store: &Store, arguments: &[&str]) -> Ran {
    store.program("jc-images", arguments).run()
}

fn rmi(store: &Store, arguments: &[&str]) -> Ran {
    store.program("jc-rmi", arguments).run()
}

fn layer(text: &str) -> Packed {
    let padding = "x".repeat(20_000);
    let tar = Layer::new().directory("./", 0o755).file("x", text).file("padding", &padding);
    Packed::gzip(&tar.into_tar())
}

/// Puts two images that share a layer into the store. Returns their names and records.
fn two(store: &Store) -> [(String, Value); 2] {
    let registry = Registry::start();
    ["a", "b"].map(|name| {
        let image = Built::of(&[layer("shared"), layer(name)]);
        registry.push(name, "latest", &image);
        let full = format!("{}/{name}:latest", registry.host);
        let record = store.pull(&["-q", &full]).remove(0);
        (full, record)
    })
}

fn entries(store: &Store, part: &str) -> usize {
    std::fs::read_dir(store.path().join(part)).unwrap().count()
}

#[test]
fn images_are_listed_with_what_they_take() {
    sandbox(|s| {
        let store = Store::new(s);
        assert_eq!(images(&store, &[]).out().lines().count(), 1);
        let [(a, _), (b, record)] = two(&store);
        let output = images(&store, &["--json"]);
        let lines: Vec<Value> =
            output.out().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["ref"], &lines[1]["ref"]), (2, &a.into(), &b.into()));
        assert_eq!(lines[1]["manifest"], record["digest"]);
        let (size, own) = (lines[0]["size"].as_u64().unwrap(), lines[0]["own"].as_u64().unwrap());
        assert!(own >= 20_000 && size == 2 * own, "{size} {own}");
        let table = images(&store, &[]).out();
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.starts_with("IMAGE ") && table.contains("linux/amd64"), "{table}");
    });
}

#[test]
fn damage_is_found() {
    sandbox(|s| {
        let store = Store::new(s);
        let [(a, record), _] = two(&store);
        assert!(images(&store, &["--check"]).status().success());
        let digest = record["digest"].as_str().unwrap().replace(':', "-");
        let document = store.path().join("blobs").join(digest);
        let good = std::fs::read(&document).unwrap();
        std::fs::write(&document, [&good[..], b" "].concat()).unwrap();
        let output = images(&store, &["--check"]);
        assert_eq!(output.status().code(), Some(1));
        let message = output.err();
        assert!(message.starts_with(&format!("jc-images: {a}: document sha256:")), "{message}");
        std::fs::write(&document, good).unwrap();
        damage(&store, &layer_dirs(&record)[1]);
        std::fs::remove_dir_all(&layer_dirs(&record)[1]).unwrap();
        let message = images(&store, &["--check"]).err();
        assert!(message.contains(": layer sha256-") && message.contains("is missing"), "{message}");
    });
}

/// Hard links to files whose type is not recorded do not count as missing.
#[test]
fn hard_links_to_devices_fifos_and_links_are_not_missing() {
    sandbox(|s| {
        let store = Store::new(s);
        let layer = Layer::new().extend([
            Entry::device("device", 1, 3),
            Entry::fifo("fifo"),
            Entry::symlink("link", "device"),
            Entry::hardlink("other-device", "device"),
            Entry::hardlink("other-fifo", "fifo"),
            Entry::hardlink("other-link", "link"),
        ]);
        Layout::new(s.path("image")).image("x", &Image::new().layer(layer));
        let record = store.pull(&["-q", "oci:/srv/image"]).remove(0);
        images(&store, &["--check"]).code(0).stderr("");
        let device = layer_dirs(&record)[0].join("other-device");
        std::fs::remove_file(device).unwrap();
        let message = images(&store, &["--check"]).code(1).err();
        assert!(message.contains("file other-device is missing"), "{message}");
    });
}

/// Damages files one after the other, compares the message of the check, and repairs each file.
fn damage(store: &Store, layer: &std::path::Path) {
    let file = layer.join("padding");
    let keep = layer.with_file_name("keep");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&file, &keep);
    let same_time = "touch -r \"$1\" /tmp/jc-time-$$ && \
        printf y | dd of=\"$1\" bs=1 seek=9999 conv=notrunc status=none && \
        touch -r /tmp/jc-time-$$ \"$1\" && rm /tmp/jc-time-$$";
    for (script, fault) in [
        (same_time, "file padding has another content"),
        ("echo >> \"$1\"", "file padding has another size"),
        ("chmod 600 \"$1\"", "file padding has another owner or mode"),
        ("chown 5 \"$1\"", "file padding has another owner or mode"),
        ("touch \"$1\"", "file padding has been written to"),
        ("rm \"$1\"", "file padding is missing"),
        ("echo > \"${1%padding}new\"", "file new is not of the layer"),
    ] {
        let mut shell = Command::new("sh");
        assert!(shell.args(["-c", script, "sh"]).arg(&file).status().unwrap().success());
        let output = images(store, &["--check"]);
        assert_eq!(output.status().code(), Some(1), "{script}");
        let message = output.err();
        assert!(message.contains(": layer sha256-") && message.contains(fault), "{message}");
        let _: std::io::Result<()> = std::fs::remove_file(layer.join("new"));
        copy(&keep, &file);
        assert!(images(store, &["--check"]).status().success(), "{script}");
    }
    std::fs::remove_file(keep).unwrap();
}

#[test]
fn removing_an_image_leaves_what_others_share() {
    sandbox(|s| {
        let store = Store::new(s);
        let [(a, first), (b, second)] = two(&store);
        let missing = rmi(&store, &["nonsense/x"]);
        assert_eq!(missing.status().code(), Some(1));
        assert!(missing.err().contains("docker.io/nonsense/x:latest: no such image"));
        let output = rmi(&store, &[&a]);
        let own = layer_dirs(&first)[1].file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(output.out(), format!("{a}\n{own}\n"), "{}", output.err());
        assert!(layer_dirs(&second).iter().all(|layer| layer.is_dir()));
        assert_eq!((entries(&store, "layers"), entries(&store, "blobs")), (2, 2));
        assert!(rmi(&store, &[&b]).status().success());
        for part in ["layers", "sums", "blobs", "images", "tmp"] {
            assert_eq!(entries(&store, part), 0, "{part}");
        }
        for arguments in [vec![], vec!["--unused", "x"]] {
            assert_eq!(rmi(&store, &arguments).status().code(), Some(2));
        }
    });
}

/// A process with the layers mounted in its own mount namespace.
fn mounted(s: &Sandbox, lower: &str) -> Running {
    let script = "mount -t overlay test -o \"lowerdir=$1\" /mnt && echo ready && exec sleep 600";
    let command = s.cmd("unshare").args(["--mount", "--", "sh", "-c", script, "sh", lower]);
    let mut running = command.spawn();
    running.wait_for("ready");
    running
}

#[test]
fn layers_of_a_running_container_are_not_removed() {
    sandbox(|s| {
        let store = Store::new(s);
        let [(a, first), (b, _)] = two(&store);
        let at = layer_dirs(&first);
        let lower = format!("{}:{}", at[1].display(), at[0].display());
        let container = mounted(s, &lower);
        let output = rmi(&store, &[&a]);
        assert_eq!(output.status().code(), Some(1));
        assert!(output.err().contains(&format!("{a}: in use by process ")));
        assert!(at.iter().all(|layer| layer.is_dir()) && entries(&store, "images") == 2);
        // The other image shares a layer with the container, which keeps that layer.
        assert!(rmi(&store, &[&b]).status().success());
        std::fs::remove_dir_all(store.path().join("images")).unwrap();
        assert_eq!(rmi(&store, &["--unused"]).out(), "");
        container.signal(Signal::KILL);
        container.wait();
        // A start locks the layer before the mount.
        let lock = std::fs::File::open(&at[0]).unwrap();
        lock.lock_shared().unwrap();
        assert_eq!(rmi(&store, &["--unused"]).out().lines().count(), 1);
        drop(lock);
        assert_eq!(rmi(&store, &["--unused"]).out().lines().count(), 1);
        assert_eq!((entries(&store, "layers"), entries(&store, "blobs")), (0, 0));
    });
}
