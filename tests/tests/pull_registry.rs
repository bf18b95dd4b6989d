//! `jc-pull` from registries: a real one, and one that misbehaves.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use jc_tests::http::{FakeRegistry, Manners};
use jc_tests::image::{Format, Image, Layout, architecture};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{layer_dirs, record};
use jc_tests::registry::Registry;
use jc_tests::roots::{busybox_layer, names};
use jc_tests::{require, sandbox, sandbox_for, tree};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::Signal;
use serde_json::json;

const TOOL: &str = "jc-pull";

fn small(content: &str) -> Layer {
    Layer::new().entry(Entry::file("file", content))
}

#[test]
fn a_real_registry_has_all_kinds_of_names() {
    sandbox(|s| {
        let registry = Registry::prepared(s);
        let host = registry.address();
        let latest = s.pull(&format!("{host}/busybox"));
        for name in [
            format!("{host}/busybox:latest"),
            format!("docker://{host}/busybox"),
            format!("{host}/busybox@{}", latest["digest"].as_str().unwrap()),
            format!("{host}/busybox:none@{}", latest["digest"].as_str().unwrap()),
            "localhost:5000/busybox".to_owned(),
        ] {
            let record = s.pull(&name);
            assert_eq!(record["digest"], latest["digest"], "{name}");
            assert_eq!(record["layers"], latest["layers"], "{name}");
        }
        assert_eq!(latest["ref"], json!("127.0.0.1:5000/busybox:latest"));
        let docker = s.pull(&format!("{host}/busybox:docker"));
        assert_eq!(docker["layers"], latest["layers"]);
        assert_ne!(docker["digest"], latest["digest"]);
        for name in ["busybox:none", "nothing", "busybox@sha256:"] {
            let unknown =
                format!("{host}/{name}{}", "0".repeat(64 * usize::from(name.ends_with(':'))));
            s.refuse(&unknown);
        }
    });
}

/// The layers equal those that another program unpacks from the same image.
#[test]
fn a_debian_is_what_umoci_makes_of_it() {
    sandbox_for(Duration::from_secs(240), |s| {
        let registry = Registry::prepared(s);
        let image = format!("{}/debian", registry.address());
        let ran = s.jc(TOOL).arg(&image).run();
        // A layer of 60 MB (160 MB unpacked) is never whole in memory.
        let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
        assert!(peak < 40, "jc-pull took {peak} MiB of memory");
        let layers = layer_dirs(&record(&ran));
        assert_eq!(layers.len(), 2);

        let source = format!("docker://{image}");
        let copy = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false"];
        s.cmd("skopeo").args(copy).args([&source, "oci:debian:x"]).run().code(0);
        let unpack = s.cmd("umoci").args(["unpack", "--image", "debian:x", "bundle"]);
        unpack.timeout(Duration::from_secs(120)).run().code(0);

        let lower: Vec<String> = layers.iter().rev().map(|l| l.display().to_string()).collect();
        fs::create_dir(s.path("merged")).unwrap();
        let options = format!("lowerdir={}", lower.join(":"));
        s.cmd("mount").args(["-t", "overlay", "-o", &options, "none", "merged"]).run().code(0);
        let mut ours = tree::manifest(&s.path("merged"));
        let mut theirs = tree::manifest(&s.path("bundle/rootfs"));
        s.sh("umount merged").run().code(0);
        // The tar has nanoseconds for some files, and the root differs in both layers.
        let round = |all: &mut std::collections::BTreeMap<_, String>| {
            all.remove(Path::new(""));
            for line in all.values_mut() {
                let start = line.find("mtime").unwrap();
                let dot = start + line[start..].find('.').unwrap();
                line.replace_range(dot..dot + 10, "");
                // Attributes for overlays in user namespaces are visible in other overlays (jc-store(5)).
                *line = line.replace("{\"user.overlay.origin\": []}", "{}");
            }
        };
        round(&mut ours);
        round(&mut theirs);
        assert!(ours.len() > 5000, "{} files", ours.len());
        assert_eq!(tree::changes(&theirs, &ours), "");
        assert!(!ours.contains_key(Path::new("usr/share/doc")));
        assert!(!ours.contains_key(Path::new("etc/issue")));
    });
}

