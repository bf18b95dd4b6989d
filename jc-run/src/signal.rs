//! Signals by name or number, real-time ones too.

use nix::libc;
use nix::sys::signal::Signal;

/// SIGRTMIN as glibc has it, and so nearly every program in an image (signal(7)); the C library of this
/// one may keep another signal for itself.
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
}
