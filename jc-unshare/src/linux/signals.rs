//! Names and default actions of signals, and the signals that the kernel sends to process groups.

use nix::libc;
use nix::sys::signal::Signal;

/// The default action of a signal.
#[derive(Debug, Eq, PartialEq)]
pub enum Action {
    /// The signal ends the process, with a core dump or without.
    Terminate,
    /// The signal stops the process.
    Stop,
    /// The signal is ignored or continues the process, also as PID 1.
    None,
}

/// The default action of a signal that may be caught (signal(7)).
pub fn default_action(signal: i32) -> Action {
    match signal {
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => Action::None,
        signal if stops_by_terminal(signal) => Action::Stop,
        _ => Action::Terminate,
    }
}

/// Whether a signal is a stop signal of job control. The stop must then be visible to the shell.
pub fn stops_by_terminal(signal: i32) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// Whether the kernel sent a signal to a whole process group. The groups receive the signals of a terminal's keys,
/// and SIGHUP and SIGCONT at the end of a session. Only the session leader receives SIGHUP and SIGCONT when the
/// terminal hangs up. All other signals, like that of a timer, are for one process.
pub fn goes_to_group(signal: i32, is_session_leader: bool) -> bool {
    match signal {
        libc::SIGHUP | libc::SIGCONT => !is_session_leader,
        libc::SIGINT | libc::SIGQUIT | libc::SIGWINCH => true,
        signal => stops_by_terminal(signal),
    }
}

/// Whether a signal is neither caught, ignored nor blocked, by `/proc/PID/status` (proc(5)).
pub fn is_default(status: &str, signal: i32) -> bool {
    !["SigBlk:", "SigIgn:", "SigCgt:"].iter().any(|set| in_set(status, set, signal))
}

/// Whether a signal is ignored, by `/proc/PID/status`.
pub fn is_ignored(status: &str, signal: i32) -> bool {
    in_set(status, "SigIgn:", signal)
}

fn in_set(status: &str, set: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(set));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// SIGRTMIN of glibc, and so of most programs in images (signal(7)). The C library of this program may have
/// another SIGRTMIN.
const FIRST_REAL_TIME: i32 = 34;

/// The number of a signal: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
pub fn number(word: &str) -> Option<i32> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, sign: char, from: i32| match rest {
        "" => Some(from),
        rest => {
            let offset: i32 = rest.strip_prefix(sign)?.parse().ok()?;
            Some(if sign == '+' { from + offset } else { from - offset })
        }
    };
    let last = libc::SIGRTMAX();
    let found = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(rest, '+', FIRST_REAL_TIME),
        (_, Some(rest)) => real_time(rest, '-', last),
        _ => name
            .parse()
            .ok()
            .or_else(|| format!("SIG{name}").parse::<Signal>().ok().map(|s| s as i32)),
    };
    found.filter(|number| (1..=last).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (word, number_) in [
            ("TERM", Some(15)),
            ("SIGQUIT", Some(3)),
            ("sigusr1", Some(10)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN+99", None),
            ("0", None),
            ("65", None),
            ("TERMS", None),
            ("", None),
        ] {
            assert_eq!(number(word), number_, "{word}");
        }
    }

    #[test]
    fn signal_sets_are_read_as_proc_writes_them() {
        let status =
            "SigBlk:\t0000000000000001\nSigIgn:\t0000000000000002\nSigCgt:\t0000000000014004\n";
        for (signal, default) in [
            (libc::SIGHUP, false),
            (libc::SIGINT, false),
            (libc::SIGQUIT, false),
            (libc::SIGTERM, false),
            (libc::SIGUSR1, true),
            (64, true),
        ] {
            assert_eq!(is_default(status, signal), default, "{signal}");
        }
    }

    #[test]
    fn default_actions_follow_signal_7() {
        for (signal, action) in [
            (libc::SIGTERM, Action::Terminate),
            (libc::SIGUSR1, Action::Terminate),
            (libc::SIGTSTP, Action::Stop),
            (libc::SIGWINCH, Action::None),
            (libc::SIGCONT, Action::None),
            (64, Action::Terminate),
        ] {
            assert_eq!(default_action(signal), action, "{signal}");
        }
    }

    #[test]
    fn a_hangup_is_for_the_session_leader_alone() {
        assert!(goes_to_group(libc::SIGHUP, false));
        assert!(!goes_to_group(libc::SIGHUP, true));
        assert!(goes_to_group(libc::SIGINT, true));
        assert!(!goes_to_group(libc::SIGALRM, false));
    }
}
