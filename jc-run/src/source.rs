//! The record: from stdin, a file or jc-pull, or made for a directory of the command line.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use jc_unshare::exec::find;
use jc_unshare::record::{Record, VERSION};
use jc_unshare::{Context, Error, Kind, Result, shell};
use rustix::fs::{FileType, fstat};

use crate::input::one_line;
use crate::options::table::{command, values};
use crate::options::{ImageSource, Source};

/// Reads the record from its source; `pull` gives that of an image. `operands` are those of the command line.
pub fn read(
    source: &Source,
    operands: &[OsString],
    pull: impl FnOnce(&ImageSource) -> Result<Record>,
) -> Result<Record> {
    match source {
        Source::File(file) => Record::read(file),
        Source::Image(image) => pull(image),
        Source::Directory(rootfs) => directory(rootfs),
        Source::Stdin => from_stdin().map_err(|error| corrected_error(error, operands)),
    }
}

/// Commands of docker(1) and podman(1), with the program that does the same.
const COMMANDS: [(&str, &str); 14] = [
    ("build", "jc-commit"),
    ("commit", "jc-commit"),
    ("diff", "jc-changes"),
    ("exec", "jc-exec"),
    ("images", "jc-images"),
    ("kill", "jc-stop -t 0"),
    ("load", "jc-pull docker-archive:FILE"),
    ("logs", "jc-logs"),
    ("ps", "jc-list"),
    ("pull", "jc-pull"),
    ("push", "jc-push"),
    ("rm", "jc-rm"),
    ("rmi", "jc-rmi"),
    ("stop", "jc-stop"),
];

/// The error of a line without a record, whose first operand may be an image, or a command of docker(1).
fn corrected_error(error: Error, operands: &[OsString]) -> Error {
    let command = operands.first().and_then(|first| {
        COMMANDS.iter().find(|(command, _)| first == command).map(|(_, program)| *program)
    });
    if let Some(program) = command {
        let rest = shell::line(&operands[1..]);
        return Error::usage("nothing to run: no record on stdin")
            .hint(format_args!("{program} {rest}").to_string().trim_end());
    }
    let is_image = error.kind() == Kind::Usage || !is_program(operands);
    let typed: Vec<OsString> = std::env::args_os().collect();
    let program = program_line(&typed, operands).filter(|_| error.kind() == Kind::Usage);
    let line = corrected(typed, operands).filter(|_| is_image);
    let refused = Error::usage("nothing to run: no record on stdin");
    match (line, program) {
        (Some(line), program) => {
            let what = if line.contains(" --record ") { "a record" } else { "an image" };
            let program = program.map_or_else(String::new, |program| format!(", or {program}"));
            refused.hint(format_args!("with {what}, {line}{program}"))
        }
        (None, Some(program)) => refused.hint(program),
        (None, None) => error,
    }
}

/// The line with an image for the program of the operands, if this system has a program of that name.
fn program_line(typed: &[OsString], operands: &[OsString]) -> Option<String> {
    let options = typed.strip_suffix(operands).filter(|_| !operands.is_empty())?;
    let options = options.strip_suffix(&["--".into()]).unwrap_or(options);
    let line = format!("{} --image IMAGE -- {}", shell::line(options), shell::line(operands));
    is_program(operands).then_some(line)
}

/// Whether the first operand is a program of this system.
fn is_program(operands: &[OsString]) -> bool {
    operands.first().is_none_or(|name| {
        if name.as_encoded_bytes().contains(&b'/') {
            Path::new(name).exists()
        } else {
            find(name, std::env::var_os("PATH").as_deref()).is_ok()
        }
    })
}

/// The line with `--image` in front of its first operand, where docker(1) has an image. `None` behind `--`, where only a
/// program stands.
fn corrected(words: Vec<OsString>, operands: &[OsString]) -> Option<String> {
    let (image, program) = operands.split_first()?;
    let options = words.strip_suffix(operands)?;
    if image == "run" && !program.is_empty() {
        return without_command([options, program].concat());
    }
    if options.last().is_some_and(|word| word == "--") {
        return None;
    }
    // A record that jc-pull has written to a file.
    let is_file = Path::new(image).is_file();
    let option = if is_file { "--record" } else { "--image" };
    let mut line = [options, &[option.into(), image.clone()]].concat();
    if !program.is_empty() {
        line.push("--".into());
        line.extend_from_slice(program);
    }
    Some(shell::line(&line))
}

/// The same for the words of a line with `run` in front, as docker(1) has it.
fn without_command(words: Vec<OsString>) -> Option<String> {
    let matches = command().try_get_matches_from(&words).ok()?;
    let operands: Vec<OsString> = values(&matches, "program").cloned().collect();
    corrected(words, &operands)
}

fn from_stdin() -> Result<Record> {
    let stdin = io::stdin();
    let nothing = || {
        Error::usage("nothing to run: no record on stdin")
            .hint("jc-pull IMAGE | jc-run, or --image REF, --rootfs DIR, --record FILE")
    };
    if stdin.is_terminal() {
        return Err(nothing());
    }
    let line = one_line(stdin.as_fd())?;
    if line.is_empty() {
        let kind = FileType::from_raw_mode(fstat(&stdin).op("fstat")?.st_mode);
        return Err(match kind {
            // The device is one like /dev/null.
            FileType::CharacterDevice => nothing(),
            // The program that writes to the pipe reports why it has no record.
            _ => Error::new("no record on stdin"),
        });
    }
    Record::parse(&line)
}

fn directory(path: &Path) -> Result<Record> {
    let rootfs = std::path::absolute(path).on("open", path)?;
    Ok(Record { jc: VERSION, rootfs: Some(rootfs), ..Record::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_in_the_place_of_the_program_gets_its_option() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (options, operands, line) in [
            ("jc-run", "no-such-image echo hi", Some("jc-run --image no-such-image -- echo hi")),
            ("jc-run -it", "no-such-image:1", Some("jc-run -it --image no-such-image:1")),
            ("jc-run -d", "no.such/image a;b", Some("jc-run -d --image no.such/image -- 'a;b'")),
            ("jc-run --", "no-such-image x", None),
            (
                "jc-run",
                "run --rm -m 1g image id -u",
                Some("jc-run --rm -m 1g --image image -- id -u"),
            ),
            ("jc-run", "run --no-such image", None),
            ("jc-run", "run", Some("jc-run --image run")),
        ] {
            let operands = words(operands);
            let typed = [words(options), operands.clone()].concat();
            assert_eq!(corrected(typed, &operands).as_deref(), line);
        }
        assert_eq!(corrected(words("jc-run"), &[]), None);
    }
}
