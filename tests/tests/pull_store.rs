//! The store under kills at any instant, concurrent pulls and removals, a power cut, and damage.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jc_tests::http::{FakeRegistry, Manners};
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{layer_dirs, paths};
use jc_tests::roots::{busybox_layer, names};
use jc_tests::volume::volume;
use jc_tests::{Cmd, Sandbox, require, sandbox, sandbox_for, tree};
use serde_json::Value;

/// Three layers, the uppermost of which depends on the lower ones.
fn image(text: &str) -> Image {
    let files = |of: &str| -> Vec<Entry> {
        (0..20).map(|n| Entry::file(&format!("d/{of}-{n}"), of)).collect()
    };
    Image::new()
        .layer(Layer::new().entry(Entry::dir("d/").mode(0o750)).extend(files("shared")))
        .layer(Layer::new().entry(Entry::dir("d/")).extend(files(text)))
        .layer(Layer::new().entry(Entry::file("d/implied", text)))
}

type Tree = BTreeMap<PathBuf, String>;

/// The layers in the store, by name.
fn trees(s: &Sandbox) -> BTreeMap<String, Tree> {
    let layers = s.store().join("layers");
    if !layers.exists() {
        return BTreeMap::new();
    }
    let names = names(&layers);
    names.lines().map(|name| (name.to_owned(), tree::manifest(&layers.join(name)))).collect()
}

/// Checks that all visible entries of the store are complete: layers have their content, documents match their names,
/// and images have all that they need.
fn whole(s: &Sandbox, when: &str, good: &BTreeMap<String, Tree>) {
    for (name, tree) in trees(s) {
        let changes = tree::changes(good.get(&name).unwrap_or(&BTreeMap::new()), &tree);
        assert_eq!(changes, "", "{when}: {name}");
    }
    s.jc("jc-images").arg("--check").run().code(0).stderr("");
}

fn traced(s: &Sandbox, inject: &str) -> Cmd {
    let call = inject.split(':').next().unwrap();
    let cmd = s.cmd("strace").args(["-f", "-qq", "-o", "/dev/null"]);
    let cmd = cmd.args([format!("--trace={call}"), format!("--inject={inject}")]);
    cmd.arg(s.bin("jc-pull")).args(["-q", "oci:image"])
}

#[test]
fn a_kill_at_any_step_leaves_whole_layers_or_none() {
    sandbox_for(Duration::from_secs(240), |s| {
        require(s, "strace", "strace");
        let layout = Layout::new(s.path("image"));
        layout.image("x", &image("x"));
        let record = s.pull("oci:image");
        let good = trees(s);
        assert_eq!(good.len(), 3);
        let calls = ["mkdirat", "flock", "syncfs", "renameat", "renameat2", "fsync", "openat"];
        let mut kills = 0;
        for call in calls {
            // A kill at each of the first calls, and then at calls further and further apart, until the pull ends
            // before the kill.
            for number in (1..12).chain((12..400).step_by(37)) {
                fs::remove_dir_all(s.store()).unwrap();
                let ran = traced(s, &format!("{call}:signal=KILL:when={number}")).run();
                let when = format!("{call} {number}");
                if ran.status().success() {
                    break;
                }
                kills += 1;
                assert_eq!(ran.out(), "", "{when}\n{ran}");
                whole(s, &when, &good);
                // The pull has removed the remains.
                assert_eq!(names(&s.store().join("tmp")), "", "{when}");
                assert_eq!(s.pull("oci:image"), record, "{when}");
                whole(s, &when, &good);
            }
        }
        assert!(kills > 25, "only {kills} kills");
    });
}

