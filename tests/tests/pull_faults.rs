//! `jc-pull` and registries that close connections, send false data, or never end.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::http::{Answer, Fault, Registry};
use jc_tests::image::{Built, Packed, digest};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, failure, layer_dirs};
use jc_tests::{Sandbox, sandbox_for};
use serde_json::json;

/// The time limit of a test with slow or silent registries.
const LONG: Duration = Duration::from_secs(200);

/// 200 kB that hardly compress.
fn noise() -> String {
    (0..200_000_u64).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect()
}

fn image_with(text: &str) -> Built {
    let tar = Layer::new().directory("./", 0o755).file("x", text).into_tar();
    Built::of(&[Packed::plain(&tar)])
}

fn image() -> Built {
    image_with(&noise())
}

/// A registry with the image. Returns the name of the image, and the path of its layer.
fn registry() -> (Registry, String, String) {
    registry_of(&image())
}

fn registry_of(image: &Built) -> (Registry, String, String) {
    let registry = Registry::start();
    registry.push("x", "latest", image);
    let path = format!("/v2/x/blobs/{}", image.layer(0));
    (registry.clone(), format!("{}/x", registry.host), path)
}

#[test]
fn an_interrupted_layer_resumes() {
    sandbox_for(LONG, |s| {
        let ranges = &|faults: &[Fault]| -> Vec<Option<String>> {
            let (registry, name, path) = registry();
            registry.faults(&path, faults);
            let store = Store::new(s);
            let record = &store.pull(&["-q", "--timeout", "5", &name])[0];
            let found = std::fs::read_to_string(layer_dirs(record)[0].join("x")).unwrap();
            assert!(found == noise(), "{faults:?}");
            registry.take_seen().into_iter().filter(|r| r.path == path).map(|r| r.range).collect()
        };
        let from = |n: usize| Some(format!("bytes={n}-"));
        let mut cases = Vec::new();
        for (faults, expected) in [
            (vec![], vec![None]),
            (vec![Fault::Cut(0)], vec![None, None]),
            (vec![Fault::Cut(150_000)], vec![None, from(150_000)]),
            (
                vec![Fault::Cut(1000), Fault::Cut(2000), Fault::Cut(5)],
                vec![None, from(1000), from(3000), from(3005)],
            ),
            (vec![Fault::Cut(1000), Fault::NoRange], vec![None, from(1000)]),
            (vec![Fault::Stall(100_000)], vec![None, from(100_000)]),
            (vec![Fault::Stall(0)], vec![None, None]),
            (vec![Fault::Status(500, "A: b"), Fault::Status(503, "A: b")], vec![None, None, None]),
            (vec![Fault::Status(429, "Retry-After: 1")], vec![None, None]),
            (vec![Fault::Status(408, "A: b")], vec![None, None]),
            (vec![Fault::Cut(7), Fault::Status(502, "A: b")], vec![None, from(7), from(7)]),
            (vec![Fault::Longer(3)], vec![None]),
            (vec![Fault::Garbage], vec![None, None]),
        ] {
            cases.push((faults, expected));
        }
        std::thread::scope(|scope| {
            for (faults, expected) in &cases {
                scope.spawn(move || assert_eq!(ranges(faults), *expected, "{faults:?}"));
            }
        });
    });
}

