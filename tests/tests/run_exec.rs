//! jc-exec: its program has the same environment as the payload.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::cgroups::can_limit;
use jc_tests::roots::busybox_root;
use jc_tests::{Ran, Sandbox, diff, sandbox, wait_until};

fn start(s: &Sandbox, options: &str) -> String {
    let line = format!("jc-run -d --rm {options} --rootfs root -- sh -c 'echo ready; sleep 1000'");
    let id = s.sh(&line).run().code(0).stderr("").out().trim_end().to_owned();
    wait_until("ready", || s.sh(&format!("jc-logs {id}")).run().out() == "ready\n");
    id
}

fn exec(s: &Sandbox, words: &str) -> Ran {
    s.sh(&format!("jc-exec {words}")).run()
}

/// A script that shows namespaces, cgroup, root, privileges and environment of PID 1.
const VIEW: &str = "for k in cgroup ipc mnt net pid uts user; do readlink /proc/$P/ns/$k; done
    grep -E \"^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)\" /proc/$P/status
    cat /proc/$P/cgroup /proc/$P/mountinfo /proc/$P/limits
    tr \"\\0\" \"\\n\" < /proc/$P/environ | grep -vE \"^(SHLVL|PWD)=\" | sort";

#[test]
fn a_program_in_a_container_is_like_its_first() {
    sandbox(|s| {
        let root = busybox_root(s, "root");
        std::os::unix::fs::symlink("busybox", root.join("bin/tr")).unwrap();
        let limits = if can_limit("memory") { "-m 64M" } else { "" };
        for options in [
            "",
            "--user web --group-add 7 --cap-drop KILL --ulimit nofile=99",
            "--cap-add SYS_PTRACE --security-opt seccomp=unconfined -e A=1 --hostname h",
            "--privileged --init",
            "--uts host --ipc host",
            "--network host --read-only --tmpfs /tmp",
            "--uidmap 0:0:65536 --gidmap 0:0:65536",
            limits,
        ] {
            let id = start(s, options);
            let view = |pid: &str| {
                let line = format!("{id} sh -c 'P={pid}; {VIEW}'");
                exec(s, &line).code(0).stderr("").out()
            };
            // With `--init` the payload is the child of PID 1.
            let first = if options.contains("--init") { "2" } else { "1" };
            let (first, own) = (view(first), view("$$"));
            assert!(first.lines().count() > 50, "{first}");
            assert_eq!(diff(&own, &first), "", "{options}");
            s.sh(&format!("jc-rm -f {id}")).run().code(0);
        }
    });
}

#[test]
fn options_of_jc_exec_come_before_the_container() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = start(s, "-u web -w /tmp -e A=1 -e B=2");
        let show = "sh -c 'echo $(id -u) $PWD $A $B'";
        exec(s, &format!("{id} {show}")).code(0).stdout("33 /tmp 1 2\n");
        let other = exec(s, &format!("-u 0 -w /etc -e B=3 {id} -- {show}"));
        other.code(0).stdout("0 /etc 1 3\n");
        exec(s, &format!("{id} sh -c 'exit 42'")).code(42);
        exec(s, &format!("{id} sh -c 'kill -9 $$'")).code(137).stderr("");
        exec(s, &format!("{id} nothing")).code(127).fails_as("jc-rootfs", "nothing");
        exec(s, &format!("{id} /etc")).code(126).fails_as("jc-rootfs", "/etc");
        exec(s, &format!("--nonsense {id} true")).code(125).fails_as("jc-exec", "--nonsense");
        s.sh(&format!("echo piped | jc-exec -i {id} cat")).run().code(0).stdout("piped\n");
        // The program gets a variable that was passed on to the container from there.
        s.sh(&format!("jc-rm -f {id}")).run().code(0);
        let line = "jc-run -d --rm -e GIVEN --rootfs root -- sleep 1000";
        let id = s.sh(line).env("GIVEN", "then").run().code(0).out();
        exec(s, &format!("{} sh -c 'echo $GIVEN'", id.trim())).stdout("then\n");
        s.sh(&format!("jc-rm -f {id}")).run().code(0);
    });
}

