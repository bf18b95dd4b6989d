//! The contract of `jc(7)` for each link and each chain, as checks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::command::Cmd;
use crate::pty::Terminal;
use crate::roots::busybox_root;
use crate::sandbox::Sandbox;
use crate::wait::wait_until_idle;

/// A link with its options, or a chain of links, in front of a payload.
pub struct Chain<'a> {
    sandbox: &'a Sandbox,
    words: Vec<String>,
    /// The tool that reports that the payload cannot be executed.
    executes: &'static str,
    /// The tool that reports a wrong command line.
    parses: String,
    has_root: bool,
}

impl<'a> Chain<'a> {
    /// A chain of words. The last link executes the payload.
    pub fn new(sandbox: &'a Sandbox, words: &[&str], executes: &'static str) -> Self {
        let parses = words[0].to_owned();
        let has_root = words.contains(&"ROOT");
        // The links are named by path, so that the chain does not depend on PATH.
        let full = |word: &&str| match *word {
            "ROOT" => busybox_root(sandbox, "root").display().to_string(),
            word if word.starts_with("jc-") => sandbox.bin(word).display().to_string(),
            word => word.to_owned(),
        };
        Self { sandbox, parses, words: words.iter().map(full).collect(), executes, has_root }
    }

    /// The chain with a payload.
    pub fn cmd(&self, payload: &[&str]) -> Cmd {
        self.behind(&[], payload)
    }

    /// The chain with a shell script as payload.
    pub fn sh(&self, script: &str) -> Cmd {
        self.cmd(&["sh", "-c", script])
    }

    /// The chain behind a well-known program.
    pub fn behind(&self, before: &[&str], payload: &[&str]) -> Cmd {
        let mut all = before.to_vec();
        all.extend(self.words.iter().map(String::as_str));
        all.push("--");
        all.extend(payload);
        self.sandbox.cmd(all[0]).args(&all[1..])
    }

    /// Contract 1: the command line is parsed up to the program.
    pub fn keeps_to_argv(&self) {
        // All words behind the program belong to the program, with or without a `--`.
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let bare = self.sandbox.cmd(words[0]).args(&words[1..]);
        bare.args(["echo", "--help", "-m", "--", "x"]).run().code(0).stdout("--help -m -- x\n");
        self.cmd(&["echo", "--nonsense"]).run().code(0).stdout("--nonsense\n");
        let typo = self.sandbox.cmd(words[0]).arg("--nonsense").args(&words[1..]);
        typo.args(["--", "echo"]).run().code(125).stdout("").fails_as(&self.parses, "--nonsense");
    }

    /// Contract 3: exit codes are those of the payload or of the failed link.
    pub fn keeps_exit_codes(&self) {
        self.cmd(&["true"]).run().code(0).stdout("").stderr("");
        for code in [1, 42, 125, 126, 127, 255] {
            self.sh(&format!("exit {code}")).run().code(code).stdout("").stderr("");
        }
        let missing = self.cmd(&["/nonexistent/program"]).run();
        missing.code(127).stdout("").fails_as(self.executes, "/nonexistent/program");
        let missing = self.cmd(&["no-program-of-this-name"]).run();
        missing.code(127).stdout("").fails_as(self.executes, "no-program-of-this-name");
        let directory = self.cmd(&["/etc"]).run();
        directory.code(126).stdout("").fails_as(self.executes, "/etc: Permission denied");
        let no_program = self.cmd(&["/etc/passwd"]).run();
        no_program.code(126).stdout("").fails_as(self.executes, "/etc/passwd: Permission denied");
        // A SIGCHLD that the caller ignores must not discard the exit status.
        let before = ["env", "--ignore-signal=CHLD"];
        self.behind(&before, &["sh", "-c", "exit 7"]).run().code(7);
    }

