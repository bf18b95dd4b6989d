//! Everyday command lines of docker(1) and their equivalents with jc: the same options, and the same results.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::cgroups::can_limit;
use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::busybox_layer;
use jc_tests::{Sandbox, sandbox, wait_until};
use serde_json::json;

/// A command line and its result.
struct Line {
    /// The line for Docker, with IMAGE for the name of the image.
    docker: &'static str,
    /// The words behind `jc-run`, if they differ.
    jc: &'static str,
    code: i32,
    stdout: &'static str,
}

const fn same(docker: &'static str, code: i32, stdout: &'static str) -> Line {
    Line { docker, jc: "", code, stdout }
}

const fn with(docker: &'static str, jc: &'static str, code: i32, stdout: &'static str) -> Line {
    Line { docker, jc, code, stdout }
}

/// The words behind IMAGE for Docker are behind `--image IMAGE --` for jc.
const LINES: [Line; 19] = [
    // A single run, with the program of the image and with that of the user.
    same("docker run --rm IMAGE", 0, "the image's own\n"),
    same("docker run --rm IMAGE echo mine", 0, "mine\n"),
    same("docker run --rm IMAGE sh -c 'exit 3'", 3, ""),
    same("docker run --rm --entrypoint cat IMAGE /etc/motd", 0, "welcome\n"),
    // Data through stdin and stdout.
    same("printf '3\\n1\\n2\\n' | docker run --rm -i IMAGE sort", 0, "1\n2\n3\n"),
    same("docker run --rm IMAGE cat /etc/motd | wc -c", 0, "8\n"),
    // A build step in the source tree, as the calling user.
    same(
        "docker run --rm -v /srv/src:/src -w /src -u 1000:1000 IMAGE sh -c 'cat in > out; ls -n out | cut -c 1-4; stat -c %u:%g out; pwd'",
        0,
        "-rw-\n1000:1000\n/src\n",
    ),
    same("docker run --rm -v /srv/src:/src:ro IMAGE touch /src/x", 1, ""),
    // Environment variables.
    same(
        "docker run --rm -e A=1 -e B IMAGE sh -c 'echo $A $B $GREETING'",
        0,
        "1 from-outside hello\n",
    ),
    same("docker run --rm --env-file /srv/env IMAGE sh -c 'echo $C'", 0, "three\n"),
    // User, working directory and host name.
    same(
        "docker run --rm --hostname box IMAGE sh -c 'hostname; cat /etc/hostname'",
        0,
        "box\nbox\n",
    ),
    same("docker run --rm --user web --group-add 7 IMAGE sh -c 'id -u; id -G'", 0, "33\n34 4 7\n"),
    // Restrictions.
    same(
        "docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges IMAGE sh -c 'touch /tmp/x && ! touch /x 2>/dev/null && echo locked'",
        0,
        "locked\n",
    ),
    same("docker run --rm --network none IMAGE sh -c 'ip -o link | wc -l'", 0, "1\n"),
    same("docker run --rm --init IMAGE sh -c 'kill -TERM $$'", 143, ""),
    same("docker run --rm --ulimit nofile=100:200 IMAGE sh -c 'ulimit -n'", 0, "100\n"),
    // A limit with Docker's name for an option of a link.
    with(
        "docker run --rm --shm-size 16m --dns 10.9.9.9 IMAGE sh -c 'df -k /dev/shm | tail -1 | cut -c 1-3; grep -c 10.9.9.9 /etc/resolv.conf'",
        "--shm-size 16m --dns 10.9.9.9 --image IMAGE -- sh -c 'df -k /dev/shm | grep -c 16384; grep -c 10.9.9.9 /etc/resolv.conf'",
        0,
        "1\n1\n",
    ),
    same(
        "docker run --rm --network host --dns 10.9.9.9 IMAGE grep nameserver /etc/resolv.conf",
        0,
        "nameserver 10.9.9.9\n",
    ),
    same(
        "docker run --rm --network none --dns-search a.example IMAGE grep search /etc/resolv.conf",
        0,
        "search a.example\n",
    ),
];

fn image(s: &Sandbox) {
    let more = Layer::new()
        .entry(Entry::file("etc/motd", "welcome\n"))
        .entry(Entry::dir("data/").owner(33, 34).mode(0o700));
    let config = json!({"Cmd": ["echo", "the image's own"], "Env": ["PATH=/bin", "GREETING=hello"],
        "Volumes": {"/data": {}}, "ExposedPorts": {"8000/tcp": {}}});
    let image = Image::new().layer(busybox_layer()).layer(more).config(config);
    Layout::new(s.path("image")).image("x", &image);
    s.sh("mkdir src && echo text > src/in && chown -R 1000:1000 src").run().code(0);
    fs::write(s.path("env"), "# a comment\nC=three\n").unwrap();
}

