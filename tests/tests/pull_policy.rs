//! The requests to the registry by policy, and the output.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::http::{Answer, Fault, Registry};
use jc_tests::image::{Built, Packed, digest};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, failure, layer_dirs};
use jc_tests::{sandbox, wait_until};
use rustix::process::Signal;
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
            fs::remove_dir_all(layer).unwrap();
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

/// Waits until the registry was asked for a blob.
fn wait_for_blob(registry: &Registry, digest: &str) {
    wait_until("the blob is asked for", || requests(registry, digest) > 0);
}

fn requests(registry: &Registry, digest: &str) -> usize {
    let seen = registry.seen();
    seen.iter()
        .filter(|r| r.method == "GET" && r.path.ends_with(&format!("/blobs/{digest}")))
        .count()
}

/// Two images with a layer in common, which the registry sends with a fault at first. Returns the digest of that layer
/// and of the other layer of the second image.
fn two_images(registry: &Registry, fault: &Fault) -> [String; 2] {
    let packed =
        |text: &str| Packed::gzip(&Layer::new().directory("./", 0o755).file("x", text).into_tar());
    let common = packed("common");
    let images = ["one", "two"].map(|text| Built::of(&[common.clone(), packed(text)]));
    let layers = [images[0].layer(0), images[1].layer(1)].map(str::to_owned);
    for (name, image) in ["one", "two"].iter().zip(&images) {
        registry.push(name, "latest", image);
        registry.faults(&format!("/v2/{name}/blobs/{}", layers[0]), std::slice::from_ref(fault));
    }
    layers
}

#[test]
fn a_layer_of_two_pulls_at_once_is_fetched_once() {
    sandbox(|s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let [layer, _] = &two_images(&registry, &Fault::Drip(20));
        let one = store.command(&["-q", &format!("{}/one", registry.host)]).spawn();
        wait_for_blob(&registry, layer);
        let two = store.command(&[&format!("{}/two", registry.host)]).spawn();
        let (one, two) = (one.wait().code(0), two.wait().code(0));
        assert_eq!(requests(&registry, layer), 1);
        assert!(two.err().contains("waiting for a layer that another process fetches\n"), "{two}");
        assert!(two.err().contains("1 layer fetched, 1 reused"), "{two}");
        let layers = [one, two].map(|ran| layer_dirs(&serde_json::from_str(&ran.out()).unwrap()));
        assert_eq!(layers[0][0], layers[1][0]);
        assert_eq!(fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
    });
}

#[test]
fn a_pull_that_is_killed_leaves_its_layers_to_the_pull_that_waits() {
    sandbox(|s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let [layer, own] = &two_images(&registry, &Fault::Stall(1));
        registry.change(&format!("/v2/two/blobs/{layer}"), |answer| answer.faults.clear());
        let one = store.command(&["-q", &format!("{}/one", registry.host)]).spawn();
        wait_for_blob(&registry, layer);
        let two = store.command(&["-q", &format!("{}/two", registry.host)]).spawn();
        wait_for_blob(&registry, own);
        assert_eq!(requests(&registry, layer), 1);
        one.signal(Signal::KILL);
        one.wait().killed_by(Signal::KILL);
        two.wait().code(0);
        assert_eq!(requests(&registry, layer), 2);
        store.pull(&["-q", &format!("{}/one", registry.host)]);
        assert_eq!(fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
    });
}

/// A pull that does not ask the source writes no entry over that of a commit.
#[test]
fn a_commit_is_not_undone_by_pulls_of_the_stored_image() {
    sandbox(|s| {
        s.sh("mkdir d && echo 1 > d/file").run().code(0);
        let commit = |label: &str| {
            let words =
                ["--scratch", "--dir", "d", "-t", "localhost/x", "--no-sync", "--print", "digest"];
            s.jc("jc-commit").args(words).args(["--label", label]).run().code(0).out()
        };
        commit("n=0");
        let pull =
            "until [ -e stop ]; do jc-pull -q --policy $1 localhost/x > record || exit; done";
        let start = |policy| s.sh(pull).args(["sh", policy]).spawn();
        let running = ["never", "missing", "never"].map(start);
        for n in 0..80 {
            let digest = commit(&format!("n={n}"));
            std::thread::sleep(Duration::from_millis(10));
            let images = s.jc("jc-images").arg("--json").run().code(0).out();
            let image: Value = serde_json::from_str(&images).unwrap();
            assert_eq!(image["manifest"], digest.trim());
        }
        s.sh("touch stop").run().code(0);
        for running in running {
            running.wait().code(0).stderr("");
        }
    });
}
