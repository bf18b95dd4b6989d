//! Options that a parser has only if the command line names one of them: each option of a parser takes 1.5 µs of a start.
//! A line that such a parser refuses is parsed again by a parser that has all options. clap takes an option that the parser
//! lacks for one that is not given, except in a debug build, whose parsers have all options.

use std::ffi::OsString;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::Error;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// The words of the command line that may be options.
static WORDS: OnceLock<Vec<&'static [u8]>> = OnceLock::new();

/// Whether parsers lack options that the words do not name.
static IS_NARROW: AtomicBool = AtomicBool::new(false);

/// Lets parsers lack the options that these words do not name.
pub(crate) fn narrow(words: &'static [OsString]) {
    let words = words.iter().map(|word| word.as_bytes()).filter(|word| word.starts_with(b"-"));
    let is_first = WORDS.set(words.collect()).is_ok();
    IS_NARROW.store(is_first && !cfg!(debug_assertions), Ordering::Relaxed);
}

/// Lets parsers have all options. Returns whether they have lacked some.
pub(crate) fn widen() -> bool {
    IS_NARROW.swap(false, Ordering::Relaxed)
}

/// Whether a parser needs an option: the command line may name it.
pub fn is_needed(long: &str, short: Option<char>) -> bool {
    let Some(words) = WORDS.get().filter(|_| IS_NARROW.load(Ordering::Relaxed)) else {
        return true;
    };
    words.iter().any(|word| names(word, long, short))
}

/// Whether a word may name an option: `--LONG`, `--LONG=VALUE`, or short options in one word.
fn names(word: &[u8], long: &str, short: Option<char>) -> bool {
    match word {
        [b'-', b'-', rest @ ..] => {
            let rest = rest.strip_prefix(long.as_bytes());
            rest.is_some_and(|rest| matches!(rest, [] | [b'=', ..]))
        }
        [b'-', letters @ ..] => short.is_some_and(|short| letters.contains(&(short as u8))),
        _ => false,
    }
}

/// Whether a parser needs this option, by [`is_needed`]. An option with a default value has a value in every line. clap
/// does not check that an option requires one that the parser lacks.
pub fn needs(arg: &Arg) -> bool {
    let has_value = !arg.get_action().takes_values() || !arg.get_default_values().is_empty();
    has_value || arg.get_long().is_none_or(|long| is_needed(long, arg.get_short()))
}

/// A group of options.
pub trait Group: Args + Default {
    /// The long and the short names of its options.
    const NAMES: &'static [(&'static str, Option<char>)];
}

/// The options of a group, which the parser has if the command line names one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OnDemand<T>(T);

impl<T: Group> OnDemand<T> {
    fn is_needed() -> bool {
        T::NAMES.iter().any(|(long, short)| is_needed(long, *short))
    }
}

impl<T> Deref for OnDemand<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Group> Args for OnDemand<T> {
    fn augment_args(command: Command) -> Command {
        if Self::is_needed() { T::augment_args(command) } else { command }
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Group> FromArgMatches for OnDemand<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        let group = Self::is_needed().then(|| T::from_arg_matches_mut(matches)).transpose()?;
        Ok(Self(group.unwrap_or_default()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Panics unless [`Group::NAMES`] has the names of exactly the options of the group, for tests of groups.
pub fn assert_names<T: Group>() {
    let command = T::augment_args(Command::new(""));
    let names = |arg: &Arg| -> Vec<_> {
        let aliases = arg.get_all_aliases().unwrap_or_default().into_iter();
        let aliases = aliases.map(|alias| (alias.to_owned(), None));
        let long = arg.get_long().map(|long| (long.to_owned(), arg.get_short()));
        long.into_iter().chain(aliases).collect()
    };
    let options: Vec<_> = command.get_arguments().flat_map(names).collect();
    let listed: Vec<_> =
        T::NAMES.iter().map(|(long, short)| ((*long).to_owned(), *short)).collect();
    assert_eq!(listed, options);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_an_option_alone_with_a_value_and_among_letters() {
        for word in ["--user", "--user=root", "-u", "-iu", "-uroot"] {
            assert!(names(word.as_bytes(), "user", Some('u')), "{word}");
        }
        for word in ["--users", "--use", "user", "-i", "--", "-", ""] {
            assert!(!names(word.as_bytes(), "user", Some('u')), "{word}");
        }
        assert!(!names(b"-u", "user", None));
    }
}
