//! Lines that people type: each works, or names the line that does the same.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::cgroups::{Controller, can_limit};
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::busybox_layer;
use jc_tests::{Sandbox, sandbox};
use serde_json::json;

/// A line, its exit code, and a part of its output: of stdout if the code is 0, else of stderr.
type Line = (&'static str, i32, &'static str);

/// An image with programs that cannot be executed, in the place of IMAGE.
fn image(s: &Sandbox) {
    let mut foreign = vec![0; 120];
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[16] = 2;
    foreign[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let more = Layer::new()
        .entry(Entry::file("lost", "#!/no/such/shell\n").mode(0o755))
        .entry(Entry::file("crlf", "#!/bin/sh\r\necho\r\n").mode(0o755))
        .entry(Entry::file("foreign", foreign).mode(0o755))
        .entry(Entry::file("plain", "text"));
    let image = Image::new().layer(busybox_layer()).layer(more).config(json!({"Cmd": ["id"]}));
    Layout::new(s.path("image")).image("x", &image);
    s.sh("jc-pull -q oci:/srv/image").run().code(0);
}

fn check(s: &Sandbox, lines: &[Line]) {
    for (line, code, text) in lines {
        let ran = s.sh(&line.replace("IMAGE", "oci:/srv/image")).run();
        let shown = format!("{line}\n{ran}");
        let output = if *code == 0 { ran.out() } else { ran.err() };
        assert_eq!(ran.status().code(), Some(*code), "{shown}");
        let as_typed = text.replace("IMAGE", "oci:/srv/image");
        assert!(output.contains(text) || output.contains(&as_typed), "{shown}");
    }
}

/// `jc-run --network none --image IMAGE`, with options before it.
fn with_options(s: &Sandbox, lines: &[Line]) {
    for (options, code, text) in lines {
        let line = format!("jc-run --network none {options}");
        let line =
            if line.contains("IMAGE") { line } else { format!("{line} --image IMAGE -- true") };
        let ran = s.sh(&line.replace("IMAGE", "oci:/srv/image")).run();
        let shown = format!("{line}\n{ran}");
        let output = if *code == 0 { ran.out() } else { ran.err() };
        assert_eq!(ran.status().code(), Some(*code), "{shown}");
        assert!(output.contains(text), "{shown}");
    }
}

#[test]
fn an_option_of_docker_works_where_it_means_the_same() {
    sandbox(|s| {
        image(s);
        s.sh("mkdir data && echo text > data/f").run().code(0);
        with_options(
            s,
            &[
                ("--rm=true", 0, ""),
                ("--read-only=1 --tty=0", 0, ""),
                ("--init=true", 0, ""),
                ("--privileged=true", 0, ""),
                ("--tty=false --interactive=true", 0, ""),
                ("-l a=b --annotation c=d", 0, ""),
                (
                    "--platform linux/$(uname -m | sed s/x86_64/amd64/) --log-driver json-file",
                    0,
                    "",
                ),
                ("--no-healthcheck --restart=no --ipc=shareable --cgroupns private", 0, ""),
                ("--sig-proxy=true --disable-content-trust", 0, ""),
                ("--security-opt label=disable --security-opt apparmor=unconfined", 0, ""),
                ("-v $PWD/data:/x:cached --image IMAGE -- cat /x/f", 0, "text"),
                ("-v $PWD/data:/x:ro,delegated --image IMAGE -- cat /x/f", 0, "text"),
                ("-v $PWD/data:/x:rprivate --image IMAGE -- cat /x/f", 0, "text"),
                (
                    "--mount type=bind,src=$PWD/data,dst=/x,readonly --image IMAGE -- cat /x/f",
                    0,
                    "text",
                ),
                ("--mount type=tmpfs,dst=/x,tmpfs-size=64k --image IMAGE -- df -k /x", 0, " 64 "),
                ("-v /x --image IMAGE -- sh -c 'touch /x/new; ls /x'", 0, "new"),
                ("--add-host db:10.9.8.7 --image IMAGE -- cat /etc/hosts", 0, "10.9.8.7\tdb\n"),
                ("--domainname lab --image IMAGE -- cat /proc/sys/kernel/domainname", 0, "lab\n"),
                ("--device /dev/null:/dev/other:rwm --image IMAGE -- ls /dev", 0, "other\n"),
                ("--entrypoint '[\"echo\",\"a\"]' --image IMAGE -- b", 0, "a b\n"),
                ("--device /dev/null:rwm --image IMAGE -- sh -c 'echo > /dev/null'", 0, ""),
            ],
        );
        check(s, &[("jc-run --net none --image IMAGE -- ip -o link", 0, "lo")]);
        if can_limit("pids") && can_limit("cpu") {
            with_options(
                s,
                &[
                    ("--pids-limit -1", 0, ""),
                    ("--pids-limit 0", 0, ""),
                    ("-c 512 --cpus .5", 0, ""),
                    ("--pids-limit 1 --init", 125, "hint: a limit of processes is reached"),
                ],
            );
        }
        s.wait_for_no_process();
    });
}

#[test]
fn an_option_that_jc_lacks_is_refused_with_the_line_that_does_it() {
    sandbox(|s| {
        image(s);
        s.sh("tar -cf plain.tar image").run().code(0);
        with_options(
            s,
            &[
                (
                    "--link a:b",
                    125,
                    "--link: not an option of jc-run\njc-run: hint: --network container:ID",
                ),
                ("--health-interval 3s", 125, "hint: watch -n SECONDS jc-exec ID PROG"),
                ("--platform nonsense", 125, "nonsense"),
                ("--log-driver none", 125, "exec PROG > /dev/null 2>&1"),
                ("--expose 80", 125, "--expose: publishes nothing without -P"),
                ("--nice 5", 125, "hint: nice -n 5 jc-run"),
                ("--tz Europe/Paris", 125, "hint: -e TZ=Europe/Paris"),
                ("--cidfile 'a b'", 125, "hint: jc-run -d ... > 'a b'"),
                ("--pull=newer", 125, "hint: --pull always"),
                ("--rm=false", 125, "hint: --keep keeps"),
                ("--restart always", 125, "hint: systemd-run"),
                ("--hostname 'a b'", 125, "--hostname \"a b\": not letters, digits, -, _ and ."),
                ("--hostname ''", 125, "--hostname \"\": not letters, digits, -, _ and ."),
                ("--uidmap 0:100000:65536", 125, "--uidmap: no ID for root of the host"),
                ("--device /dev/null:/dev/x:r", 125, "only rw and rwm can be given"),
                ("-v $PWD:/x:U", 125, "for '-v': U: chown -R UID:GID SRC"),
                ("--tmpfs /x:uid=5", 125, "uid=5: a tmpfs belongs to root"),
                ("--bind /usr /usr", 125, "hint: -v /usr:DST, in one word"),
                ("--entrypoint '[a'", 125, "not an array of strings in JSON"),
                (
                    "--mount type=volume,src=v,dst=/x",
                    125,
                    "hint: no named volumes: mkdir -p v; -v ./v:/x",
                ),
            ],
        );
        check(
            s,
            &[
                ("jc-run --network lab0 --image IMAGE", 125, "--bridge lab0 makes a network"),
                ("jc-list --format json", 2, "hint: jc-list --json,"),
                ("jc-commit web new:1", 2, "jc-commit --changes NAME"),
                (
                    "jc-commit -m text --scratch",
                    2,
                    "--label org.opencontainers.image.description=text",
                ),
                ("jc-trace -p 7 --report t", 125, "strace -p 7"),
                ("jc-trace -c ls", 125, "jq -r 'select(.event == \"call\").name'"),
                ("jc-exec -d x true", 125, "hint: jc-exec ID PROG &"),
                ("jc-list --filter name=x", 2, "hint: jc-list --json | jq"),
                ("jc-list --format '{{.ID}}'", 2, "hint: jc-list --json | jq"),
                ("jc-images -q", 2, "hint: jc-images --json | jq -r .ref"),
                ("jc-images debian", 2, "hint: jc-images | grep debian"),
                ("jc-rmi -f x", 2, "hint: jc-rmi REF"),
                ("jc-logs -t x", 2, "hint: jc-logs -f ID | ts"),
                ("jc-stop --all", 2, "hint: jc-list -q | xargs -r jc-stop"),
                ("jc-pull https://quay.io/a/b", 2, "hint: jc-pull quay.io/a/b"),
                (
                    "jc-pull containers-storage:x",
                    2,
                    "hint: podman save IMAGE | jc-pull docker-archive:-",
                ),
                ("jc-pull --creds a:b x", 2, "hint: jc-pull --username USER --password-stdin"),
                ("jc-rootfs --ro-bind /usr /usr / true", 125, "hint: -v /usr:/usr:ro"),
                (
                    "jc-rootfs --unshare-net / true",
                    125,
                    "hint: jc-unshare -n --loopback -- jc-rootfs",
                ),
                ("jc-rootfs --setenv A 'b c' / true", 125, "hint: -e A='b c'"),
                ("jc-unshare -R /srv true", 125, "hint: jc-unshare ... -- jc-rootfs /srv -- PROG"),
                ("jc-unshare -t 1 true", 125, "hint: --join 1"),
                ("jc-run --network '' --image IMAGE", 125, "bridge is the default of root"),
                ("jc-run --image /srv/image -- true", 125, "oci:/srv/image a layout"),
                ("jc-run --image no.tar", 125, "docker-archive:no.tar is one of docker save"),
                (
                    "jc-run --image docker-archive:plain.tar -- true",
                    125,
                    "hint: oci-archive:FILE is an OCI layout; files of a root: jc-commit --scratch",
                ),
                ("jc-run --image oci-archive:plain.tar", 125, "hint: docker-archive:FILE is one"),
                ("jc-rootfs --bind /usr /usr / true", 125, "hint: -v /usr:DST, in one word"),
                ("jc-rootfs --ro-bind / / true", 125, "hint: jc-rootfs --read-only / -- PROG"),
                ("jc-rootfs --bind / / true", 125, "hint: jc-rootfs / -- PROG"),
                ("jc-rootfs / 'ls -l /'", 127, "ls and its arguments are words of their own"),
                ("jc-push docker-daemon:x", 2, "hint: jc-push docker-archive:-:NAME | docker load"),
                ("jc-push --creds a:b x", 2, "hint: jc-push --username USER --password-stdin"),
                ("jc-push --all x", 2, "hint: jc-pull --no-layers IMAGE... | jc-push DEST..."),
                ("jc-push --format v2s2 x", 2, "hint: skopeo copy --format v2s2"),
                ("jc-commit --squash", 2, "hint: jc-pull --tar - IMAGE | jc-commit --scratch"),
                ("jc-changes --format json x", 1, "x: no such container"),
                ("jc-run sh -c 'a b' </dev/null", 125, ", or jc-run --image IMAGE -- sh -c 'a b'"),
                ("jc-run -- sh -c 'a b' </dev/null", 125, "jc-run --image IMAGE -- sh -c 'a b'"),
            ],
        );
    });
}

#[test]
fn options_of_unshare_mean_the_same() {
    sandbox(|s| {
        check(
            s,
            &[
                ("jc-unshare -p -f --mount-proc sh -c 'ls -d /proc/[0-9]*'", 0, "/proc/1\n"),
                ("jc-unshare --map-root-user id -u", 0, "0\n"),
                ("jc-unshare -r id -u", 0, "0\n"),
            ],
        );
    });
}

/// A step of CI whose program does not run must not succeed.
#[test]
fn help_and_version_in_a_line_that_runs_a_program_are_errors() {
    sandbox(|s| {
        image(s);
        check(
            s,
            &[
                (
                    "jc-run --image IMAGE --version",
                    125,
                    "hint: for the program, behind --: jc-run --image IMAGE -- --version",
                ),
                ("jc-run --image IMAGE --help", 125, "behind --"),
                ("jc-run -h box --image IMAGE -- true", 125, "hint: --hostname NAME"),
                (
                    "jc-run --image IMAGE -c 'echo hi'",
                    125,
                    "-- in front of the program's own options",
                ),
                ("jc-run --image IMAGE --colour x", 125, "jc-run --image IMAGE -- --colour x"),
                ("jc-unshare -h box -- true", 125, "-h: not in a line that runs a program"),
                ("jc-run -m 1G --help", 0, "Usage: "),
                ("jc-run --version", 0, "jc-run "),
                ("jc-cgroup -h", 0, "Usage: "),
            ],
        );
    });
}

#[test]
fn an_image_in_the_place_of_the_program_gives_the_line_to_paste() {
    sandbox(|s| {
        image(s);
        check(
            s,
            &[
                (
                    "jc-run no-image echo 'a b' </dev/null",
                    125,
                    "jc-run --image no-image -- echo 'a b'",
                ),
                ("jc-run exec web sh -c 'a b' </dev/null", 125, "hint: jc-exec web sh -c 'a b'\n"),
                ("jc-run images </dev/null", 125, "hint: jc-images\n"),
                ("jc-run -it no/image:1 </dev/null", 125, "jc-run -it --image no/image:1\n"),
                ("echo data | jc-run no-image cat", 125, "jc-run --image no-image -- cat"),
                ("jc-run -- no-program </dev/null", 125, "jc-pull IMAGE | jc-run"),
                ("echo '{bad' | jc-run -- cat", 125, "record: the line is not JSON\n"),
                ("printf '{\\n' | jc-run -- cat", 125, "a record is one line: jq -c ."),
                ("jc-run --imgae IMAGE -- true", 125, "did you mean --image?"),
                ("jc-run --memroy 5 --image IMAGE", 125, "did you mean --memory?"),
                (
                    "jc-run -v data:/x --image IMAGE",
                    125,
                    "for '-v': no named volumes, but directories: mkdir -p data; jc-run -v ./data:/x",
                ),
                ("jc-run --pids-limit abc --image IMAGE", 125, "not a number"),
                ("jc-logs -n x y", 2, "'-n': not a number"),
            ],
        );
    });
}

#[test]
fn a_failed_start_has_advice_for_its_errno() {
    sandbox(|s| {
        image(s);
        with_options(
            s,
            &[
                (
                    "--image IMAGE -- /lost",
                    127,
                    "/lost exists, and its interpreter /no/such/shell does not",
                ),
                ("--image IMAGE -- /crlf", 127, "carriage return: sed"),
                ("--image IMAGE -- /foreign", 126, "the program is for "),
                ("--image IMAGE -- /plain", 126, "chmod +x /plain"),
                ("--image IMAGE -- /bin", 126, "/bin is a directory"),
                ("-v /srv:/plain --image IMAGE -- true", 125, "this is a file"),
                ("-v /etc/passwd:/bin --image IMAGE -- true", 125, "this is a directory"),
            ],
        );
        s.sh("jc-pull -q oci:/srv/image > pin && jc-rmi oci:/srv/image").run().code(0);
        check(
            s,
            &[("jc-run --network none -- true < pin", 125, "jc-pull IMAGE fetches a layer again")],
        );
    });
}

/// pid_namespaces(7): the kernel sends PID 1 no SIGPIPE.
#[test]
fn a_shell_ends_when_its_reader_has_ended() {
    sandbox(|s| {
        image(s);
        let line = "jc-run --network none --image oci:/srv/image -- sh -c 'while :; do echo y; done' | head -1";
        s.sh(&format!("timeout 60 bash -c {}; echo $?", quoted(line)))
            .run()
            .stdout("y\n0\n")
            .stderr("");
        let file =
            "jc-run --network none --image oci:/srv/image -- sh -c 'echo $$' > pid 2>err; cat pid";
        s.sh(file).run().stdout("1\n");
        s.wait_for_no_process();
    });
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn one_operand_that_fails_stops_no_other() {
    sandbox(|s| {
        image(s);
        let run = "jc-run -d --network none --image oci:/srv/image --name";
        for name in ["one", "two"] {
            s.sh(&format!("{run} {name} -- sh -c 'echo {name}; exec sleep 1000'")).run().code(0);
        }
        s.sh("until jc-logs two | grep two; do :; done").run().code(0);
        s.jc("jc-logs")
            .args(["none", "one", "two"])
            .run()
            .code(1)
            .stdout("one\ntwo\n")
            .fails_as("jc-logs", "none: no such");
        s.jc("jc-logs").args(["-f", "one", "two"]).run().code(2).fails_as("jc-logs", "-f");
        s.jc("jc-stop")
            .args(["-t", "0", "none", "one"])
            .run()
            .code(1)
            .fails_as("jc-stop", "none: no such");
        s.jc("jc-rm").args(["two", "one"]).run().code(1).fails_as("jc-rm", "still runs");
        assert_eq!(s.sh("jc-list -a | wc -l").run().out(), "2\n");
        s.sh("jc-rm -f two").run().code(0);
        let digest = "jc-images --json | jq -r .target | cut -d: -f2 | cut -c 1-12";
        let removed = s.sh(&format!("jc-rmi none $({digest})")).run().code(1);
        assert!(removed.out().starts_with("oci:/srv/image\n"), "{removed}");
        s.jc("jc-images").run().code(0).stdout("IMAGE  PLATFORM  DIGEST  SIZE  OWN\n");
    });
}

#[test]
fn listing_makes_nothing() {
    sandbox(|s| {
        for line in ["jc-images", "jc-images --check", "jc-rmi x", "jc-rmi --unused", "jc-list -a"]
        {
            s.sh(&format!("JC_STORE=/srv/typo/x JC_STATE_DIR=/srv/typo/y {line}")).run();
            assert!(!fs::exists(s.path("typo")).unwrap(), "{line}");
        }
    });
}

#[test]
fn a_frozen_container_is_paused() {
    if !can_limit("pids")
        || !can_limit("freezer") && !fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap()
    {
        return;
    }
    sandbox(|s| {
        image(s);
        let run = "jc-run -d --network none --pids-limit 50 --name w --image oci:/srv/image -- sleep 1000";
        let id = s.sh(run).run().code(0).out().trim().to_owned();
        s.sh(&format!("jc-cgroup --freeze {id}")).run().code(0);
        check(
            s,
            &[
                ("jc-list", 0, "  paused  "),
                ("jc-exec w true", 125, "frozen, a program would not run"),
            ],
        );
        s.sh(&format!("jc-cgroup --thaw {id} && jc-exec w true && jc-list | grep -q ' up '"))
            .run()
            .code(0);
        s.sh("jc-rm -f w").run().code(0);
    });
}

#[test]
fn a_pull_that_waits_says_so_and_a_closed_pipe_is_no_error() {
    sandbox(|s| {
        image(s);
        s.sh("ip link set lo up").run().code(0);
        let ran = s.jc("jc-pull").args(["--retry", "1", "127.0.0.1:9/x"]).run().code(1);
        assert!(ran.err().contains("another attempt in 0."), "{ran}");
        let ran = s.jc("jc-pull").args(["-q", "--retry", "1", "127.0.0.1:9/x"]).run().code(1);
        assert!(!ran.err().contains("another attempt"), "{ran}");
        s.sh("jc-pull -q --tar - oci:/srv/image | head -c 1 | wc -c")
            .run()
            .stdout("1\n")
            .stderr("");
    });
}

/// A limit inside of another one is below it, or an error that names the option.
#[test]
fn an_inner_limit_does_not_escape_an_outer_one() {
    if !can_limit("memory") {
        return;
    }
    sandbox(|s| {
        // The hierarchies are those of the host, with the groups of other tests.
        let outer = "jc-cgroup --name habits-outer -m 64M --";
        let inner = "-m 512M -- dd if=/dev/zero of=/dev/null bs=256M count=1";
        let ran = s.sh(&format!("{outer} jc-cgroup {inner}")).run();
        let is_below = ran.status().code() == Some(137);
        let is_refused =
            ran.status().code() == Some(125) && ran.err().contains("--parent jc+habits-outer");
        let is_v2 = Controller::of(std::process::id(), "memory").is_some_and(|memory| memory.v2);
        assert_eq!((is_below, is_refused), (!is_v2, is_v2), "{ran}");
        if is_refused {
            s.sh(&format!("{outer} jc-cgroup --parent jc+habits-outer {inner}")).run().code(137);
            return;
        }
        // The inner group is found by its name, and a killed one is swept.
        let list = "jc-cgroup --list | cut -f 1 | grep ^habits-";
        let nested = format!(
            "{outer} jc-cgroup --name habits-in -m 32M -- sh -c '{list}; jc-cgroup --stat habits-in | jq -r .name'"
        );
        s.sh(&nested).run().code(0).stdout("habits-in\nhabits-outer\nhabits-in\n");
        s.sh("printf 'kill -9 $PPID; sleep 1000' > die").run().code(0);
        let killed = format!(
            "jc-cgroup --name habits-in -m 32M -- sh die; while jc-cgroup --stat habits-in >stat 2>&1; do :; done; {list}"
        );
        s.sh(&format!("{outer} sh -c '{killed}'")).run().code(0).stdout("habits-outer\n");
        s.sh(list).run().code(1).stdout("");
    });
}
