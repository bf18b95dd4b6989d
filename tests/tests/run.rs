//! `jc-pull IMAGE | jc-run`, as users type it.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;

use jc_tests::cgroups::can_limit;
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::pulled::{layer_dirs, paths};
use jc_tests::registry::Registry;
use jc_tests::roots::{busybox_layer, busybox_root, names};
use jc_tests::{Sandbox, keeps_the_contract, sandbox, skip, tree};
use rustix::process::Signal;

const TOOL: &str = "jc-run";

keeps_the_contract!(over_a_directory, ["jc-run", "--rootfs", "ROOT"], "jc-rootfs");
keeps_the_contract!(with_an_init, ["jc-run", "--init", "--rootfs", "ROOT"], "jc-rootfs");
keeps_the_contract!(
    with_limits,
    ["jc-run", "-m", "256M", "--pids-limit", "64", "--rootfs", "ROOT"],
    "jc-rootfs"
);
keeps_the_contract!(
    as_a_chain_by_hand,
    [
        "jc-cgroup",
        "-m",
        "256M",
        "--",
        "jc-net",
        "--",
        "jc-unshare",
        "-puiC",
        "--",
        "jc-rootfs",
        "ROOT"
    ],
    "jc-rootfs"
);

/// An OCI layout of busybox in `image`.
fn image(s: &Sandbox) {
    Layout::new(s.path("image")).image("x", &Image::new().layer(busybox_layer()));
}

#[test]
fn a_debian_from_a_registry_runs() {
    sandbox(|s| {
        let registry = Registry::prepared(s);
        let debian = format!("{}/debian", registry.address());
        s.jc("jc-pull").arg(&debian).run().code(0);
        let run = |payload: &str| s.sh(&format!("jc-pull -q {debian} | {TOOL} -- {payload}")).run();
        let release = run("cat /etc/os-release");
        assert!(release.out().contains("Debian GNU/Linux"), "{release}");
        release.code(0).stderr("");
        run("sh -c 'exit 42'").code(42);
        run("no-such-program").code(127).fails_as("jc-rootfs", "no-such-program");
        run("/etc").code(126).fails_as("jc-rootfs", "/etc");
        // The second layer has removed this file, and changed that one.
        run("ls /usr/share/doc /etc/issue").code(2);
        run("cat /etc/motd").code(0).stdout("changed\n");
        // A real distribution works: its package manager, its shell, another user.
        run("dpkg --audit").code(0).stdout("").stderr("");
        let user = s.sh(&format!("jc-pull -q {debian} | {TOOL} -u www-data -- id -un")).run();
        user.code(0).stdout("www-data\n");
        let docker = s.sh(&format!("jc-pull -q {debian}:docker | {TOOL} -- cat /etc/motd")).run();
        docker.code(0).stdout("changed\n");
    });
}

#[test]
fn exit_codes_are_the_payloads() {
    sandbox(|s| {
        image(s);
        let run = |options: &str, payload: &str| {
            s.sh(&format!("jc-pull -q oci:image | {TOOL} {options} -- {payload}; echo $?")).run()
        };
        run("", "sh -c 'exit 42'").stdout("42\n").stderr("");
        run("--init", "sh -c 'kill -9 $$'").stdout("137\n");
        run("--init", "sh -c 'kill -TERM $$'").stdout("143\n");
        run("", "nothing").stdout("127\n").fails_as("jc-rootfs", "nothing");
        run("", "/etc").stdout("126\n").fails_as("jc-rootfs", "/etc");
        run("--nonsense", "true").stdout("125\n").fails_as(TOOL, "--nonsense");
    });
}

#[test]
fn a_payload_that_is_killed_from_outside_gives_137() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for options in [&[][..], &["--init"]] {
            let run = s.jc(TOOL).args(options).arg("--rootfs").arg(&root);
            let mut running = run.args(["--", "sh", "-c", "echo ready; exec sleep 1000"]).spawn();
            running.wait_for("ready");
            s.sh("kill -9 $(pidof sleep)").run().code(0);
            running.wait().code(137);
        }
    });
}

