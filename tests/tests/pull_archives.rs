//! Images in one file, and on stdin.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use jc_tests::image::{Built, Packed, digest, gzip};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, failure, layer_dirs};
use jc_tests::sandbox;
use serde_json::{Value, json};

fn tar(text: &str) -> Vec<u8> {
    Layer::new().directory("./", 0o755).file("x", text).into_tar()
}

/// Packs a directory like tar(1).
fn pack(directory: &Path, to: &Path) {
    let mut command = Command::new("tar");
    let status = command.arg("-C").arg(directory).arg("-cf").arg(to).arg(".").status().unwrap();
    assert!(status.success());
}

/// An archive in the form of `docker save`: one image of two layers, the second behind a symbolic link.
fn docker_archive(store: &Store, compressed: bool) -> PathBuf {
    let directory = store.beside(if compressed { "saved-gz" } else { "saved" });
    let (one, two) = (tar("one"), tar("two"));
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&one), digest(&two)]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["busy:1"],
        "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    for name in ["a", "b", "c"] {
        std::fs::create_dir_all(directory.join(name)).unwrap();
    }
    let blob = |bytes: &[u8]| if compressed { gzip(bytes) } else { bytes.to_vec() };
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::write(directory.join("a/layer.tar"), blob(&one)).unwrap();
    std::fs::write(directory.join("c/layer.tar"), blob(&two)).unwrap();
    std::os::unix::fs::symlink("../c/layer.tar", directory.join("b/layer.tar")).unwrap();
    let file = directory.with_extension("tar");
    pack(&directory, &file);
    file
}

fn second(record: &Value) -> String {
    std::fs::read_to_string(layer_dirs(record)[1].join("x")).unwrap()
}

#[test]
fn a_layout_in_an_archive_is_as_good_as_a_directory() {
    sandbox(|s| {
        let store = Store::new(s);
        let image = Built::of(&[Packed::gzip(&tar("one")), Packed::gzip(&tar("two"))]);
        store.layout("layout", &image);
        let file = store.beside("image.tar");
        pack(&store.beside("layout"), &file);
        let packed = store.beside("image.tar.gz");
        std::fs::write(&packed, gzip(&std::fs::read(&file).unwrap())).unwrap();
        for file in [&file, &packed] {
            for tag in ["", ":t"] {
                let name = format!("oci-archive:{}{tag}", file.display());
                let record = Store::new(s).pull(&["-q", &name]).remove(0);
                assert_eq!(
                    (&record["digest"], &record["ref"]),
                    (&image.digest().into(), &name.into())
                );
            }
            let store = Store::new(s);
            let command = store.command(&["-q", "oci-archive:-"]);
            let ran = command.stdin(File::open(file).unwrap()).run();
            let record: Value = serde_json::from_slice(ran.out_bytes()).unwrap();
            assert_eq!(second(&record), "two");
            // The image also comes from a pipe, which cannot seek.
            let mut cat = Command::new("cat");
            let mut cat = cat.arg(file).stdout(std::process::Stdio::piped()).spawn().unwrap();
            let command = store.command(&["-q", "oci-archive:-"]);
            command.stdin(cat.stdout.take().unwrap()).run().code(0);
            cat.wait().unwrap();
            assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
        }
        let message = store.fail(1, &["-q", &format!("oci-archive:{}:other", file.display())]);
        assert!(message.ends_with("no image \"other\"; the tags are t"), "{message}");
        let message = store.fail(1, &["-q", "oci-archive:/no/file"]);
        assert_eq!(message, "jc-pull: open /no/file: No such file or directory");
        std::fs::write(&file, "no tar").unwrap();
        let message = store.fail(1, &["-q", &format!("oci-archive:{}", file.display())]);
        assert!(message.ends_with("the tar archive is truncated"), "{message}");
    });
}

#[test]
fn an_archive_of_docker_save_is_pulled() {
    sandbox(|s| {
        for compressed in [false, true] {
            let store = Store::new(s);
            let file = docker_archive(&store, compressed);
            for tag in ["", ":busy:1", ":docker.io/library/busy:1"] {
                let record =
                    &store.pull(&["-q", &format!("docker-archive:{}{tag}", file.display())])[0];
                assert_eq!(second(record), "two", "{compressed} {tag}");
            }
            let output = store.run(&["-q", &format!("docker-archive:{}:other", file.display())]);
            let message = failure(&output, 1);
            assert!(
                message.ends_with("no image \"other\"; there is docker.io/library/busy:1"),
                "{message}"
            );
        }
        let store = Store::new(s);
        let file = store.beside("not.tar");
        std::fs::write(&file, tar("x")).unwrap();
        for (transport, missing) in
            [("oci", "no oci-layout in it"), ("docker", "manifest.json is not in the archive")]
        {
            let message =
                store.fail(1, &["-q", &format!("{transport}-archive:{}", file.display())]);
            assert!(message.ends_with(missing), "{message}");
        }
        assert_eq!(
            store.fail(2, &["oci-archive:-", "docker-archive:-"]),
            "jc-pull: only one of the images and the password can be read from stdin"
        );
    });
}

#[test]
fn an_archive_that_has_to_be_copied_is_no_longer_than_max_size() {
    sandbox(|s| {
        let store = Store::new(s);
        let file = store.beside("zeros.tar.gz");
        std::fs::write(&file, gzip(&vec![0; 3 << 20])).unwrap();
        let long = store.beside("zeros.tar");
        std::fs::write(&long, vec![0; 3 << 20]).unwrap();
        for transport in ["oci-archive", "docker-archive"] {
            let stdin = store.command(&["-q", "--max-size", "2M", &format!("{transport}:-")]);
            let name = format!("{transport}:{}", file.display());
            let outputs = [
                store.run(&["-q", "--max-size", "2M", &name]),
                stdin.stdin(File::open(&long).unwrap()).run(),
            ];
            for output in outputs {
                let message = failure(&output, 1);
                assert!(message.ends_with("unpacks to more than 2097152 bytes"), "{message}");
                let all = output.err();
                assert!(all.contains("hint: if you trust the image, --max-size allows"), "{all}");
            }
            let found = store.fail(1, &["-q", "--max-size", "3M", &name]);
            assert!(!found.contains("unpacks to"), "{found}");
        }
    });
}
