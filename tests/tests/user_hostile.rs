//! Attacks on an ordinary user: by other users, by a payload that can write to the user's store or state, by layers.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::{busybox_layer, names};
use jc_tests::{Ann, Sandbox, sandbox, sandbox_for, tree};

mod hostile_support;
use hostile_support::leading_out;

const IMAGE: &str = "oci:/srv/image";

/// The command lines that read or change the store of a user.
const OF_STORE: [&str; 7] = [
    "jc-images",
    "jc-images --check",
    "jc-run --image oci:/srv/image --network none -- ls /",
    "jc-pull -q oci:/srv/image",
    "jc-run --image oci:/srv/image --pull never --network none -- ls /",
    "jc-rmi --unused",
    "jc-rmi oci:/srv/image",
];

/// The command lines that look up the container `web` of a user.
const OF_STATE: [&str; 5] = [
    "jc-list -a",
    "jc-logs web",
    "jc-stop -t 0 web",
    "jc-exec web cat /srv/ann/precious/file",
    "jc-rm -f web",
];

fn image(s: &Sandbox) {
    Layout::new(s.path("image")).image("x", &Image::new().layer(busybox_layer()));
}

/// Makes a directory of the user that no program of the test may change or show.
fn precious(ann: &Ann<'_>) {
    ann.sh("mkdir precious && echo secret >precious/file && mkfifo precious/fifo").run().code(0);
}

/// Runs the lines. None ends by a signal or shows the precious file, and the precious directory stays as it is.
fn leads_nowhere(s: &Sandbox, ann: &Ann<'_>, attack: &str, lines: &[&str]) {
    let precious = s.path("ann/precious");
    let before = tree::manifest(&precious);
    for line in lines {
        let ran = ann.sh(line).run();
        assert!(ran.status().code().is_some_and(|code| code <= 125), "{attack}: {ran}");
        assert!(!ran.out().contains("secret") && !ran.out().contains("fifo"), "{attack}: {ran}");
        let changes = tree::changes(&before, &tree::manifest(&precious));
        assert_eq!(changes, "", "{attack}: {ran}");
    }
}

#[test]
fn a_store_of_another_user_or_of_a_mapped_owner_is_refused() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        s.jc("jc-pull").args(["-q", "--store", "/srv/others", IMAGE]).run().code(0);
        // Another user of the host, and the root and a user of a container of this user.
        for owner in [5432, 200_000, 200_032] {
            s.sh(&format!("chown -R {owner} others && chmod -R go+rX others")).run().code(0);
            let before = tree::manifest(&s.path("others"));
            for line in OF_STORE {
                let ran = ann.sh(&format!("JC_STORE=/srv/others {line}")).run();
                let code = if line.starts_with("jc-run") { 125 } else { 1 };
                assert!(ran.err().contains("belongs to another user"), "{owner}: {ran}");
                ran.code(code).stdout("");
            }
            assert_eq!(tree::changes(&before, &tree::manifest(&s.path("others"))), "", "{owner}");
        }
    });
}

#[test]
fn a_payload_with_the_store_mounted_leads_no_tool_of_its_user_elsewhere() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        precious(&ann);
        let run = "jc-run --image oci:/srv/image --network none -v /srv/ann/.local/share/jc:/store";
        for attack in [
            "for part in layers sums blobs images tmp; do
                 mv /store/$part /store/old; ln -s /srv/ann/precious /store/$part; done;
                 ln -s /srv/ann/precious /store/volumes",
            "for layer in /store/layers/*; do
                 rm -r $layer; ln -s /srv/ann/precious $layer; done",
            "for layer in /store/layers/*; do
                 rm -r $layer; ln -s ../../../../../precious $layer; done",
            "for part in layers sums blobs images tmp volumes; do
                 mkdir -p /store/$part; ln -s /srv/ann/precious /store/$part/0123456789ab; done",
            "for file in /store/images/* /store/sums/* /store/blobs/*; do
                 rm $file; ln -s /srv/ann/precious/file $file; done",
            "for file in /store/images/* /store/sums/* /store/blobs/*; do
                 rm $file; ln -s /srv/ann/precious/fifo $file; done",
            "sed -i 's|\"layers\":\\[\"[^\"]*|\"layers\":[\"../../../../precious|' /store/images/*",
            "sed -i 's|\"layers\":\\[\"[^\"]*|\"layers\":[\"/srv/ann/precious|' /store/images/*",
            "sed -i 's|\"manifest\":\"[^\"]*|\"manifest\":\"../../../../precious/file|' /store/images/*",
            "mkdir -p /store/tmp/dead && ln -s /srv/ann/precious /store/tmp/dead/layer-0 &&
                 mkdir -p /store/tmp/dead/a && ln -s /srv/ann/precious/file /store/tmp/dead/a/f",
        ] {
            ann.sh(&format!("{run} -- sh -ec '{}'", attack.replace('\'', "'\\''"))).run().code(0);
            leads_nowhere(s, &ann, attack, &OF_STORE);
            ann.sh("jc-unshare -U --map-auto -- rm -rf .local").run().code(0);
        }
    });
}