    /// Contract 2: stdin, stdout and stderr belong to the payload.
    pub fn keeps_stdio(&self) {
        let data: Vec<u8> = (0..1_000_000u64).map(|i| ((i * i) >> 7) as u8).collect();
        let echoed = self.cmd(&["cat"]).input(data.clone()).run();
        assert!(echoed.out_bytes() == data, "stdin did not reach stdout");
        echoed.code(0);
        self.sh("echo out; echo err >&2").run().code(0).stdout("out\n").stderr("err\n");
        // No byte of stdin is read ahead.
        fs::write(self.sandbox.path("stdin"), "one\ntwo\n").unwrap();
        let line = self.words.iter().map(|w| format!("'{w}'")).collect::<Vec<String>>().join(" ");
        let shared = format!("{{ {line} -- true; cat; }} <stdin");
        self.sandbox.sh(&shared).run().stdout("one\ntwo\n");

        let script = "test -t 0 && test -t 1 && test -t 2 && read -r x && echo \"<$x>\"";
        let mut terminal = Terminal::start(self.sh(script));
        terminal.type_in("typed\n");
        terminal.wait_for("<typed>");
        let (status, shown) = terminal.wait();
        assert_eq!(status.code(), Some(0), "{shown}");
    }

    /// Contract 2: the payload starts with the default SIGPIPE and no signal blocked.
    pub fn keeps_default_signals(&self) {
        // Signals up to 28 are compared. A link may reset or keep the signals that the C library uses itself.
        let show = ["sed", "-n", r"s/^\(Sig[BI][a-z]*\).*\(.\{7\}\)$/\1 \2/p", "/proc/self/status"];
        // An ignored SIGHUP, as nohup(1) sets it, stays ignored.
        let nohup = self.sandbox.cmd("env").arg("--ignore-signal=HUP").args(show).run();
        let before = ["env", "--ignore-signal=PIPE,HUP", "--block-signal=USR1,INT"];
        self.behind(&before, &show).run().code(0).stdout(&nohup.out());
        self.sh("yes | head -1").run().code(0).stdout("y\n").stderr("");
    }

    /// Contract 5: no descriptor of a link reaches the payload. The payload inherits the descriptors of the caller,
    /// or behind a jc-rootfs only the first three.
    pub fn keeps_descriptors(&self) {
        let show = ["ls", "/proc/self/fd"];
        // ls opens the directory with the lowest free descriptor.
        let expected = if self.has_root {
            "0\n1\n2\n3\n".to_owned()
        } else {
            self.sandbox.cmd(show[0]).arg(show[1]).run().out()
        };
        self.cmd(&show).run().code(0).stdout(&expected);
    }

    /// Signals to the first link reach the payload once, and have the same effect there.
    pub fn forwards_signals(&self) {
        let terminating =
            [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::USR1, 138)];
        for (signal, code) in terminating {
            let mut running = self.sh("echo ready; exec sleep 1000").spawn();
            running.wait_for("ready");
            running.signal(signal);
            running.wait().shell_code(code);
            self.sandbox.wait_for_no_process();
        }
        let script = "trap 'echo got' TERM; trap : USR1; trap 'exit 9' HUP; echo ready
            while :; do sleep 0.03; done";
        let mut running = self.sh(script).spawn();
        running.wait_for("ready");
        running.signal(Signal::TERM);
        running.signal(Signal::USR1);
        running.wait_for("got");
        wait_until_idle("jc-");
        running.signal(Signal::HUP);
        running.wait().code(9).stdout("ready\ngot\n");

