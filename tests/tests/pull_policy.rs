//! The requests to the registry by policy, and the output.

#![cfg(target_os = "linux")]

use jc_tests::http::{Answer, Fault, Registry};
use jc_tests::image::{Built, Packed, digest};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, failure, layer_dirs};
use jc_tests::sandbox;
use serde_json::Value;

fn image(text: &str) -> Built {
    Built::of(&[Packed::gzip(&Layer::new().directory("./", 0o755).file("x", text).into_tar())])
}

#[test]
fn the_policy_says_when_the_registry_is_asked() {
    sandbox(|s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let (old, new) = (image("old"), image("new"));
        registry.push("x", "latest", &old);
        let name = &format!("{}/x", registry.host);
        let asked = |arguments: &[&str]| {
            registry.take_seen();
            let records = store.pull(&[&["-q", name], arguments].concat());
            (registry.take_seen().len(), records[0]["digest"].as_str().unwrap().to_owned())
        };
        let output = store.run(&["-q", "--policy", "never", name]);
        assert!(failure(&output, 1).ends_with("the image is not in the store"));
        assert!(output.err().contains("hint: jc-pull --policy missing"));
        assert_eq!(asked(&["--policy", "missing"]), (4, old.digest().to_owned()));
        assert_eq!(asked(&[]), (1, old.digest().to_owned()));
        registry.push("x", "latest", &new);
        for policy in ["missing", "never"] {
            assert_eq!(asked(&["--policy", policy]), (0, old.digest().to_owned()), "{policy}");
        }
        assert_eq!(asked(&[]), (4, new.digest().to_owned()));
        // A digest always names the same content.
        let by_digest = format!("{name}@{}", new.digest());
        registry.take_seen();
        store.pull(&["-q", &by_digest]);
        assert_eq!(registry.take_seen(), []);
        // A registry without HEAD, and one without the digest in the header.
        let tag = "/v2/x/manifests/latest";
        registry.faults(tag, &[Fault::Status(405, "A: b")]);
        assert_eq!(asked(&[]), (2, new.digest().to_owned()));
        registry.change(tag, |answer| answer.headers.truncate(1));
        assert_eq!(asked(&[]), (2, new.digest().to_owned()));
        // The layers of a known image have been removed.
        for layer in layer_dirs(&store.pull(&["-q", name])[0]) {
            std::fs::remove_dir_all(layer).unwrap();
        }
        let message = store.fail(1, &["-q", "--policy", "never", name]);
        assert!(message.contains("layer sha256:") && message.ends_with("is not in the store"));
        assert_eq!(asked(&["--policy", "missing"]).1, new.digest());
    });
}

#[test]
fn an_unreachable_registry_is_an_error_with_a_hint() {
    sandbox(|s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        registry.push("x", "latest", &image("x"));
        let mirror = format!("far.example=http://{}", registry.host);
        store.pull(&["-q", "--mirror", &mirror, "far.example/x"]);
        let closed = "far.example=http://127.0.0.1:1";
        let output = store.run(&["-q", "--retry", "0", "--mirror", closed, "far.example/x"]);
        failure(&output, 1);
        assert!(output.err().contains("hint: the store has the image"));
    });
}

#[test]
fn print_selects_the_output() {
    sandbox(|s| {
        let (registry, store, image) = (Registry::start(), Store::new(s), image("x"));
        registry.push("x", "latest", &image);
        let name = format!("{}/x", registry.host);
        let print =
            |what: &str| store.run(&["-q", "--print", what, &name]).code(0).out_bytes().to_vec();
        assert!(print("manifest") == image.manifest());
        let config = print("config");
        assert_eq!(digest(&config), image.config["digest"].as_str().unwrap());
        assert!(registry.take_seen().iter().all(|r| !r.path.contains(image.layer(0))));
        assert_eq!(print("digest"), format!("{}\n", image.digest()).as_bytes());
        let record: Value = serde_json::from_slice(&print("record")).unwrap();
        assert_eq!(print("rootfs"), format!("{}\n", layer_dirs(&record)[0].display()).as_bytes());
        store.fail(2, &["--print", "nonsense", &name]);
    });
}

#[test]
fn progress_is_as_it_is_wanted() {
    sandbox(|s| {
        let (registry, image) = (Registry::start(), image("x"));
        registry.push("x", "latest", &image);
        let name = format!("{}/x", registry.host);
        let said = |store: &Store, arguments: &[&str]| {
            store.run(&[arguments, &[&name]].concat()).code(0).err()
        };
        let store = Store::new(s);
        let lines = said(&store, &["--progress", "plain"]);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains("done\njc-pull: 1 layer fetched, 0 reused, "), "{lines}");
        let lines = said(&store, &[]);
        assert!(lines.starts_with("jc-pull: 0 layers fetched, 1 reused, 0 B in "), "{lines}");
        for quiet in [["--progress", "none"].as_slice(), &["-q"]] {
            assert_eq!(said(&Store::new(s), quiet), "");
        }
        // stderr is no terminal, so indicatif draws nothing.
        said(&Store::new(s), &["--progress", "bar"]);
        // A slow layer prints its progress from time to time.
        let layer = format!("/v2/x/blobs/{}", image.layer(0));
        registry.faults(&layer, &[Fault::Drip(6000 / image.blobs[image.layer(0)].len() as u64)]);
        let lines = said(&Store::new(s), &["--progress", "plain"]);
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert!(lines.lines().next().unwrap().contains(" B of "), "{lines}");
        registry.set("/v2/x/manifests/latest", Answer::status(404));
        let message = store.fail(1, &["-q", &name]);
        assert!(message.contains("404 Not Found"), "{message}");
    });
}
