//! Command lines in the spelling of other programs. The table is read only for a line that the parser has refused, so that
//! a line in this program's own spelling costs no time. The table translates an option, or names the line that does the same.

mod spelling;
mod table;
mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::error::{Error, Result};
use crate::shell;
pub use table::mount_option;
use table::{Answer, Habit};
pub use walk::Program;
use walk::{Given, Meaning, Part, is_flag, parts};

/// The options by which a line of `jc-run` names its root.
const ROOTS: [&str; 3] = ["--image", "--rootfs", "--record"];

/// Refuses a help or version option of a line that runs a program, since the exit status of the program would be
/// lost: `-h NAME` is a host name for docker(1), and a word behind an image belongs to the program.
pub fn check_alone(program: Program, command: &Command, words: &[OsString]) -> Result<()> {
    if !program.is_link {
        return Ok(());
    }
    let parts = parts(program, command, words);
    let is_help = |part: &&Part<'_>| {
        matches!(part, Part::Option(Given { typed, .. })
            if ["-h", "--help", "-V", "--version"].contains(&typed.as_str()))
    };
    let runs = |part: &Part<'_>| match part {
        Part::Option(given) => ROOTS.contains(&given.typed.as_str()),
        Part::Operand(_) | Part::Rest(_) => true,
    };
    let Some(Part::Option(help)) = parts.iter().find(is_help) else { return Ok(()) };
    if !parts.iter().any(runs) {
        return Ok(());
    }
    let typed = &help.typed;
    let error = Error::usage(format_args!("{typed}: not in a line that runs a program"));
    let is_followed = matches!(
        parts.iter().skip_while(|part| !is_help(part)).nth(1),
        Some(Part::Rest(rest)) if rest.first().is_some_and(|word| word != "--")
    );
    Err(if typed == "-h" && is_followed && command.get_arguments().any(names("hostname")) {
        error.hint("--hostname NAME sets the host name; --help alone prints the options")
    } else {
        let with_end = with_end_of_options(words, typed);
        error.hint(format_args!("for the program, behind --: {}", shell::line(&with_end)))
    })
}

/// The value of an option on a line that the parser has refused.
pub fn value(
    program: Program,
    command: &Command,
    words: &[OsString],
    long: &str,
) -> Option<OsString> {
    let of_it = |part| match part {
        Part::Option(Given { meaning: Meaning::Argument(arg), values, .. }) if names(long)(arg) => {
            values.into_iter().next()
        }
        _ => None,
    };
    parts(program, command, words).into_iter().find_map(of_it)
}

fn names(long: &str) -> impl Fn(&Arg) -> bool {
    move |arg| arg.get_long() == Some(long)
}

/// The words with `--` in front of the word that begins with `typed`.
fn with_end_of_options(words: &[OsString], typed: &str) -> Vec<OsString> {
    let at = words.iter().position(|word| word.as_bytes().starts_with(typed.as_bytes()));
    let (before, behind) = words.split_at(at.unwrap_or(words.len()));
    let behind: Vec<OsString> = behind.iter().filter(|word| *word != "--").cloned().collect();
    [before, &["--".into()], &behind].concat()
}

/// The words of a line that the parser has refused, as this program spells them. `None`: the line has no other
/// program's spelling. Usage error: the table refuses a word.
pub fn translate(
    program: Program,
    command: &Command,
    words: &[OsString],
) -> Result<Option<Vec<OsString>>> {
    let mut translated: Vec<OsString> = words.iter().take(1).cloned().collect();
    let mut is_changed = false;
    for part in parts(program, command, words) {
        match part {
            Part::Operand(word) => translated.push(word),
            Part::Rest(rest) => translated.extend(rest),
            Part::Option(given) => match answer(program, &given)? {
                Some(words) => {
                    is_changed = true;
                    translated.extend(words);
                }
                None => translated.extend(given.words()),
            },
        }
    }
    Ok(is_changed.then_some(translated))
}

/// The words in place of an option; `None` if it stays.
fn answer(program: Program, given: &Given<'_>) -> Result<Option<Vec<OsString>>> {
    let value = given.values.first().and_then(|value| value.to_str());
    let with_value = value.map(|value| format!("{}={value}", given.typed));
    if let Some(habit) = with_value.and_then(|spelling| table::find(program.name, &spelling)) {
        return apply(program, habit, given).map(Some);
    }
    Ok(match (given.meaning, value) {
        (Meaning::Habit(habit), _) => Some(apply(program, habit, given)?),
        (Meaning::Argument(arg), Some("true" | "1")) if is_flag(arg) => {
            Some(vec![given.typed.clone().into()])
        }
        (Meaning::Argument(arg), Some("false" | "0")) if is_flag(arg) => Some(Vec::new()),
        (Meaning::Argument(_), Some(_)) => {
            let habit = table::find(program.name, &given.typed);
            habit.map(|habit| apply(program, habit, given)).transpose()?
        }
        _ => None,
    })
}

