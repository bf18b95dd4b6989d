//! `jc-pull` of layers that cost more than their length: depth, counts, records, links.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::names;
use jc_tests::{Cmd, Sandbox, require, sandbox, sandbox_for};

/// Puts an image of one layer into a layout called `name`.
fn image(s: &Sandbox, name: &str, layer: Layer) -> String {
    let layout = Layout::new(s.path(name));
    layout.image("x", &Image::new().layer(layer));
    format!("oci:{}", layout.dir().display())
}

fn good(s: &Sandbox) -> String {
    image(s, "good", Layer::new().entry(Entry::file("f", "good")))
}

/// The program `name` with a limit of prlimit(1).
fn limited(s: &Sandbox, limit: &str, name: &str) -> Cmd {
    s.cmd("prlimit").args([limit, "--"]).arg(s.bin(name))
}

/// Nested directories called `a`.
fn nested(depth: usize) -> String {
    "a/".repeat(depth)
}

/// A layer whose names lead through links `l0`, `l1`, ... to a file at a depth of `links` times 2000, for which no
/// name could be long enough.
fn deep_by_links(links: usize) -> Layer {
    let mut layer = Layer::new().entry(Entry::dir(&nested(2000)));
    let mut target = nested(2000);
    for n in 0..links - 1 {
        layer = layer.entry(Entry::symlink(&format!("l{n}"), &target));
        target = format!("l{n}/{}", nested(2000));
        layer = layer.entry(Entry::dir(&target));
    }
    layer.entry(Entry::file(&format!("{target}file"), "deep"))
}

fn is_clean(s: &Sandbox) {
    assert_eq!(names(&s.store().join("tmp")), "");
}

#[test]
fn a_layer_that_is_deeper_than_the_limit_of_descriptors_is_unpacked_checked_copied_and_removed() {
    sandbox_for(Duration::from_secs(240), |s| {
        let limit = "--nofile=100:100";
        for (name, layer) in [
            ("deep", Layer::new().entry(Entry::file(&format!("{}f", nested(2000)), ""))),
            ("deeper", deep_by_links(4)),
        ] {
            let deep = image(s, name, layer);
            limited(s, limit, "jc-pull").args(["-q", &deep]).run().code(0).stderr("");
            limited(s, limit, "jc-images").arg("--check").run().code(0).stderr("");
            limited(s, limit, "jc-images").run().code(0).stderr("");
            let to = s.path("to");
            let copy = limited(s, limit, "jc-pull").args(["-q", &deep, "--to"]).arg(&to);
            copy.run().code(0).stderr("");
            limited(s, limit, "jc-rmi").arg(&deep).run().code(0).stderr("");
            is_clean(s);
            assert_eq!(names(&s.store().join("layers")), "");
            s.cmd("rm").arg("-r").arg(&to).run().code(0);
        }
        s.pull(&good(s));
    });
}

#[test]
fn a_deep_layer_that_is_broken_leaves_nothing_behind() {
    sandbox(|s| {
        let mut tar = Layer::new().entry(Entry::file(&format!("{}f", nested(600)), "")).into_tar();
        let end = tar.len() - 1024;
        tar[end..].fill(b'x');
        let bad = image(s, "bad", Layer::raw(tar));
        let pull = limited(s, "--nofile=1024:1024", "jc-pull").args(["-q", &bad]).run();
        assert!(pull.code(1).err().contains("checksum"));
        is_clean(s);
        s.pull(&good(s));
    });
}