#[test]
fn both_formats_and_many_platforms_in_a_real_registry() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let layout = Layout::new(s.path("image"));
        let image = |of: &str| Image::new().layer(small(of)).architecture(of);
        let written = layout.index("many", &[image("s390x"), image(architecture())]);
        registry.push(s, &layout, "many", "a/b/c:many", Format::Oci);
        let record = s.pull(&format!("{}/a/b/c:many", registry.address()));
        assert_eq!(record["digest"], json!(written[1].digest()));
        let dirs = layer_dirs(&record);
        assert_eq!(fs::read_to_string(dirs[0].join("file")).unwrap(), architecture());
    });
}

#[test]
fn damage_in_a_real_registry_is_noticed() {
    sandbox(|s| {
        let registry = Registry::empty(s);
        let layout = Layout::new(s.path("image"));
        let written = layout.image("x", &Image::new().layer(busybox_layer()));
        registry.push(s, &layout, "x", "busybox", Format::Oci);
        let image = format!("{}/busybox", registry.address());
        let path = registry.blob_path(&written.layers[0]);
        let good = fs::read(&path).unwrap();
        let damages: [fn(&mut Vec<u8>); 3] = [
            |bytes| bytes[100_000] ^= 1,
            |bytes| bytes.truncate(bytes.len() - 7),
            |bytes| bytes.extend([0; 512]),
        ];
        for damage in damages {
            let mut bytes = good.clone();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            s.refuse(&image);
        }
        fs::write(&path, good).unwrap();
        let layers = layer_dirs(&s.pull(&image));
        assert!(layers[0].join("bin/busybox").exists());
    });
}

/// Debian's registry with TLS, client certificates and a login.
#[test]
fn a_real_registry_requires_its_login_and_certificate() {
    sandbox(|s| {
        require(s, "openssl", "openssl");
        let registry = Registry::guarded(s);
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")).layer(busybox_layer()));
        let host = registry.address();
        let image = format!("{host}/team/x");
        s.cmd("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-creds", "alice:wonder"])
            .args(["--dest-cert-dir", "certs/client", "oci:image:x", &format!("docker://{image}")])
            .run()
            .code(0);
        // The configuration directory of the machine, which only this test sees.
        s.sh("mkdir upper work && mount -t overlay -o lowerdir=/etc,upperdir=upper,workdir=work o /etc")
            .run()
            .code(0);
        let pull = |options: &[&str]| s.jc(TOOL).arg("-q").args(options).arg(&image);
        let login = ["--username", "alice", "--password-stdin"];
        let ca = ["--ca", "certs/ca.crt"];
        let unknown = pull(&login).input("wonder\n").run().code(1);
        unknown.fails_as(TOOL, "UnknownIssuer");
        let no_certificate = pull(&[&login[..], &ca].concat()).input("wonder\n").run().code(1);
        no_certificate.fails_as(TOOL, "ertificate");
        for directory in ["/etc/docker/certs.d", "/etc/containers/certs.d"] {
            let place = format!("{directory}/{host}");
            s.sh(&format!("mkdir -p {place} && cp certs/client/* {place}")).run().code(0);
            let ran = pull(&[]).run().code(1);
            assert!(ran.err().contains("hint: the image does not exist, or needs a login"));
            ran.fails_as(TOOL, "401 Unauthorized");
            pull(&login).input("wrong\n").run().code(1).fails_as(TOOL, "401 Unauthorized");
            let ran = pull(&login).input("wonder\n").run();
            assert!(layer_dirs(&record(&ran))[1].join("bin/busybox").exists());
            s.sh(&format!("rm -r {place}")).run().code(0);
            fs::remove_dir_all(s.store()).unwrap();
        }
        s.sh("umount /etc").run().code(0);
    });
}

