//! The words of a command line by their role, for lines that a parser refuses.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

use super::table::{self, Habit};

/// A program and its kind.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The name, by which the table has rows.
    pub name: &'static str,
    /// The program executes another one, so its options end at the first operand.
    pub is_link: bool,
}

/// A part of a command line.
pub enum Part<'a> {
    Option(Given<'a>),
    /// An operand between options, as programs without a payload allow.
    Operand(OsString),
    /// The words from the first operand of a link on, or from `--`.
    Rest(Vec<OsString>),
}

/// An option with its values.
pub struct Given<'a> {
    /// The option as it is typed, such as `-m` or `--memory`.
    pub typed: String,
    pub meaning: Meaning<'a>,
    pub values: Vec<OsString>,
    /// The value stands in the same word.
    is_joined: bool,
}

/// The meaning of an option.
#[derive(Clone, Copy)]
pub enum Meaning<'a> {
    /// An argument of the program.
    Argument(&'a Arg),
    /// An option of another program.
    Habit(&'static Habit),
    Unknown,
}

impl Given<'_> {
    /// The option and its values, as one word or several like the command line has them.
    pub fn words(&self) -> Vec<OsString> {
        let mut first = OsString::from(&self.typed);
        let mut values = self.values.iter().cloned();
        if self.is_joined {
            if self.typed.starts_with("--") {
                first.push("=");
            }
            first.push(values.next().unwrap_or_default());
        }
        [first].into_iter().chain(values).collect()
    }
}

/// Whether an argument has no value.
pub fn is_flag(arg: &Arg) -> bool {
    !arg.get_action().takes_values()
}

/// Takes a command line of a program apart, whose first word is the program's name.
pub fn parts<'a>(program: Program, command: &'a Command, words: &[OsString]) -> Vec<Part<'a>> {
    let mut walk = Walk { program, command, parts: Vec::new() };
    let mut rest = words.get(1..).unwrap_or_default();
    while let Some((word, behind)) = rest.split_first() {
        rest = match (word.to_str(), is_option(word), program.is_link) {
            (Some("--"), ..) | (_, false, true) | (None, true, _) => {
                walk.parts.push(Part::Rest(rest.to_vec()));
                return walk.parts;
            }
            (_, false, false) => {
                walk.parts.push(Part::Operand(word.clone()));
                behind
            }
            (Some(text), true, _) if text.starts_with("--") => walk.long(text, behind),
            (Some(text), true, _) => walk.cluster(text, behind),
        };
    }
    walk.parts
}

fn is_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

struct Walk<'a> {
    program: Program,
    command: &'a Command,
    parts: Vec<Part<'a>>,
}

impl<'a> Walk<'a> {
    /// Takes `--name[=VALUE] [VALUE...]`, and returns the words behind it.
    fn long<'w>(&mut self, word: &str, behind: &'w [OsString]) -> &'w [OsString] {
        let (typed, joined) =
            word.split_once('=').map_or((word, None), |(typed, value)| (typed, Some(value)));
        let name = typed.trim_start_matches('-');
        let has_name = |arg: &&Arg| {
            arg.get_long() == Some(name)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        };
        let known = self.command.get_arguments().find(has_name);
        self.option(typed, known, joined.map(OsString::from), behind)
    }

    /// Takes `-abc`, where one letter may have the rest, or the next word, as its value.
    fn cluster<'w>(&mut self, word: &str, behind: &'w [OsString]) -> &'w [OsString] {
        for (at, letter) in word.char_indices().skip(1) {
            let known = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter));
            let typed = format!("-{letter}");
            let value = &word[at + letter.len_utf8()..];
            let is_alone = known.map_or(self.is_alone(&typed), is_flag);
            if is_alone && !value.is_empty() && !value.starts_with('=') {
                self.option(&typed, known, None, &[]);
                continue;
            }
            let value = if is_alone { value.trim_start_matches('=') } else { value };
            let joined = Some(value).filter(|value| !value.is_empty()).map(OsString::from);
            return self.option(&typed, known, joined, behind);
        }
        behind
    }

    /// Whether a letter that the program lacks has no value.
    fn is_alone(&self, typed: &str) -> bool {
        table::find(self.program.name, typed).is_none_or(|habit| habit.values == 0)
    }

    fn option<'w>(
        &mut self,
        typed: &str,
        known: Option<&'a Arg>,
        joined: Option<OsString>,
        behind: &'w [OsString],
    ) -> &'w [OsString] {
        let meaning = match (known, table::find(self.program.name, typed)) {
            (Some(arg), _) => Meaning::Argument(arg),
            (None, Some(habit)) => Meaning::Habit(habit),
            (None, None) => Meaning::Unknown,
        };
        let count = match meaning {
            Meaning::Argument(arg) => usize::from(!is_flag(arg) && !arg.is_require_equals_set()),
            Meaning::Habit(habit) => usize::from(habit.values),
            Meaning::Unknown => 0,
        };
        let is_joined = joined.is_some();
        let more = count.saturating_sub(usize::from(is_joined)).min(behind.len());
        let (values, rest) = behind.split_at(more);
        let values = joined.into_iter().chain(values.iter().cloned()).collect();
        self.parts.push(Part::Option(Given {
            typed: typed.to_owned(),
            meaning,
            values,
            is_joined,
        }));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    /// The parts of a line in brackets.
    fn shown(program: Program, line: &str) -> String {
        let flag = |name: &'static str, short| {
            Arg::new(name).long(name).short(short).action(clap::ArgAction::SetTrue)
        };
        let command = clap::Command::new("jc-x")
            .arg(flag("detach", 'd'))
            .arg(Arg::new("memory").long("memory").short('m'))
            .arg(Arg::new("print").long("print").num_args(0..=1).require_equals(true));
        let part = |part: Part<'_>| match part {
            Part::Option(given) => {
                let words = given.words();
                words
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
                    .join(" ")
            }
            Part::Operand(word) => format!("<{}>", word.display()),
            Part::Rest(rest) => format!("{rest:?}"),
        };
        let parts = parts(program, &command, &words(line)).into_iter().map(part);
        parts.map(|part| format!("[{part}]")).collect()
    }

    #[test]
    fn every_word_has_a_role() {
        let [link, source] = [true, false].map(|is_link| Program { name: "jc-x", is_link });
        for (tool, line, parts) in [
            (
                link,
                "jc-x -dm 5 --memory=6 --print sh -d",
                r#"[-d][-m 5][--memory=6][--print][["sh", "-d"]]"#,
            ),
            (link, "jc-x -dm5 -- sh", r#"[-d][-m5][["--", "sh"]]"#),
            (link, "jc-x --detach=true -d=true x", r#"[--detach=true][-dtrue][["x"]]"#),
            (link, "jc-x --other -q x", r#"[--other][-q][["x"]]"#),
            (source, "jc-x a -d b -- -d", r#"[<a>][-d][<b>][["--", "-d"]]"#),
            (source, "jc-x - --memory", "[<->][--memory]"),
        ] {
            assert_eq!(shown(tool, line), parts, "{line}");
        }
    }
}