fn apply(program: Program, habit: &Habit, given: &Given<'_>) -> Result<Vec<OsString>> {
    let typed = &given.typed;
    if given.values.len() < usize::from(habit.values) {
        return Err(Error::usage(format_args!("{typed}: needs a value")));
    }
    let value = given.values.first();
    match habit.answer {
        Answer::Nothing => Ok(Vec::new()),
        Answer::Same(option) => {
            let value = value.filter(|_| habit.values > 0).cloned();
            Ok([option.into()].into_iter().chain(value).collect())
        }
        Answer::Words(translate) => {
            let value = value.map(|value| value.to_string_lossy()).unwrap_or_default();
            let words = translate(&value).map_err(|hint| {
                Error::usage(format_args!("{typed} {value}: not supported")).hint(hint)
            })?;
            Ok(words.into_iter().map(OsString::from).collect())
        }
        Answer::Instead(line) => {
            let error = Error::usage(format_args!("{typed}: not an option of {}", program.name));
            Err(error.hint(with_values(line, &given.values)))
        }
    }
}

/// A line of the table with the values of a command line.
fn with_values(line: &str, values: &[OsString]) -> String {
    values.iter().enumerate().fold(line.to_owned(), |line, (number, value)| {
        line.replace(&format!("{{{}}}", number + 1), &shell::line(std::slice::from_ref(value)))
    })
}

/// The error for a line that the parser refuses, with the option as it is typed, and a remedy where one is known.
pub fn usage_error(
    program: Program,
    command: &Command,
    words: &[OsString],
    error: &clap::Error,
) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let mut message = first_paragraph(error);
    let named = text(ContextKind::InvalidArg).unwrap_or_default();
    let long = named.split([' ', '=', '[']).next().unwrap_or_default();
    let parts = parts(program, command, words);
    if let Some(typed) = typed_short(&parts, long, text(ContextKind::InvalidValue)) {
        message = message.replace(named, &typed);
    }
    for (parsers, plain) in NUMBERS {
        message = message.replace(parsers, plain);
    }
    let refused = Error::usage(message);
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return refused.hint(usage(command));
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return refused;
    }
    if !named.starts_with('-') {
        return match table::find(program.name, table::OPERAND) {
            Some(Habit { answer: Answer::Instead(line), .. }) => {
                refused.hint(with_values(line, &[named.into()]))
            }
            _ => refused,
        };
    }
    if let Some(near) = spelling::nearest(program.name, command, long) {
        return refused.hint(format_args!("did you mean {near}?"));
    }
    if is_behind_root(&parts, long) {
        let line = shell::line(&with_end_of_options(words, long));
        return refused.hint(format_args!("for the program, behind --: {line}"));
    }
    refused.hint(format_args!("{} --help lists the options", program.name))
}

/// The first line of the usage, in lower case.
fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let line = usage.lines().next().unwrap_or_default();
    line.trim().replacen("Usage: ", "usage: ", 1)
}

/// The texts of the standard library for a number that cannot be parsed.
const NUMBERS: [(&str, &str); 4] = [
    ("invalid digit found in string", "not a number"),
    ("cannot parse integer from empty string", "not a number"),
    ("number too large to fit in target type", "too large"),
    ("number too small to fit in target type", "too small"),
];

/// The first paragraph of a message of clap, as one line.
pub fn first_paragraph(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let paragraph = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let lines: Vec<&str> = paragraph.lines().take_while(|l| !l.is_empty()).map(str::trim).collect();
    lines.join(" ")
}

/// The short option with which a value was given, where the parser names the long one.
fn typed_short(parts: &[Part<'_>], long: &str, value: Option<&str>) -> Option<String> {
    let name = long.strip_prefix("--")?;
    let is_it = |given: &&Given<'_>| match given.meaning {
        Meaning::Argument(arg) if arg.get_long() == Some(name) => {
            value.is_none_or(|value| given.values.iter().any(|given| given == value))
        }
        _ => false,
    };
    let options = parts.iter().filter_map(|part| match part {
        Part::Option(given) => Some(given),
        _ => None,
    });
    options.filter(is_it).map(|given| given.typed.clone()).find(|typed| typed != long)
}

/// Whether an option that is not known follows one that names the root.
fn is_behind_root(parts: &[Part<'_>], unknown: &str) -> bool {
    let options = parts.iter().filter_map(|part| match part {
        Part::Option(given) => Some(given.typed.as_str()),
        _ => None,
    });
    options.take_while(|typed| *typed != unknown).any(|typed| ROOTS.contains(&typed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_clap_becomes_one_line() {
        let command =
            Command::new("jc-x").arg(Arg::new("a").long("a").required(true).value_name("A"));
        let message = |words: &[&str]| {
            first_paragraph(&command.clone().try_get_matches_from(words).unwrap_err())
        };
        assert_eq!(message(&["jc-x", "--x"]), "unexpected argument '--x' found");
        let required = "the following required arguments were not provided: --a <A>";
        assert_eq!(message(&["jc-x"]), required);
    }
}
