//! The store after a power cut: an ext4 image on a loop device, copied at each step of a pull and mounted
//! again.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::names;
use jc_tests::{Sandbox, require, sandbox, sandbox_for, skip, tree};

/// The calls that write data to the disk, or make names visible.
const CALLS: [&str; 8] = [
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
];

/// The options with which ext4 writes data and names in the least strict order.
const OPTIONS: &str = "data=writeback,noauto_da_alloc,commit=1000";

fn image(tag: &str) -> Image {
    let files = |of: &str| -> Vec<Entry> {
        let content = of.repeat(3000);
        (0..12).map(|n| Entry::file(&format!("d/{of}-{n}"), content.clone())).collect()
    };
    Image::new()
        .layer(Layer::new().entry(Entry::dir("d/").mode(0o750)).extend(files("shared")))
        .layer(Layer::new().entry(Entry::file("d/implied", tag)).extend(files(tag)))
}

/// A disk of 32 MiB with ext4, mounted on `disk`.
struct Disk<'a>(&'a Sandbox);

impl<'a> Disk<'a> {
    fn new(s: &'a Sandbox, from: &str) -> Self {
        let script =
            format!("cp --sparse=always {from} mounted && mount -o loop,{OPTIONS} mounted disk");
        s.sh(&script).run().code(0);
        Self(s)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        drop(self.0.sh("umount disk").run());
    }
}

type Trees = BTreeMap<String, BTreeMap<PathBuf, String>>;

fn trees(s: &Sandbox) -> Trees {
    let layers = s.path("disk/store/layers");
    let names = if layers.exists() { names(&layers) } else { String::new() };
    names.lines().map(|name| (name.to_owned(), tree::manifest(&layers.join(name)))).collect()
}

fn jc(s: &Sandbox, program: &str, args: &[&str]) -> jc_tests::Ran {
    s.jc(program).args(["--store", "disk/store"]).args(args).run()
}

/// Runs a program with a kill at a call, and copies the disk as after a power cut: once unchanged, and once after the
/// fsync(2) of another program, which commits the journal. Returns `false` if the program ended before the call.
fn cut(s: &Sandbox, words: &[&str], call: &str, number: usize) -> bool {
    let _disk = Disk::new(s, "before");
    let strace = s.cmd("strace").args(["-f", "-qq", "-o", "/dev/null", &format!("--trace={call}")]);
    let strace = strace.arg(format!("--inject={call}:signal=KILL:when={number}"));
    let program = strace.arg(s.bin(words[0])).args(["--store", "disk/store"]).args(&words[1..]);
    let done = program.run().status().success();
    let snapshots = "cp --sparse=always mounted cut-0 && echo > disk/other && sync disk/other &&
        cp --sparse=always mounted cut-1";
    s.sh(snapshots).run().code(0);
    !done
}

/// Whether the store after a power cut is whole, and a pull completes it.
fn survives(s: &Sandbox, cut: &str, good: &Trees) -> Result<(), String> {
    let _disk = Disk::new(s, cut);
    let check = jc(s, "jc-images", &["--check"]);
    if !check.status().success() {
        return Err(check.err());
    }
    for (name, found) in trees(s) {
        match good.get(&name).map(|good| tree::changes(good, &found)) {
            Some(changes) if changes.is_empty() => {}
            changes => return Err(format!("{name}: {changes:?}")),
        }
    }
    jc(s, "jc-pull", &["-q", "oci:image:y"]).code(0);
    jc(s, "jc-images", &["--check"]).code(0);
    assert!(trees(s).iter().all(|(name, tree)| good.get(name) == Some(tree)));
    assert_eq!(names(&s.path("disk/store/tmp")), "");
    Ok(())
}

/// A disk whose store has an image. Returns the layers of the store with the second image.
fn disk(s: &Sandbox) -> Trees {
    require(s, "strace", "strace");
    require(s, "mkfs.ext4", "e2fsprogs");
    if !s.sh("[ -b /dev/loop0 ]").run().status().success() {
        skip("no loop devices");
    }
    let layout = Layout::new(s.path("image"));
    ["x", "y"].iter().for_each(|tag| drop(layout.image(tag, &image(tag))));
    fs::create_dir(s.path("disk")).unwrap();
    s.sh("truncate -s 32M empty && mkfs.ext4 -q empty").run().code(0);
    {
        let _disk = Disk::new(s, "empty");
        jc(s, "jc-pull", &["-q", "oci:image:x"]).code(0);
    }
    s.sh("cp --sparse=always mounted before").run().code(0);
    let _disk = Disk::new(s, "before");
    jc(s, "jc-pull", &["-q", "oci:image:y"]).code(0);
    trees(s)
}

/// Cuts the power at each call of a program.
fn cut_everywhere(s: &Sandbox, words: &[&str], good: &Trees) {
    let mut cuts = 0;
    for call in CALLS {
        for number in 1..100 {
            let was_cut = cut(s, words, call, number);
            for cut in ["cut-0", "cut-1"] {
                survives(s, cut, good).unwrap_or_else(|e| panic!("{call} {number} {cut}: {e}"));
            }
            cuts += 1;
            if !was_cut {
                break;
            }
        }
    }
    println!("{words:?}: {cuts} cuts");
    assert!(cuts > 2 * CALLS.len(), "only {cuts} cuts");
}

#[test]
fn a_power_cut_at_any_step_of_a_pull_leaves_whole_layers_or_none() {
    sandbox_for(Duration::from_secs(590), |s| {
        let good = disk(s);
        assert_eq!(good.len(), 3);
        cut_everywhere(s, &["jc-pull", "-q", "oci:image:y"], &good);
    });
}

#[test]
fn a_power_cut_at_any_step_of_a_removal_leaves_whole_layers_or_none() {
    sandbox_for(Duration::from_secs(590), |s| {
        let good = disk(s);
        cut_everywhere(s, &["jc-rmi", "oci:image:x"], &good);
    });
}

/// Damage is found where the pull does not sync, so the other tests can fail.
#[test]
fn a_pull_without_sync_does_not_survive_a_power_cut() {
    sandbox(|s| {
        let good = disk(s);
        assert!(!cut(s, &["jc-pull", "-q", "--no-sync", "oci:image:y"], "fsync", 100));
        assert!(survives(s, "cut-1", &good).is_err());
    });
}