#[test]
fn bytes_after_the_record_are_the_payloads() {
    sandbox(|s| {
        image(s);
        let pipe = |feed: &str, payload: &str| {
            s.sh(&format!("(jc-pull -q oci:image; {feed}) | {TOOL} -- {payload}")).run()
        };
        pipe("printf 'a\\nb\\n'", "wc -l").code(0).stdout("2\n");
        pipe("true", "wc -c").code(0).stdout("0\n");
        pipe("printf x", "cat").code(0).stdout("x");
        pipe("head -c 3000000 /dev/zero", "wc -c").code(0).stdout("3000000\n");
        // The record and the input in one file. The payload leaves the rest for the next reader.
        s.sh("(jc-pull -q oci:image; printf 'a\\nb\\n') > both").run().code(0);
        s.sh(&format!("{TOOL} -- cat < both")).run().code(0).stdout("a\nb\n");
        s.sh(&format!("{{ {TOOL} -- true; cat; }} < both")).run().code(0).stdout("a\nb\n");
        // The second record is input for the first payload.
        let two = format!("(cat both; cat both) | {TOOL} -- wc -l");
        s.sh(&two).run().stdout("5\n");
    });
}

#[test]
fn a_record_comes_from_anywhere() {
    sandbox(|s| {
        image(s);
        let root = busybox_root(s, "root");
        fs::write(root.join("which"), "root\n").unwrap();
        s.sh("jc-pull -q oci:image > pin").run().code(0);
        for run in [
            format!("{TOOL} < pin -- cat"),
            format!("{TOOL} --record pin -- cat"),
            format!("{TOOL} --record=/srv/pin cat"),
            format!("{TOOL} --image oci:image -- cat"),
            format!("{TOOL} --image=oci:/srv/image:x cat"),
            format!("{TOOL} --rootfs root -- cat"),
        ] {
            let has_stdin = !run.contains('<');
            let ran = s.sh(&run).input("stdin").run().code(0);
            assert_eq!(ran.out(), if has_stdin { "stdin" } else { "" }, "{run}");
        }
        let line = r#"echo '{"jc":1,"rootfs":"/srv/root"}' | jc-run -- cat /which"#;
        s.sh(line).run().code(0).stdout("root\n");
        let layers =
            r#"echo '{"jc":1,"layers":["/srv/root"],"unknown":[]}' | jc-run -- cat /which"#;
        s.sh(layers).run().code(0).stdout("root\n");
    });
}

#[test]
fn a_line_that_is_no_record_is_an_error() {
    sandbox(|s| {
        busybox_root(s, "root");
        for record in [
            "",
            "\n",
            "hello\n",
            "{}\n",
            "{\"jc\":1}\n",
            "{\"jc\":2,\"rootfs\":\"/srv/root\"}\n",
            "{\"jc\":\"1\",\"rootfs\":\"/srv/root\"}\n",
            "{\"jc\":1,\"rootfs\":\"root\"}\n",
            "{\"jc\":1,\"layers\":[]}\n",
            "{\"jc\":1,\"rootfs\":\"/srv/root\",\"config\":{\"Cmd\":\"sh\"}}\n",
        ] {
            let ran = s.jc(TOOL).args(["--", "echo", "ran"]).input(record).run();
            ran.code(125).stdout("").fails_as(TOOL, "");
            fs::write(s.path("record"), record).unwrap();
            let ran = s.jc(TOOL).args(["--record", "record", "--", "echo", "ran"]).run();
            ran.code(125).stdout("").fails_as(TOOL, "");
        }
        let endless = format!("head -c 4000000 /dev/zero | {TOOL} -- true");
        s.sh(&endless).run().code(125).fails_as(TOOL, "");
        s.jc(TOOL)
            .args(["--record", "/nonexistent", "true"])
            .run()
            .code(125)
            .fails_as(TOOL, "/nonexistent");
        let ran = s.jc(TOOL).args(["--image", "oci:/nonexistent", "true"]).run();
        assert!(ran.err().contains("/nonexistent"), "{ran}");
        ran.code(125).stdout("");
        let both = ["--rootfs", "root", "--record", "record", "--", "true"];
        s.jc(TOOL).args(both).run().code(125).stdout("").fails_as(TOOL, "--re");
    });
}