fn for_jc(line: &Line) -> String {
    let (before, rest) = line.docker.split_once("docker run ").unwrap();
    let rest = match line.jc {
        "" => rest.replacen("IMAGE", "--image IMAGE --", 1),
        jc => jc.to_owned(),
    };
    format!("{before}jc-run {rest}").replace("IMAGE", "oci:/srv/image")
}

#[test]
fn lines_of_docker_give_the_same_with_jc() {
    sandbox(|s| {
        image(s);
        s.sh("jc-pull -q oci:/srv/image").run().code(0);
        for line in LINES {
            let ran = s.sh(&for_jc(&line)).env("B", "from-outside").run();
            ran.code(line.code).stdout(line.stdout);
        }
        if can_limit("memory") && can_limit("pids") {
            let limits = "jc-run --rm -m 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 --image oci:/srv/image --";
            s.sh(&format!("{limits} echo limited")).run().code(0).stdout("limited\n");
            let dd = "dd if=/dev/zero of=/dev/null bs=200M count=1";
            s.sh(&format!("{limits} {dd}")).run().code(137);
        }
        s.sh("jc-list -aq").run().stdout("");
        s.wait_for_no_process();
    });
}

/// `docker run -d --name web -p 8080:8000 IMAGE httpd`, and the life of the container.
#[test]
fn a_web_server_answers_on_a_published_port() {
    sandbox(|s| {
        image(s);
        let serve =
            "while :; do printf \"HTTP/1.0 200 OK\\r\\n\\r\\nserved\" | nc -l -p 8000; done";
        let line =
            format!("jc-run -d --name web -p 8080:8000 --image oci:/srv/image -- sh -c '{serve}'");
        let id = s.sh(&line).run().code(0).out();
        let get = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; timeout 2 cat <&3";
        wait_until("the server", || s.cmd("bash").args(["-c", get]).run().out().contains("served"));
        let listed = s.sh("jc-list").run().out();
        assert!(listed.contains("0.0.0.0:8080->8000/tcp"), "{listed}");
        let address = "jq -r '.annotations[\"jc.addresses\"]' /run/jc/web/state.json | cut -d/ -f1";
        let address = s.sh(address).run().code(0).out();
        // The container's own /etc/hosts has its name.
        let hosts = s.sh("jc-exec web cat /etc/hosts").run().code(0).out();
        assert!(hosts.contains(&format!("{}\t{}", address.trim(), id.trim())), "{hosts}");
        // docker run --network container:web
        let other = "jc-run --network container:web --image oci:/srv/image -- sh -c 'ip -o -4 addr; cat /etc/hosts'";
        assert!(s.sh(other).run().code(0).out().contains(address.trim()));
        s.sh("jc-stop -t 1 web && jc-rm web").run().code(0).stderr("");
        // docker run -P
        let all = s.sh("jc-run -d --rm --name p -P --image oci:/srv/image -- sleep 1000").run();
        all.code(0);
        let ports = s.sh("jc-list").run().out();
        assert!(ports.contains("->8000/tcp"), "{ports}");
        s.sh("jc-rm -f p").run().code(0);
    });
}

/// `docker run -d --name db -v /srv/db:/var/lib/db IMAGE database`: the data outlives the container.
#[test]
fn a_database_keeps_its_data_in_a_volume() {
    sandbox(|s| {
        image(s);
        let line = "jc-run -d --name db -v /srv/db:/var/lib/db:create --image oci:/srv/image -- \
            sh -c 'cat /var/lib/db/table 2>/dev/null; trap \"echo row >> /var/lib/db/table; exit 0\" TERM; echo up; while :; do sleep 0.02; done'";
        for before in ["", "row\n", "row\nrow\n"] {
            s.sh(line).run().code(0);
            let log = format!("{before}up\n");
            wait_until(&log, || s.sh("jc-logs db").run().out() == log);
            s.sh("jc-stop db && jc-rm db").run().code(0);
        }
        // The volume that the image declares is empty, and belongs to the user of the image.
        let volume = "jc-run --read-only -u web --image oci:/srv/image -- \
            sh -c 'stat -c %a:%u:%g /data; ls -A /data; touch /data/x && echo written'";
        for _ in 0..2 {
            s.sh(volume).run().code(0).stdout("700:33:34\nwritten\n");
        }
    });
}
