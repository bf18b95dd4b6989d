//! `jc-push` to registries that refuse, lose, redirect, wait and lie.

#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use jc_tests::http::{Answer, Registry};
use jc_tests::image::{Image, Packed};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, failure_of};
use jc_tests::receiver::{Fault, Receiver};
use jc_tests::{Sandbox, sandbox, sandbox_for};
use serde_json::json;

/// The bytes of a piece of an upload.
const PIECE: usize = 8 << 20;

/// An image with one layer of this many bytes that no compression makes shorter, in a layout beside the store.
fn image(store: &Store<'_>, length: usize) -> String {
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let layer = Layer::new().entry(Entry::file("file", bytes)).into_tar();
    store.layout("image", &Image::new().described(Packed::plain(&layer)).build())
}

fn record(store: &Store<'_>, length: usize) -> String {
    let name = image(store, length);
    store.run(&["-q", &name]).code(0).out()
}

/// A registry, a store with an image, and the record of the image.
fn world(s: &Sandbox, length: usize) -> (Receiver, Store<'_>, String) {
    let store = Store::new(s);
    let record = record(&store, length);
    (Receiver::start(), store, record)
}

/// The error line of a push that fails, and leaves no image.
#[track_caller]
fn refused(registry: &Receiver, store: &Store<'_>, record: &str, words: &[&str]) -> String {
    let to = format!("{}/a/b:t", registry.host);
    let words = [&["-q", "--retry", "1"], words, &[&to]].concat();
    let ran = store.program("jc-push", &words).input(record).run();
    assert!(registry.manifest("a/b", "t").is_none(), "a manifest\n{ran}");
    failure_of("jc-push", &ran, 1)
}

/// Pushes, and compares the blobs that have arrived.
#[track_caller]
fn arrives(registry: &Receiver, store: &Store<'_>, record: &str) {
    let to = format!("{}/a/b:t", registry.host);
    store.program("jc-push", &["-q", &to]).input(record).run().code(0);
    let manifest = registry.manifest("a/b", "t").unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = registry.blob(layer["digest"].as_str().unwrap()).unwrap();
        assert_eq!(json!(blob.len()), layer["size"]);
    }
    assert!(registry.blob(manifest["config"]["digest"].as_str().unwrap()).is_some());
}

#[test]
fn an_interrupted_upload_resumes() {
    sandbox(|s| {
        let (registry, store, record) = world(s, 2 * PIECE + 1000);
        registry.fault("PATCH", "uploads", (1, 1), Fault::Cut(1 << 20));
        arrives(&registry, &store, &record);
        let seen = registry.take_seen();
        let ranges: Vec<&str> = seen.iter().filter_map(|r| r.content_range.as_deref()).collect();
        let (first, second) = (PIECE, PIECE + (1 << 20));
        assert_eq!(ranges[0], format!("0-{}", first - 1));
        assert_eq!(ranges[1], format!("{first}-{}", 2 * PIECE - 1));
        assert_eq!(ranges[2], format!("{second}-{}", 2 * PIECE - 1));
        assert_eq!(seen.iter().filter(|r| r.method == "POST").count(), 2, "layer and config");
    });
}

#[test]
fn failures_that_pass_cost_attempts_and_no_digest() {
    sandbox_for(Duration::from_secs(240), |s| {
        for (method, part, fault) in [
            ("POST", "uploads", Fault::Status(503, "Retry-After: 1".to_owned())),
            ("PATCH", "uploads", Fault::Status(500, String::new())),
            ("PATCH", "uploads", Fault::Silent),
            ("PATCH", "uploads", Fault::Forget),
            ("PUT", "uploads", Fault::Cut(0)),
            ("PUT", "uploads", Fault::Silent),
            ("PUT", "manifests", Fault::Silent),
            ("PUT", "manifests", Fault::Status(429, "Retry-After: 1".to_owned())),
            ("HEAD", "blobs", Fault::Status(502, String::new())),
        ] {
            let (registry, store, record) = world(s, PIECE + 5);
            registry.fault(method, part, (0, 1), fault);
            arrives(&registry, &store, &record);
        }
    });
}

#[test]
fn a_refusal_is_one_line_and_leaves_no_image() {
    sandbox(|s| {
        for (method, part, status, error) in [
            ("POST", "uploads", 403, "403 Forbidden"),
            ("POST", "uploads", 405, "405 Method Not Allowed"),
            ("PATCH", "uploads", 413, "413 Payload Too Large"),
            ("PUT", "uploads", 400, "400 Bad Request"),
            ("PUT", "manifests", 400, "400 Bad Request"),
            ("PUT", "manifests", 403, "403 Forbidden"),
        ] {
            let (registry, store, record) = world(s, PIECE + 5);
            registry.fault(method, part, (0, 99), Fault::Status(status, String::new()));
            let found = refused(&registry, &store, &record, &[]);
            assert!(found.contains(error), "{found}");
        }
    });
}