#[test]
fn the_payload_is_alone() {
    sandbox(|s| {
        image(s);
        let run = |script: &str| {
            let line =
                format!("jc-pull -q oci:image | {TOOL} -- sh -c '{script}' >out 2>errors; cat out");
            s.sh(&line).run().code(0).out()
        };
        assert_eq!(run("echo $$"), "1\n");
        assert_eq!(run("echo /proc/[0-9]*"), "/proc/1\n");
        assert_eq!(run("ls /"), "bin\ndev\netc\nproc\nroot\nsys\ntmp\n");
        assert_eq!(run("ip -o link | cut -d: -f2 | cut -d@ -f1"), " lo\n eth0\n");
        let kinds = "cgroup ipc mnt net pid uts";
        let inside = run(&format!("cd /proc/self/ns; for k in {kinds}; do readlink $k; done"));
        let here = s.sh(&format!("cd /proc/self/ns; for k in {kinds}; do readlink $k; done")).run();
        for (inside, here) in inside.lines().zip(here.out().lines()) {
            assert_ne!(inside, here);
        }
        assert_eq!(run("yes | head -1"), "y\n");
        assert_eq!(run("ls /proc/self/fd"), "0\n1\n2\n3\n");
        // No variable of the caller reaches the payload.
        let ran = s.sh(&format!("jc-pull -q oci:image | {TOOL} -- env")).env("SECRET", "x").run();
        assert!(!ran.out().contains("SECRET"), "{ran}");
        assert_eq!(ran.out().lines().filter(|l| l.starts_with("PATH=")).count(), 1, "{ran}");
    });
}

