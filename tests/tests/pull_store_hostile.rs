//! Stores that another user of the machine can change, entries that are no regular files, and layers that lead out of
//! the store.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::paths;
use jc_tests::roots::names;
use jc_tests::{Sandbox, require, sandbox, tree};
use rustix::process::Signal;

mod hostile_support;
use hostile_support::{entries_of, leading_out, leading_out_of_archives};

const OTHER: u32 = 4321;
const PARTS: [&str; 6] = ["", "layers", "sums", "blobs", "images", "tmp"];

fn good(s: &Sandbox) -> String {
    let layout = Layout::new(s.path("good"));
    layout.image("x", &Image::new().layer(Layer::new().entry(Entry::file("f", "good"))));
    "oci:/srv/good".to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_store_is_its_owners_alone_whatever_the_umask_is() {
    sandbox(|s| {
        let image = good(s);
        for umask in ["000", "022", "077", "777"] {
            fs::remove_dir_all(s.store()).ok();
            let pull = format!("umask {umask}; exec \"$0\" -q {image}");
            s.sh(&pull).arg(s.bin("jc-pull")).run().code(0);
            let modes: BTreeSet<u32> =
                PARTS.iter().map(|part| mode(&s.store().join(part))).collect();
            assert_eq!(modes, BTreeSet::from([0o700]), "{umask}");
        }
        // A directory whose entries inherit its group and an access control list.
        fs::remove_dir_all(s.store()).unwrap();
        fs::create_dir(s.path("shared")).unwrap();
        chown(s.path("shared"), None, Some(OTHER)).unwrap();
        s.sh("chmod 2755 shared").run().code(0);
        let pull = s.jc("jc-pull").args(["-q", &image, "--store", "shared/store"]).run();
        pull.code(0);
        assert_eq!(mode(&s.path("shared/store")), 0o700);
    });
}

/// Checks that each program fails with the store at `path`, reports `why`, and changes nothing.
fn refused(s: &Sandbox, path: &str, image: &str, why: &str) {
    let before = tree::manifest(&s.path("place"));
    for args in [&["jc-pull", "-q", image] as &[&str], &["jc-images"], &["jc-rmi", image]] {
        let ran = s.jc(args[0]).args(["--store", path]).args(&args[1..]).run().code(1);
        assert!(ran.err().contains(why) && ran.err().contains("hint: --store DIR"), "{ran}");
    }
    assert_eq!(tree::changes(&before, &tree::manifest(&s.path("place"))), "");
}

#[test]
fn a_store_that_another_user_can_change_is_refused() {
    sandbox(|s| {
        let image = good(s);
        let place = s.path("place");
        let (store, inner) = ("place/dir/store", place.join("dir/store"));
        for (change, why) in [
            ("chmod 777 dir/store", "is writable by other users"),
            ("chmod 1777 dir/store", "is writable by other users"),
            ("chmod 770 dir/store", "is writable by other users"),
            ("chown 4321 dir/store", "belongs to another user"),
            ("chown 4321 dir/store/layers", "belongs to another user"),
            ("chown 4321 dir/store/images", "belongs to another user"),
            ("chmod 777 dir/store/layers", "is writable by other users"),
            ("chmod 777 dir/store/tmp", "is writable by other users"),
            ("chown 4321 dir", "belongs to another user"),
            ("chmod 777 dir", "is writable by other users, and not sticky"),
            ("chmod 775 .", "is writable by other users, and not sticky"),
            ("mv dir real; ln -s real dir; chown -h 4321 dir", "belongs to another user"),
        ] {
            fs::remove_dir_all(&place).ok();
            fs::create_dir_all(&inner).unwrap();
            let pull = s.jc("jc-pull").args(["-q", &image, "--store", store]);
            pull.run().code(0);
            s.sh(&format!("cd place && {change}")).run().code(0);
            refused(s, store, &image, why);
        }
        // A directory like /tmp, and a symbolic link of the caller.
        for change in ["chmod 1777 dir", "mv dir real; ln -s /srv/place/real dir"] {
            fs::remove_dir_all(&place).ok();
            fs::create_dir_all(place.join("dir")).unwrap();
            s.sh(&format!("cd place && {change}")).run().code(0);
            s.jc("jc-pull").args(["-q", &image, "--store", store]).run().code(0);
            s.jc("jc-images").args(["--check", "--store", store]).run().code(0);
        }
    });
}

#[test]
fn a_store_of_an_owner_without_a_number_here_can_only_be_read() {
    sandbox(|s| {
        let image = good(s);
        let known = s.jc("jc-pull").args(["-q", &image]).run().code(0).out();
        let before = tree::manifest(&s.store());
        // Root has no ID in the user namespace of another user.
        s.sh("chmod 755 store store/*").run().code(0);
        let readable = tree::manifest(&s.store());
        let user = |words: &[&str]| {
            let as_user = ["--reuid=4321", "--regid=4321", "--clear-groups", "unshare", "-Ur"];
            s.cmd("setpriv").args(as_user).args(words).env("HOME", "/srv").run()
        };
        let (pull, images, rmi) = (s.bin("jc-pull"), s.bin("jc-images"), s.bin("jc-rmi"));
        let [pull, images, rmi] = [&pull, &images, &rmi].map(|path| path.to_str().unwrap());
        assert!(user(&[images]).code(0).stderr("").out().contains(&image));
        user(&[pull, "-q", &image]).code(0).stdout(&known);
        let layout = Layout::new(s.path("other"));
        layout.image("x", &Image::new().layer(Layer::new().entry(Entry::file("g", "other"))));
        for refused in [user(&[pull, "-q", "oci:/srv/other"]), user(&[rmi, &image])] {
            let refused = refused.code(1);
            assert!(refused.err().contains("has no number in this user namespace"), "{refused}");
        }
        assert_eq!(tree::changes(&readable, &tree::manifest(&s.store())), "");
        assert_eq!(before.len(), readable.len());
    });
}

/// A lock needs only the permission to read (flock(2)).
#[test]
fn a_user_who_can_read_the_store_holds_up_its_owner_for_a_bounded_time() {
    sandbox(|s| {
        let image = good(s);
        s.pull(&image);
        s.sh("chmod 755 store store/*").run().code(0);
        let layout = Layout::new(s.path("other"));
        layout.image("x", &Image::new().layer(Layer::new().entry(Entry::file("g", "other"))));
        let hold = "exec 9<store/images; flock -x 9; echo ready; exec sleep 1000";
        let user = "exec setpriv --reuid 4321 --regid 4321 --clear-groups --";
        let mut holder = s.sh(&format!("{user} sh -c '{hold}'")).spawn();
        holder.wait_for("ready");
        let lines = [&["jc-pull", "-q", "oci:/srv/other"] as &[&str], &["jc-rmi", &image]];
        let start = |line: &[&str]| s.jc(line[0]).args(&line[1..]).spawn();
        let tools = lines.map(start);
        for (tool, line) in tools.into_iter().zip(lines) {
            let ran = tool.wait().code(1).stdout("");
            let why = "store/images: held by another process for 20 seconds";
            assert!(ran.err().contains(why), "{line:?}: {ran}");
        }
        s.jc("jc-images").arg("--check").run().code(0);
        holder.signal(Signal::KILL);
        holder.wait();
        s.wait_for_no_process();
        s.pull("oci:/srv/other");
        assert_eq!(names(&s.store().join("tmp")), "");
    });
}

/// The only entry of a part of the store.
fn only(s: &Sandbox, part: &str) -> PathBuf {
    let part = s.store().join(part);
    part.join(names(&part).trim_end())
}

#[test]
fn entries_of_the_store_that_are_no_regular_files_are_errors_and_hold_no_tool_up() {
    sandbox(|s| {
        let image = good(s);
        for how in [
            "mkfifo",
            "ln -s /dev/zero",
            "ln -s /srv/kept",
            "mkdir",
            "make_device() { mknod \"$1\" c 1 5; }; make_device",
            "truncate -s 1T",
        ] {
            s.pull(&image);
            let (entry, sums) = (only(s, "images"), only(s, "sums"));
            fs::copy(&entry, s.path("kept")).unwrap();
            let replace = |path: &Path| {
                let script = format!("rm -r \"$0\"; {how} \"$0\"");
                s.sh(&script).arg(path).run().code(0);
            };
            replace(&sums);
            let check = s.jc("jc-images").arg("--check").run().code(1);
            assert!(check.err().starts_with("jc-images: "), "{how}: {check}");
            s.jc("jc-images").run().code(0);
            replace(&entry);
            for args in [&["jc-images"] as &[&str], &["jc-images", "--json"], &["jc-rmi", &image]] {
                let ran = s.jc(args[0]).args(&args[1..]).run().code(1);
                let why = if how.starts_with("truncate") { "bytes" } else { "not a regular file" };
                assert!(ran.err().contains(why), "{how}: {ran}");
            }
            s.sh("rm -r store").run().code(0);
        }
    });
}

#[test]
fn documents_of_the_store_that_are_no_regular_files_are_fetched_again() {
    sandbox(|s| {
        let image = good(s);
        s.pull(&image);
        for blob in names(&s.store().join("blobs")).lines() {
            let blob = s.store().join("blobs").join(blob);
            s.sh("rm \"$0\" && mkfifo \"$0\"").arg(&blob).run().code(0);
            s.jc("jc-images").run().code(0);
            let check = s.jc("jc-images").arg("--check").run().code(1);
            assert!(check.err().contains("is missing or broken"), "{check}");
            s.jc("jc-pull").args(["-q", "--policy", "always", &image]).run().code(0);
            s.jc("jc-images").arg("--check").run().code(0);
        }
    });
}

#[test]
fn no_layer_reaches_the_working_directory_of_the_puller_or_what_its_links_name() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        fs::create_dir_all(s.path("work/dir")).unwrap();
        for victim in ["work/victim", "work/dir/victim"] {
            fs::write(s.path(victim), "as it was").unwrap();
        }
        let before = tree::manifest(&s.path("work"));
        for (number, layer) in leading_out().into_iter().enumerate() {
            let tag = format!("t{number}");
            layout.image(&tag, &Image::new().layer(layer));
            let pull = "cd work && exec \"$0\" -q \"$1\" --to ../out";
            let ran = s.sh(pull).arg(s.bin("jc-pull")).arg(format!("oci:/srv/image:{tag}")).run();
            assert_eq!(
                tree::changes(&before, &tree::manifest(&s.path("work"))),
                "",
                "{number}: {ran}"
            );
            s.sh("rm -rf out").run().code(0);
            let left = paths(&s.store().join("tmp"));
            assert!(left.is_empty(), "{number}: {left:?}");
        }
        s.jc("jc-images").arg("--check").run().code(0);
    });
}