        let script = "trap '' TERM; trap 'exit 9' HUP; echo ready; while :; do sleep 0.03; done";
        let mut running = self.sh(script).spawn();
        running.wait_for("ready");
        running.signal(Signal::TERM);
        wait_until_idle("jc-");
        running.signal(Signal::HUP);
        running.wait().code(9);
    }

    /// A waiting link forwards a signal that arrives before the wait begins. strace delays the link there.
    pub fn hears_early_signals(&self) {
        let slow = [
            "strace",
            "--output=/dev/null",
            "--quiet=all",
            "--trace=clone3,clone",
            "--inject=clone3,clone:delay_exit=400000",
            "--",
        ];
        let script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.03; done";
        let mut running = self.behind(&slow, &["sh", "-c", script]).spawn();
        running.wait_for("ready");
        let link = Path::new(&self.words[0]).file_name().unwrap();
        let pid = self.sandbox.cmd("pidof").arg("-s").arg(link).run().code(0).out();
        self.sandbox.cmd("kill").args(["-TERM", pid.trim()]).run().code(0);
        running.wait().code(9).stdout("ready\ngot\n");
    }

    /// Keys of a terminal: the payload receives each signal once, although the payload is in the same process group.
    pub fn obeys_the_terminal(&self) {
        let script = "n=0; trap 'n=$((n+1))' INT; trap 'echo counted $n; exit 0' USR1; echo ready
            while :; do sleep 0.03; done";
        let mut terminal = Terminal::start(self.sh(script));
        terminal.wait_for("ready");
        terminal.type_in("\x03");
        // The terminal echoes the key after the signal.
        terminal.wait_for("^C");
        wait_until_idle("jc-");
        let pid = terminal.pid().to_string();
        self.sandbox.cmd("kill").args(["-USR1", &pid]).run().code(0);
        terminal.wait_for("counted 1");
        assert_eq!(terminal.wait().0.code(), Some(0));

        // The payload is no shell, since a shell would catch the signal until its exec.
        let waiting = ["cat", "/etc/passwd", "-"];
        let mut terminal = Terminal::start(self.cmd(&waiting));
        terminal.wait_for("root:");
        terminal.type_in("\x03");
        let (status, shown) = terminal.wait();
        let code = status.code().or(std::os::unix::process::ExitStatusExt::signal(&status));
        assert!(matches!(code, Some(130 | 2)), "{status} {shown}");
    }

    /// Contract 7: the payload ends at once when the first link is killed.
    pub fn dies_with_its_links(&self) {
        let mut running = self.sh("trap '' TERM HUP INT; echo ready; exec sleep 1000").spawn();
        running.wait_for("ready");
        running.signal(Signal::KILL);
        running.wait().killed_by(Signal::KILL);
        self.sandbox.wait_for_no_process();
        // The next link removes the objects of a killed waiting link; jc-list does so for jc-run.
        self.cmd(&["true"]).run().code(0);
        if self.words[0].ends_with("jc-run") {
            self.sandbox.jc("jc-list").run().code(0);
        }
    }

    /// Contract 10: programs that change their own process work in front of the chain.
    pub fn composes(&self) {
        // The environment of a container is not that of the caller.
        let variable = if self.words[0].ends_with("jc-run") { "\n" } else { "b\n" };
        let cases: [(&[&str], &str, &str); 5] = [
            (&["env", "-i", "PATH=/usr/bin:/bin", "A=b"], "echo $A", variable),
            (&["prlimit", "--nofile=64"], "ulimit -n", "64\n"),
            (&["nice", "-n", "5"], "cut -d' ' -f19 /proc/self/stat", "5\n"),
            (&["choom", "-n", "500", "--"], "cat /proc/self/oom_score_adj", "500\n"),
            (
                &["taskset", "1"],
                "grep Cpus_allowed_list /proc/self/status",
                "Cpus_allowed_list:\t0\n",
            ),
        ];
        for (before, script, stdout) in cases {
            let ran = self.behind(before, &["sh", "-c", script]).run();
            ran.code(0).stdout(stdout).stderr("");
        }
        let slow = self.behind(&["timeout", "0.3"], &["sleep", "1000"]);
        slow.timeout(Duration::from_secs(5)).run().code(124);
        self.sandbox.wait_for_no_process();
        self.behind(&["setsid", "--wait"], &["sh", "-c", "exit 6"]).run().code(6);
    }
}

/// Defines a module with a test for each check of a chain, or for the named checks. The words of the chain may
/// contain `ROOT`, a small root that is made for the test.
#[macro_export]
macro_rules! keeps_the_contract {
    ($name:ident, $words:expr, $executes:expr) => {
        $crate::keeps_the_contract!($name, $words, $executes, [
            keeps_to_argv, keeps_exit_codes, keeps_stdio, keeps_default_signals,
            keeps_descriptors, forwards_signals, obeys_the_terminal, dies_with_its_links,
            composes,
        ]);
    };
    ($name:ident, $words:expr, $executes:expr, [$($check:ident),+ $(,)?]) => {
        mod $name {
            $(#[test]
            fn $check() {
                $crate::sandbox(|s| $crate::contract::Chain::new(s, &$words, $executes).$check());
            })+
        }
    };
}