/// Every user can read the command line of a process (proc_pid_cmdline(5)).
#[test]
fn the_values_of_variables_are_on_no_command_line() {
    sandbox(|s| {
        busybox_root(s, "root");
        let line = "jc-run -d --rm --network none -e GIVEN -e TERM=own --rootfs root -- sleep 1000";
        let id = s.sh(line).env("GIVEN", "s3cret\n=1").run().code(0).out();
        let id = id.trim();
        let script = "echo \"$GIVEN $MORE $TERM\"; echo ready; exec sleep 1000";
        let exec = s.jc("jc-exec").args(["-e", "MORE", id, "sh", "-c", script]);
        let mut running =
            exec.env("MORE", "s3cret2").env("GIVEN", "other").env("TERM", "x").spawn();
        running.wait_for("ready");
        assert_eq!(running.stdout_so_far(), "s3cret\n=1 s3cret2 own\nready\n");
        s.sh("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c s3cre[t]").run().stdout("0\n");
        s.sh(&format!("jc-rm -f {id}")).run().code(0);
        running.wait();
    });
}

#[test]
fn jc_exec_runs_a_chain() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = start(s, "");
        let chain = exec(s, &format!("--print -u web {id} sh -c 'id -u; hostname'")).code(0).out();
        let links: Vec<&str> = chain.lines().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(links, ["jc-unshare", "jc-rootfs", "sh"], "{chain}");
        s.sh(&chain).run().code(0).stdout(&format!("33\n{id}\n"));
        let json = exec(s, &format!("--print=json {id} hostname")).code(0).out();
        let vectors: Vec<Vec<String>> = serde_json::from_str(&json).unwrap();
        let words = vectors.concat();
        s.cmd(&words[0]).args(&words[1..]).run().code(0).stdout(&format!("{id}\n"));
        s.sh(&format!("jc-rm -f {id}")).run().code(0);
    });
}

#[test]
fn a_container_that_ends_meanwhile_is_an_error_that_says_so() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = start(s, "");
        let running = s.sh(&format!("exec jc-exec {id} sh -c 'echo in; sleep 1000'")).spawn();
        let mut running = running;
        running.wait_for("in");
        s.sh(&format!("jc-stop {id}")).run().code(0);
        running.wait().code(125).fails_as("jc-exec", "the container has ended");
        let kept = "jc-run -d --name k --rootfs root -- true";
        s.sh(kept).run().code(0);
        s.wait_for_no_process();
        exec(s, "k true").code(125).fails_as("jc-exec", "the container has ended");
        s.sh("jc-rm k").run().code(0);
    });
}

/// The end of PID 1 waits for a process whose parent, outside of the PID namespace, does not reap it. The namespaces of
/// PID 1 have gone by then.
#[test]
fn a_container_whose_end_takes_time_has_ended() {
    sandbox(|s| {
        busybox_root(s, "root");
        let id = start(s, "");
        let mut running = s.sh(&format!("exec jc-exec {id} sh -c 'echo in; sleep 1000'")).spawn();
        running.wait_for("in");
        let link = format!("$(cat /proc/{0}/task/{0}/children)", running.pid());
        let kill = "kill -9 $(jc-list --json | jq .pid)";
        s.sh(&format!("kill -STOP {link} && {kill}")).run().code(0);
        wait_until("the end of the namespaces", || {
            s.sh("test -e /proc/$(jc-list --json | jq .pid)/ns/net").run().status().code()
                != Some(0)
        });
        exec(s, &format!("{id} true")).code(125).fails_as("jc-exec", "the container has ended");
        s.sh(&format!("kill -CONT {link}")).run().code(0);
        running.wait().code(125).fails_as("jc-exec", "the container has ended");
    });
}

/// PID 1 of the test reaps orphans, like the init of every system: it reaps a process whose parent was outside of its
/// PID namespace, and the container ends only after that.
#[test]
fn a_kill_of_jc_exec_kills_its_program() {
    sandbox(|s| {
        busybox_root(s, "root");
        let script = "id=$(jc-run -d --rm --rootfs root -- sleep 1000)
            jc-exec $id sh -c 'echo in; exec sleep 1001' > said &
            until grep -q in said; do sleep 0.01; done
            kill -9 $!
            while jc-exec $id ps | grep -q 1001; do sleep 0.01; done
            jc-list -q | grep -qx $id && echo runs
            jc-rm -f $id && jc-list -aq";
        fs::write(s.path("script"), script).unwrap();
        let init =
            ["-f", "-p", "--mount-proc", "sh", "-c", "timeout 10 sh script 2>/dev/null; true"];
        s.cmd("unshare").args(init).run().code(0).stdout("runs\n");
    });
}
