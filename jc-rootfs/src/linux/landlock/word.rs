//! Rules in words, `OPTION=VALUE`, for the last step of jc-rootfs.

use std::path::PathBuf;

use super::rules::{Access, Port, Rule, Rules, Ruleset, Scope};
use clap::ValueEnum;
use jc_unshare::Result;

/// An option of jc-landlock with its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// `--ro`, `--rx`, `--rw` or `--rwx`.
    File(Access, PathBuf),
    /// `--connect`
    Connect(Port),
    /// `--bind`
    Bind(Port),
    /// `--scope`
    Scope(Scope),
    /// `--if-supported`
    IfSupported(Rule),
}

/// Parses `OPTION=VALUE`, with an option of jc-landlock without its dashes.
pub fn word(text: &str) -> std::result::Result<Word, String> {
    let (option, value) = text.split_once('=').unwrap_or((text, ""));
    let file = |access: Access| match value {
        "" => Err("the path is empty".to_owned()),
        path => Ok(Word::File(access, path.into())),
    };
    match option {
        "ro" => file(Access::READ),
        "rx" => file(Access::READ | Access::EXECUTE),
        "rw" => file(Access::READ | Access::WRITE),
        "rwx" => file(Access::READ | Access::WRITE | Access::EXECUTE),
        "connect" => Port::parse(value).map(Word::Connect),
        "bind" => Port::parse(value).map(Word::Bind),
        "scope" => Scope::from_str(value, false).map(Word::Scope),
        "if-supported" => Rule::from_str(value, false).map(Word::IfSupported),
        _ => Err("not ro=, rx=, rw= or rwx=PATH, connect= or bind=PORT, scope=KIND, \
                  if-supported=RULE"
            .to_owned()),
    }
}

/// Makes the ruleset of the words, whose paths are those of this process's root. `None`: nothing is restricted.
pub fn ruleset(words: &[Word]) -> Result<Option<Ruleset>> {
    let (mut rules, mut optional) = (Rules::default(), Vec::new());
    for word in words.iter().cloned() {
        match word {
            Word::File(access, path) => rules.files.push((access, path)),
            Word::Connect(port) => rules.connect.push(port),
            Word::Bind(port) => rules.bind.push(port),
            Word::Scope(scope) => rules.scopes.push(scope),
            Word::IfSupported(rule) => optional.push(rule),
        }
    }
    (!rules.is_empty()).then(|| rules.ruleset(&optional)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_an_option_of_jc_landlock() {
        for (text, expected) in [
            ("ro=/etc", Word::File(Access::READ, "/etc".into())),
            ("rx=/a=b", Word::File(Access::READ | Access::EXECUTE, "/a=b".into())),
            ("connect=none", Word::Connect(Port::None)),
            ("bind=80", Word::Bind(Port::One(80))),
            ("scope=signal", Word::Scope(Scope::Signal)),
            ("if-supported=tcp", Word::IfSupported(Rule::Tcp)),
        ] {
            assert_eq!(word(text), Ok(expected), "{text}");
        }
        for text in ["ro", "ro=", "rwxx=/", "connect=", "bind=65536", "scope=all", "tcp", ""] {
            assert!(word(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_exception_alone_restricts_nothing() {
        assert!(ruleset(&[Word::IfSupported(Rule::Tcp)]).unwrap().is_none());
        assert!(ruleset(&[]).unwrap().is_none());
    }
}