#[test]
fn a_registry_that_lies_about_digests_is_noticed() {
    sandbox(|s| {
        let lie = format!("Docker-Content-Digest: sha256:{}", "0".repeat(64));
        for (method, part, error) in [
            ("PUT", "uploads", "was sent, and the registry says sha256:0000"),
            ("PUT", "manifests", "was sent, and the registry says sha256:0000"),
        ] {
            let (registry, store, record) = world(s, 10);
            registry.fault(method, part, (0, 99), Fault::Header(lie.clone()));
            let to = format!("{}/a/b:t", registry.host);
            let ran = store.program("jc-push", &["-q", &to]).input(record.as_str()).run();
            let found = failure_of("jc-push", &ran, 1);
            assert!(found.contains(error), "{found}");
        }
        // A blob that the registry took and does not have.
        let (registry, store, record) = world(s, 10);
        registry.fault("HEAD", "blobs", (1, 1), Fault::Status(404, String::new()));
        let found = refused(&registry, &store, &record, &["-j1"]);
        assert!(found.contains("and does not have it"), "{found}");
        // A blob of another size.
        let (registry, store, record) = world(s, 10);
        registry.fault("HEAD", "blobs", (0, 1), Fault::Status(200, String::new()));
        let found = refused(&registry, &store, &record, &[]);
        assert!(found.contains("with 0 bytes, not"), "{found}");
        // Another manifest under the tag.
        let (registry, store, record) = world(s, 10);
        registry.fault("GET", "manifests", (0, 9), Fault::Status(200, String::new()));
        let to = format!("{}/a/b:t", registry.host);
        let ran = store.program("jc-push", &["-q", &to]).input(record.as_str()).run();
        let found = failure_of("jc-push", &ran, 1);
        assert!(found.contains("the registry has something else"), "{found}");
    });
}

#[test]
fn nonsense_about_an_upload_is_an_error() {
    sandbox(|s| {
        for (method, header, error) in [
            ("PATCH", "Range: 0-99999999999", "says that it has 100000000000 bytes"),
            ("PATCH", "Range: none", "has the range"),
            ("POST", "Location: http://[", "a location that is no URL"),
            ("POST", "OCI-Chunk-Min-Length: 9999999999", "wants pieces of 9999999999 bytes"),
        ] {
            let (registry, store, record) = world(s, PIECE + 5);
            registry.fault(method, "uploads", (0, 99), Fault::Header(header.to_owned()));
            let found = refused(&registry, &store, &record, &[]);
            assert!(found.contains(error), "{found}");
        }
    });
}

#[test]
fn a_registry_asks_for_longer_pieces() {
    sandbox(|s| {
        let (registry, store, record) = world(s, 2 * PIECE);
        let header = format!("OCI-Chunk-Min-Length: {}", 2 * PIECE);
        registry.fault("POST", "uploads", (0, 99), Fault::Header(header));
        arrives(&registry, &store, &record);
        let seen = registry.take_seen();
        let ranges: Vec<&str> = seen.iter().filter_map(|r| r.content_range.as_deref()).collect();
        assert_eq!(ranges[0], format!("0-{}", 2 * PIECE - 1));
    });
}

#[test]
fn nothing_goes_to_another_host() {
    sandbox(|s| {
        for (method, skipped, status, header) in [
            ("POST", 0, 202, "Location: http://HOST/v2/a/b/blobs/uploads/1"),
            ("POST", 0, 307, "Location: http://HOST/v2/a/b/blobs/uploads/"),
            ("PATCH", 0, 307, "Location: http://HOST/v2/a/b/blobs/uploads/1"),
            ("PATCH", 0, 202, "Location: http://HOST/v2/a/b/blobs/uploads/1"),
            ("PUT", 1, 307, "Location: http://HOST/v2/a/b/manifests/t"),
        ] {
            let (registry, store, record) = world(s, PIECE + 5);
            let other = Receiver::start();
            let header = header.replace("HOST", &other.host);
            registry.fault(method, "/v2/a/b", (skipped, 99), Fault::Status(status, header.clone()));
            let found = refused(&registry, &store, &record, &["--insecure"]);
            assert!(found.contains(&other.host), "{found}");
            assert_eq!(other.take_seen(), [], "{header}");
        }
    });
}

