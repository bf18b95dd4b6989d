//! `jc-logs`: what a detached container has written, which is in two files.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jc_unshare::process::{Process, ends_within};
use jc_unshare::{Context, Error, Result, Tool};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::{Errno, read};

use crate::files::StateDir;
use crate::state::State;
use crate::tools;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::source("jc-logs");

/// How much is looked at in one go, in bytes.
const CHUNK: usize = 64 << 10;

/// The command line.
pub fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    tools::command("jc-logs", "Print what detached containers have written", "jc-logs [options] ID")
        .arg(flag("follow").short('f').help("Go on until the container ends"))
        .arg(
            Arg::new("lines")
                .short('n')
                .long("lines")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .help("Begin with the last N lines of each output"),
        )
        .arg(flag("stdout").help("Only what it has written to stdout"))
        .arg(flag("stderr").conflicts_with("stdout").help("Only what it has written to stderr"))
        .arg(tools::ids().num_args(1))
}

/// Prints them: stdout to stdout, stderr to stderr.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let found = tools::named(matches)?;
    let Some(container) = found.first() else { return Ok(ExitCode::SUCCESS) };
    let (state, directory) = (&container.state, container.open()?);
    let mut outputs: Vec<Output> = Vec::new();
    for (name, other) in [("stdout", "stderr"), ("stderr", "stdout")] {
        if !matches.get_flag(other) {
            outputs.extend(Output::open(&directory, name)?);
        }
    }
    if outputs.is_empty() {
        return Err(Error::new(format_args!("{}: has no logs", state.id))
            .hint("those of a container in the foreground are its caller's stdout and stderr"));
    }
    if let Some(lines) = matches.get_one::<usize>("lines") {
        outputs.iter_mut().try_for_each(|output| output.skip_to_last(*lines))?;
    }
    match matches.get_flag("follow") {
        true => follow(state, &mut outputs)?,
        false => outputs.iter_mut().try_for_each(Output::print)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One of the files.
struct Output {
    file: File,
    is_error: bool,
}

impl Output {
    fn open(directory: &StateDir, name: &str) -> Result<Option<Self>> {
        let file = directory.file(name)?;
        Ok(file.map(|file| Self { file, is_error: name == "stderr" }))
    }

    /// Goes to the beginning of the last lines, so many, reading from the end.
    fn skip_to_last(&mut self, lines: usize) -> Result<()> {
        let mut at = self.file.seek(SeekFrom::End(0)).op("seek log")?;
        let (mut wanted, mut buffer, end) = (lines, vec![0; CHUNK], at);
        while at > 0 && lines > 0 {
            let size = CHUNK.min(at as usize);
            at -= size as u64;
            self.file.seek(SeekFrom::Start(at)).op("seek log")?;
            self.file.read_exact(&mut buffer[..size]).op("read log")?;
            for index in (0..size).rev().filter(|index| buffer[*index] == b'\n') {
                let after = at + index as u64 + 1;
                // The last newline ends the last line.
                if after == end {
                    continue;
                }
                wanted -= 1;
                if wanted == 0 {
                    return self.file.seek(SeekFrom::Start(after)).op("seek log").map(drop);
                }
            }
        }
        let start = if lines == 0 { SeekFrom::End(0) } else { SeekFrom::Start(0) };
        self.file.seek(start).op("seek log").map(drop)
    }

    /// Prints what has come.
    fn print(&mut self) -> Result<()> {
        let copied = match self.is_error {
            true => copy(&mut self.file, &mut stderr()),
            false => copy(&mut self.file, &mut stdout()),
        };
        match copied {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Error::quiet()),
            other => other.op("write log"),
        }
    }
}

fn copy(from: &mut File, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.flush(),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

/// Prints until the container has ended, which is when its supervisor has.
fn follow(state: &State, outputs: &mut [Output]) -> Result<()> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC).op("inotify_init")?;
    for name in ["stdout", "stderr"] {
        match inotify::add_watch(&events, state.bundle.join(name), inotify::WatchFlags::MODIFY) {
            Err(Errno::NOENT) => {}
            watched => drop(watched.on("watch", state.bundle.join(name))?),
        }
    }
    let supervisor = state.process("supervisor").and_then(Process::open);
    loop {
        let is_over = supervisor.as_ref().is_none_or(|pidfd| ends_within(pidfd, Duration::ZERO));
        outputs.iter_mut().try_for_each(Output::print)?;
        let Some(supervisor) = supervisor.as_ref().filter(|_| !is_over) else { return Ok(()) };
        let mut fds = [PollFd::new(&events, PollFlags::IN), PollFd::new(supervisor, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.op("poll")?,
        };
        if !fds[0].revents().is_empty() {
            read(&events, &mut [0; 4096]).op("read inotify")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        for (text, lines, rest) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("\n\n\n", 2, "\n\n"),
            ("", 3, ""),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let mut output = Output { file, is_error: false };
            output.skip_to_last(lines).unwrap();
            let mut found = String::new();
            output.file.read_to_string(&mut found).unwrap();
            assert_eq!(found, rest, "{text:?} {lines}");
        }
    }
}
