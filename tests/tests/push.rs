//! `jc-push` to layouts, archives and real registries, with other programs as readers.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::image::{Format, Image, Layout, Packing, architecture};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{Store, layer_dirs, paths};
use jc_tests::registry::Registry;
use jc_tests::roots::busybox_layer;
use jc_tests::{Cmd, Ran, Sandbox, require, sandbox, sandbox_for, tree};
use serde_json::{Value, json};

fn small(content: &str) -> Layer {
    Layer::new().entry(Entry::file("file", content))
}

/// An image of two layers in the layout `image`. Returns its record.
fn pulled(s: &Sandbox) -> String {
    let layout = Layout::new(s.path("image"));
    let top = Layer::new().entry(Entry::dir("etc/")).entry(Entry::file("etc/x", "x").mode(0o600));
    layout.image("x", &Image::new().layer(busybox_layer()).layer(top));
    record_of(s, "oci:image")
}

fn record_of(s: &Sandbox, image: &str) -> String {
    s.jc("jc-pull").args(["-q", image]).run().code(0).out()
}

fn push(s: &Sandbox, records: &str, words: &[&str]) -> Cmd {
    s.jc("jc-push").arg("-q").args(words).input(records)
}

/// The digest that a push prints.
fn digest_of(ran: &Ran) -> String {
    ran.out().trim_end().to_owned()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The error of a push that fails. Panics if the error has more than one line and a hint.
fn refused(ran: Ran) -> String {
    let ran = ran.code(1).stdout("");
    let lines: Vec<String> = ran.err().lines().map(str::to_owned).collect();
    assert!(lines.len() <= 2 && lines.iter().all(|line| line.starts_with("jc-push: ")), "{ran}");
    assert!(lines.len() < 2 || lines[1].starts_with("jc-push: hint: "), "{ran}");
    ran.err()
}

#[test]
fn an_image_keeps_its_digests_on_every_way() {
    sandbox(|s| {
        require(s, "skopeo", "skopeo");
        let registry = Registry::empty(s);
        let host = registry.address();
        let record = pulled(s);
        let digest = json_of(&record)["digest"].as_str().unwrap().to_owned();
        let remote = format!("{host}/team/x:1");
        for (dest, theirs) in [
            (remote.as_str(), format!("docker://{remote}")),
            ("oci:layout:a", "oci:layout:a".to_owned()),
            ("oci-archive:archive.tar:a", "oci-archive:archive.tar:a".to_owned()),
        ] {
            let ran = push(s, &record, &["--print", "digest", dest]).run().code(0);
            assert_eq!(digest_of(&ran), digest, "{dest}");
            let inspect = s.cmd("skopeo").args(["inspect", "--tls-verify=false", &theirs]).run();
            assert_eq!(json_of(&inspect.code(0).out())["Digest"], json!(digest), "{dest}");
            assert_eq!(json_of(&record_of(s, dest))["digest"], json!(digest), "{dest}");
        }
        // Another program's copy of the image is the same, and comes back.
        let copy = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false"];
        let from = format!("docker://{remote}");
        s.cmd("skopeo").args(copy).args([from.as_str(), "oci:theirs:x"]).run().code(0);
        assert_eq!(json_of(&record_of(s, "oci:theirs"))["digest"], json!(digest));
        assert!(!s.path("layout").join("blobs/sha512").exists());
    });
}

#[test]
fn docker_schema_2_images_stay_what_they_are() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let host = registry.address();
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().format(Format::Docker).layer(small("x")));
        let record = record_of(s, "oci:image");
        let digest = json_of(&record)["digest"].clone();
        push(s, &record, &[&format!("{host}/d/x")]).run().code(0);
        assert_eq!(json_of(&record_of(s, &format!("{host}/d/x")))["digest"], digest);
    });
}

#[test]
fn a_registry_mounts_layers_of_its_own_repositories() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let host = registry.address();
        push(s, &pulled(s), &[&format!("{host}/one/x")]).run().code(0);
        let record = record_of(s, &format!("{host}/one/x"));
        let to = format!("{host}/two/x");
        let ran = s.jc("jc-push").args(["--progress", "plain", &to]).input(record.as_str()).run();
        assert!(ran.code(0).err().contains("2 layers sent, 0 present, 0 B in"));
        let again = s.jc("jc-push").args(["--progress", "plain", &to]).input(record).run();
        assert!(again.code(0).err().contains("0 layers sent, 2 present, 0 B in"));
    });
}

