//! `jc-logs`: the output of a detached container, from the current and the previous file of each output.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write, stderr, stdout};
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jc_unshare::process::{Process, ends_within};
use jc_unshare::{Context, Error, Kind, Result, Tool};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, inotify, statat};
use rustix::io::{Errno, read};

use super::dir::RecordedContainer;
use super::files::StateDir;
use super::log::older;
use super::state::State;
use super::tools;

/// The name and exit codes of the program.
pub const TOOL: Tool = Tool::source("jc-logs");

/// The number of bytes of one read.
const CHUNK: usize = 64 << 10;

/// Builds the command line parser.
pub fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    tools::command("jc-logs", "Print the output of a detached container", "jc-logs [options] ID...")
        .arg(flag("follow").short('f').help("Print new output until the container ends"))
        .arg(
            Arg::new("lines")
                .short('n')
                .long("lines")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .help("Start with the last N lines of each output"),
        )
        .arg(flag("stdout").help("Print only the payload's stdout"))
        .arg(flag("stderr").conflicts_with("stdout").help("Print only the payload's stderr"))
        .arg(tools::ids())
}

/// Prints the outputs of each container: stdout to stdout, stderr to stderr.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let (found, mut errors) = tools::named(matches)?;
    if found.len() > 1 && matches.get_flag("follow") {
        return Err(Error::usage("-f: follows one container"));
    }
    for container in &found {
        match logs(container, matches) {
            // The reader of the output has gone.
            Err(error) if error.kind() == Kind::Quiet => return Err(error),
            printed => errors.extend(printed.err()),
        }
    }
    Ok(tools::outcome(TOOL, &errors))
}

fn logs(container: &RecordedContainer, matches: &ArgMatches) -> Result<()> {
    let (state, directory) = (&container.state, container.open()?);
    let mut outputs: Vec<Output<'_>> = Vec::new();
    for (name, other) in [("stdout", "stderr"), ("stderr", "stdout")] {
        if !matches.get_flag(other) {
            outputs.extend(Output::open(&directory, name)?);
        }
    }
    if outputs.is_empty() {
        return Err(state
            .error("has no logs")
            .hint("a container in the foreground writes to its caller's stdout and stderr"));
    }
    if let Some(lines) = matches.get_one::<usize>("lines") {
        outputs.iter_mut().try_for_each(|output| skip_to_last(&mut output.files, *lines))?;
    }
    if matches.get_flag("follow") {
        follow(state, &mut outputs)?
    } else {
        outputs.iter_mut().try_for_each(Output::print)?
    }
    warn_of_loss(state, &directory);
    Ok(())
}

/// Writes a message to stderr if the log lacks bytes.
fn warn_of_loss(state: &State, directory: &StateDir) {
    // The container may have ended meanwhile, or been removed.
    let now = State::read(directory).ok().flatten();
    if let Some(bytes) = now.as_ref().unwrap_or(state).get("log-lost") {
        let lacks = format_args!("the log lacks {bytes} bytes, which could not be written");
        TOOL.fail(&state.error(lacks));
    }
}

/// An output of a payload, with the files that are still to be printed, the oldest first.
struct Output<'a> {
    directory: &'a StateDir,
    name: &'static str,
    files: VecDeque<File>,
}

impl<'a> Output<'a> {
    fn open(directory: &'a StateDir, name: &'static str) -> Result<Option<Self>> {
        let files = generations(directory, name)?;
        Ok((!files.is_empty()).then(|| Self { directory, name, files: files.into() }))
    }

    /// Prints the new bytes.
    fn print(&mut self) -> Result<()> {
        loop {
            // The lookup comes before the read: no process writes to a file that has a newer one.
            let newer = match self.files.len() {
                0 | 1 => self.newer()?,
                _ => Vec::new(),
            };
            if let Some(file) = self.files.front_mut() {
                let copied = match self.name {
                    "stderr" => copy(file, &mut stderr()),
                    _ => copy(file, &mut stdout()),
                };
                match copied {
                    Err(e) if e.kind() == ErrorKind::BrokenPipe => return Err(Error::quiet()),
                    other => other.op("write log")?,
                }
            }
            if self.files.len() <= 1 && newer.is_empty() {
                return Ok(());
            }
            self.files.pop_front();
            self.files.extend(newer);
        }
    }

