//! When the registry is asked, and what is printed.

use crate::common::{Image, Layer, MANIFEST, Store, Tar, failure, layers, root};
use crate::registry::{Answer, Fault, Registry};

fn image(text: &str) -> Image {
    Image::new(&[Layer::gzip(&Tar::new().directory("./", 0o755).file("x", text).finish())])
}

#[test]
fn the_policy_says_when_the_registry_is_asked() {
    if !root() {
        return;
    }
    let (registry, store) = (Registry::start(), Store::new());
    let (old, new) = (image("old"), image("new"));
    registry.push("x", "latest", &old, MANIFEST);
    let name = &format!("{}/x", registry.host);
    let asked = |arguments: &[&str]| {
        registry.take_seen();
        let records = store.pull(&[&["-q", name], arguments].concat());
        (registry.take_seen().len(), records[0]["digest"].as_str().unwrap().to_owned())
    };
    let output = store.run(&["-q", "--policy", "never", name]);
    assert!(failure(&output, 1).ends_with("the image is not in the store"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: jc-pull --policy missing"));
    assert_eq!(asked(&["--policy", "missing"]), (4, old.manifest.clone()));
    assert_eq!(asked(&[]), (1, old.manifest.clone()));
    registry.push("x", "latest", &new, MANIFEST);
    for policy in ["missing", "never"] {
        assert_eq!(asked(&["--policy", policy]), (0, old.manifest.clone()), "{policy}");
    }
    assert_eq!(asked(&[]), (4, new.manifest.clone()));
    // A digest cannot change.
    let by_digest = format!("{name}@{}", new.manifest);
    registry.take_seen();
    store.pull(&["-q", &by_digest]);
    assert_eq!(registry.take_seen(), []);
    // A registry that knows no HEAD, and one that tells no digest.
    let tag = "/v2/x/manifests/latest";
    registry.faults(tag, &[Fault::Status(405, "A: b")]);
    assert_eq!(asked(&[]), (2, new.manifest.clone()));
    registry.change(tag, |answer| answer.headers.truncate(1));
    assert_eq!(asked(&[]), (2, new.manifest.clone()));
    // The layers of an image that is known have gone.
    for layer in layers(&store.pull(&["-q", name])[0]) {
        std::fs::remove_dir_all(layer).unwrap();
    }
    let message = store.fail(1, &["-q", "--policy", "never", name]);
    assert!(message.contains("layer sha256:") && message.ends_with("is not in the store"));
    assert_eq!(asked(&["--policy", "missing"]).1, new.manifest);
}

#[test]
fn who_is_offline_is_told_what_helps() {
    if !root() {
        return;
    }
    let (registry, store) = (Registry::start(), Store::new());
    registry.push("x", "latest", &image("x"), MANIFEST);
    let mirror = format!("far.example=http://{}", registry.host);
    store.pull(&["-q", "--mirror", &mirror, "far.example/x"]);
    let closed = "far.example=http://127.0.0.1:1";
    let output = store.run(&["-q", "--retry", "0", "--mirror", closed, "far.example/x"]);
    failure(&output, 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: the store has the image"));
}

#[test]
fn what_is_printed_is_what_was_asked_for() {
    if !root() {
        return;
    }
    let (registry, store, image) = (Registry::start(), Store::new(), image("x"));
    registry.push("x", "latest", &image, MANIFEST);
    let name = format!("{}/x", registry.host);
    let print = |what: &str| {
        let output = store.run(&["-q", "--print", what, &name]);
        assert!(output.status.success());
        output.stdout
    };
    assert!(print("manifest") == image.blobs[&image.manifest]);
    let config = print("config");
    assert_eq!(crate::common::digest(&config), {
        let manifest: serde_json::Value =
            serde_json::from_slice(&image.blobs[&image.manifest]).unwrap();
        manifest["config"]["digest"].as_str().unwrap().to_owned()
    });
    assert!(registry.take_seen().iter().all(|r| !r.path.contains(&image.layers[0])));
    assert_eq!(print("digest"), format!("{}\n", image.manifest).as_bytes());
    let record: serde_json::Value = serde_json::from_slice(&print("record")).unwrap();
    assert_eq!(print("rootfs"), format!("{}\n", layers(&record)[0].display()).as_bytes());
    store.fail(2, &["--print", "nonsense", &name]);
}

#[test]
fn progress_is_as_it_is_wanted() {
    if !root() {
        return;
    }
    let (registry, image) = (Registry::start(), image("x"));
    registry.push("x", "latest", &image, MANIFEST);
    let name = format!("{}/x", registry.host);
    let said = |store: &Store, arguments: &[&str]| {
        let output = store.run(&[arguments, &[&name]].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let store = Store::new();
    let lines = said(&store, &["--progress", "plain"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("done\njc-pull: 1 layers fetched, 0 reused, "), "{lines}");
    let lines = said(&store, &[]);
    assert!(lines.starts_with("jc-pull: 0 layers fetched, 1 reused, 0 B in "), "{lines}");
    for quiet in [["--progress", "none"].as_slice(), &["-q"]] {
        assert_eq!(said(&Store::new(), quiet), "");
    }
    // Not a terminal: indicatif itself draws nothing there.
    said(&Store::new(), &["--progress", "bar"]);
    // What takes long says so now and then.
    let layer = format!("/v2/x/blobs/{}", image.layers[0]);
    registry.faults(&layer, &[Fault::Drip(6000 / image.blobs[&image.layers[0]].len() as u64)]);
    let lines = said(&Store::new(), &["--progress", "plain"]);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.lines().next().unwrap().contains(" B of "), "{lines}");
    registry.set("/v2/x/manifests/latest", Answer::status(404));
    let message = store.fail(1, &["-q", &name]);
    assert!(message.contains("404 Not Found"), "{message}");
}