/// The second push of a new layer sends no byte of it, to the same registry in the same form.
#[test]
fn a_new_layer_is_sent_once() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let to = format!("{}/team/x", registry.address());
        let base = pulled(s);
        s.sh("mkdir -p d/usr && seq 9999 >d/usr/file").run().code(0);
        let commit = s.jc("jc-commit").args(["--dir", "d"]).input(base).run().code(0).out();
        let push = |words: &[&str]| {
            let words = [words, &["--progress", "plain", &to]].concat();
            s.jc("jc-push").args(words).input(commit.as_str()).run().code(0).err()
        };
        assert!(push(&[]).contains("3 layers sent, 0 present"));
        assert!(push(&[]).contains("0 layers sent, 3 present"));
        assert!(push(&["--compression", "zstd"]).contains(" sent, 2 present"));
        assert!(push(&["--compression", "none"]).contains(" sent, 2 present"));
        for form in ["gzip", "zstd", "none"] {
            assert!(push(&["--compression", form]).contains("0 layers sent, 3 present"), "{form}");
            let theirs = json_of(&record_of(s, &to));
            assert_eq!(theirs["layers"], json_of(&commit)["layers"], "{form}");
        }
        // A broken note, and one of a layer that is gone, are as good as none.
        s.sh("truncate -s 20 $JC_STORE/sums/*.sent").run().code(0);
        assert!(push(&[]).contains(" sent, 2 present"));
        s.sh(&format!("jc-rmi {to} && jc-rmi --unused")).run().code(0);
        s.sh("ls $JC_STORE/sums | grep -c sent").run().stdout("0\n");
    });
}

/// A copy between registries brings no layer into the store.
#[test]
fn an_image_is_copied_without_its_layers() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let from = format!("{}/one/x", registry.address());
        let whole = pulled(s);
        push(s, &whole, &[&from]).run().code(0);
        let pull = |words: &[&str]| {
            let words = [&["-q", "--store", "other", "--no-layers"], words].concat();
            s.jc("jc-pull").args(words).run()
        };
        let record = pull(&[&from]).code(0).out();
        assert_eq!(json_of(&record)["digest"], json_of(&whole)["digest"]);
        assert_eq!(json_of(&record)["config"], json_of(&whole)["config"]);
        assert_eq!(json_of(&record).get("layers"), None);
        push(s, &record, &["--store", "other", "oci:copy"]).run().code(0);
        let copy = json_of(&record_of(s, "oci:copy"));
        assert_eq!(copy["digest"], json_of(&whole)["digest"]);
        assert_eq!(copy["layers"], json_of(&whole)["layers"]);
        s.sh("ls other/layers other/images other/tmp | grep -v :").run().stdout("\n\n");
        let run = s.jc("jc-run").arg("true").input(record.as_str()).run().code(125);
        run.fails_as("jc-run", "the image has no layers in the store");
        let commit = s.jc("jc-commit").args(["--store", "other"]).input(record).run().code(1);
        commit.fails_as("jc-commit", "is not in the store");
        pull(&["oci-archive:-"]).code(2).fails_as("jc-pull", "cannot be read again");
        pull(&["--to", "x", &from]).code(2);
    });
}

#[test]
fn logins_and_certificates_are_those_of_jc_pull() {
    sandbox(|s| {
        let registry = Registry::guarded(s);
        let host = registry.address().to_owned();
        fs::create_dir_all(s.path("home/.config/containers/certs.d")).unwrap();
        let certs = s.path("home/.config/containers/certs.d").join(&host);
        s.cmd("cp").args(["-r", "certs/client"]).arg(&certs).run().code(0);
        let record = pulled(s);
        let home = s.path("home");
        let to = format!("{host}/team/x");
        let without = push(s, &record, &[&to]).env("HOME", &home).run();
        assert!(refused(without).contains("a push needs a login"));
        let words = ["--username", "alice", "--password-stdin", "--print", "digest", &to];
        let ran = push(s, &format!("wonder\n{record}"), &words).env("HOME", &home).run().code(0);
        assert_eq!(digest_of(&ran), json_of(&record)["digest"].as_str().unwrap());
    });
}

