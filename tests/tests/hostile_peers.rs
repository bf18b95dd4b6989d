//! Other programs with the hostile layers, archives, configurations and user words of these tests, for the figures in
//! SECURITY.md. `JC_PEERS_ROOT` is the root of another distribution, whose programs are tested too.

#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "peers"))]

use std::fs;
use std::time::Duration;

use jc_tests::campaign::note;
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::busybox_layer;
use jc_tests::{Ran, Sandbox, sandbox_for, tree};
use serde_json::json;

mod hostile_support;
use hostile_support::{entries_of, leading_out, leading_out_of_archives};

const LONG: Duration = Duration::from_secs(3600);

/// Runs a line of shell in `/srv/work`, with the programs of this machine or of another root.
fn run(s: &Sandbox, root: Option<&str>, line: &str) -> Ran {
    let line = format!("cd /srv/work && {line}");
    let Some(root) = root else {
        return s.sh(&line).run();
    };
    let enter = "mount --make-rprivate / && mount --bind $0 $0 && mount --rbind /srv $0/srv &&
        mount -t proc proc $0/proc && mount --rbind /dev $0/dev && mount --rbind /sys $0/sys &&
        for d in run tmp root var/tmp var/lib/containers; do mount -t tmpfs none $0/$d || exit; done
        cd $0 && pivot_root . opt && umount -l /opt && exec sh -c \"$1\"";
    let command = s.cmd("unshare").args(["-m", "sh", "-c", enter, root, &line]);
    command.run()
}

/// podman with its own storage, and with runc, which accepts the cgroups of every machine.
const PODMAN: &str = "podman --root /srv/storage --runroot /run/storage --storage-driver vfs \
                      --cgroup-manager cgroupfs --runtime runc";
const OPTIONS: &str = "--rm --network none --log-driver none";

const CLEAN: &str = "rm -rf work storage outside bundle store
    cd /run && rm -rf libpod runc storage containers lock netns";

/// The systems whose programs are tested.
fn places() -> Vec<(&'static str, Option<String>)> {
    let other = std::env::var("JC_PEERS_ROOT").ok().map(|root| ("other root", Some(root)));
    [("this machine", None)].into_iter().chain(other).collect()
}

/// Runs command lines on hostile inputs, and counts the lines that succeeded, failed, or changed other files.
struct Count<'a> {
    s: &'a Sandbox,
    held: u32,
    refused: u32,
    outside: Vec<String>,
}

impl<'a> Count<'a> {
    fn new(s: &'a Sandbox) -> Self {
        Self { s, held: 0, refused: 0, outside: Vec::new() }
    }

    fn ask(&mut self, root: Option<&str>, case: &str, line: &str) {
        let fresh = "rm -rf work storage outside bundle store && mkdir -p work/dir outside &&
            echo as it was | tee work/victim >work/dir/victim";
        self.s.sh(fresh).run().code(0);
        let look = || {
            let [work, outside] = ["work", "outside"].map(|dir| tree::manifest(&self.s.path(dir)));
            (work, outside)
        };
        let before = look();
        let ran = run(self.s, root, line);
        let after = look();
        match ran.status().success() {
            _ if after != before => self.outside.push(case.to_owned()),
            true => self.held += 1,
            false => self.refused += 1,
        }
    }

    fn note(self, name: &str) {
        let Self { held, refused, outside, .. } = self;
        let (count, few) = (outside.len(), outside[..outside.len().min(6)].join(" "));
        note(&format!("{name}: {held} held, {refused} refused, {count} outside: {few}"));
    }
}