/// An archive of an image is read in place, and never unpacked.
#[test]
fn no_archive_of_an_image_changes_a_file_of_the_host() {
    sandbox(|s| {
        good(s);
        fs::create_dir(s.path("work")).unwrap();
        fs::write(s.path("work/victim"), "as it was").unwrap();
        let before = tree::manifest(&s.path("work"));
        let image = entries_of(&s.path("good"));
        let hostile = leading_out_of_archives();
        for (name, entries) in [
            ("before", [hostile.clone(), image.clone()].concat()),
            ("behind", [image, hostile].concat()),
        ] {
            let archive = Layer::new().extend(entries).into_tar();
            fs::write(s.path("image.tar"), archive).unwrap();
            for source in ["oci-archive:../image.tar", "oci-archive:-"] {
                let pull = "cd work && exec \"$0\" -q \"$1\" <../image.tar";
                let ran = s.sh(pull).arg(s.bin("jc-pull")).arg(source).run();
                let changes = tree::changes(&before, &tree::manifest(&s.path("work")));
                assert_eq!(changes, "", "{name} {source}: {ran}");
                ran.code(0);
                s.jc("jc-images").arg("--check").run().code(0);
                s.sh("rm -rf store").run().code(0);
            }
        }
    });
}

/// Entries of a directory like /tmp, where every user can make one.
#[test]
fn an_entry_that_another_user_planted_leads_no_output_elsewhere() {
    sandbox(|s| {
        let image = good(s);
        s.sh("mkdir -m 1777 shared; mkdir -m 700 own; echo precious >precious").run().code(0);
        let user = "setpriv --reuid 4321 --regid 4321 --clear-groups --";
        for plant in ["ln -s /srv/precious", "ln -s /srv/new", "mkfifo", "ln -s /dev/zero"] {
            s.sh(&format!("{user} {plant} shared/out")).run().code(0);
            let ran = s.jc("jc-pull").args(["-q", &image, "--tar", "shared/out"]).run().code(1);
            assert!(ran.err().contains("another user has put it into a directory"), "{ran}");
            assert_eq!(fs::read_to_string(s.path("precious")).unwrap(), "precious\n", "{plant}");
            assert!(!s.path("new").exists(), "{plant}");
            s.sh("rm shared/out").run().code(0);
        }
        // A symbolic link of the caller, and a file of any user.
        for (out, written) in [("shared/out", "own/tar"), ("shared/file", "shared/file")] {
            s.sh(&format!(
                "ln -sf ../own/tar shared/out; touch own/tar; {user} touch shared/file; :"
            ))
            .run()
            .code(0);
            s.jc("jc-pull").args(["-q", &image, "--tar", out]).run().code(0);
            s.sh(&format!("tar tf {written}")).run().code(0).stdout("./\nf\n");
        }
        // Names like those of an earlier jc-pull.
        let plant = format!("{user} sh -c 'mkdir shared/.to.jc-1 && echo x >shared/.to.jc-2'");
        s.sh(&plant).run().code(0);
        s.jc("jc-pull").args(["-q", &image, "--to", "shared/to"]).run().code(0).stderr("");
        s.sh("ls shared/.to.jc-1 shared/.to.jc-2").run().code(0);
    });
}