#[test]
fn an_index_has_an_image_for_each_platform() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let host = registry.address();
        let layout = Layout::new(s.path("image"));
        let image = |of: &str| Image::new().layer(small(of)).architecture(of);
        layout.image("a", &image(architecture()));
        layout.image("b", &image("s390x"));
        let records = record_of(s, "oci:image:a") + &record_of(s, "oci:image:b");
        let remote = format!("{host}/many/x");
        for dest in [remote.as_str(), "oci:layout:m", "oci-archive:archive.tar"] {
            push(s, &records, &["--index", dest]).run().code(0);
            for arch in [architecture(), "s390x"] {
                let platform = format!("linux/{arch}");
                let ran = s.jc("jc-pull").args(["-q", "--platform", &platform, dest]).run().code(0);
                let file = layer_dirs(&json_of(&ran.out()))[0].join("file");
                assert_eq!(fs::read_to_string(file).unwrap(), arch, "{dest}");
            }
        }
        let twice = record_of(s, "oci:image:a").repeat(2);
        let ran = push(s, &twice, &["--index", "oci:twice"]).run();
        assert!(refused(ran).contains("two images for linux/"));
        assert!(!s.path("twice").exists());
        let docker = push(s, &records, &["--index", "docker-archive:d.tar"]).run();
        docker.code(2).fails_as("jc-push", "has no index");
        assert!(!s.path("d.tar").exists());
    });
}

#[test]
fn several_records_go_to_as_many_destinations() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("a", &Image::new().layer(small("a")));
        layout.image("b", &Image::new().layer(small("b")));
        let records = record_of(s, "oci:image:a") + &record_of(s, "oci:image:b");
        push(s, &records, &["oci:out:a", "oci:out:b"]).run().code(0);
        for tag in ["a", "b"] {
            let [ours, theirs] = ["out", "image"]
                .map(|from| json_of(&record_of(s, &format!("oci:{from}:{tag}")))["digest"].clone());
            assert_eq!(ours, theirs);
        }
        let ran = push(s, &records, &["oci:other"]).run();
        ran.code(2).fails_as("jc-push", "2 records for 1 destinations");
        let ran = push(s, &records, &["oci-archive:f", "oci-archive:f:t"]).run();
        ran.code(2).fails_as("jc-push", "an archive is one destination");
        // A single image goes to every destination.
        push(s, &record_of(s, "oci:image:a"), &["oci:p", "docker-archive:q"]).run().code(0);
        assert!(s.path("p").exists() && s.path("q").exists());
    });
}

/// Programs that read archives of docker save find the image, its name and its files.
#[test]
fn an_archive_of_docker_save_is_read_by_other_programs() {
    sandbox(|s| {
        require(s, "skopeo", "skopeo");
        let record = pulled(s);
        let ran = push(s, &record, &["--print", "digest", "docker-archive:d.tar:team/x:3"]).run();
        let config = digest_of(&ran.code(0));
        let from = "docker-archive:d.tar:docker.io/team/x:3";
        s.cmd("skopeo")
            .args(["copy", "-q", "--insecure-policy", from, "oci:theirs:x"])
            .run()
            .code(0);
        let theirs = record_of(s, "oci:theirs");
        assert_eq!(json_of(&theirs)["layers"], json_of(&record)["layers"]);
        let ours = record_of(s, "docker-archive:d.tar");
        assert_eq!(json_of(&ours)["layers"], json_of(&record)["layers"]);
        assert!(config.starts_with("sha256:"));
        // A pipe gets the same bytes.
        let piped = push(s, &record, &["docker-archive:-:team/x:3"]).run().code(0);
        assert!(piped.out_bytes() == fs::read(s.path("d.tar")).unwrap());
        let gone = push(s, &record, &["docker-archive:-"]).arg("--print=digest").run();
        gone.code(2).fails_as("jc-push", "--print and an archive both go to stdout");
    });
}

/// An image from such an archive has uncompressed layers. A registry gets them compressed.
#[test]
fn layers_of_docker_archives_are_compressed_on_their_way() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let host = registry.address();
        push(s, &pulled(s), &["docker-archive:d.tar"]).run().code(0);
        let record = record_of(s, "docker-archive:d.tar");
        let to = format!("{host}/team/x");
        push(s, &record, &[&to]).run().code(0);
        let manifest = s.jc("jc-pull").args(["--print", "manifest", &to]).run().code(0).out();
        for layer in json_of(&manifest)["layers"].as_array().unwrap() {
            let media = layer["mediaType"].as_str().unwrap();
            assert_eq!(media, "application/vnd.oci.image.layer.v1.tar+gzip");
        }
        assert_eq!(json_of(&record_of(s, &to))["layers"], json_of(&record)["layers"]);
    });
}

