//! jc-run for an ordinary user, with subordinate IDs and without.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::{busybox_layer, busybox_root};
use jc_tests::{Ann, Sandbox, sandbox, wait_until};

/// An image with files of several users, and a declared volume.
fn image(s: &Sandbox) {
    let more = Layer::new()
        .entry(Entry::dir("home/").owner(0, 0))
        .entry(Entry::file("home/f", "of web").owner(33, 34).mode(0o600))
        .entry(Entry::dir("data/").owner(33, 34).mode(0o700));
    let config = serde_json::json!({"Volumes": {"/data": {}}, "Cmd": ["id"]});
    let image = Image::new().layer(busybox_layer()).layer(more).config(config);
    Layout::new(s.path("image")).image("x", &image);
}

#[test]
fn an_image_is_pulled_and_run() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        let pull = "jc-pull -q oci:/srv/image";
        let run = |options: &str, payload: &str| {
            ann.sh(&format!("{pull} | jc-run --network none {options} {payload}")).run()
        };
        run("", "").code(0).stderr("").stdout("uid=0(root) gid=0(root)\n");
        // The users of the image are the same as for root.
        run("-u web", "-- cat /home/f").code(0).stdout("of web");
        run("-u web", "-- stat -c %u:%g /home/f /tmp").code(0).stdout("33:34\n0:0\n");
        run("", "-- sh -c 'chown 5:6 /home/f; touch /x; stat -c %u:%g /home/f'").stdout("5:6\n");
        run("", "-- sh -c 'hostname | wc -c; echo $$'").stdout("13\n2\n");
        run("", "-- sh -c 'exit 42'").code(42);
        run("", "-- nothing").code(127).fails_as("jc-rootfs", "nothing");
        // Only the store in the home directory is left.
        ann.sh("ls -A").run().stdout(".local\n");
        let image = |options: &str| {
            ann.sh(&format!("jc-run --image oci:/srv/image --network none {options}")).run()
        };
        image("-- stat -c %u:%g /home/f").code(0).stderr("").stdout("33:34\n");
        image("--pull never -- id -u").code(0).stdout("0\n");
        let chain = run("--print", "").code(0).out();
        assert!(chain.contains("\njc-unshare -U --map-auto -n --loopback -C "), "{chain}");
        let chain = ann.sh(&format!("{pull} | jc-run --print")).run().code(0).out();
        assert!(chain.contains("\njc-unshare -U --map-auto -- \\\njc-net "), "{chain}");
        ann.sh("jc-list -aq").run().code(0).stdout("");
    });
}

#[test]
fn a_container_of_hers_has_a_life() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        let pull = "jc-unshare -U --map-auto -- jc-pull -q oci:/srv/image";
        for (variable, base) in
            [("A=", "/srv/ann/.local/state/jc"), ("XDG_RUNTIME_DIR=/srv/ann", "/srv/ann/jc")]
        {
            let run = |line: &str| ann.sh(&format!("export {variable}; {line}")).run();
            let id = run(&format!(
                "{pull} | jc-run -d --name n --network none -- sh -c 'echo said; sleep 1000'"
            ));
            let id = id.code(0).stderr("").out();
            assert!(fs::exists(format!("{base}/n/state.json")).unwrap());
            wait_until("the log", || run("jc-logs n").out() == "said\n");
            assert!(run("jc-list").out().contains(id.trim()));
            // No other user sees the container.
            s.sh("jc-list -aq").run().code(0).stdout("");
            run("jc-exec n sh -c 'id -u; cat /proc/1/comm; readlink /proc/self/ns/user'").code(0);
            run("jc-exec -u web n cat /home/f").code(0).stdout("of web");
            run("jc-stop n").code(0);
            run("jc-rm n").code(0).stderr("");
            // No file of another user of the container is left either.
            let keep = "--keep --name k --network none -- sh -c \
                'mkdir /d; touch /d/f /data/f; chown -R 33:34 /d /data/f; chmod 700 /d'";
            run(&format!("{pull} | jc-run {keep}")).code(0).stderr("");
            assert!(fs::exists(format!("{base}/k/volumes/changes/upper/d/f")).unwrap());
            run("jc-rm k").code(0).stderr("");
            assert!(!fs::exists(base).unwrap());
        }
        s.wait_for_no_process();
    });
}

