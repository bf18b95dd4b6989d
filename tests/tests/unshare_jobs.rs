//! Keys and jobs at an interactive shell, on a real terminal (tmux): the screen shows the same with jc-unshare and
//! without.

#![cfg(target_os = "linux")]

use jc_tests::screen::Screen;
use jc_tests::{Sandbox, require, sandbox, wait_until_idle};

/// The links whose effect must be invisible.
const CHAINS: [&str; 3] = ["jc-unshare -u --", "jc-unshare -p --", "jc-unshare -p --init --"];

/// The jobs of a shell behind the chain.
fn shell(s: &Sandbox, chain: &str) -> String {
    let screen = Screen::new(s);
    screen.line(&format!("{chain} env PS1='i$ ' sh"));
    screen.prompts("sh", "i$");
    screen.line("clear");
    screen.wait(|screen| screen == "i$");
    for end in ["C-c", "C-\\"] {
        screen.line("sleep 100");
        screen.runs("sleep");
        screen.key(end);
        screen.prompts("sleep 100", "i$");
    }
    screen.line("sleep 200");
    screen.runs("sleep");
    screen.key("C-z");
    screen.prompts("Stopped", "i$");
    screen.line("fg");
    screen.runs("sleep");
    screen.key("C-z");
    screen.prompts("fg", "i$");
    screen.ask("bg", "i$");
    screen.ask("jobs", "i$");
    // A background job that reads from the terminal.
    screen.ask("cat & until jobs >list; grep -q '+ Stopped' list; do :; done", "i$");
    screen.ask("jobs # both", "i$");
    screen.line("fg %2");
    screen.runs("cat");
    screen.line("typed");
    screen.wait(|screen| screen.ends_with("typed\ntyped"));
    screen.key("C-d");
    screen.prompts("typed", "i$");
    screen.ask("kill %1; wait", "i$");
    screen.ask("stty size", "i$");
    screen.tmux(&["resize-window", "-x", "100", "-y", "45"]);
    screen.ask("stty size # again", "i$");
    let shown = screen.shown();
    // The terminal belongs to the outer shell again, however the inner shell ends.
    screen.line("exit");
    screen.wait(|screen| screen.lines().last() == Some("o$"));
    screen.ask("stty size; jobs", "o$");
    screen.line("sleep 300");
    screen.runs("sleep");
    screen.key("C-c");
    screen.prompts("sleep 300", "o$");
    shown
}

#[test]
fn a_shell_in_a_chain_controls_jobs_as_a_plain_one_does() {
    sandbox(|s| {
        let plain = shell(s, "");
        assert!(plain.contains("Terminated") && plain.contains("\n45 100\n"), "{plain}");
        for chain in CHAINS {
            assert_eq!(shell(s, chain), plain, "{chain}");
        }
    });
}

/// Programs behind the chain as jobs of a shell.
fn jobs(s: &Sandbox, chain: &str) -> String {
    let screen = Screen::new(s);
    let line = |command: &str| format!("{chain} {command}").trim_start().to_owned();
    screen.line(&line("sleep 100"));
    screen.runs("sleep");
    screen.key("C-z");
    screen.prompts("Stopped", "o$");
    screen.line("fg");
    screen.runs("sleep");
    screen.key("C-c");
    screen.prompts("fg", "o$");
    screen.ask("echo code $?", "o$");

    screen.line(&line("cat"));
    screen.runs("cat");
    screen.line("one");
    screen.wait(|screen| screen.ends_with("one\none"));
    screen.key("C-z");
    screen.prompts("one", "o$");
    // The job wants to read, which only the foreground group may.
    screen.ask("bg; until jobs | grep -q Stopped; do :; done", "o$");
    screen.line("fg # again");
    screen.runs("cat");
    screen.line("two");
    screen.wait(|screen| screen.ends_with("two\ntwo"));
    screen.key("C-d");
    screen.prompts("two", "o$");

    screen
        .ask(&format!("{} & kill -STOP %1; kill -CONT %1; kill %1; wait", line("sleep 100")), "o$");

    // Ctrl-C ends a loop, and not only its first program. A pipeline stops as a whole.
    screen.line(&format!("for i in 1 2 3; do {}; done", line("sleep 101")));
    screen.runs("sleep");
    screen.key("C-c");
    screen.prompts("done", "o$");
    screen.line(&format!("{} | cat", line("sleep 102")));
    screen.runs("sleep");
    screen.key("C-z");
    screen.prompts("| cat", "o$");
    screen.line("fg # both");
    screen.runs("sleep");
    screen.key("C-c");
    screen.prompts("fg # both", "o$");

    let script = "trap \"stty size; exit\" WINCH; echo here; while :; do sleep 0.02; done";
    screen.line(&line(&format!("sh -c '{script}'")));
    screen.wait(|screen| screen.ends_with("\nhere"));
    screen.tmux(&["resize-window", "-x", "110", "-y", "40"]);
    screen.prompts("here", "o$");
    let shown = match chain {
        "" => screen.shown(),
        chain => screen.shown().replace(&format!("{chain} "), ""),
    };
    // The shell prints the PID of a background job. A link that was killed before it could forward signals ends by
    // the signal, and later it reports the end of its child by the exit code.
    let without_pid = |line: &str| match line.strip_prefix("[1] ") {
        Some(pid) if pid.parse::<u32>().is_ok() => "[1] PID\n".to_owned(),
        _ => format!("{line}\n").replace("Exit 143  ", "Terminated"),
    };
    shown.lines().map(without_pid).collect()
}