/// The outputs of `--to` and `--tar` appear complete. The next pull removes the remains of a killed one.
#[test]
fn a_kill_leaves_no_half_of_what_is_written_elsewhere() {
    sandbox(|s| {
        require(s, "strace", "strace");
        let layout = Layout::new(s.path("image"));
        layout.image("x", &image("x"));
        s.pull("oci:image");
        fs::create_dir(s.path("out")).unwrap();
        for (option, call) in [("--to", "openat"), ("--tar", "write"), ("--to", "renameat")] {
            let mut kills = 0;
            for number in (1..200).step_by(13) {
                let inject = format!("--inject={call}:signal=KILL:when={number}");
                let strace = s.cmd("strace").args(["-f", "-qq", "-o", "/dev/null"]);
                let strace = strace.args([&format!("--trace={call}"), &inject]);
                let pull = strace.arg(s.bin("jc-pull")).args(["-q", option, "out/x", "oci:image"]);
                let done = pull.run().status().success();
                assert_eq!(s.path("out/x").exists(), done, "{option} {call} {number}");
                kills += usize::from(!done);
                s.sh("rm -rf out/x").run().code(0);
            }
            assert!(kills > 0, "{option} {call}");
            s.jc("jc-pull").args(["-q", option, "out/x", "oci:image"]).run().code(0);
            assert_eq!(names(&s.path("out")), "x\n", "{option} {call}");
            s.sh("rm -rf out/x").run().code(0);
        }
        // The output replaces a file, follows a symbolic link, and is written into a FIFO.
        s.sh("echo old > out/old && ln -s old out/link && mkfifo out/pipe").run().code(0);
        s.jc("jc-pull").args(["-q", "--tar", "out/link", "oci:image"]).run().code(0);
        let listed = s.sh("tar -tf out/old | sort").run().code(0).out();
        assert!(listed.contains("./d/implied") || listed.contains("d/implied"), "{listed}");
        let both = "jc-pull -q --tar out/pipe oci:image > record & tar -tf - < out/pipe | sort";
        assert_eq!(s.sh(both).run().code(0).out(), listed);
        assert_eq!(names(&s.path("out")), "link\nold\npipe\n");
        assert!(fs::symlink_metadata("out/link").unwrap().is_symlink());
        s.wait_for_no_process();
    });
}

#[test]
fn a_kill_at_any_time_leaves_whole_layers_or_none() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &image("x"));
        s.pull("oci:image");
        let good = trees(s);
        for microseconds in (0..30_000).step_by((700 / volume() as usize).max(1)) {
            // A pull that is killed early enough has made no store.
            s.cmd("rm").arg("-rf").arg(s.store()).run().code(0);
            let running = s.jc("jc-pull").args(["-q", "oci:image"]).spawn();
            std::thread::sleep(Duration::from_micros(microseconds));
            running.signal(rustix::process::Signal::KILL);
            running.wait();
            whole(s, &format!("{microseconds} us"), &good);
            assert_eq!(names(&s.store().join("tmp")), "");
        }
    });
}

/// Data is on the disk before it is visible. One call syncs all data.
#[test]
fn nothing_is_visible_before_it_is_synced() {
    sandbox(|s| {
        require(s, "strace", "strace");
        let layout = Layout::new(s.path("image"));
        layout.image("x", &image("x"));
        let calls = |options: &[&str]| -> Vec<String> {
            let trace = "--trace=syncfs,fsync,renameat,renameat2,sync,fdatasync";
            let strace = s.cmd("strace").args(["-f", "-qq", "-o", "trace", trace]);
            let pull = strace.arg(s.bin("jc-pull")).args(options).args(["-q", "oci:image"]);
            pull.run().code(0);
            let text = fs::read_to_string("trace").unwrap();
            let call =
                |line: &str| line.split_whitespace().nth(1)?.split('(').next().map(str::to_owned);
            text.lines().filter_map(call).collect()
        };
        let all = calls(&[]);
        // The order is documents and layers, then their names, then the image that needs them.
        let order: Vec<&str> = all.iter().map(String::as_str).collect();
        let (first, rest) = order.split_first().unwrap();
        assert_eq!(*first, "syncfs", "{order:?}");
        assert!(rest.iter().all(|call| *call != "syncfs"), "{order:?}");
        assert_eq!(order.last(), Some(&"renameat"), "{order:?}");
        assert_eq!(order.iter().filter(|call| **call == "renameat2").count(), 3, "{order:?}");
        let last = order.iter().rposition(|call| *call == "fsync").unwrap();
        assert!(order[last..].iter().all(|call| *call != "renameat2"), "{order:?}");
        fs::remove_dir_all(s.store()).unwrap();
        assert!(calls(&["--no-sync"]).iter().all(|call| call.starts_with("rename")));
    });
}

