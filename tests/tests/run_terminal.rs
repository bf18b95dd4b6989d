//! `-t`: a terminal of the container, and the state of the caller's terminal afterwards.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;

use jc_tests::pty::Terminal;
use jc_tests::roots::busybox_root;
use jc_tests::screen::Screen;
use jc_tests::{Sandbox, require, sandbox, wait_until, workspace_dir};

/// The small root, with an editor.
fn root(s: &Sandbox) {
    let root = busybox_root(s, "root");
    symlink("busybox", root.join("bin/vi")).unwrap();
}

/// A shell in a container, on this screen.
const SHELL: &str = "jc-run -it -e PS1='i$ ' --rootfs root -- sh";

fn modes(screen: &Screen) -> String {
    screen.line("clear");
    screen.wait(|shown| shown == "o$");
    screen.ask("stty -g", "o$");
    let shown = screen.shown();
    screen.line("clear");
    screen.wait(|shown| shown == "o$");
    // The shell may print its prompt behind the echo of the next command.
    shown.lines().find(|line| line.matches(':').count() > 10).unwrap().to_owned()
}

#[test]
fn a_shell_on_a_terminal_controls_its_jobs() {
    sandbox(|s| {
        root(s);
        let screen = Screen::new(s);
        let before = modes(&screen);
        screen.line(SHELL);
        screen.prompts("sh", "i$");
        screen.ask("tty; stty size; test -t 0 && test -t 2 && echo a terminal", "i$");
        let shown = screen.shown();
        assert!(shown.contains("/dev/pts/0\n50 120\na terminal\n"), "{shown}");
        // The size of the window changes.
        screen.tmux(&["resize-window", "-x", "90", "-y", "30"]);
        wait_until("the new size", || {
            screen.line("clear");
            screen.wait(|shown| shown == "i$");
            screen.ask("stty size", "i$");
            screen.shown().contains("\n30 90\n")
        });
        // Keys reach the container: an interrupt, a stop and a continuation, the end of the input.
        screen.line("sleep 1000");
        screen.runs("sleep");
        screen.key("C-c");
        screen.prompts("sleep 1000", "i$");
        screen.ask("echo code $?", "i$");
        assert!(screen.shown().contains("code 130"), "{}", screen.shown());
        screen.line("sleep 1000");
        screen.runs("sleep");
        screen.key("C-z");
        screen.wait(|shown| shown.contains("Stopped"));
        screen.line("fg");
        screen.runs("sleep");
        screen.key("C-c");
        screen.prompts("fg", "i$");
        screen.line("clear; cat");
        screen.runs("cat");
        screen.line("typed");
        screen.wait(|shown| shown.matches("typed").count() == 2);
        screen.key("C-d");
        screen.prompts("typed", "i$");
        // An editor runs in the container.
        screen.line("vi /tmp/file");
        screen.wait(|shown| shown.contains("/tmp/file") && shown.contains('~'));
        let mode = |letter: &str| {
            screen.wait(|shown| shown.lines().last().is_some_and(|line| line.starts_with(letter)));
        };
        screen.key("i");
        mode("I ");
        screen.line("in the editor");
        screen.wait(|shown| shown.contains("in the editor"));
        screen.key("Escape");
        // The status line begins with the mode. Escape is a key of its own if no other key follows at once.
        mode("- ");
        screen.line(":wq");
        screen.wait(|shown| shown.lines().last() == Some("i$"));
        screen.ask("cat /tmp/file", "i$");
        assert!(screen.shown().contains("\nin the editor\n"), "{}", screen.shown());
        screen.line("exit 5");
        screen.wait(|shown| shown.lines().last() == Some("o$"));
        screen.ask("echo code $?", "o$");
        assert!(screen.shown().contains("code 5"), "{}", screen.shown());
        assert_eq!(modes(&screen), before);
        screen.line("exit");
    });
}