/// The configuration of registries of the machine, and that of the user in its place.
#[test]
fn registries_are_configured_for_all_and_for_one() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")));
        let registry = FakeRegistry::serve(&layout, Manners::default());
        s.sh("mkdir upper work home && mount -t overlay -o lowerdir=/etc,upperdir=upper,workdir=work o /etc")
            .run()
            .code(0);
        let host = registry.image("x").split('/').next().unwrap().to_owned();
        let text = format!(
            "[[registry]]\nprefix = 'far.example'\nlocation = '{host}'\n\
             [[registry]]\nprefix = 'bad.example'\nblocked = true\n\
             [aliases]\nshort = 'far.example/a/b'\n"
        );
        s.sh("rm -rf /etc/containers && mkdir /etc/containers").run().code(0);
        fs::write("/etc/containers/registries.conf", &text).unwrap();
        let pull = |name: &str| s.jc(TOOL).env("HOME", "/srv/home").args(["-q", name]).run();
        for name in ["far.example/a/b:x", "short:x"] {
            assert_eq!(record(&pull(name))["ref"], json!("far.example/a/b:x"), "{name}");
        }
        pull("bad.example/x").code(1).fails_as(TOOL, "bad.example: blocked by /etc/containers/reg");
        fs::write("/etc/containers/registries.conf", format!("{text}\nx = [\n")).unwrap();
        pull("x").code(1).fails_as(TOOL, "/etc/containers/registries.conf: line ");
        // Only a short name needs the configuration, where no registry is asked.
        let stored = |name: &str| s.jc(TOOL).args(["-q", "--policy", "never", name]).run();
        assert_eq!(record(&stored("far.example/a/b:x"))["ref"], json!("far.example/a/b:x"));
        stored("short:x").code(1).fails_as(TOOL, "/etc/containers/registries.conf: line ");
        // The file of the user replaces that of the machine.
        fs::create_dir_all("home/.config/containers").unwrap();
        fs::write("home/.config/containers/registries.conf", text.replace("short", "mine"))
            .unwrap();
        assert_eq!(record(&pull("mine:x"))["ref"], json!("far.example/a/b:x"));
        fs::create_dir_all("/etc/containers/registries.conf.d").unwrap();
        let other = "[aliases]\nmine = 'other.example/x'\n";
        fs::write("/etc/containers/registries.conf.d/1.conf", other).unwrap();
        assert_eq!(record(&pull("mine:x"))["ref"], json!("far.example/a/b:x"));
        // A stored image needs no registry.
        fs::write(
            "home/.config/containers/registries.conf",
            "[[registry]]\nprefix = 'far.example'\nblocked = true\n[aliases]\nmine = 'far.example/a/b'\n",
        )
        .unwrap();
        let home = |tool: &str| s.jc(tool).env("HOME", "/srv/home");
        let never = home(TOOL).args(["-q", "--policy", "never", "mine:x"]).run();
        assert_eq!(record(&never)["ref"], json!("far.example/a/b:x"));
        pull("mine:x").code(1).fails_as(TOOL, "far.example: blocked by ");
        home("jc-rmi").arg("mine:x").run().code(0);
        assert!(!s.jc("jc-images").run().out().contains("far.example"));
        let tagged = "[aliases]\nmine = 'far.example/a/b:x'\n";
        fs::write("home/.config/containers/registries.conf", tagged).unwrap();
        pull("mine").code(1).fails_as(TOOL, "line 2: an alias must be a repository without a tag");
        s.sh("umount /etc").run().code(0);
    });
}

#[test]
fn a_token_is_fetched_and_sent_to_its_registry_only() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")).layer(small("2")));
        let manners = Manners { token: true, redirect_blobs: true, ..Manners::default() };
        let registry = FakeRegistry::serve(&layout, manners);
        s.pull(&registry.image("x"));
        let asked = registry.requests();
        let token = asked.iter().find(|r| r.path.starts_with("/token?")).unwrap();
        assert!(
            token.path.contains("service=fake%2C%20but%20real")
                || token.path.contains("service=fake%2C+but+real"),
            "{token:?}"
        );
        assert!(
            token.path.contains("scope=repository%3Aa%2Fb%3Apull")
                || token.path.contains("scope=repository:a/b:pull"),
            "{token:?}"
        );
        assert_eq!(token.authorization, None);
        let elsewhere = registry.redirected();
        assert!(elsewhere.len() >= 3, "{asked:?}");
        assert!(elsewhere.iter().all(|r| r.authorization.is_none()), "{elsewhere:?}");
        let manifest = asked.iter().find(|r| r.path.contains("/manifests/")).unwrap();
        for media in [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ] {
            assert!(manifest.accept.contains(media), "{manifest:?}");
        }
    });
}