    /// The files after the last one, as far as they still exist.
    fn newer(&self) -> Result<Vec<File>> {
        let mut files = generations(self.directory, self.name)?;
        if let Some(last) = self.files.back() {
            let last = inode(last)?;
            for index in (0..files.len()).rev() {
                if inode(&files[index])? == last {
                    return Ok(files.split_off(index + 1));
                }
            }
        }
        Ok(files)
    }
}

/// The files of an output, the older one first. The supervisor may rename one meanwhile.
fn generations(directory: &StateDir, name: &str) -> Result<Vec<File>> {
    let older = older(name);
    loop {
        let files = [directory.file(&older)?, directory.file(name)?];
        let named = match statat(directory, &older, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            other => Some(other.on("stat", directory.path().join(&older))?.st_ino),
        };
        if files[0].as_ref().map(inode).transpose()? == named {
            return Ok(files.into_iter().flatten().collect());
        }
    }
}

fn inode(file: &File) -> Result<u64> {
    file.metadata().op("stat log").map(|metadata| metadata.ino())
}

/// Seeks to the beginning of the last `lines` lines. The files are read from their ends.
fn skip_to_last(files: &mut VecDeque<File>, lines: usize) -> Result<()> {
    let (mut newlines, mut is_end) = (lines, true);
    for index in (0..files.len()).rev() {
        if skip_in(&mut files[index], &mut newlines, &mut is_end)? {
            files.drain(..index);
            break;
        }
    }
    Ok(())
}

/// Seeks back in a file by the number of newlines newlines. Returns whether the file has that many. With `is_end`, the last
/// byte of the file is the last byte of the output, and a newline there ends the last line.
fn skip_in(file: &mut File, newlines: &mut usize, is_end: &mut bool) -> Result<bool> {
    let mut at = file.seek(SeekFrom::End(0)).op("seek log")?;
    if *newlines == 0 {
        return Ok(true);
    }
    let mut buffer = vec![0; CHUNK];
    while at > 0 {
        let size = CHUNK.min(at as usize);
        at -= size as u64;
        file.seek(SeekFrom::Start(at)).op("seek log")?;
        file.read_exact(&mut buffer[..size]).op("read log")?;
        for index in (0..size).rev() {
            if mem::take(is_end) || buffer[index] != b'\n' {
                continue;
            }
            *newlines -= 1;
            if *newlines == 0 {
                let start = SeekFrom::Start(at + index as u64 + 1);
                return file.seek(start).op("seek log").map(|_| true);
            }
        }
    }
    file.rewind().op("seek log").map(|()| false)
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

/// Prints until the container has ended. A container ends with its supervisor.
fn follow(state: &State, outputs: &mut [Output<'_>]) -> Result<()> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC).op("inotify_init")?;
    let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
    match inotify::add_watch(&events, &state.bundle, kinds) {
        Err(Errno::NOENT) => {}
        watched => drop(watched.on("watch", &state.bundle)?),
    }
    let supervisor = state.process("supervisor").map(Process::open).transpose()?.flatten();
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
            // In one file, and divided at each place.
            for at in 0..=text.len() {
                let files = [&text[..at], &text[at..]].map(|part| {
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(part.as_bytes()).unwrap();
                    file
                });
                let mut files = VecDeque::from(files);
                skip_to_last(&mut files, lines).unwrap();
                let mut found = String::new();
                for file in &mut files {
                    file.read_to_string(&mut found).unwrap();
                }
                assert_eq!(found, rest, "{text:?} {at} {lines}");
            }
        }
    }
}