#[test]
fn other_programs_with_hostile_layers_and_archives() {
    sandbox_for(LONG, |s| {
        let layout = Layout::new(s.path("image"));
        let layers = leading_out();
        let count = layers.len();
        for (number, layer) in layers.into_iter().enumerate() {
            layout.image(&format!("t{number}"), &Image::new().layer(layer));
        }
        let good = Layout::new(s.path("good"));
        good.image("x", &Image::new().layer(Layer::new().entry(Entry::file("f", "good"))));
        let (image, hostile) = (entries_of(&s.path("good")), leading_out_of_archives());
        for (name, entries) in [
            ("before", [hostile.clone(), image.clone()].concat()),
            ("behind", [image, hostile].concat()),
        ] {
            let archive = Layer::new().extend(entries).into_tar();
            fs::write(s.path(&format!("{name}.tar")), archive).unwrap();
        }
        for (place, root) in places() {
            let root = root.as_deref();
            let podman = format!("{PODMAN} pull -q");
            for (program, pull) in [
                ("umoci", "umoci unpack --keep-dirlinks --image IMAGE /srv/bundle"),
                ("umoci", "umoci unpack --image IMAGE /srv/bundle"),
                ("podman", &format!("{podman} oci:IMAGE")),
                ("jc-pull", "jc-pull -q oci:IMAGE --to /srv/bundle"),
            ] {
                if program == "jc-pull" && root.is_some() {
                    continue;
                }
                let mut counts = Count::new(s);
                for number in 0..count {
                    let line = pull.replace("IMAGE", &format!("/srv/image:t{number}"));
                    counts.ask(root, &number.to_string(), &line);
                }
                counts.note(&format!("{place}: {pull}"));
            }
            let mut counts = Count::new(s);
            for name in ["before", "behind"] {
                counts.ask(root, name, &format!("{PODMAN} load -q -i /srv/{name}.tar"));
            }
            counts.note(&format!("{place}: podman load"));
        }
        s.sh(CLEAN).run().code(0);
    });
}

#[test]
fn other_programs_with_hostile_configurations_and_users() {
    sandbox_for(LONG, |s| {
        let layout = Layout::new(s.path("image"));
        let links = || {
            Layer::new()
                .entry(Entry::symlink("absolute", "/srv/outside"))
                .entry(Entry::symlink("upward", "../../../../../../srv/outside"))
                .entry(Entry::symlink("magic", "/proc/self/root/srv/outside"))
                .entry(Entry::symlink("cwd", "/proc/1/cwd"))
                .entry(Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\n"))
                .entry(Entry::file("etc/group", "root:x:0:\n"))
        };
        for link in ["absolute", "upward", "magic", "cwd"] {
            for (name, config) in [
                ("w", json!({"WorkingDir": format!("/{link}/w/x"), "Cmd": ["/bin/true"]})),
                ("v", json!({"Volumes": {format!("/{link}/v/x"): {}}, "Cmd": ["/bin/true"]})),
            ] {
                let image = Image::new().layer(busybox_layer()).layer(links());
                layout.image(&format!("{name}-{link}"), &image.config(config));
            }
        }
        for (place, root) in places() {
            let root = root.as_deref();
            for (name, what) in [("w", "WorkingDir"), ("v", "Volumes")] {
                let mut counts = Count::new(s);
                for link in ["absolute", "upward", "magic", "cwd"] {
                    let pull = format!("{PODMAN} pull -q oci:/srv/image:{name}-{link}");
                    let line = format!("{PODMAN} run {OPTIONS} $({pull})");
                    counts.ask(root, link, &line);
                }
                counts.note(&format!("{place}: podman run, {what}"));
            }
            for word in ["00", "+0", "-0", "-1", "4294967296", "0x0", ":0", "0:", "%d"] {
                let pull = format!("{PODMAN} pull -q oci:/srv/image:w-absolute");
                let line =
                    format!("{PODMAN} run {OPTIONS} -w / -u '{word}' $({pull}) sh -c 'id -u'");
                s.sh("mkdir -p work outside").run().code(0);
                let ran = run(s, root, &line);
                let code = ran.status().code();
                note(&format!("{place}: podman run -u {word}: {code:?} {}", ran.out().trim()));
            }
        }
        s.sh(CLEAN).run().code(0);
    });
}