/// Desktop programs in containers get the runtime directory of their user.
#[test]
fn a_payload_with_the_state_mounted_leads_no_tool_of_its_user_elsewhere() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        precious(&ann);
        ann.sh("mkdir -m 700 run").run().code(0);
        let with_state = |line: &str| format!("export XDG_RUNTIME_DIR=/srv/ann/run\n{line}");
        let run = "jc-run --image oci:/srv/image --network none -v /srv/ann/run:/state";
        let state = r#"{"ociVersion":"1.2.0","id":"0123456789ab","status":"stopped","pid":0,"bundle":"/srv/ann/precious","annotations":{"jc.name":"web","jc.keep":"true"}}"#;
        for attack in [
            "mv /state/jc /state/old; ln -s /srv/ann/precious /state/jc",
            "ln -s /srv/ann/precious /state/jc/web",
            "ln -s ../../precious /state/jc/web",
            "ln -s /srv/ann/precious /state/jc/0123456789ab; ln -s 0123456789ab /state/jc/web",
            "mkdir /state/jc/0123456789ab; ln -s 0123456789ab /state/jc/web;
                 for name in state.json log volumes hosts; do
                     ln -s /srv/ann/precious /state/jc/0123456789ab/$name; done",
            "mkdir /state/jc/0123456789ab; ln -s 0123456789ab /state/jc/web;
                 for name in state.json log; do
                     ln -s /srv/ann/precious/fifo /state/jc/0123456789ab/$name; done",
            "mkdir /state/jc/0123456789ab; ln -s 0123456789ab /state/jc/web; cd /state/jc/0123456789ab;
                 echo STATE >state.json; ln -s /srv/ann/precious/file log; ln -s /srv/ann/precious volumes",
            "rm -r /state/jc; mkdir -m 777 /state/jc; ln -s /srv/ann/precious /state/jc/web",
        ] {
            // Without its state jc-run ends the container. The pattern does not match itself in the recorded command.
            let script = format!("until grep -qs runnin[g] /state/jc/*/state.json; do :; done\n{attack}")
                .replace("STATE", &format!("'\\''{state}'\\''"));
            let ran = ann.sh(&with_state(&format!("{run} -- sh -c '{script}'"))).run();
            assert!(fs::exists(s.path("ann/run/jc")).unwrap(), "{attack}\n{ran}");
            leads_nowhere(s, &ann, attack, &OF_STATE.map(with_state).each_ref().map(|l| &**l));
            s.sh("rm -rf ann/run/jc ann/run/old").run().code(0);
        }
        s.wait_for_no_process();
    });
}

#[test]
fn no_layer_that_a_user_pulls_leads_out_of_the_store() {
    sandbox_for(Duration::from_secs(200), |s| {
        let ann = Ann::with_range(s);
        ann.sh("mkdir -p work/dir && echo 'as it was' | tee work/victim work/dir/victim").run();
        let layout = Layout::new(s.path("image"));
        let mut lines = vec!["cd work".to_owned()];
        for (number, layer) in leading_out().into_iter().enumerate() {
            // The layers name the files of a working directory of root, here those of the user.
            layout.image(&format!("t{number}"), &Image::new().layer(layer));
            lines.push(format!("jc-pull -q oci:/srv/image:t{number} --to ../out; rm -rf ../out"));
        }
        s.sh("ln -s /srv/ann/work /srv/work").run().code(0);
        let before = tree::manifest(&s.path("ann/work"));
        let ran = ann.sh(&lines.join("\n")).timeout(Duration::from_secs(180)).run();
        assert_eq!(tree::changes(&before, &tree::manifest(&s.path("ann/work"))), "", "{ran}");
        assert_eq!(names(&s.path("ann/.local/share/jc/tmp")), "");
        ann.sh("jc-images --check").run().code(0);
    });
}

/// A link at the default place of the store, or on the way to it.
#[test]
fn a_link_of_another_user_on_the_way_to_the_store_is_refused() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        precious(&ann);
        for plant in [".local/share/jc", ".local/share", ".local"] {
            let parent = Path::new(plant).parent().unwrap().display();
            ann.sh(&format!("mkdir -p ./{parent}; ln -s /srv/ann/precious {plant}")).run().code(0);
            s.sh(&format!("chown -h 5432 ann/{plant}")).run().code(0);
            let before = tree::manifest(&s.path("ann/precious"));
            for line in OF_STORE {
                let ran = ann.sh(line).run();
                assert!(ran.err().contains("belongs to another user"), "{plant}: {ran}");
                let changes = tree::changes(&before, &tree::manifest(&s.path("ann/precious")));
                assert_eq!(changes, "", "{plant}: {ran}");
            }
            s.sh("rm -r ann/.local").run().code(0);
        }
    });
}

#[test]
fn devices_and_owners_of_a_layer_are_those_of_the_user_namespace() {
    sandbox(|s| {
        let ann = Ann::with_range(s);
        let layer = busybox_layer()
            .entry(Entry::device("dev-mem", 1, 1))
            .entry(Entry::block_device("disk", 8, 0))
            .entry(Entry::file("root", "x").mode(0o6755))
            .entry(Entry::file("web", "x").owner(33, 34).mode(0o6755));
        Layout::new(s.path("image")).image("x", &Image::new().layer(layer));
        ann.sh("jc-pull -q oci:/srv/image").run().code(0);
        let others = "find ann/.local -not -uid 4321 -not -uid 200032";
        s.sh(others).run().code(0).stdout("");
        // A whiteout of overlayfs has the number 0:0.
        let devices = "find ann/.local '(' -type b -o -type c ')' -exec stat -c %t:%T {} + | uniq";
        s.sh(devices).run().code(0).stdout("0:0\n");
        // A file of a number that the user namespace lacks.
        let layer = Layer::new().entry(Entry::file("far", "x").owner(70_000, 0).mode(0o4755));
        Layout::new(s.path("far")).image("x", &Image::new().layer(layer));
        ann.sh("jc-pull -q oci:/srv/far").run().code(1).stdout("").fails_as("jc-pull", "far");
        assert_eq!(names(&s.path("ann/.local/share/jc/tmp")), "");
    });
}
