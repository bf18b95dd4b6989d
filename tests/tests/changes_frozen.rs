//! Containers that jc-changes and jc-commit stop while they read: threads that execute programs, wait for children, end or
//! get signals.

#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use jc_tests::image::{Image, Layout};
use jc_tests::layer::{Entry, Layer};
use jc_tests::roots::busybox_layer;
use jc_tests::volume::volume;
use jc_tests::{Ann, Sandbox, require, sandbox, sandbox_for};

/// A program whose first argument names what its threads do.
const THREADS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static int got;
static void count(int signal) { __atomic_add_fetch(&got, 1, 5); }
static void note(const char *name, int a, int b) {
    FILE *f = fopen("/new", "w");
    fprintf(f, "%d %d\n", a, b);
    fclose(f);
    rename("/new", name);
}
static void *spin(void *unused) { for (;;) usleep(100); }
static void *end(void *unused) { usleep(100); return NULL; }
static void *again(void *unused) {
    usleep(rand() % 3000);
    execl("/bin/threads", "threads", "execute", NULL);
    return NULL;
}
int main(int argc, char **argv) {
    pthread_t thread;
    srand(getpid() ^ time(NULL) ^ clock());
    if (!strcmp(argv[1], "execute")) {
        for (int i = 0; i < 8; i++) pthread_create(&thread, NULL, spin, NULL);
        pthread_create(&thread, NULL, again, NULL);
        for (;;) pause();
    }
    if (!strcmp(argv[1], "vfork"))
        for (int n = 0;; n++) {
            pid_t child = vfork();
            if (child == 0) { usleep(20000); _exit(0); }
            waitpid(child, NULL, 0);
            note("/count", n, n);
        }
    if (!strcmp(argv[1], "end"))
        for (;;) {
            if (pthread_create(&thread, NULL, end, NULL) == 0) pthread_detach(thread);
            usleep(50);
        }
    if (!strcmp(argv[1], "leader")) {
        pthread_create(&thread, NULL, spin, NULL);
        pthread_exit(NULL);
    }
    signal(SIGRTMIN + 3, count);
    for (int sent = 0, lost = 0;;) {
        pid_t parent = getpid(), child = fork();
        if (child == 0) {
            union sigval value = {0};
            for (int i = 0; i < 50; i++) while (sigqueue(parent, SIGRTMIN + 3, value)) ;
            _exit(0);
        }
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) ;
        sent += 50;
        for (int i = 0; got < sent && i < 50000; i++) usleep(100);
        lost += sent - got;
        got = sent;
        note("/count", sent, lost);
    }
}
"#;

/// Pulls an image with the program.
fn image(s: &Sandbox) {
    require(s, "cc", "gcc");
    let compile = ["-x", "c", "-O1", "-static", "-pthread", "-o", "threads", "-"];
    s.cmd("cc").args(compile).input(THREADS).run().code(0);
    let program = Entry::file("bin/threads", fs::read(s.path("threads")).unwrap()).mode(0o755);
    let image = Image::new().layer(busybox_layer()).layer(Layer::new().entry(program));
    Layout::new(s.path("image")).image("x", &image);
    s.sh("jc-pull -q oci:/srv/image >base").run().code(0);
}

/// A container with these threads is stopped, again and again.
fn stop(s: &Sandbox, mode: &str) {
    let run = format!("jc-run -d --keep --name c --network none <base -- /bin/threads {mode}");
    s.sh(&run).run().code(0);
    for _ in 0..30 * volume() {
        s.jc("jc-changes").arg("c").run().code(0).stderr("");
    }
}

#[test]
fn threads_that_execute_programs_and_end_are_stopped() {
    sandbox_for(Duration::from_secs(240), |s| {
        image(s);
        for mode in ["execute", "end", "leader"] {
            stop(s, mode);
            s.sh("jc-rm -f c").run().code(0);
        }
        s.wait_for_no_process();
    });
}

/// execve(2), vfork(2) and signals go on afterwards, and after the death of the program that stops the container.
#[test]
fn a_container_that_was_stopped_lacks_no_signal() {
    sandbox_for(Duration::from_secs(240), |s| {
        image(s);
        for mode in ["vfork", "signal"] {
            stop(s, mode);
            let kill = "for n in 0 1 2 3 4 5 6 7 8 9; do \
                jc-changes --tar - c >/dev/null & sleep 0.0$n; kill -9 $! 2>/dev/null; wait $!; done; true";
            s.sh(&format!("{{ {kill}; }} 2>/dev/null")).run().code(0);
            let count = "jc-exec c cat /count";
            let grows =
                format!("a=$({count}); until [ \"$({count})\" != \"$a\" ]; do :; done; {count}");
            let last = s.sh(&grows).run().code(0).out();
            if mode == "signal" {
                assert!(last.ends_with(" 0\n"), "lost signals: {last}");
            }
            s.sh("jc-rm -f c").run().code(0);
        }
        s.wait_for_no_process();
    });
}

/// A container runs on when its changes have been read. jc-commit still waits, since nobody reads its record.
#[test]
fn a_container_runs_on_before_the_end_of_a_commit() {
    sandbox(|s| {
        let commit = |sh: &dyn Fn(&str)| {
            sh("jc-run -d --keep --name c --network none <base -- sh -c 'while :; do echo x >>/log; done'
                until jc-exec c test -s /log; do :; done
                rm -f pipe; mkfifo pipe; exec 3<>pipe; head -c 65536 /dev/zero >&3
                jc-commit --changes c -t local.test/x <base >&3 & commit=$!
                until jc-images | grep -q local.test/x; do sleep 0.01; done
                size() { jc-exec c stat -c %s /log; }
                a=$(size); until [ $(size) -gt $a ]; do :; done
                head -c 65536 <&3 >/dev/null; wait $commit; jc-rm -f c");
        };
        image(s);
        commit(&|script| drop(s.sh(script).run().code(0)));
        let ann = Ann::with_range(s);
        ann.sh("jc-unshare -U --map-auto -- jc-pull -q oci:/srv/image >base").run().code(0);
        commit(&|script| drop(ann.sh(script).run().code(0)));
        s.wait_for_no_process();
    });
}