#[test]
fn each_container_has_a_hostname_of_its_own() {
    sandbox(|s| {
        busybox_root(s, "root");
        let name = |options: &[&str]| {
            let ran = s.jc(TOOL).args(options).args(["--rootfs", "root", "--", "hostname"]).run();
            ran.code(0).out()
        };
        let (one, two) = (name(&[]), name(&[]));
        assert_ne!(one, two);
        for name in [&one, &two] {
            assert_eq!(name.len(), 13, "{name}");
            assert!(name.trim().bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        }
        assert_eq!(name(&["--hostname", "mine"]), "mine\n");
        s.sh("hostname").run().stdout(&format!("{}\n", s.hostname()));
        let long = "x".repeat(65);
        let ran = s.jc(TOOL).args(["--hostname", &long, "--rootfs", "root", "true"]).run();
        ran.code(125).stdout("").fails_as("jc-unshare", "");
    });
}

#[test]
fn limits_of_memory_and_processes_hold() {
    sandbox(|s| {
        if !can_limit("memory") || !can_limit("pids") {
            skip!("this host has no memory or no pids controller");
        }
        image(s);
        let run = |options: &str, script: &str| {
            s.sh(&format!("jc-pull -q oci:image | {TOOL} {options} -- sh -c '{script}'")).run()
        };
        let dd = |size| format!("exec dd if=/dev/zero of=/dev/null count=1 bs={size}");
        run("-m 64M", &dd("200M")).code(137);
        run("-m 64M", &dd("20M")).code(0);
        run("--memory=64M", &dd("200M")).code(137);
        let many = "i=0; while [ $i -lt 9 ]; do sleep 9 & i=$((i+1)); done; echo started";
        run("--pids-limit 30", many).code(0).stdout("started\n");
        let ran = run("--pids-limit 5", many);
        assert!(ran.err().contains("fork"), "{ran}");
        for bad in ["-m 0", "-m x", "--pids-limit -2", "--pids-limit x"] {
            assert_eq!(run(bad, "echo ran").code(125).out(), "", "{bad}");
        }
    });
}

/// Every file of the store is unchanged afterwards, with all metadata.
#[test]
fn an_image_is_not_changed_by_what_runs_in_it() {
    sandbox(|s| {
        let layout = Layout::new(s.path("image"));
        let more = Layer::new()
            .entry(Entry::dir("d/"))
            .entry(Entry::file("d/f", "f").mode(0o600).owner(5, 6))
            .entry(Entry::hardlink("d/g", "d/f"))
            .entry(Entry::file("etc/.wh.group", ""));
        layout.image("x", &Image::new().layer(busybox_layer()).layer(more));
        let layers: Vec<PathBuf> = layer_dirs(&s.pull("oci:image"));
        let kept = s.store().join("layers");
        let before = (tree::manifest(&kept), paths(&s.store()));
        let script = "find / -xdev -type f ! -path \"/bin/*\" | while read f; do echo x >> $f; done
            find / -xdev -type d | while read d; do touch $d/new; chmod 711 $d; chown 5:5 $d; done
            mv /d /moved; rm -r /etc /root; echo x > /bin/busybox; ln /moved/f /linked
            mkdir /etc; cat /moved/f; echo done";
        for options in ["", "--init", "-v /srv/image:/new/place", "-w /work/here", "-u 0:0"] {
            let line = format!("jc-pull -q oci:image | {TOOL} {options} -- sh -c '{script}'");
            let ran = s.sh(&line).run();
            assert!(ran.out().contains("done\n"), "it has written nothing\n{ran}");
        }
        assert_eq!(tree::changes(&before.0, &tree::manifest(&kept)), "");
        assert_eq!(paths(&s.store()), before.1);
        assert_eq!(fs::read(layers[1].join("d/f")).unwrap(), b"f");
    });
}

#[test]
fn volumes_and_tmpfses_are_mounted() {
    sandbox(|s| {
        image(s);
        fs::create_dir(s.path("data")).unwrap();
        fs::write(s.path("data/in"), "in\n").unwrap();
        let run = |options: &str, script: &str| {
            s.sh(&format!("jc-pull -q oci:image | {TOOL} {options} -- sh -c '{script}'")).run()
        };
        run("-v /srv/data:/data", "cat /data/in; echo out > /data/out").code(0).stdout("in\n");
        assert_eq!(names(&s.path("data")), "in\nout\n");
        run("--volume=./data:/data:ro", "cat /data/in").code(0).stdout("in\n");
        let ran = run("-v /srv/data:/data:ro", "touch /data/x");
        assert!(ran.err().contains("Read-only file system"), "{ran}");
        run("--tmpfs /t", "ls /t").code(0).stdout("");
        run("--tmpfs /t:size=1m,mode=700", "stat -c %a /t").code(0).stdout("700\n");
        let ran = run("--read-only --tmpfs /tmp", "touch /tmp/x && touch /x");
        assert!(ran.err().contains("Read-only file system"), "{ran}");
        run("-v /nonexistent:/data", "echo ran").code(125).stdout("").fails_as("jc-rootfs", "");
    });
}

#[test]
fn the_network_is_ones_own_unless_asked_otherwise() {
    sandbox(|s| {
        busybox_root(s, "root");
        let show = ["--rootfs", "root", "--", "readlink", "/proc/self/ns/net"];
        let net = |options: &[&str]| s.jc(TOOL).args(options).args(show).run().code(0).out();
        let here = s.cmd("readlink").arg("/proc/self/ns/net").run().out();
        assert_eq!(net(&["--network", "host"]), here);
        assert_ne!(net(&["--network", "none"]), here);
        assert_ne!(net(&["--network", "bridge"]), here);
        assert_ne!(net(&[]), here);
    });
}

#[test]
fn an_impossible_option_is_refused_by_its_link() {
    sandbox(|s| {
        busybox_root(s, "root");
        for (options, tool, name) in [
            (&["--network", "bogus"][..], TOOL, "bogus"),
            (&["-p", "x"], "jc-net", "x"),
            (&["--network", "none", "-p", "80:80"], "jc-net", "none"),
            (&["--network", "container:none"], TOOL, "none"),
            (&["--network", "container:none", "--dns", "192.0.2.7"], TOOL, "--dns"),
            (&["--cpus", "none"], "jc-cgroup", "none"),
            (&["--pid", "bogus"], TOOL, "bogus"),
            (&["--userns", "bogus"], TOOL, "bogus"),
            (&["--tmpfs", "relative"], "jc-rootfs", "relative"),
            (&["--nonsense"], TOOL, "--nonsense"),
        ] {
            let rest = ["--rootfs", "root", "--", "echo", "ran"];
            let ran = s.jc(TOOL).args(options).args(rest).run();
            ran.code(125).stdout("").fails_as(tool, name);
        }
    });
}

#[test]
fn nothing_is_left_of_a_killed_container() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        for options in [&[][..], &["--init"], &["-m", "64M"]] {
            let run = s.jc(TOOL).args(options).arg("--rootfs").arg(&root);
            let script =
                "setsid sleep 1000 >/dev/null 2>&1 & trap '' TERM; echo ready; sleep 1000; :";
            let mut running = run.args(["--", "sh", "-c", script]).spawn();
            running.wait_for("ready");
            running.signal(Signal::KILL);
            running.wait().killed_by(Signal::KILL);
            s.wait_for_no_process();
            s.jc(TOOL).args(options).args(["--rootfs", "root", "true"]).run().code(0);
        }
        s.jc("jc-list").args(["-a", "-q"]).run().code(0).stdout("");
    });
}