#[test]
fn work_of_a_dead_pull_that_cannot_be_removed_stops_no_tool() {
    sandbox(|s| {
        let good = good(s);
        s.pull(&good);
        // A mount in the directory prevents its removal.
        for dead in ["pull-1/mount", "pull-2"] {
            fs::create_dir_all(s.store().join("tmp").join(dead)).unwrap();
        }
        let tmp = s.store().join("tmp");
        let in_the_way = |tool: &str, args: &[&str]| {
            let script = "mount -t tmpfs none \"$0\"/pull-1/mount && exec \"$@\"";
            let cmd = s.cmd("unshare").args(["-m", "sh", "-c", script]).arg(&tmp);
            let ran = cmd.arg(s.bin(tool)).args(args).run().code(0);
            let path = tmp.join("pull-1");
            let line = format!("{tool}: sweep {}: Resource busy\n", path.display());
            assert_eq!(ran.err().replace("Device or resource", "Resource"), line);
            assert_eq!(names(&tmp), "pull-1\n");
        };
        in_the_way("jc-pull", &["-q", &good]);
        in_the_way("jc-images", &[]);
        in_the_way("jc-images", &["--check"]);
        in_the_way("jc-rmi", &[&good]);
        s.pull(&good);
        is_clean(s);
    });
}

/// The system calls that a pull of the layer makes.
fn calls(s: &Sandbox, name: &str, layer: Layer) -> usize {
    let image = image(s, name, layer);
    let trace = s.path("trace");
    let strace = s.cmd("strace").args(["-f", "-qq", "-o"]).arg(&trace).arg(s.bin("jc-pull"));
    strace.args(["-q", &image]).timeout(Duration::from_secs(100)).run().code(0);
    let text = fs::read_to_string(&trace).unwrap();
    // The number of waits of threads for each other depends on the machine.
    let waits = ["futex(", "resumed>", "sched_yield("];
    text.lines().filter(|line| !waits.iter().any(|wait| line.contains(wait))).count()
}

/// Checks that twice the work needs at most slightly more than twice the system calls.
fn grows_linearly(s: &Sandbox, name: &str, layer: impl Fn(usize) -> Layer) {
    require(s, "strace", "strace");
    let [once, twice] = [1, 2].map(|n| calls(s, &format!("{name}-{n}"), layer(n)));
    assert!(twice < once * 9 / 4, "{name}: {once} and then {twice} calls");
}

#[test]
fn the_cost_of_depth_is_linear() {
    sandbox_for(Duration::from_secs(240), |s| {
        grows_linearly(s, "implied", |n| {
            Layer::new().entry(Entry::file(&format!("{}f", nested(500 * n)), ""))
        });
        grows_linearly(s, "listed", |n| {
            (1..=300 * n).fold(Layer::new(), |layer, depth| layer.entry(Entry::dir(&nested(depth))))
        });
        grows_linearly(s, "replaced", |n| {
            let files = (0..500 * n).map(|i| Entry::file(&format!("d{i}/f"), ""));
            Layer::new()
                .extend(files)
                .extend((0..500 * n).map(|i| Entry::symlink(&format!("d{i}"), "x")))
        });
    });
}

#[test]
fn the_cost_of_depth_upon_another_layer_is_linear() {
    sandbox_for(Duration::from_secs(240), |s| {
        require(s, "strace", "strace");
        let pull = |n: usize| {
            let deep = Layer::new().entry(Entry::file(&format!("{}f", nested(300 * n)), ""));
            // The target of a hard link that only the lower layer has makes the pull read that layer.
            let upper = Layer::new()
                .entry(Entry::file(&format!("{}g", nested(300 * n)), ""))
                .entry(Entry::hardlink("link", &format!("{}f", nested(300 * n))));
            let layout = Layout::new(s.path(&format!("upon-{n}")));
            layout.image("x", &Image::new().layer(deep).layer(upper));
            let trace = s.path("trace");
            let strace =
                s.cmd("strace").args(["-f", "-qq", "-o"]).arg(&trace).arg(s.bin("jc-pull"));
            strace.args(["-q", &format!("oci:{}", layout.dir().display())]).run().code(0);
            let text = fs::read_to_string(&trace).unwrap();
            text.lines().filter(|line| !line.contains("futex(")).count()
        };
        let [once, twice] = [1, 2].map(pull);
        assert!(twice < once * 9 / 4, "{once} and then {twice} calls");
    });
}

