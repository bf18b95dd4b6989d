//! jc-images and jc-rmi, and what they leave to whom.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::common::{Image, Layer, MANIFEST, Store, Tar, layers, root};
use crate::registry::Registry;

fn tool(store: &Store, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("--store").arg(store.path()).args(arguments).output().unwrap()
}

fn images(store: &Store, arguments: &[&str]) -> Output {
    tool(store, env!("CARGO_BIN_EXE_jc-images"), arguments)
}

fn rmi(store: &Store, arguments: &[&str]) -> Output {
    tool(store, env!("CARGO_BIN_EXE_jc-rmi"), arguments)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn layer(text: &str) -> Layer {
    let padding = "x".repeat(20_000);
    let tar = Tar::new().directory("./", 0o755).file("x", text).file("padding", &padding);
    Layer::gzip(&tar.finish())
}

/// Two images in the store that share a layer; their names and records.
fn two(store: &Store) -> [(String, serde_json::Value); 2] {
    let registry = Registry::start();
    ["a", "b"].map(|name| {
        let image = Image::new(&[layer("shared"), layer(name)]);
        registry.push(name, "latest", &image, MANIFEST);
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
    if !root() {
        return;
    }
    let store = Store::new();
    assert_eq!(text(&images(&store, &[]).stdout).lines().count(), 1);
    let [(a, _), (b, record)] = two(&store);
    let output = images(&store, &["--json"]);
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["ref"], &lines[1]["ref"]), (2, &a.into(), &b.into()));
    assert_eq!(lines[1]["manifest"], record["digest"]);
    let (size, own) = (lines[0]["size"].as_u64().unwrap(), lines[0]["own"].as_u64().unwrap());
    assert!(own >= 20_000 && size == 2 * own, "{size} {own}");
    let table = text(&images(&store, &[]).stdout);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("IMAGE ") && table.contains("linux/amd64"), "{table}");
}

#[test]
fn what_is_broken_is_found() {
    if !root() {
        return;
    }
    let store = Store::new();
    let [(a, record), _] = two(&store);
    assert!(images(&store, &["--check"]).status.success());
    let digest = record["digest"].as_str().unwrap().replace(':', "-");
    let document = store.path().join("blobs").join(digest);
    let good = std::fs::read(&document).unwrap();
    std::fs::write(&document, [&good[..], b" "].concat()).unwrap();
    let output = images(&store, &["--check"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with(&format!("jc-images: {a}: document sha256:")), "{message}");
    std::fs::write(&document, good).unwrap();
    damage(&store, &layers(&record)[1]);
    std::fs::remove_dir_all(&layers(&record)[1]).unwrap();
    let message = text(&images(&store, &["--check"]).stderr);
    assert!(message.contains(": layer sha256-") && message.contains("is missing"), "{message}");
}

/// What the check says of files that are not as they were, each of which is put right again.
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
        assert_eq!(output.status.code(), Some(1), "{script}");
        let message = text(&output.stderr);
        assert!(message.contains(": layer sha256-") && message.contains(fault), "{message}");
        let _: std::io::Result<()> = std::fs::remove_file(layer.join("new"));
        copy(&keep, &file);
        assert!(images(store, &["--check"]).status.success(), "{script}");
    }
    std::fs::remove_file(keep).unwrap();
}

#[test]
fn removing_an_image_leaves_what_others_share() {
    if !root() {
        return;
    }
    let store = Store::new();
    let [(a, first), (b, second)] = two(&store);
    let missing = rmi(&store, &["nonsense/x"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("docker.io/nonsense/x:latest: no such image"));
    let output = rmi(&store, &[&a]);
    let own = layers(&first)[1].file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(text(&output.stdout), format!("{a}\n{own}\n"), "{}", text(&output.stderr));
    assert!(layers(&second).iter().all(|layer| layer.is_dir()));
    assert_eq!((entries(&store, "layers"), entries(&store, "blobs")), (2, 2));
    assert!(rmi(&store, &[&b]).status.success());
    for part in ["layers", "sums", "blobs", "images", "tmp"] {
        assert_eq!(entries(&store, part), 0, "{part}");
    }
    for arguments in [vec![], vec!["--unused", "x"]] {
        assert_eq!(rmi(&store, &arguments).status.code(), Some(2));
    }
}

/// A process with the layers mounted in a mount namespace of its own.
fn mounted(lower: &str) -> Child {
    let script = "mount -t overlay test -o \"lowerdir=$1\" /mnt && echo ready && exec sleep 600";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script, "sh", lower]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "cannot mount an overlay here");
    child
}

#[test]
fn what_a_container_has_is_not_removed() {
    if !root() {
        return;
    }
    let store = Store::new();
    let [(a, first), (b, _)] = two(&store);
    let at = layers(&first);
    let lower = format!("{}:{}", at[1].display(), at[0].display());
    let mut container = mounted(&lower);
    let output = rmi(&store, &[&a]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&format!("{a}: in use by process ")));
    assert!(at.iter().all(|layer| layer.is_dir()) && entries(&store, "images") == 2);
    // The other image has a layer that the container has too, but needs not have.
    assert!(rmi(&store, &[&b]).status.success());
    std::fs::remove_dir_all(store.path().join("images")).unwrap();
    assert_eq!(text(&rmi(&store, &["--unused"]).stdout), "");
    container.kill().unwrap();
    container.wait().unwrap();
    // One that is about to be mounted is locked.
    let lock = std::fs::File::open(&at[0]).unwrap();
    lock.lock_shared().unwrap();
    assert_eq!(text(&rmi(&store, &["--unused"]).stdout).lines().count(), 1);
    drop(lock);
    assert_eq!(text(&rmi(&store, &["--unused"]).stdout).lines().count(), 1);
    assert_eq!((entries(&store, "layers"), entries(&store, "blobs")), (0, 0));
}