/// Layers with the same content under different names, and symbolic links that one layer would need in the other.
fn one_of_two(which: usize) -> Image {
    let mut layer = Layer::new();
    for n in 0..200 {
        let (link, dir) = if which == 0 { ("a", "b") } else { ("b", "a") };
        layer = layer
            .entry(Entry::symlink(&format!("{link}{n}"), &format!("../../layer-0/{dir}{n}")))
            .entry(Entry::dir(&format!("{dir}{n}")))
            .entry(Entry::file(&format!("{dir}{n}/f"), format!("{which}")))
            .entry(Entry::file(&format!("{link}{n}/g"), format!("{which}")));
    }
    Image::new().layer(layer)
}

#[test]
fn pulls_at_once_make_what_one_behind_the_other_makes() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        for which in 0..2 {
            layout.image(&format!("t{which}"), &one_of_two(which));
        }
        let images = ["oci:/srv/image:t0", "oci:/srv/image:t1"];
        images.iter().for_each(|image| drop(s.pull(image)));
        let layers = || {
            let mut layers = tree::manifest(&s.store().join("layers"));
            // The directory of all layers has the time of the last pull.
            layers.remove(Path::new(""));
            layers
        };
        let good = layers();
        for _ in 0..10 {
            fs::remove_dir_all(s.store()).unwrap();
            let pulls = images.map(|image| s.jc("jc-pull").args(["-q", image]).spawn());
            pulls.into_iter().for_each(|pull| drop(pull.wait().code(0)));
            assert_eq!(tree::changes(&good, &layers()), "");
            fs::remove_dir_all(s.store()).unwrap();
            s.jc("jc-pull").arg("-q").args(images).run().code(0);
            assert_eq!(tree::changes(&good, &layers()), "");
        }
    });
}