#[test]
fn a_lasting_fault_is_an_error_and_leaves_nothing() {
    sandbox_for(LONG, |s| {
        let cases = [
            (vec![Fault::Cut(1000)], "0", "after 1000 bytes: "),
            (vec![Fault::Cut(1000), Fault::Cut(1)], "1", "after 1001 bytes: "),
            (vec![Fault::Stall(1000)], "0", "after 1000 bytes: no more bytes in time"),
            (vec![Fault::Stall(0)], "0", "after 0 bytes: no more bytes in time"),
            (
                vec![Fault::Cut(1000), Fault::WrongRange],
                "3",
                "asked for bytes from 1000, got range",
            ),
            (vec![Fault::Shorter(9)], "0", "ends after"),
            (vec![Fault::Status(500, "A: b"), Fault::Status(500, "A: b")], "1", "500 Internal"),
            (vec![Fault::Status(416, "A: b")], "3", "416 Range Not Satisfiable"),
            (vec![Fault::Drip(30)], "0", "too slow"),
        ];
        std::thread::scope(|scope| {
            for (faults, retries, message) in &cases {
                scope.spawn(move || {
                    let small = matches!(faults[0], Fault::Drip(_));
                    let image = if small { image_with("small") } else { image() };
                    let (registry, name, path) = registry_of(&image);
                    registry.faults(&path, faults);
                    let store = Store::new(s);
                    let found = store.fail(1, &["-q", "--timeout", "3", "--retry", retries, &name]);
                    assert!(found.contains("layer sha256:"), "{faults:?}: {found}");
                    assert!(found.contains(message), "{faults:?}: {found}");
                    assert_eq!(store.listing().len(), 5, "{faults:?}");
                    registry.faults(&path, &[]);
                    store.pull(&["-q", &name]);
                });
            }
        });
    });
}

#[test]
fn a_limit_says_what_it_is_and_what_helps() {
    sandbox_for(LONG, |s| {
        let (registry, name, _) = registry();
        let tag = "/v2/x/manifests/latest";
        registry.faults(tag, &[Fault::Status(429, "Retry-After: 3600")]);
        let store = Store::new(s);
        // A pull that waits for the hour exceeds its time limit.
        let output = store.run(&["-q", &name]);
        let stderr = output.err();
        assert!(failure(&output, 1).contains("429 Too Many Requests"), "{stderr}");
        assert!(stderr.contains("hint: the registry limits"), "{stderr}");
        assert!(stderr.contains("log in (--username, --authfile), wait 3600 s"), "{stderr}");
    });
}

#[test]
fn a_manifest_that_does_not_come_or_is_another_is_refused() {
    sandbox_for(LONG, |s| {
        let cases = [
            (vec![Fault::Stall(5)], "timed out"),
            (vec![Fault::Cut(5)], "get http://"),
            (vec![Fault::Drip(30)], "too slow"),
            (vec![Fault::Shorter(5)], "the content has digest"),
        ];
        let store = &Store::new(s);
        std::thread::scope(|scope| {
            for (faults, message) in &cases {
                scope.spawn(move || {
                    let (registry, name, _) = registry();
                    let path = format!("/v2/x/manifests/{}", image().digest());
                    registry.faults(&path, faults);
                    let found = store.fail(1, &["-q", "--timeout", "1", "--retry", "0", &name]);
                    assert!(found.contains(message), "{faults:?}: {found}");
                });
            }
        });
        // Port 1 refuses connections. Both protocols are tried, and the error is that of the first.
        let found = store.fail(1, &["-q", "--retry", "0", "127.0.0.1:1/x"]);
        assert!(
            found.ends_with("127.0.0.1:1/v2/x/manifests/latest: Connection refused"),
            "{found}"
        );
        let found = store.fail(1, &["-q", "--retry", "0", "no.such.host.invalid/x"]);
        assert!(found.contains("resolve no.such.host.invalid: "), "{found}");
    });
}

#[test]
fn a_document_may_have_4_mib() {
    sandbox_for(LONG, |s| {
        let (registry, name, _) = registry();
        let path = format!("/v2/x/manifests/{}", image().digest());
        registry.change(&path, |answer| answer.body.resize((4 << 20) + 1, b' '));
        let found = Store::new(s).fail(1, &["-q", &name]);
        assert!(found.ends_with("an answer of more than 4194304 bytes"), "{found}");
        registry.change(&path, |answer| answer.body.resize(4 << 20, b' '));
        let found = Store::new(s).fail(1, &["-q", &name]);
        assert!(found.contains("the content has digest"), "{found}");
    });
}

