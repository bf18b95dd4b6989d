//! `jc-run --image` of an image in the store: jc-run reads the files of jc-store(5) itself, and leaves images that need
//! more to jc-pull.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use jc_tests::http::Registry;
use jc_tests::image::{Image, architecture};
use jc_tests::layer::Layer;
use jc_tests::roots::busybox_layer;
use jc_tests::{Cmd, Sandbox, sandbox};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;

/// A line of jc-run beside a jc-pull that only says that it was started.
fn alone(s: &Sandbox, args: &[&str]) -> Cmd {
    let bin = s.path("alone");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        fs::copy(s.bin("jc-run"), bin.join("jc-run")).unwrap();
        fs::write(bin.join("jc-pull"), "#!/bin/sh\necho started >&2\nexit 1\n").unwrap();
        fs::set_permissions(bin.join("jc-pull"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    s.cmd(bin.join("jc-run")).args(args)
}

/// Panics unless a line of jc-run starts jc-pull.
#[track_caller]
fn needs_jc_pull(s: &Sandbox, args: &[&str]) {
    alone(s, args).run().code(125).stdout("").stderr("started\n");
}

fn layer(text: &str) -> Layer {
    busybox_layer().file("text", text)
}

#[test]
fn a_stored_image_runs_without_jc_pull_and_as_with_it() {
    sandbox(|s| {
        let registry = Registry::start();
        let config = json!({"Env": ["PATH=/bin", "A=image"], "Cmd": ["sh", "-c", "echo $A; cat /text"], "WorkingDir": "/bin"});
        let image =
            Image::new().layer(layer("lower\n")).layer(Layer::new().file("text", "upper\n"));
        registry.push("x", "latest", &image.config(config).build());
        let name = &format!("{}/x", registry.host);
        needs_jc_pull(s, &["--pull", "never", "--image", name]);
        s.pull(name);
        for name in [name.clone(), format!("{name}:latest")] {
            for policy in ["missing", "never"] {
                let ran = alone(s, &["--pull", policy, "--image", &name]).run();
                ran.code(0).stdout("image\nupper\n").stderr("");
            }
            let own = alone(s, &["--print", "--image", &name]).run().code(0).out();
            let piped = s.sh(&format!("jc-pull -q {name} | jc-run --print")).run().code(0).out();
            // Each container has another ID.
            let line = |text: &str| {
                let id = text.split_once("--hostname ").unwrap().1.split_once(' ').unwrap().0;
                text.replace(id, "ID")
            };
            assert_eq!(line(&own), line(&piped));
        }
        // The policy and another platform are those of jc-pull.
        let host = format!("linux/{}", architecture());
        needs_jc_pull(s, &["--pull", "always", "--image", name]);
        needs_jc_pull(s, &["--platform", &host, "--image", name]);
        let by_digest = format!("{name}@sha256:{}", "0".repeat(64));
        needs_jc_pull(s, &["--image", &by_digest]);
        needs_jc_pull(s, &["--image", &format!("oci:{name}")]);
    });
}

#[test]
fn an_image_that_the_store_lacks_in_part_needs_jc_pull() {
    sandbox(|s| {
        let registry = Registry::start();
        registry.push("x", "latest", &Image::new().layer(layer("x")).build());
        let name = &format!("{}/x", registry.host);
        let args = &["--image", name, "--", "cat", "/text"];
        let restore = || drop(s.sh(&format!("rm -r store; jc-pull -q {name}")).run().code(0));
        s.pull(name);
        for damage in [
            "rm -r store",
            "rm store/images/*",
            "rm store/blobs/*",
            "rm -r store/layers/*",
            "for blob in store/blobs/*; do echo >>$blob; done",
            "for image in store/images/*; do echo '{' >$image; done",
            "for image in store/images/*; do sed -i s,/x:,/y:, $image; done",
            "chmod 777 store/images",
            "chmod 777 store/blobs",
            "chmod 777 store/layers",
            "chmod 777 store",
            "mv store/blobs other && ln -s ../other store/blobs",
            "for blob in store/blobs/*; do mv $blob file; ln -s /srv/file $blob; done",
            "for blob in store/blobs/*; do rm $blob; mkfifo $blob; done",
            "for layer in store/layers/*; do mv $layer file; ln -s /srv/file $layer; done",
        ] {
            alone(s, args).run().code(0).stdout("x").stderr("");
            s.sh(damage).run().code(0);
            needs_jc_pull(s, args);
            s.sh("rm -rf file other; mkdir -p store").run().code(0);
            restore();
        }
        let layer = fs::read_dir(s.store().join("layers")).unwrap().next().unwrap().unwrap().path();
        let opaque = |key| setxattr(&layer, key, b"y", XattrFlags::empty()).unwrap();
        alone(s, args).run().code(0).stdout("x").stderr("");
        opaque("trusted.overlay.opaque");
        needs_jc_pull(s, args);
    });
}

#[test]
fn an_image_with_a_layer_twice_needs_jc_pull() {
    sandbox(|s| {
        let registry = Registry::start();
        let twice = Image::new().layer(layer("1")).layer(layer("2")).layer(layer("1"));
        registry.push("twice", "latest", &twice.build());
        let name = &format!("{}/twice", registry.host);
        s.pull(name);
        needs_jc_pull(s, &["--image", name]);
        let ran = s.jc("jc-run").args(["--image", name, "--", "cat", "/text"]).run();
        ran.code(0).stdout("1");
    });
}

#[test]
fn a_short_name_may_be_an_alias_and_needs_no_jc_pull() {
    sandbox(|s| {
        let registry = Registry::start();
        registry.push("library/x", "latest", &Image::new().layer(layer("x")).build());
        let pull = ["-q", "--mirror", &format!("docker.io=http://{}", registry.host), "x"];
        let home = s.path("home");
        s.jc("jc-pull").args(pull).env("HOME", &home).run().code(0);
        let run = |name: &str, etc: &str| {
            // The directory of the machine's registries.conf is hidden, or there is an empty one.
            let etc = format!("mount -t tmpfs none /etc && {etc}");
            let line =
                format!("{etc} && exec alone/jc-run --network none --image {name} -- cat /text");
            alone(s, &["--version"]).run().code(0);
            s.cmd("unshare").args(["-m", "sh", "-c", &line]).env("HOME", &home)
        };
        for name in
            ["docker.io/x", "docker.io/library/x:latest", "index.docker.io/x", "x", "x:latest"]
        {
            run(name, "true").run().code(0).stdout("x").stderr("");
        }
        let aliases = "[aliases]\ny = 'docker.io/library/x'\nx = 'docker.io/library/other'\n";
        fs::write(s.path("aliases"), aliases).unwrap();
        let there = "mkdir /etc/containers && cp /srv/aliases /etc/containers/registries.conf";
        for (variable, etc) in [("", there), ("/srv/aliases", "true")] {
            let alias = |name| run(name, etc).env("CONTAINERS_REGISTRIES_CONF", variable).run();
            for name in ["docker.io/x", "y", "y:latest"] {
                alias(name).code(0).stdout("x").stderr("");
            }
            alias("x").code(125).stderr("started\n");
        }
        let once = "exec bash -c 'CONTAINERS_REGISTRIES_CONF=<(cat aliases) alone/jc-run --network none --image y'";
        s.sh(once).env("HOME", &home).run().code(125).stderr("started\n");
        // jc-pull reports the fault.
        let malformed = "mkdir /etc/containers && echo = >/etc/containers/registries.conf";
        run("x", malformed).run().code(125).stderr("started\n");
    });
}