#[test]
fn a_layout_keeps_what_it_has() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("a", &Image::new().layer(small("a")));
        layout.image("b", &Image::new().layer(small("b")));
        let [a, b] = ["a", "b"].map(|tag| record_of(s, &format!("oci:image:{tag}")));
        for (record, tag) in [(&a, ":one"), (&b, ":two"), (&b, ":one"), (&a, "")] {
            push(s, record, &[&format!("oci:out{tag}")]).run().code(0);
        }
        let index = fs::read_to_string(s.path("out/index.json")).unwrap();
        let index = json_of(&index);
        let mut tags: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                m["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("none")
            })
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, ["none", "one", "two"]);
        assert_eq!(json_of(&record_of(s, "oci:out:one"))["digest"], json_of(&b)["digest"]);
        // No unfinished file is left, and a directory with other files is none.
        assert!(paths(&s.path("out")).iter().all(|path| !path.to_string_lossy().contains(".jc-")));
        s.sh("mkdir other && touch other/file").run().code(0);
        assert!(refused(push(s, &a, &["oci:other"]).run()).contains("no OCI image layout"));
    });
}

#[test]
fn pushes_at_once_make_one_layout() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let tags = ["a", "b", "c", "d"];
        for tag in tags {
            layout.image(tag, &Image::new().layer(small("shared")).layer(small(tag)));
        }
        let script = "jc-pull -q --no-layers oci:image:$1 | jc-push -q oci:$2:$1";
        for out in 0..8 {
            let out = format!("out{out}");
            let start = |tag: &str| s.sh(script).args(["sh", tag, &out]).spawn();
            for running in tags.map(start) {
                running.wait().code(0).stderr("");
            }
            for tag in tags {
                let [from, to] =
                    ["image", &out].map(|dir| record_of(s, &format!("oci:{dir}:{tag}")));
                assert_eq!(json_of(&from)["digest"], json_of(&to)["digest"]);
            }
        }
        assert!(paths(&s.path("")).iter().all(|path| !path.to_string_lossy().contains(".jc-")));
    });
}

#[test]
fn an_origin_that_is_gone_is_an_error_unless_layers_may_change() {
    sandbox(|s| {
        let record = pulled(s);
        fs::rename(s.path("image"), s.path("moved")).unwrap();
        for (dest, made) in [("oci:out", "out"), ("oci-archive:out.tar", "out.tar")] {
            let error = refused(push(s, &record, &[dest]).run());
            assert!(
                error.contains("hint: its origin does not give the layer; --recompress"),
                "{error}"
            );
            assert!(!s.path(made).exists());
        }
        let words = ["--recompress", "--print", "digest", "oci:out"];
        let ran = push(s, &record, &words).run().code(0);
        assert_ne!(digest_of(&ran), json_of(&record)["digest"].as_str().unwrap());
        let store = Store::new(s);
        let [theirs] = &store.pull(&["-q", "oci:out"])[..] else { panic!("one record") };
        for (old, new) in layer_dirs(&json_of(&record)).iter().zip(layer_dirs(theirs)) {
            let [old, new] = [old, &new].map(|dir| tree::manifest(dir));
            assert_eq!(tree::changes(&old, &new), "");
        }
        // An archive on stdin is gone with the process that read it.
        let archive = s.sh("tar -c -C moved .").run().code(0);
        let pull = s.jc("jc-pull").args(["-q", "oci-archive:-"]).input(archive.out_bytes());
        let ran = push(s, &pull.run().code(0).out(), &["oci:second"]).run();
        assert!(refused(ran).contains("came on standard input, and is gone"));
    });
}

#[test]
fn a_store_that_lost_or_changed_a_layer_sends_nothing() {
    sandbox(|s| {
        let base = pulled(s);
        s.sh("mkdir -p d/usr && echo one >d/usr/file").run().code(0);
        let commit = s.jc("jc-commit").args(["--dir", "d"]).input(base).run().code(0).out();
        let layer = layer_dirs(&json_of(&commit)).pop().unwrap();
        fs::write(layer.join("usr/file"), "two").unwrap();
        let error = refused(push(s, &commit, &["oci:out"]).run());
        assert!(error.contains("has changed in the store"), "{error}");
        fs::remove_dir_all(&layer).unwrap();
        let error = refused(push(s, &commit, &["oci:out"]).run());
        assert!(error.contains("is not in the store"), "{error}");
        assert!(!s.path("out").exists());
    });
}