/// Pulls with one fault at `path`. Returns the error.
fn with_fault(s: &Sandbox, path: &str, fault: Fault) -> String {
    let registry = Registry::start();
    let image = image_with("small");
    registry.push("x", "latest", &image);
    let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, registry.host);
    let needs = Some(("Bearer t".to_owned(), challenge));
    for tag in ["latest", image.digest()] {
        registry.change(&format!("/v2/x/manifests/{tag}"), |a| a.needs.clone_from(&needs));
    }
    let token = "/token?service=s&scope=repository%3Ax%3Apull";
    registry.set(token, Answer::ok(br#"{"token":"t"}"#, "application/json"));
    let config = image.config["digest"].as_str().unwrap();
    let path = match path {
        "token" => token.to_owned(),
        "manifest" => format!("/v2/x/manifests/{}", image.digest()),
        "config" => format!("/v2/x/blobs/{config}"),
        "refusal" => {
            let path = format!("/v2/x/blobs/{config}");
            registry.set(&path, Answer::status(404));
            path
        }
        _ => format!("/v2/x/blobs/{}", image.layer(0)),
    };
    registry.faults(&path, &[fault]);
    let name = format!("{}/x", registry.host);
    Store::new(s).fail(1, &["-q", "--timeout", "5", "--retry", "0", &name])
}

#[test]
fn an_answer_without_end_is_an_error_wherever_it_comes() {
    sandbox_for(LONG, |s| {
        let cases = [
            ("token", "an answer of more than 1048576 bytes"),
            ("manifest", "an answer of more than 4194304 bytes"),
            ("config", "goes on after"),
            ("layer", "goes on after"),
            ("refusal", ": 404 Not Found"),
        ];
        std::thread::scope(|scope| {
            for (path, message) in cases {
                scope.spawn(move || {
                    let found = with_fault(s, path, Fault::Endless);
                    assert!(found.contains(message), "{path}: {found}");
                });
                scope.spawn(move || {
                    let found = with_fault(s, path, Fault::Headers);
                    assert!(found.contains("message head is too large"), "{path}: {found}");
                });
            }
        });
    });
}

#[test]
fn a_retry_is_one_more_request_for_an_object() {
    sandbox_for(LONG, |s| {
        let status = || Fault::Status(503, "A: b");
        let cases = [
            ("layer", vec![status(), status(), status(), status(), status()]),
            ("layer", vec![Fault::Cut(10), status(), status(), status(), status(), status()]),
            ("layer", vec![Fault::Cut(10), Fault::Cut(10), Fault::Cut(10), Fault::Cut(10)]),
            ("layer", vec![status(), Fault::Cut(10), status(), Fault::Cut(10), status()]),
            ("manifest", vec![status(), status(), status(), status(), status()]),
            ("manifest", vec![Fault::Cut(10), status(), Fault::Cut(10), status(), status()]),
        ];
        std::thread::scope(|scope| {
            for (kind, faults) in &cases {
                scope.spawn(move || {
                    let (registry, name, layer) = registry();
                    let manifest = format!("/v2/x/manifests/{}", image().digest());
                    let path = if *kind == "layer" { layer } else { manifest };
                    registry.faults(&path, faults);
                    Store::new(s).fail(1, &["-q", "--timeout", "5", "--retry", "2", &name]);
                    let asked = registry.take_seen().iter().filter(|r| r.path == path).count();
                    assert_eq!(asked, 3, "{kind}: {faults:?}");
                });
            }
        });
    });
}

#[test]
fn a_blob_that_comes_too_slowly_is_given_up_however_long_it_is() {
    sandbox_for(LONG, |s| {
        let text: String = (0..20).map(|_| noise()).collect();
        let cases = [Fault::Drip(100), Fault::Slow(1_000_000, 100)];
        std::thread::scope(|scope| {
            for fault in cases {
                let text = &text;
                scope.spawn(move || {
                    let (registry, name, path) = registry_of(&image_with(text));
                    registry.faults(&path, std::slice::from_ref(&fault));
                    let found =
                        Store::new(s).fail(1, &["-q", "--timeout", "1", "--retry", "0", &name]);
                    assert!(found.contains("too slow: "), "{fault:?}: {found}");
                });
            }
        });
    });
}

#[test]
fn a_server_that_takes_the_connection_and_is_silent_is_given_up() {
    sandbox_for(LONG, |s| {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = silent.local_addr().unwrap();
        std::thread::spawn(move || silent.incoming().collect::<Vec<_>>());
        // Loopback is tried by plain http first, and then by TLS.
        let name = format!("{host}/x");
        let found = Store::new(s).fail(1, &["-q", "--timeout", "1", "--retry", "1", &name]);
        assert!(found.ends_with("no answer in time"), "{found}");
    });
}

#[test]
fn one_layer_that_fails_stops_the_others() {
    sandbox_for(LONG, |s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let tar = |text: &str| Layer::new().directory("./", 0o755).file("x", text).into_tar();
        let slow = Packed::plain(&tar(&noise()));
        let mut bad = Packed::plain(&tar("bad"));
        bad.diff_id = digest(b"");
        let image = Built::of(&[slow, bad]);
        registry.push("x", "latest", &image);
        registry.faults(&format!("/v2/x/blobs/{}", image.layer(0)), &[Fault::Stall(100)]);
        // A pull that waits for the stalled layer exceeds the time limit of the test.
        let found = store.fail(1, &["-q", "--timeout", "1000", &format!("{}/x", registry.host)]);
        assert!(found.contains("diff-id"), "{found}");
        assert_eq!(store.listing().len(), 5);
    });
}