#[test]
fn chains_are_jobs_as_plain_programs_are() {
    sandbox(|s| {
        let plain = jobs(s, "");
        assert!(plain.contains("code 130") && plain.contains("\n40 110\n"), "{plain}");
        for chain in CHAINS {
            // The screen of two concurrent writers is not always the same.
            let mut shown = jobs(s, chain);
            for _ in 0..2 {
                if shown != plain {
                    shown = jobs(s, chain);
                }
            }
            assert_eq!(shown, plain, "{chain}\n{shown}\n{plain}");
        }
    });
}

/// An editor, which changes the mode of the terminal, and stops by a signal to its group.
fn editor(s: &Sandbox, chain: &str) -> String {
    let screen = Screen::new(s);
    screen.line(&format!("{chain} vi -u NONE file"));
    screen.wait(|screen| screen.contains("[New"));
    for _ in 0..3 {
        screen.tmux(&["send-keys", "-l", "oword"]);
        screen.key("Escape");
        screen.wait(|screen| screen.contains("word"));
        screen.key("C-z");
        // The kernel does not stop PID 1, and vi waits 6 ms for the stop. If the link needs longer, vi has drawn its
        // screen again.
        if chain == CHAINS[1] {
            screen.wait(|screen| {
                let after = screen.rsplit_once("Stopped").map(|(_, after)| after);
                after.is_some_and(|after| after.lines().any(|line| line == "o$"))
            });
            screen.line("clear");
            screen.wait(|screen| screen == "o$");
        } else {
            screen.prompts("Stopped", "o$");
        }
        screen.ask("stty -a | grep -o '.icanon' # cooked", "o$");
        screen.line("clear; echo outside");
        screen.wait(|screen| screen == "outside\no$");
        screen.line("fg");
        screen.wait(|screen| screen.contains("word") && !screen.contains("outside"));
        screen.runs("vi");
        // The key of the next stop would stop a link that has not gone on yet, and not a vi that is PID 1.
        wait_until_idle("jc-");
    }
    screen.line(":wq");
    // The cursor may be anywhere after the editor.
    screen.wait(|screen| screen.lines().any(|line| line == "o$"));
    screen.line("clear; echo code $?");
    screen.wait(|screen| screen == "code 0\no$");
    screen.ask("stty -a | grep -o '.icanon'", "o$");
    std::fs::read_to_string(s.path("file")).unwrap()
}

#[test]
fn an_editor_in_a_chain_is_suspended_and_continued() {
    sandbox(|s| {
        require(s, "vi", "vim-tiny");
        for chain in ["", CHAINS[0], CHAINS[1], CHAINS[2]] {
            assert_eq!(editor(s, chain), "\nword\nword\nword\n", "{chain}");
            std::fs::remove_file(s.path("file")).unwrap();
        }
    });
}

/// A program is stopped and continued exactly once, however many links receive the shell's signals too.
#[test]
fn a_key_makes_one_stop_and_one_continuation() {
    sandbox(|s| {
        require(s, "perl", "perl-base");
        let script = "$| = 1; $SIG{CONT} = sub { print qq(on\n) }; print qq(up\n); sleep 1 while 1";
        std::fs::write(s.path("count"), script).unwrap();
        let links = format!("jc-cgroup -- jc-cgroup -- {}", CHAINS[2]);
        for chain in ["", CHAINS[0], CHAINS[1], CHAINS[2], &links] {
            let screen = Screen::new(s);
            screen.line(&format!("{chain} perl count"));
            screen.wait(|screen| screen.ends_with("\nup"));
            for _ in 0..3 {
                screen.key("C-z");
                screen.prompts("Stopped", "o$");
                screen.line("clear; fg");
                screen.wait(|screen| screen.ends_with("\non"));
                // Links that sleep have forwarded all signals. The terminal echoes the line behind the output so far.
                screen.runs("perl");
                for name in ["jc-", "perl"] {
                    wait_until_idle(name);
                }
                screen.line("echoed");
                screen.wait(|screen| screen.ends_with("\nechoed"));
                let shown = screen.shown();
                assert_eq!(shown.matches("\non").count(), 1, "{chain}\n{shown}");
            }
            screen.key("C-c");
            screen.wait(|screen| screen.ends_with("\no$"));
        }
    });
}

/// A script does not take the terminal back as an interactive shell does, whatever happened to the shell that had it.
#[test]
fn the_terminal_is_given_back() {
    sandbox(|s| {
        for chain in ["", CHAINS[0], CHAINS[1], CHAINS[2]] {
            for end in ["exit", "kill -9 $$", "exec true"] {
                // A PID 1 cannot kill itself.
                if end.starts_with("kill") && chain == "jc-unshare -p --" {
                    continue;
                }
                let script = format!("{chain} env PS1='i$ ' sh -i; read -r x; echo got $x");
                std::fs::write(s.path("script"), script).unwrap();
                let screen = Screen::new(s);
                screen.line("sh script");
                screen.wait(|screen| screen.ends_with("i$"));
                screen.line(end);
                // This write would stop a process that is not in the foreground.
                screen.line("it");
                let plain_kill = chain != "jc-unshare -p --init --" && end.starts_with("kill");
                let expected = if plain_kill { "Stopped" } else { "got it" };
                screen.prompts(expected, "o$");
            }
        }
    });
}