#[test]
fn a_record_stands_for_an_image_of_the_store() {
    sandbox(|s| {
        let record = pulled(s);
        for (input, error) in [
            (String::new(), "no record on stdin"),
            ("nonsense\n".to_owned(), "record: the line is not JSON"),
            ("{\"jc\":1,\"rootfs\":\"/srv\"}\n".to_owned(), "record: no \"digest\""),
            (format!("{record}more\n"), "record: the line is not JSON"),
        ] {
            assert!(refused(push(s, &input, &["oci:out"]).run()).contains(error), "{input}");
        }
        let other = push(s, &record, &["--store", "other", "oci:out"]).run();
        assert!(refused(other).contains("the store is absent"));
        s.jc("jc-pull").args(["-q", "--store", "other", "oci:image"]).run().code(0);
        s.sh("rm other/blobs/*").run().code(0);
        let other = push(s, &record, &["--store", "other", "oci:out"]).run();
        assert!(refused(other).contains("is not in the store"));
        let ran = push(s, &record, &["alpine@sha256:00"]).run();
        ran.code(2).fails_as("jc-push", "wrong length");
        let digest = json_of(&record)["digest"].as_str().unwrap().to_owned();
        let ran = push(s, &record, &[&format!("h.x/a@{digest}")]).run();
        ran.code(2).fails_as("jc-push", "a destination has no digest");
        assert!(!s.path("out").exists());
    });
}

#[test]
fn a_plain_layer_of_a_registry_stays_plain() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let host = registry.address();
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().packed(small("x"), Packing::Plain));
        let record = record_of(s, "oci:image");
        push(s, &record, &[&format!("{host}/plain/x")]).run().code(0);
        let again = record_of(s, &format!("{host}/plain/x"));
        assert_eq!(json_of(&again)["digest"], json_of(&record)["digest"]);
    });
}

/// Other engines take an image of jc-commit and jc-push, from an archive, a registry and a layout, and run it.
#[test]
fn podman_buildah_and_umoci_take_a_new_image() {
    sandbox_for(Duration::from_secs(240), |s| {
        for program in ["podman", "buildah", "umoci", "runc", "jq"] {
            require(s, program, program);
        }
        let registry = Registry::empty(s);
        let to = format!("{}/team/new:1", registry.address());
        s.sh("mkdir -p d/etc && echo hello >d/etc/motd && ln d/etc/motd d/same").run().code(0);
        let words = ["--dir", "d", "--cmd", r#"["cat","/same"]"#];
        let new = s.jc("jc-commit").args(words).input(pulled(s)).run().code(0).out();
        let archive = "docker-archive:d.tar:localhost/new:1";
        push(s, &new, &[&to, archive, "oci:layout:t"]).run().code(0);
        let tool = "--root /srv/storage --runroot /run/storage --storage-driver vfs";
        let script = format!(
            "export TMPDIR=/srv; set -e
             podman {tool} --events-backend file load -q -i d.tar >/dev/null
             podman {tool} --events-backend file inspect -f '{{{{.Config.Cmd}}}}' localhost/new:1
             root=$(podman {tool} --events-backend file image mount localhost/new:1); chroot $root /bin/cat /same
             podman {tool} --events-backend file image umount -a >/dev/null
             podman {tool} --events-backend file --cgroup-manager cgroupfs --runtime runc run --rm \
                 --network none --log-driver none localhost/new:1
             umoci unpack --image layout:t bundle 2>/dev/null
             jq '.process.terminal = false' bundle/config.json >config && mv config bundle/config.json
             runc run -b bundle jc-new
             c=$(buildah {tool} from -q --tls-verify=false docker://{to})
             root=$(buildah {tool} mount $c); chroot $root /bin/cat /same
             buildah {tool} umount $c >/dev/null; buildah {tool} rm $c >/dev/null"
        );
        let ran = s.cmd("sh").args(["-c", &script]).timeout(Duration::from_secs(120)).run();
        let files = "/run/storage /run/libpod /run/crun /run/runc /run/lock /tmp/* /var/tmp/*";
        s.sh(&format!("umount -R /srv/storage/vfs; rm -rf {files}")).run();
        ran.code(0).stdout("[cat /same]\nhello\nhello\nhello\nhello\n");
    });
}