/// Concurrent pulls of images that share a layer, and removals of the images.
#[test]
fn pulls_and_removals_at_once_all_end_well() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        for tag in ["x", "y", "z"] {
            layout.image(tag, &image(tag));
        }
        let pull = "for n in $(seq 12); do jc-pull -q oci:image:x oci:image:$1 || exit; done";
        let rmi = "for n in $(seq 25); do
            jc-rmi oci:image:$1 2>>errors; jc-rmi --unused 2>>errors || exit; jc-images --check 2>>errors
            done; true";
        let start = |script: &str, tag: &str| s.sh(script).args(["sh", tag]).spawn();
        let all = [("x", pull), ("y", pull), ("z", pull), ("y", pull), ("x", rmi), ("y", rmi)];
        let running: Vec<_> = all.iter().map(|(tag, script)| start(script, tag)).collect();
        for running in running {
            let ran = running.wait().code(0);
            assert_eq!(ran.err(), "");
            for line in ran.out().lines().filter(|line| line.starts_with('{')) {
                let record: Value = serde_json::from_str(line).unwrap();
                assert_eq!(record["layers"].as_array().unwrap().len(), 3);
            }
        }
        // A removal may find no image. All other errors fail the test.
        let errors = fs::read_to_string("errors").unwrap_or_default();
        let known = ["no such image", "jc-images lists"];
        let other = errors.lines().find(|line| !known.iter().any(|known| line.contains(known)));
        assert_eq!(other, None);
        for tag in ["x", "y", "z"] {
            let layers = layer_dirs(&s.pull(&format!("oci:image:{tag}")));
            assert_eq!(fs::read_to_string(layers[1].join(format!("d/{tag}-19"))).unwrap(), tag);
        }
        s.jc("jc-images").arg("--check").run().code(0);
        s.jc("jc-rmi").args(["oci:image:x", "oci:image:y", "oci:image:z"]).run().code(0);
        assert!(paths(&s.store()).iter().all(|path| path.parent() == Some(&s.store())));
    });
}

#[test]
fn removals_of_one_image_at_once_remove_it_once() {
    sandbox(|s| {
        Layout::new(s.path("image")).image("x", &image("x"));
        for _ in 0..10 {
            s.pull("oci:image:x");
            let start = |_| s.jc("jc-rmi").arg("oci:image:x").spawn();
            let ran = [0; 4].map(start).map(|running| running.wait());
            let (done, failed): (Vec<_>, Vec<_>) = ran.iter().partition(|ran| ran.err().is_empty());
            assert_eq!((done.len(), failed.len()), (1, 3));
            for ran in failed {
                assert!(ran.err().contains("oci:/srv/image:x: no such image"), "{ran}");
            }
            assert!(paths(&s.store()).iter().all(|path| path.parent() == Some(&s.store())));
        }
    });
}