#[test]
fn a_directory_that_is_swapped_for_a_link_while_a_layer_is_unpacked_leads_nowhere() {
    sandbox(|s| {
        require(s, "perl", "perl-base");
        fs::create_dir(s.path("victim")).unwrap();
        let mut layer = Layer::new();
        for n in 0..3000 {
            // Every second entry makes the pull enter the directory again.
            layer = layer
                .entry(Entry::file(&format!("dir/sub/f{n}"), "x"))
                .entry(Entry::file(&format!("away{n}"), ""));
        }
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(layer));
        symlink(s.path("victim"), s.path("link")).unwrap();
        // The program swaps the directory for a symbolic link and back, in each layer that is being unpacked.
        let number = if cfg!(target_arch = "aarch64") { 276 } else { 316 };
        let swap = "use strict; my $renameat2 = shift; $| = 1; print \"ready\\n\"; my $n = 0; while (! -e 'done') {
            for my $root (glob 'store/tmp/*/layer-0') {
                symlink('/srv/victim', \"$root/swap\");
                $n++ if syscall($renameat2, -100, \"$root/dir\", -100, \"$root/swap\", 2) == 0;
            }
        } print \"$n\\n\"";
        let swaps = s.cmd("perl").args(["-e", swap, &number.to_string()]).spawn();
        for _ in 0..5 {
            let ran = s.jc("jc-pull").args(["-q", "oci:image"]).run();
            assert_eq!(names(&s.path("victim")), "", "{ran}");
            s.sh("rm -rf store").run();
        }
        fs::write(s.path("done"), "").unwrap();
        let swapped = swaps.wait().code(0).out();
        let count: usize = swapped.lines().last().unwrap().parse().unwrap();
        assert!(count > 100, "{count} swaps");
        s.sh("rm -rf store").run().code(0);
    });
}
