//! jc-pull with a registry and with layouts: the records, and the refused images.

#![cfg(target_os = "linux")]

use jc_tests::http::{Answer, Fault, Registry};
use jc_tests::image::{Built, Format, Image, Packed, architecture, digest};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, layer_dirs};
use jc_tests::{sandbox, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

fn tar(content: &str) -> Vec<u8> {
    Layer::new().directory("./", 0o755).directory("etc/", 0o755).file("etc/x", content).into_tar()
}

/// An index with an image for each architecture.
fn index(arches: &[&str], format: Format) -> Built {
    let image = |arch: &&str| {
        Image::new().described(Packed::gzip(&tar(arch))).format(format).architecture(arch)
    };
    Image::index(&arches.iter().map(image).collect::<Vec<_>>())
}

#[test]
fn an_image_is_pulled_once_and_the_record_says_what_to_run() {
    sandbox(|s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let config = json!({"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"x": "ü"}});
        let image = Image::new().described(Packed::gzip(&tar("one")));
        let image = image.described(Packed::plain(&tar("two"))).config(config.clone()).build();
        registry.push("a/b", "tag", &image);
        let name = format!("{}/a/b:tag", registry.host);
        let first = store.run(&[&name]).code(0);
        assert_eq!(first.err().lines().filter(|l| l.ends_with(" done")).count(), 2, "{first}");
        let record: Value = serde_json::from_slice(first.out_bytes()).unwrap();
        assert_eq!(record["jc"], 1);
        assert_eq!(record["ref"], name);
        assert_eq!(record["digest"], image.digest());
        assert_eq!(record["platform"], format!("linux/{}", architecture()));
        assert_eq!(record["config"], config);
        let directories = layer_dirs(&record);
        assert!(directories.iter().all(|d| d.is_absolute()));
        assert_eq!(std::fs::read_to_string(directories[0].join("etc/x")).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(directories[1].join("etc/x")).unwrap(), "two");

        let before = store.listing();
        // The requests are HEAD, manifest, configuration, and the layers.
        assert_eq!(registry.take_seen().len(), 5);
        assert_eq!(store.pull(&["-q", &name]), [record]);
        let seen = registry.take_seen();
        assert_eq!((seen.len(), seen[0].method.as_str()), (1, "HEAD"));
        assert_eq!(seen[0].path, "/v2/a/b/manifests/tag");
        assert_eq!(store.listing(), before);
        assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
    });
}

#[test]
fn indexes_give_the_platform_that_is_asked_for() {
    sandbox(|s| {
        let registry = Registry::start();
        for format in [Format::Oci, Format::Docker] {
            let store = Store::new(s);
            let image = index(&["arm64", "amd64"], format);
            registry.push("x", "latest", &image);
            let by_tag = format!("{}/x", registry.host);
            let by_digest = format!("{by_tag}@{}", image.digest());
            for (arch, name) in [("arm64", &by_tag), ("amd64", &by_digest)] {
                let record = &store.pull(&["--platform", &format!("linux/{arch}"), name])[0];
                assert_eq!(record["platform"], format!("linux/{arch}"));
                let found = std::fs::read_to_string(layer_dirs(record)[0].join("etc/x")).unwrap();
                assert_eq!(found, arch);
            }
            let message = store.fail(1, &["--platform", "linux/s390x", &by_tag]);
            assert!(
                message.ends_with("no image for linux/s390x; there is linux/arm64, linux/amd64")
            );
        }
    });
}

#[test]
fn several_images_give_several_records_in_order() {
    sandbox(|s| {
        let store = Store::new(s);
        let [a, b] =
            ["a", "b"].map(|text| store.layout(text, &Built::of(&[Packed::gzip(&tar(text))])));
        let b = format!("{b}:t");
        let records = store.pull(&[&b, &a]);
        assert_eq!((&records[0]["ref"], &records[1]["ref"]), (&b.into(), &a.clone().into()));
        let output = store.run(&["-q", &a, "oci:/no/such/place"]);
        assert_eq!(output.out().lines().count(), 1);
        output.code(1).stderr("jc-pull: open /no/such/place: No such file or directory\n");
    });
}

/// Requests for several images share connections, and several layers are fetched concurrently.
#[test]
fn connections_are_kept_and_layers_come_at_once() {
    sandbox(|s| {
        let registry = Registry::start();
        let (names, layers): (Vec<String>, Vec<String>) = (0..6)
            .map(|n| {
                let tar = Layer::new().directory("./", 0o755).file("x", &n.to_string()).into_tar();
                let image = Built::of(&[Packed::gzip(&tar)]);
                registry.push(&n.to_string(), "latest", &image);
                (format!("{}/{n}", registry.host), format!("/v2/{n}/blobs/{}", image.layer(0)))
            })
            .unzip();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // Without a pool each request would have its own connection.
        for (jobs, most) in [("1", 1), ("3", 3)] {
            let before = registry.connections();
            assert_eq!(Store::new(s).pull(&[&["-q", "-j", jobs], &names[..]].concat()).len(), 6);
            assert_eq!(registry.take_seen().len(), 6 * 4);
            let made = registry.connections() - before;
            assert!((1..=most).contains(&made), "-j {jobs}: {made} connections");
        }
        // No layer ends, and each is asked for.
        for layer in &layers {
            registry.faults(layer, &[Fault::Stall(0)]);
        }
        let options = ["-q", "-j", "12", "--timeout", "1000"];
        let pull = Store::new(s).command(&[&options, &names[..]].concat()).spawn();
        wait_until("six layers", || registry.stalls() == layers.len());
        pull.signal(Signal::KILL);
        pull.wait();
    });
}

/// The largest layer comes first, so that no large one is alone at the end.
#[test]
fn the_largest_layer_is_fetched_first() {
    sandbox(|s| {
        let registry = Registry::start();
        let layers = ["1", "22", "4444", "333"].map(|text| Packed::plain(&tar(&text.repeat(4096))));
        let image = Built::of(&layers);
        registry.push("x", "latest", &image);
        Store::new(s).pull(&["-q", "-j", "1", &format!("{}/x", registry.host)]);
        let asked = registry.take_seen().split_off(3);
        let asked: Vec<&str> = asked.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(asked, [2, 3, 1, 0].map(|n| format!("/v2/x/blobs/{}", image.layer(n))));
    });
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    sandbox(|s| {
        let store = Store::new(s);
        for arguments in [
            vec![],
            vec!["--nonsense", "x"],
            vec!["A"],
            vec!["oci:"],
            vec!["--platform", "linux", "x"],
        ] {
            store.fail(2, &arguments);
        }
        assert!(!store.path().exists());
    });
}

/// A change that makes an image false: the name, the change, and the expected message.
type Lie = (&'static str, fn(&Built) -> Built, &'static str);

fn with_layer(change: fn(&mut Packed)) -> Built {
    let mut bad = Packed::gzip(&tar("two"));
    change(&mut bad);
    Built::of(&[Packed::gzip(&tar("one")), bad])
}

/// Replaces the blob of the last layer, and keeps the digest of the good blob.
fn with_blob(image: &Built, change: fn(&mut Vec<u8>)) -> Built {
    let mut image = image.clone();
    let digest = image.layer(1).to_owned();
    image.damage(&digest, change);
    image
}

const LIES: [Lie; 9] = [
    ("a flipped byte in a blob", |i| with_blob(i, |b| *b.last_mut().unwrap() ^= 1), "layer"),
    ("a flipped byte in the middle", |i| with_blob(i, |b| b[40] ^= 0x10), "layer"),
    ("a blob that is too short", |i| with_blob(i, |b| b.truncate(b.len() - 9)), "layer"),
    ("a blob that is too long", |i| with_blob(i, |b| b.push(0)), "goes on after"),
    ("a size that is too large", |_| with_layer(|l| l.size += 1), "bytes"),
    ("a size that is too small", |_| with_layer(|l| l.size -= 1), "goes on after"),
    ("a wrong diff-id", |_| with_layer(|l| l.diff_id = digest(b"")), "diff-id"),
    (
        "a tar that ends in a member",
        |_| {
            with_layer(|l| {
                let tar = tar("two");
                *l = Packed::gzip(&tar[..tar.len() - 1024 - 510]);
            })
        },
        "truncated",
    ),
    (
        "a flipped byte in the manifest",
        |i| {
            let mut image = i.clone();
            image.damage(i.digest(), |bytes| *bytes.last_mut().unwrap() = b' ');
            image
        },
        "the content has digest",
    ),
];

#[test]
fn lies_leave_nothing_in_the_store_and_the_next_good_pull_works() {
    sandbox(|s| {
        let good = Built::of(&[Packed::gzip(&tar("one")), Packed::gzip(&tar("two"))]);
        for (what, lie, message) in LIES {
            let store = Store::new(s);
            let found = store.fail(1, &["-q", &store.layout("bad", &lie(&good))]);
            assert!(found.contains(message), "{what}: {found}");
            assert_eq!(store.listing().len(), 5, "{what}: {:?}", store.listing());
            let records = store.pull(&[&store.layout("good", &good)]);
            let content =
                std::fs::read_to_string(layer_dirs(&records[0])[1].join("etc/x")).unwrap();
            assert_eq!(content, "two", "{what}");
        }
    });
}

#[test]
fn the_work_of_the_dead_is_swept_and_that_of_the_living_is_not() {
    sandbox(|s| {
        let store = Store::new(s);
        let (dead, living) =
            (store.path().join("tmp/pull-dead"), store.path().join("tmp/pull-alive"));
        std::fs::create_dir_all(dead.join("layer-0/a/b")).unwrap();
        std::fs::write(dead.join("layer-0/a/b/c"), "").unwrap();
        std::fs::create_dir_all(&living).unwrap();
        let lock = std::fs::File::open(&living).unwrap();
        lock.lock().unwrap();
        store.pull(&[&store.layout("image", &Built::of(&[Packed::gzip(&tar("a"))]))]);
        assert!(!dead.exists());
        assert!(living.exists());
    });
}

#[test]
fn a_token_is_fetched_and_goes_to_its_own_host_only() {
    sandbox(|s| {
        let (registry, elsewhere, store) = (Registry::start(), Registry::start(), Store::new(s));
        let image = Built::of(&[Packed::gzip(&tar("one"))]);
        registry.push("x", "latest", &image);
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="reg",scope="repository:x:pull""#,
            registry.host
        );
        let needs = Some(("Bearer secret".to_owned(), challenge));
        registry.change("/v2/x/manifests/latest", |a| a.needs.clone_from(&needs));
        let blob = format!("/v2/x/blobs/{}", image.layer(0));
        elsewhere.set("/cdn", Answer::ok(&image.blobs[image.layer(0)], ""));
        let cdn = format!("http://{}/cdn", elsewhere.host);
        registry.set(&blob, Answer { needs, ..Answer::redirect(&cdn) });
        let token = "/token?service=reg&scope=repository%3Ax%3Apull";
        registry.set(token, Answer::ok(br#"{"token":"secret"}"#, "application/json"));
        store.pull(&[&format!("{}/x", registry.host)]);
        let there = elsewhere.take_seen();
        assert_eq!((there.len(), &there[0].authorization), (1, &None));
        let seen = registry.take_seen();
        let bearer = Some("Bearer secret".to_owned());
        assert!(seen.iter().any(|r| r.path == blob && r.authorization == bearer), "{seen:?}");
        assert_eq!(seen.iter().filter(|r| r.path == token).count(), 1);
    });
}

#[test]
fn plain_http_is_for_this_machine_only() {
    sandbox(|s| {
        let (registry, store) = (Registry::start(), Store::new(s));
        let redirect = Answer::redirect("http://192.0.2.1/");
        registry.set("/v2/x/manifests/latest", redirect);
        let found = store.fail(1, &["-q", &format!("{}/x", registry.host)]);
        assert!(found.contains("get http://192.0.2.1/: plain http is not allowed"), "{found}");
    });
}