/// A layer takes the modes and times of directories from the layers below it, which jc-rmi removes meanwhile.
#[test]
fn a_layer_takes_nothing_from_one_that_is_being_removed() {
    sandbox(|s| {
        let all = |entry: &dyn Fn(usize) -> Entry| (0..2000).map(entry).collect::<Vec<_>>();
        let below = || Layer::new().extend(all(&|n| Entry::dir(&format!("d{n}/")).mode(0o750)));
        let upon = Layer::new().extend(all(&|n| Entry::file(&format!("d{n}/f"), "")));
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(below()).layer(upon));
        layout.image("y", &Image::new().layer(below()));
        let good = layer_dirs(&s.pull("oci:image:x"))
            .iter()
            .map(|dir| tree::manifest(dir))
            .collect::<Vec<_>>();
        // jc-rmi runs once the upper layer has been unpacked.
        let script = "jc-rmi oci:image:x; jc-rmi oci:image:y; jc-pull -q oci:image:y; jc-pull -q oci:image:x > record &
            until ls $JC_STORE/tmp/*/layer-0/d1999/f || ! kill -0 $!; do :; done 2> absent
            sleep 0.0$1; jc-rmi oci:image:y; wait $!";
        for n in 0..10 {
            s.sh(script).args(["sh", &n.to_string()]).run().code(0);
            let layers = layer_dirs(&s.pull("oci:image:x"));
            for (layer, good) in layers.iter().zip(&good) {
                assert_eq!(tree::changes(good, &tree::manifest(layer)), "");
            }
        }
    });
}

#[test]
fn what_is_read_is_not_removed() {
    sandbox(|s| {
        let layer =
            Layer::new().entry(Entry::file("a", "a".repeat(4 << 20))).entry(Entry::file("z", ""));
        Layout::new(s.path("image")).image("x", &Image::new().layer(layer));
        s.pull("oci:image:x");
        // The pull waits for the reader of the FIFO.
        let script = "mkfifo fifo; jc-pull -q --policy never --tar fifo oci:image:x > record & exec 3< fifo
            head -c 512 <&3 > tar; jc-rmi oci:image:x; echo $?; jc-rmi --unused; cat <&3 >> tar; wait $! || exit
            tar -t -f tar";
        let ran = s.sh(script).run().code(0);
        assert_eq!(ran.out(), "1\n./\na\nz\n");
        let message =
            "oci:/srv/image:x: in use by a container that starts, or by a program that reads it";
        assert!(ran.err().contains(message), "{ran}");
        let ran = s.jc("jc-rmi").arg("oci:image:x").run().code(0);
        assert_eq!(ran.out().lines().count(), 2, "{ran}");
    });
}

/// Layers that a container has mounted stay, in any mount namespace, and no others.
#[test]
fn only_what_a_container_has_is_kept() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let image = |text: &str| {
            let own = Layer::new().entry(Entry::file("own", text));
            Image::new().layer(busybox_layer()).layer(own)
        };
        for tag in ["x", "y"] {
            layout.image(tag, &image(tag));
        }
        for namespace in ["", "jc-unshare -U --map-users 0:0:65536 --map-groups 0:0:65536 -- "] {
            let [x, y] = ["x", "y"].map(|tag| layer_dirs(&s.pull(&format!("oci:image:{tag}"))));
            let (lower, upper) = (x[0].display(), x[1].display());
            let script = format!(
                "exec {namespace}jc-unshare -p -- jc-rootfs --layer {lower} --layer {upper} \
                 --upper tmpfs -- sh -c 'echo ready; cat /own; sleep 1000'"
            );
            let mut container = s.sh(&script).spawn();
            container.wait_for("ready");
            let ran = s.jc("jc-rmi").arg("oci:image:x").run().code(1);
            ran.stdout("").fails_as("jc-rmi", "oci:/srv/image:x: in use by process ");
            let ran = s.jc("jc-rmi").arg("oci:image:y").run().code(0);
            assert_eq!(ran.out().lines().count(), 2, "{ran}");
            assert!(x.iter().all(|layer| layer.exists()) && !y[1].exists());
            // The layers stay also if no image has them.
            fs::remove_dir_all(s.store().join("images")).unwrap();
            s.jc("jc-rmi").arg("--unused").run().code(0).stdout("");
            container.signal(rustix::process::Signal::KILL);
            container.wait();
            s.wait_for_no_process();
            let ran = s.jc("jc-rmi").arg("--unused").run().code(0);
            assert_eq!(ran.out().lines().count(), 2, "{ran}");
            assert_eq!(names(&s.store().join("layers")), "");
        }
    });
}

#[test]
fn an_unchanged_image_costs_one_request() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &image("x"));
        let registry = FakeRegistry::serve(&layout, Manners::default());
        let name = registry.image("x");
        s.pull(&name);
        let before = registry.requests().len();
        s.jc("jc-pull").args(["-q", &name]).run().code(0);
        let requests = registry.requests()[before..].to_vec();
        assert!(requests.len() == 1 && requests[0].method == "HEAD", "{requests:?}");
    });
}