#[test]
fn a_container_of_one_user_needs_one_id() {
    sandbox(|s| {
        let ann = Ann::new(s);
        let root = busybox_root(s, "root");
        fs::create_dir(root.join("mnt")).unwrap();
        s.sh("cp -r root ann/root && chown -R 4321:4321 ann/root").run().code(0);
        let run = |payload: &str| {
            ann.sh(&format!("jc-run --network none --rootfs root -- {payload}")).run()
        };
        run("id -u").code(0).stderr("").stdout("0\n");
        run("sh -c 'echo mine > /tmp/f; stat -c %u /tmp/f'").code(0).stdout("0\n");
        assert_eq!(fs::read_to_string(s.path("ann/root/tmp/f")).unwrap(), "mine\n");
        let web = ann.sh("jc-run --network none -u web --rootfs root -- id").run();
        web.code(125).stdout("");
        let chain = ann.sh("jc-run --print --network none --rootfs root -- id -u").run().out();
        assert!(chain.contains("\njc-unshare -U --map-root -n --loopback "), "{chain}");
        ann.sh(&chain).run().code(0).stdout("0\n");
        ann.sh("jc-list").run().code(0);
        image(s);
        let image = ann.sh("jc-run --image oci:/srv/image --network none -- cat /home/f").run();
        image.code(0).stdout("of web");
        let auto = ann.sh("jc-run --userns auto --network none --rootfs root -- id").run();
        auto.code(125).stdout("").fails_as("jc-unshare", "/etc/subuid");
    });
}

#[test]
fn no_kill_leaves_anything() {
    sandbox(|s| {
        let ann = Ann::with_range(s);
        busybox_root(s, "root");
        s.sh("cp -r root ann/root && chown -R 4321:4321 ann/root").run().code(0);
        for name in ["jc-run", "jc-unshare", "sleep"] {
            let line = "jc-run -d --rm --network none --rootfs root -- sleep 1000";
            ann.sh(line).run().code(0).stderr("");
            // A killed process that is not yet reaped does not count.
            let pid = format!(
                "ps -eo pid=,stat=,comm= | awk '$2 !~ /Z/ && $3 == \"{name}\" {{ print $1 }}'"
            );
            s.sh(&format!("kill -9 $({pid})")).run().code(0);
            s.wait_for_no_process();
            ann.sh("jc-list -aq").run().code(0).stdout("");
            assert!(!fs::exists("/srv/ann/.local/state/jc").unwrap(), "{name}");
        }
    });
}

/// In the user namespace, jc-pull cannot tell another user's file from one of root.
#[test]
fn files_of_another_user_configure_no_pull() {
    sandbox(|s| {
        image(s);
        for ann in [Ann::with_range(s), Ann::new(s)] {
            let run = || ann.sh("jc-run --image oci:/srv/image --network none -- true").run();
            run().code(0);
            for file in [".config/containers/registries.conf", ".docker/config.json"] {
                let foreign = format!(
                    "cd ann && mkdir -p $(dirname {file}) && echo {{}} >{file} && chown 33 {file}"
                );
                let foreign = foreign.replace("echo {}", "printf ''");
                s.sh(&foreign).run().code(0);
                let refused =
                    format!("{file}: the file belongs to user 33, not to the caller or root");
                run().code(125).stdout("").fails_as("jc-run", &refused);
                s.sh(&format!("rm ann/{file}")).run().code(0);
            }
            s.sh("rm -rf ann/.local ann/.config ann/.docker").run().code(0);
        }
    });
}

#[test]
fn a_stored_image_of_a_full_name_needs_no_configuration() {
    sandbox(|s| {
        image(s);
        let ann = Ann::with_range(s);
        let name = "registry.example/x:1";
        ann.sh(&format!("jc-pull -q oci:/srv/image | jc-commit --cmd '[\"id\"]' -t {name}"))
            .run()
            .code(0);
        let foreign = "mkdir -p ann/.config/containers && cd ann/.config/containers &&
            echo = >registries.conf && chown 33 registries.conf";
        s.sh(foreign).run().code(0);
        let run = |name: &str| ann.sh(&format!("jc-run --network none --image {name}")).run();
        run(name).code(0).stderr("").stdout("uid=0(root) gid=0(root)\n");
        run("x").code(125).fails_as("jc-run", "registries.conf: the file belongs to user 33");
    });
}