#[test]
fn images_before_the_one_that_fails_are_pulled() {
    sandbox_for(LONG, |s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let tar = |text: &str| Layer::new().directory("./", 0o755).file("x", text).into_tar();
        let shared = || Packed::gzip(&tar("shared"));
        for (name, other) in [("a", "1"), ("b", "2"), ("c", "3")] {
            let mut layer = Packed::gzip(&tar(other));
            if name == "b" {
                layer.diff_id = digest(b"");
            }
            registry.push(name, "latest", &Built::of(&[shared(), layer]));
        }
        let names: Vec<String> = ["a", "b", "c"].map(|n| format!("{}/{n}", registry.host)).into();
        let output = store.run(&["-q", &names[0], &names[1], &names[2]]);
        assert_eq!(output.status().code(), Some(1), "{output}");
        assert_eq!(output.out().lines().count(), 1, "{output}");
        assert!(output.out().contains("/a:latest"), "{output}");
        assert!(output.err().contains("/b:latest: layer sha256:"), "{output}");
        // Two images in one command line fetch a shared layer once.
        registry.take_seen();
        let store = Store::new(s);
        assert_eq!(store.pull(&["-q", &names[0], &names[2]]).len(), 2);
        let blobs = registry.take_seen().iter().filter(|r| r.path.contains("/blobs/")).count();
        assert_eq!(blobs, 2 + 3);
    });
}

#[test]
fn a_layer_that_may_not_be_distributed_comes_from_elsewhere_without_a_login() {
    sandbox_for(LONG, |s| {
        let (registry, elsewhere, store) = (Registry::start(), Registry::start(), Store::new(s));
        let tar = Layer::new().directory("./", 0o755).into_tar();
        let mut layer = Packed::gzip(&tar);
        layer.media_type =
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
        let mut image = Built::of(&[layer]);
        let far = json!([format!("http://{}/far", elsewhere.host)]);
        image.edit_manifest(|manifest| manifest["layers"][0]["urls"] = far);
        let digest = image.layer(0).to_owned();
        let blob = image.blobs.remove(&digest).unwrap();
        registry.push("x", "latest", &image);
        elsewhere.set("/far", Answer::ok(&blob, ""));
        store.pull(&["-q", &format!("{}/x", registry.host)]);
        assert_eq!(elsewhere.take_seen()[0].authorization, None);
    });
}