#[test]
fn a_layer_in_the_store_is_not_fetched() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let one = layout.image("x", &Image::new().layer(small("1")).layer(small("2")));
        let two = layout.image("y", &Image::new().layer(small("1")).layer(small("3")));
        let registry = FakeRegistry::serve(&layout, Manners::default());
        let fetched = |layer: &serde_json::Value| {
            let path = format!("/v2/a/b/blobs/{}", layer["digest"].as_str().unwrap());
            registry.requests().iter().filter(|r| r.path == path).count()
        };
        for _ in 0..3 {
            s.pull(&registry.image("x"));
            s.pull(&registry.image(one.digest()));
        }
        s.pull(&registry.image("y"));
        assert_eq!(one.layers.iter().map(fetched).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(two.layers.iter().map(fetched).collect::<Vec<_>>(), [1, 1]);
    });
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let image = Image::new().layer(busybox_layer());
        let written = layout.image("x", &image);
        let good = FakeRegistry::serve(&layout, Manners::default());
        let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        for manners in [
            Manners { cut_blobs: Some(0), ..Manners::default() },
            Manners { cut_blobs: Some(100), ..Manners::default() },
            Manners { pad_blobs: 1, ..Manners::default() },
            Manners { pad_blobs: 100_000, ..Manners::default() },
            Manners { manifest_status: Some(404), ..Manners::default() },
            Manners { manifest_status: Some(500), ..Manners::default() },
            Manners { manifest_status: Some(401), ..Manners::default() },
            Manners { manifest_status: Some(403), ..Manners::default() },
            Manners { manifest_digest: Some(other), ..Manners::default() },
        ] {
            println!("{manners:?}");
            let bad = FakeRegistry::serve(&layout, manners);
            s.refuse(&bad.image("x"));
        }
        // The manifest is not the requested one.
        let digest = written.digest().to_owned();
        layout.damage(&written.descriptor, |bytes| bytes.push(b' '));
        good.reload();
        s.refuse(&good.image(&digest));
        layout.damage(&written.descriptor, |bytes| bytes.truncate(bytes.len() - 1));
        good.reload();
        s.pull(&good.image(&digest));
    });
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_that_counts() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(busybox_layer()).layer(small("2")));
        let manners = Manners { stall_blobs_at: Some(50_000), ..Manners::default() };
        let stalling = FakeRegistry::serve(&layout, manners);
        let good = FakeRegistry::serve(&layout, Manners::default());
        for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
            let before = stalling.stalls();
            let running = s.jc(TOOL).arg(stalling.image("x")).spawn();
            stalling.wait_for_a_stall(before);
            running.signal(signal);
            let ran = running.wait();
            assert!(!ran.status().success(), "{ran}");
            assert_eq!(ran.out(), "");
            let seen = names(&s.store().join("layers"));
            assert!(seen.lines().count() <= 1, "half a layer is to be seen: {seen}");
            for layer in seen.lines() {
                assert!(s.store().join("layers").join(layer).join("file").exists(), "{layer}");
            }
            let layers = layer_dirs(&s.pull(&good.image("x")));
            assert!(layers[0].join("bin/busybox").exists());
            assert_eq!(names(&s.store().join("tmp")), "");
            fs::remove_dir_all(s.store()).unwrap();
        }
    });
}

#[test]
fn plain_http_is_for_loopback_unless_one_says_otherwise() {
    sandbox(|s| {
        s.sh("ip addr add 10.9.8.7/32 dev lo").run().code(0);
        let layout = Layout::new(s.path("image"));
        layout.image("x", &Image::new().layer(small("1")));
        let registry = FakeRegistry::serve(&layout, Manners::default());
        let image = registry.image("x").replace("127.0.0.1", "10.9.8.7");
        s.refuse(&image);
        let asked = registry.requests();
        assert!(asked.iter().all(|r| !r.path.contains("/v2/")), "{asked:?}");
        let ran = s.jc(TOOL).args(["--insecure", &image]).run();
        assert_eq!(layer_dirs(&record(&ran)).len(), 1);
        s.pull(&registry.image("x").replace("127.0.0.1", "127.3.2.1"));
    });
}

/// Packets that are dropped: no host refuses or accepts the connection.
#[test]
fn a_registry_that_never_answers_is_waited_for_so_long() {
    sandbox(|s| {
        require(s, "nft", "nftables");
        let drop =
            "add table inet hole; add chain inet hole in { type filter hook input priority 0; };
            add rule inet hole in tcp dport 9 drop";
        s.cmd("nft").arg(drop).run().code(0);
        let options = ["-q", "--timeout", "1", "--retry", "0", "127.0.0.1:9/x"];
        let ran = s.jc(TOOL).args(options).run().code(1);
        ran.stdout("").fails_as(TOOL, "127.0.0.1:9/v2/x/manifests/latest: no answer in time");
        s.cmd("nft").arg("delete table inet hole").run().code(0);
    });
}

#[test]
fn a_registry_that_is_not_there_is_an_error() {
    sandbox(|s| {
        s.refuse("127.0.0.1:1/x");
        // The default registry is out of reach here.
        for name in ["alpine", "user/x"] {
            let ran = s.refuse(name);
            assert!(ran.err().contains("docker.io"), "{ran}");
        }
    });
}