#[test]
fn a_redirect_within_the_registry_keeps_the_content() {
    sandbox(|s| {
        let (registry, store, record) = world(s, 10);
        let header = "Location: /v2/a/b/manifests/t?again".to_owned();
        registry.fault("PUT", "manifests/t", (0, 1), Fault::Status(307, header));
        arrives(&registry, &store, &record);
        let (registry, store, record) = world(s, 10);
        let header = "Location: /v2/a/b/manifests/t?again".to_owned();
        registry.fault("PUT", "manifests/t", (0, 9), Fault::Status(302, header));
        let found = refused(&registry, &store, &record, &[]);
        assert!(found.contains("a redirect of an upload without its content"), "{found}");
    });
}

#[test]
fn every_wait_for_a_registry_ends() {
    sandbox(|s| {
        for (method, part) in [("POST", "uploads"), ("PATCH", "uploads"), ("PUT", "manifests")] {
            let (registry, store, record) = world(s, 2 * PIECE);
            registry.fault(method, part, (0, 99), Fault::Stall);
            let start = Instant::now();
            let found = refused(&registry, &store, &record, &["--timeout", "1"]);
            assert!(found.contains("no answer in time"), "{found}");
            // Two attempts of 4 seconds each, a pause, and a slow machine.
            assert!(start.elapsed() < Duration::from_secs(30), "{method}: {:?}", start.elapsed());
        }
    });
}

/// The token of a push is for writing, and the login of the command line is for the destination alone.
#[test]
fn logins_go_to_the_registry_that_they_are_for() {
    sandbox(|s| {
        let store = Store::new(s);
        // The origin needs no login, and would see one.
        let origin = Registry::start();
        let layer = Layer::new().entry(Entry::file("file", "x")).into_tar();
        let built = Image::new().described(Packed::gzip(&layer)).build();
        origin.push("from/x", "latest", &built);
        let record = store.run(&["-q", &format!("{}/from/x", origin.host)]).code(0).out();
        origin.take_seen();
        let (registry, tokens) = (Receiver::start(), Registry::start());
        let body = json!({"token": "t1"}).to_string();
        tokens.set("/token", Answer::ok(body.as_bytes(), "application/json"));
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host);
        registry.require("Bearer t1", &challenge);
        let to = format!("{}/a/b:t", registry.host);
        let words = ["-q", "--username", "alice", "--password-stdin", &to];
        let input = format!("wonder\n{record}");
        store.program("jc-push", &words).input(input).run().code(0);
        assert!(registry.manifest("a/b", "t").is_some());
        let asked = tokens.take_seen();
        assert!(asked[0].path.contains("scope=repository%3Aa%2Fb%3Apull%2Cpush"), "{asked:?}");
        assert_eq!(asked[0].authorization.as_deref(), Some("Basic YWxpY2U6d29uZGVy"));
        let fetched = origin.take_seen();
        assert!(!fetched.is_empty() && fetched.iter().all(|r| r.authorization.is_none()));
    });
}

#[test]
fn a_mirror_is_never_pushed_to() {
    sandbox(|s| {
        let (registry, store, record) = world(s, 10);
        let mirror = Receiver::start();
        let host = &registry.host;
        let text = format!(
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\
             [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
            mirror.host
        );
        let file = store.write("registries.conf", &text);
        let option = format!("{host}=http://{}", mirror.host);
        let to = format!("{host}/a/b:t");
        let push =
            store.program("jc-push", &["-q", "--mirror", &option, &to]).input(record.as_str());
        push.env("CONTAINERS_REGISTRIES_CONF", &file).run().code(0);
        assert_eq!(mirror.take_seen(), []);
        assert!(registry.manifest("a/b", "t").is_some());
        let blocked = format!("[[registry]]\nprefix = \"{host}\"\nblocked = true\n");
        let file = store.write("registries.conf", &blocked);
        let push = store.program("jc-push", &["-q", &to]).input(record.as_str());
        let ran = push.env("CONTAINERS_REGISTRIES_CONF", &file).run();
        assert!(failure_of("jc-push", &ran, 1).contains("blocked by"));
    });
}

/// A layer whose origin sends other bytes does not arrive.
#[test]
fn an_origin_that_lies_is_noticed_before_the_blob_is_complete() {
    sandbox(|s| {
        let (registry, store, record) = world(s, 10);
        let layer = std::fs::read_dir(store.beside("image/blobs/sha256")).unwrap();
        let longest = layer.max_by_key(|e| e.as_ref().unwrap().metadata().unwrap().len());
        let path = longest.unwrap().unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[600] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let found = refused(&registry, &store, &record, &[]);
        assert!(found.contains("the content has digest"), "{found}");
        let seen = registry.take_seen();
        assert!(seen.iter().all(|r| r.method != "PUT"), "{seen:?}");
    });
}
