//! Unpacked archives of other programs, compared entry by entry: type, owner, mode, times, attributes, content,
//! links.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jc_tests::image::{Image, Layout, Packing};
use jc_tests::layer::Layer;
use jc_tests::pulled::layer_dirs;
use jc_tests::{Sandbox, require, sandbox, sandbox_for, tree};

/// Makes files of every kind with all metadata, in the directory `from`.
const MAKE: &str = r#"
mkdir from && cd from
mkdir -p plain closed/in "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120))"
echo content > plain/file; ln plain/file plain/same; ln plain/file closed/in/same
ln -s ../absent plain/link; ln -s / plain/root; ln -s "$(printf 'l%.0s' $(seq 200))" plain/long
echo long > d*/e*/"$(printf 'f%.0s' $(seq 200))"
ln d*/e*/f* plain/of-long
: > "$(printf 'bytes\377\n\001 x')"; : > 'name with  spaces '; mkdir "$(printf '\303(')"
mkfifo plain/pipe; mknod plain/char c 5 300; mknod plain/block b 259 70000
echo s > plain/setuid; chmod 6755 plain/setuid; chmod 1777 plain; chmod 0 closed/in closed
chown 33:34 plain/file; chown 2097151:2097152 plain/setuid; chmod 6711 plain/setuid
chown 4000000000:3000000000 closed; chown -h 7:8 plain/link
truncate -s 9G plain/huge; printf x | dd of=plain/huge bs=1 seek=9000000000 conv=notrunc status=none
truncate -s 1M plain/hole; printf 'a b' > plain/small
for n in $(seq 40); do printf y | dd of=plain/holes bs=1 seek=$((n * 300000)) conv=notrunc status=none; done
touch -d @1.5 plain/file; touch -d @-3.25 plain/small; touch -h -d @99999999999.000000001 plain/link
touch -d @1234567890.123456789 plain/char plain/pipe closed .
"#;