#[test]
fn the_terminal_is_sane_after_every_end() {
    sandbox(|s| {
        root(s);
        let screen = Screen::new(s);
        let before = modes(&screen);
        for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130), ("USR1", 138)] {
            screen.line("jc-run -it --rootfs root -- sleep 1000");
            screen.runs("sleep");
            // The signal goes to the process that the shell has started, and not to its child.
            s.sh(&format!("kill -{signal} $(pgrep -o jc-run)")).run().code(0);
            screen.wait(|shown| shown.lines().last() == Some("o$"));
            screen.ask("echo code $?", "o$");
            assert!(screen.shown().contains(&format!("code {code}")), "{}", screen.shown());
            assert_eq!(modes(&screen), before, "{signal}");
            s.sh("jc-list -aq").run().code(0).stdout("");
        }
        // The container ends, or its supervisor is killed.
        for kill in ["kill -9 $(pidof sleep)", "kill -9 $(pgrep -n jc-run)"] {
            screen.line("jc-run -it --rootfs root -- sleep 1000");
            screen.runs("sleep");
            s.sh(kill).run().code(0);
            screen.wait(|shown| shown.lines().last() == Some("o$"));
            assert_eq!(modes(&screen), before, "{kill}");
            s.sh("jc-list -aq").run().code(0).stdout("");
        }
        // The program does not start.
        screen.ask("jc-run -it --rootfs root -- nothing", "o$");
        assert!(
            screen.shown().contains("\njc-rootfs: exec nothing: No such file"),
            "{}",
            screen.shown()
        );
        assert_eq!(modes(&screen), before);
        screen.line("exit");
    });
}

/// A stopped jc-run restores the terminal for the shell, and takes it again when it continues.
#[test]
fn a_stop_from_outside_gives_the_terminal_back() {
    sandbox(|s| {
        root(s);
        let screen = Screen::new(s);
        let before = modes(&screen);
        screen.line(SHELL);
        screen.prompts("sh", "i$");
        // At each prompt the shell asks the terminal where the cursor is. The answer to a stopped
        // jc-run would go to the shell outside, so a program that asks nothing runs meanwhile.
        screen.line("cat");
        screen.runs("cat");
        s.sh("kill -TSTP $(pgrep -o jc-run)").run().code(0);
        screen.wait(|shown| shown.contains("Stopped") && shown.lines().last() == Some("o$"));
        assert_eq!(modes(&screen), before);
        screen.line("fg");
        screen.wait(|shown| shown.contains("jc-run -it"));
        screen.line("typed");
        screen.wait(|shown| shown.contains("typed\ntyped"));
        screen.key("C-d");
        screen.prompts("typed", "i$");
        // There is one echo, since the terminal outside has none.
        screen.ask("echo in $((6 * 7))", "i$");
        assert!(
            screen.shown().contains("\ni$ echo in $((6 * 7))\nin 42\ni$"),
            "{}",
            screen.shown()
        );
        screen.line("exit 0");
        screen.wait(|shown| shown.lines().last() == Some("o$"));
        assert_eq!(modes(&screen), before);
        screen.line("exit");
    });
}

#[test]
fn a_record_on_stdin_leaves_the_keyboard_to_the_terminal() {
    sandbox(|s| {
        root(s);
        let line = "echo '{\"jc\":1,\"rootfs\":\"/srv/root\"}' | jc-run -t -- sh -c \
            'test -t 0 && echo ready && read -r x && echo \"<$x>\" && exit 4'";
        let mut terminal = Terminal::start(s.sh(line));
        terminal.wait_for("ready");
        terminal.type_in("typed\n");
        terminal.wait_for("<typed>");
        assert_eq!(terminal.wait().0.code(), Some(4));
        // Without a terminal, the error says so.
        let none = s.cmd("setsid").args(["--wait", "sh", "-c", line]).run();
        none.code(125).stdout("").fails_as("jc-run", "/dev/tty");
    });
}