/// Pulls within a limit of processor time in seconds, and within 256 MB of memory.
fn pull_within(s: &Sandbox, seconds: u64, image: &str) -> jc_tests::Ran {
    let limits = [format!("--cpu={seconds}"), "--data=268435456".to_owned()];
    let cmd = s.cmd("prlimit").args(limits).arg("--").arg(s.bin("jc-pull")).args(["-q", image]);
    cmd.timeout(Duration::from_secs(100)).run()
}

#[test]
fn directories_that_are_implied_and_then_replaced_cost_what_entries_cost() {
    sandbox_for(Duration::from_secs(240), |s| {
        let files = (0..100_000).map(|i| Entry::file(&format!("{i}/f"), ""));
        let links = (0..100_000).map(|i| Entry::symlink(&i.to_string(), "x"));
        let image = image(s, "replaced", Layer::new().extend(files).extend(links));
        pull_within(s, 20, &image).code(0);
    });
}

/// An extension header with records for the next entry, or for all later entries.
fn records(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(text.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), text].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
    format!("{length} {key}={value}\n").into_bytes()
}

#[test]
fn global_pax_headers_take_no_memory() {
    sandbox_for(Duration::from_secs(240), |s| {
        let mut tar = Vec::new();
        for n in 0..300 {
            tar.extend(records(
                b'g',
                &record(&format!("SCHILY.xattr.user.{n}"), &"v".repeat(1 << 20)[99..]),
            ));
            tar.extend(&Layer::new().entry(Entry::file(&format!(".wh.{n}"), "")).into_tar()[..512]);
        }
        tar.resize(tar.len() + 1024, 0);
        let image = image(s, "global", Layer::raw(tar));
        pull_within(s, 60, &image).code(0);
    });
}

#[test]
fn attributes_and_sparse_maps_cost_what_they_are_long() {
    sandbox_for(Duration::from_secs(240), |s| {
        let mut tar = Vec::new();
        for n in 0..20 {
            // The records stand in front of a whiteout, which has no attributes, since ext4 and tmpfs store few.
            let keys = (0..34_000).map(|i| record(&format!("SCHILY.xattr.user.{i}"), ""));
            tar.extend(records(b'x', &keys.collect::<Vec<_>>().concat()));
            tar.extend(&Layer::new().entry(Entry::file(".wh.whiteout", "")).into_tar()[..512]);
            let map = (0..100_000).map(|i| format!("{}\n0\n", i + n)).collect::<String>();
            let map = format!("100000\n{map}");
            let sparse = [
                record("GNU.sparse.major", "1"),
                record("GNU.sparse.minor", "0"),
                record("GNU.sparse.name", &format!("sparse-{n}")),
                record("GNU.sparse.realsize", "200000"),
            ];
            tar.extend(records(b'x', &sparse.concat()));
            let mut map = map.into_bytes();
            map.resize(map.len().next_multiple_of(512), 0);
            tar.extend(records(b'0', &map));
        }
        tar.resize(tar.len() + 1024, 0);
        let image = image(s, "attributes", Layer::raw(tar));
        pull_within(s, 20, &image).code(0);
    });
}

#[test]
fn names_that_lead_through_long_links_again_and_again_are_refused() {
    sandbox_for(Duration::from_secs(240), |s| {
        // Each entry is short and leads through 40 links of 4000 bytes each.
        let mut layer = Layer::new().entry(Entry::dir(&nested(10)));
        layer = layer.entry(Entry::symlink("l0", &"a/../".repeat(800)));
        for n in 1..40 {
            layer = layer.entry(Entry::symlink(
                &format!("l{n}"),
                &format!("l{}/{}", n - 1, "a/../".repeat(790)),
            ));
        }
        let layer = layer.extend((0..10_000).map(|n| Entry::file(&format!("l38/{n}"), "")));
        let image = image(s, "links", layer);
        let ran = pull_within(s, 20, &image).code(1);
        assert!(
            ran.err().contains("names that lead through too many symbolic links"),
            "{}",
            ran.err()
        );
        is_clean(s);
    });
}