/// Sets attributes, and default access control lists, which must not affect an unpacker.
fn attributes(from: &Path) {
    use rustix::fs::{XattrFlags, lsetxattr};
    let set = |path: &str, name: &str, value: &[u8]| {
        lsetxattr(from.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("plain/file", "user.empty", b"");
    set("plain/file", "user.binary-\u{fc}", b"a=\0\n\xff");
    set("plain/setuid", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    set("plain/link", "trusted.of-a-link", b"x");
    set("plain/char", "trusted.of-a-device", b"x");
    set("closed", "user.of-a-directory", &[b'v'; 3000]);
    let mut list = vec![2, 0, 0, 0];
    for (tag, bits, id) in [(1, 7, !0), (2, 5, 70_000), (4, 5, !0), (16, 5, !0), (32, 0, !0_u32)] {
        list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(bits)].concat());
        list.extend(id.to_le_bytes());
    }
    set("plain/small", "system.posix_acl_access", &list);
    set("plain", "system.posix_acl_access", &list);
    set("plain", "system.posix_acl_default", &list);
}

fn made(s: &Sandbox) -> PathBuf {
    s.sh(MAKE).run().code(0);
    let from = s.path("from");
    attributes(&from);
    s.sh("touch -d @77.7 from/plain from/closed from").run().code(0);
    from
}

/// The record of a directory without files with large holes, which would take long to read.
fn manifest(s: &Sandbox, dir: &Path) -> BTreeMap<PathBuf, String> {
    let huge = dir.join("plain/huge");
    if huge.exists() {
        let look =
            format!("stat -c '%s %u %a %y' {0}; tail -c 700000000 {0} | md5sum", huge.display());
        let looks = s.sh(&look).run().code(0).out();
        assert!(looks.starts_with("9663676416 "), "{looks}");
        fs::remove_file(huge).unwrap();
        let mut all = tree::manifest(dir);
        all.insert("plain/huge".into(), looks);
        // The time of the directory has changed on both sides.
        all.remove(Path::new("plain"));
        return all;
    }
    tree::manifest(dir)
}

#[test]
fn gnu_tar_unpacks_the_same() {
    sandbox_for(Duration::from_secs(240), |s| {
        let from = made(s);
        let all = ["--sparse", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];
        for (number, form) in [
            &["--format=pax", "--sparse-version=1.0"][..],
            &["--format=pax", "--sparse-version=0.1"],
            &["--format=pax", "--sparse-version=0.0"],
            &["--format=pax", "--hard-dereference"],
            &["--format=gnu", "--no-xattrs", "--no-acls"],
        ]
        .iter()
        .enumerate()
        {
            let [archive, theirs] =
                ["tar", "theirs"].map(|name| s.path(&format!("{name}-{number}")));
            let pack = s.cmd("tar").args(all).args(*form).arg("-C").arg(&from).arg("-cf");
            pack.arg(&archive).arg(".").run().code(0);
            fs::create_dir(&theirs).unwrap();
            let unpack =
                s.cmd("tar").args(&all[1..]).args(["-p", "--same-owner", "-C"]).arg(&theirs);
            unpack.arg("-xf").arg(&archive).run().code(0);
            let layout = Layout::new(s.path(&format!("image-{number}")));
            let layer = Layer::raw(fs::read(&archive).unwrap());
            layout.image("x", &Image::new().packed(layer, Packing::Gzip));
            let ours = layer_dirs(&s.pull(&format!("oci:image-{number}"))).remove(0);
            let sparse = fs::metadata(ours.join("plain/huge")).unwrap();
            assert!(std::os::unix::fs::MetadataExt::blocks(&sparse) < 1000, "{form:?}: no holes");
            let [theirs, ours] = [&theirs, &ours].map(|dir| manifest(s, dir));
            assert!(ours.len() > 20, "{form:?}: {} entries", ours.len());
            assert_eq!(tree::changes(&theirs, &ours), "", "{form:?}");
            fs::remove_file(&archive).unwrap();
        }
    });
}

/// The directory of the store has a default access control list, which new files inherit.
#[test]
fn the_directory_of_the_store_does_not_affect_layers() {
    sandbox(|s| {
        s.sh("mkdir from && echo x > from/file && mkdir from/dir && chmod 750 from from/dir")
            .run()
            .code(0);
        s.sh("tar -C from -cf tar .").run().code(0);
        let layout = Layout::new(s.path("image"));
        let layer = || Layer::raw(fs::read("tar").unwrap());
        layout.image("x", &Image::new().layer(layer()));
        let plain = tree::manifest(&layer_dirs(&s.pull("oci:image"))[0]);
        fs::create_dir(s.path("other")).unwrap();
        let mut list = vec![2, 0, 0, 0];
        for (tag, bits, id) in [(1, 7, !0), (2, 7, 9), (4, 7, !0), (16, 7, !0), (32, 7, !0_u32)] {
            list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(bits)].concat());
            list.extend(id.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr("other", "system.posix_acl_default", &list, flags).unwrap();
        s.sh("chgrp 5 other && chmod 2755 other").run().code(0);
        let ran = s.jc("jc-pull").args(["-q", "--store", "other/store", "oci:image"]).run();
        let there = tree::manifest(&layer_dirs(&jc_tests::pulled::record(&ran))[0]);
        assert_eq!(tree::changes(&plain, &there), "");
    });
}

/// Images of buildah, from scratch and with a layer on top, in both formats.
#[test]
fn buildahs_images_are_what_umoci_makes_of_them() {
    sandbox(|s| {
        require(s, "buildah", "buildah");
        require(s, "umoci", "umoci");
        let script = r#"
            set -e
            b='buildah --storage-driver vfs --root /srv/storage --runroot /srv/runroot'
            c=$($b from scratch)
            mkdir -p tree/bin tree/etc && cp "$(command -v busybox)" tree/bin/sh
            echo one > tree/etc/one && echo gone > tree/etc/gone && chmod 2755 tree/etc
            ln tree/etc/one tree/etc/same && ln -s one tree/etc/link && chown 5:6 tree/etc/one
            $b add -q "$c" tree /
            $b config --cmd sh --env A=b --workingdir /etc "$c"
            $b commit -q --disable-compression=false "$c" oci:/srv/base:x
            d=$($b from oci:/srv/base:x)
            m=$($b mount "$d")
            rm "$m/etc/gone" && echo new > "$m/etc/new" && rm -r "$m/etc/link" && mkdir "$m/etc/link"
            $b umount "$d"
            $b commit -q --format oci "$d" oci:/srv/oci:x
            $b commit -q --format docker "$d" docker-archive:/srv/docker.tar:a/b:x
            $b commit -q --format oci "$d" oci-archive:/srv/oci.tar:x
        "#;
        s.sh(script).timeout(Duration::from_secs(90)).run().code(0);
        let unpack = s.cmd("umoci").args(["raw", "unpack", "--image", "/srv/oci:x", "/srv/theirs"]);
        unpack.run().code(0);
        let flat = |name: &str, to: &str| {
            s.jc("jc-pull").args(["-q", "--to", to, name]).run().code(0);
            without_directory_times(tree::manifest(&s.path(to)))
        };
        let theirs = without_directory_times(tree::manifest(&s.path("theirs")));
        for (number, name) in
            ["oci:oci:x", "docker-archive:docker.tar:a/b:x", "oci-archive:oci.tar:x"]
                .iter()
                .enumerate()
        {
            let ours = flat(name, &format!("ours-{number}"));
            assert!(ours.contains_key(Path::new("etc/new")), "{name}");
            assert!(!ours.contains_key(Path::new("etc/gone")), "{name}");
            assert_eq!(tree::changes(&theirs, &ours), "", "{name}");
        }
        let record = s.pull("oci:oci:x");
        assert_eq!(record["config"]["WorkingDir"], "/etc");
        s.sh("rm -rf storage runroot").run().code(0);
    });
}

/// umoci leaves directories with the time of its last change in them.
fn without_directory_times(mut all: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    for line in all.values_mut().filter(|line| line.starts_with('4')) {
        let (start, rest) = line.split_once(" mtime ").unwrap();
        let (_, rest) = rest.split_once(' ').unwrap();
        *line = format!("{start} {rest}");
    }
    all
}