#[test]
fn a_program_can_be_executed_on_a_terminal() {
    sandbox(|s| {
        root(s);
        let id = s
            .sh("jc-run -dt --rm --rootfs root -- sh -c 'tty; exec sleep 1000'")
            .run()
            .code(0)
            .out();
        let id = id.trim();
        // The log has the output of a detached terminal.
        wait_until("the log", || s.sh(&format!("jc-logs {id}")).run().out() == "/dev/pts/0\r\n");
        let line = format!("jc-exec -it {id} sh -c 'tty; read -r x && echo \"<$x>\"; exit 6'");
        let mut terminal = Terminal::start(s.sh(&line));
        terminal.wait_for("/dev/pts/1");
        terminal.type_in("typed\n");
        terminal.wait_for("<typed>");
        assert_eq!(terminal.wait().0.code(), Some(6));
        assert!(
            !fs::read_dir(format!("/run/jc/{id}")).unwrap().any(|entry| {
                entry.unwrap().file_name().to_string_lossy().starts_with("console")
            })
        );
        // A hang-up of the terminal ends the program on it.
        let line = format!("exec jc-exec -it {id} sh -c 'echo there; exec sleep 1001'");
        let mut terminal = Terminal::start(s.sh(&line));
        terminal.wait_for("there");
        s.sh(&format!("kill -HUP {}", terminal.pid())).run().code(0);
        assert_eq!(terminal.wait().0.code(), Some(129));
        s.sh(&format!("jc-exec {id} ps | grep -c 1001")).run().stdout("0\n");
        s.sh(&format!("jc-rm -f {id}")).run().code(0);
    });
}

#[test]
fn in_the_background_the_terminal_is_left_to_the_shell() {
    sandbox(|s| {
        root(s);
        let screen = Screen::new(s);
        let before = modes(&screen);
        // The shell reports a stop before its next prompt.
        let is_stopped = || {
            wait_until("the stop", || {
                screen.line("");
                screen.shown().contains("Stopped")
            });
            assert_eq!(modes(&screen), before);
        };
        let goes_on = || {
            screen.line("fg");
            screen.runs("jc-run");
            screen.line("clear");
            screen.wait(|shown| shown == "i$");
            screen.ask("echo $((6 * 7))", "i$");
            assert!(screen.shown().contains("\n42\n"), "{}", screen.shown());
        };
        screen.line(&format!("{SHELL} &"));
        is_stopped();
        goes_on();
        s.sh("kill -TSTP $(ps -o pid= -C jc-run | head -n 1)").run().code(0);
        is_stopped();
        screen.line("clear; bg");
        is_stopped();
        goes_on();
        screen.line("exit");
        screen.wait(|shown| shown.lines().last() == Some("o$"));
        assert_eq!(modes(&screen), before);
    });
}

/// A payload injects input into its own terminal by TIOCSTI (tty_ioctl(4)), and the caller does not read it.
#[test]
fn a_payload_cannot_type_into_the_callers_terminal() {
    sandbox(|s| {
        root(s);
        if !fs::exists("/usr/bin/perl").unwrap() {
            jc_tests::skip!("no perl");
        }
        let type_in = "ioctl(STDIN, 0x5412, my $x = $_) or die \"$!\" for split //, \"touch evil\\n\"; print \"done\\n\"";
        fs::write(s.path("type"), type_in).unwrap();
        let run = "jc-run -it --privileged --pid host --rootfs / -- perl /srv/type";
        let screen = Screen::new(s);
        // The injection works on the payload's own terminal.
        screen.line("perl type");
        screen.wait(|shown| shown.contains("done") && shown.lines().last() == Some("o$"));
        wait_until("the injected command", || s.path("evil").exists());
        fs::remove_file(s.path("evil")).unwrap();
        screen.line(&format!("clear; {run}"));
        screen.wait(|shown| shown.contains("done") && shown.lines().last() == Some("o$"));
        // The shell reads injected input before this line.
        screen.ask("echo end", "o$");
        assert!(!s.path("evil").exists());
        screen.line("exit");
    });
}

/// Without `-t` the payload shares the terminal of its caller. The kernel reads the lower 32 bits of a request.
#[test]
fn a_payload_cannot_type_into_a_terminal_that_it_shares() {
    sandbox(|s| {
        root(s);
        let source = workspace_dir().join("tests/tests/rootfs_support/probe.c");
        s.cmd("cc").args(["-static", "-O1", "-o", "root/bin/probe"]).arg(source).run().code(0);
        let probes = |ioctl: &str| {
            let requests = [0x5412, 0x541C, 1_u64 << 32 | 0x5412];
            requests.map(|request| format!("{ioctl} 1 {request} 8")).join("\\n")
        };
        let mut lines = probes(&format!("native {}", nix::libc::SYS_ioctl));
        if cfg!(target_arch = "x86_64") {
            lines = format!("{lines}\\n{}", probes("x86 54"));
        }
        let script = format!("test -t 1; echo terminal $?; echo -e \"{lines}\" | probe");
        let start = "jc-run -d --name c --rootfs root --network none -- sleep 1000 >/dev/null";
        s.sh(start).run().code(0);
        for chain in ["jc-run --network none --rootfs root --", "jc-exec c"] {
            let (_, shown) =
                Terminal::start(s.sh(&format!("exec {chain} sh -c '{script}'"))).wait();
            assert!(shown.contains("terminal 0"), "{shown}");
            let answers: Vec<&str> = shown.lines().filter(|line| line.contains(": ")).collect();
            assert!(answers.len() >= 3, "{shown}");
            // The kernel cuts the upper half of 64-bit arguments of 32-bit calls off.
            assert!(answers.iter().all(|line| line.ends_with(": Input/output error")), "{shown}");
        }
        s.sh("jc-rm -f c").run().code(0);
    });
}

#[test]
fn a_kill_of_jc_run_kills_the_container() {
    sandbox(|s| {
        root(s);
        let line =
            "exec jc-run -it --rootfs root -- sh -c 'trap : HUP TERM; echo ready; sleep 1000; :'";
        let mut terminal = Terminal::start(s.sh(line));
        terminal.wait_for("ready");
        s.sh(&format!("kill -9 {}", terminal.pid())).run().code(0);
        terminal.wait();
        s.wait_for_no_process();
        s.sh("jc-list -aq").run().code(0).stdout("");
        // The terminal is closed.
        let screen = Screen::new(s);
        screen.line(SHELL);
        screen.prompts("sh", "i$");
        drop(screen);
        s.sh("jc-list -aq").run().code(0).stdout("");
    });
}

#[test]
fn without_a_record_the_error_names_the_options() {
    sandbox(|s| {
        let ways = "hint: with an image, jc-run --image true";
        let (status, shown) = Terminal::start(s.sh("jc-run true")).wait();
        assert_eq!(status.code(), Some(125));
        assert!(shown.starts_with("jc-run: nothing to run: ") && shown.contains(ways), "{shown}");
        let nobody = s.sh("jc-run true </dev/null").run().code(125).fails_as("jc-run", "nothing");
        assert!(nobody.err().contains(ways), "{nobody}");
        // The program that was to write the record has reported the error.
        let silent = s.sh("exit 3 | jc-run true").run().code(125);
        silent.stderr("jc-run: no record on stdin\n");
    });
}

/// Another program may have made the description of stdout non-blocking, and the reader may be slow.
#[test]
fn output_is_written_whole_or_the_failure_is_an_error() {
    sandbox(|s| {
        root(s);
        require(s, "perl", "perl-base");
        let run = "jc-run -it --network none --rootfs root -- seq 20000";
        let (status, shown) = Terminal::start(s.sh(&format!("exec {run} >/dev/full"))).wait();
        assert_eq!(status.code(), Some(125), "{shown}");
        assert_eq!(shown, "jc-run: write stdout: No space left on device\r\n");
        let nonblocking =
            "perl -MFcntl -e 'fcntl STDOUT, F_SETFL, O_WRONLY | O_NONBLOCK; exec @ARGV'";
        let slow =
            "perl -e 'while (sysread STDIN, $_, 999) { print; select undef, undef, undef, 1e-3 }'";
        let line = format!(
            "{nonblocking} {run} | {slow} | sha256sum; seq 20000 | sed 's/$/\\r/' | sha256sum"
        );
        let (_, shown) = Terminal::start(s.sh(&line)).wait();
        let sums: Vec<&str> = shown.lines().collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{shown}");
    });
}
