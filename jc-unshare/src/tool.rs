//! `main` of every tool: parse the command line, run, and return the exit code that `jc(7)` documents.

use std::ffi::OsString;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, Parser};

use crate::error::{Context, Error, Kind, Result};
use crate::{habits, on_demand};

/// The exit codes of a tool (`jc(7)`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// The tool runs a payload and exits with its code. 125: the tool itself failed, usage errors included.
    Link,
    /// The tool runs no payload. 0: success; 1: failure; 2: usage error.
    Source,
}

/// The tool of this process.
static RUNNING: OnceLock<Tool> = OnceLock::new();

/// The function that reports a failure of this process, beside the line on stderr.
static ON_FAILURE: OnceLock<fn(Tool, &Error)> = OnceLock::new();

/// A tool's name and contract.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    name: &'static str,
    family: Family,
}

impl Tool {
    /// A tool that runs a payload.
    pub const fn link(name: &'static str) -> Self {
        Self { name, family: Family::Link }
    }

    /// A tool that runs no payload.
    pub const fn source(name: &'static str) -> Self {
        Self { name, family: Family::Source }
    }

    /// The name that errors start with.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The exit code for a failure of that kind.
    pub const fn code(self, kind: Kind) -> u8 {
        match (kind, self.family) {
            (Kind::NotExecutable, _) => 126,
            (Kind::NotFound, _) => 127,
            (Kind::Usage | Kind::Failed | Kind::Quiet, Family::Link) => 125,
            (Kind::Usage, Family::Source) => 2,
            (Kind::Failed | Kind::Quiet, Family::Source) => 1,
        }
    }

    /// The tool of this process.
    pub fn running() -> Option<Self> {
        RUNNING.get().copied()
    }

    /// Sets the function that reports a failure of this process, besides the line on stderr.
    pub fn on_failure(report: fn(Self, &Error)) {
        // The function of the first call is the only one.
        let _: std::result::Result<(), fn(Self, &Error)> = ON_FAILURE.set(report);
    }

    /// Declares that this process is the tool. A panic and a failed allocation then end the process with one
    /// line and the exit code for a failure.
    pub fn begin(self) {
        // A second tool in this process: the name of the first one stays.
        let _: std::result::Result<(), Self> = RUNNING.set(self);
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("no message");
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            // The standard library panics on some errors of the kernel, and the text has the error.
            let text = text.split(" (os error").next().unwrap_or(text);
            self.exit(&if location.starts_with("/rustc/") {
                Error::new(text)
            } else {
                Error::new(format_args!("internal error at {location}: {text}"))
            })
        }));
    }

    /// Parses the command line as `A`, runs, and reports. `--help` and `--version` go to stdout.
    pub fn main<A: Parser>(self, run: impl FnOnce(A) -> Result<ExitCode>) -> ExitCode {
        self.parsed(
            || A::command().name(self.name),
            |matches| {
                run(A::from_arg_matches_mut(matches)
                    .map_err(|e| Error::usage(habits::first_paragraph(&e)))?)
            },
        )
    }

    /// Does the same as [`main`](Self::main), for a command line that is built at run time.
    pub fn main_with(
        self,
        command: impl Fn() -> Command,
        run: impl FnOnce(&ArgMatches) -> Result<ExitCode>,
    ) -> ExitCode {
        self.parsed(command, |matches| run(matches))
    }

    fn parsed(
        self,
        command: impl Fn() -> Command,
        run: impl FnOnce(&mut ArgMatches) -> Result<ExitCode>,
    ) -> ExitCode {
        self.begin();
        crate::platform::map_ahead();
        // Destructors of the parser cost time, and exec(3) or exit(3) frees the memory anyway.
        let words: &'static [OsString] = std::env::args_os().collect::<Vec<_>>().leak();
        let parse = || {
            let mut command = ManuallyDrop::new(command());
            let parsed = command.try_get_matches_from_mut(words);
            (command, parsed)
        };
        on_demand::narrow(words);
        let (mut command, parsed) = match parse() {
            (_, Err(..)) if on_demand::widen() => parse(),
            first => first,
        };
        let outcome = match parsed {
            Ok(matches) => run(&mut ManuallyDrop::new(matches)),
            Err(error) => match self.reconsider(&mut command, words, &error) {
                Ok(Some(mut matches)) => run(&mut matches),
                Ok(None) => Ok(ExitCode::SUCCESS),
                Err(error) => Err(error),
            },
        };
        outcome.unwrap_or_else(|error| self.exit(&error))
    }

    /// Prints the help or the version that a command line asks for, or parses a command line in the spelling of another
    /// program.
    fn reconsider(
        self,
        command: &mut Command,
        words: &[OsString],
        error: &clap::Error,
    ) -> Result<Option<ArgMatches>> {
        let program = habits::Program { name: self.name, is_link: self.family == Family::Link };
        if let Some(number) = habits::value(program, command, words, "status-fd") {
            crate::platform::report_failure_to(self, &number);
        }
        if let ErrorKind::DisplayHelp | ErrorKind::DisplayVersion = error.kind() {
            habits::check_alone(program, command, words)?;
            return print(error.render().to_string()).map(|()| None);
        }
        let Some(translated) = habits::translate(program, command, words)? else {
            return Err(habits::usage_error(program, command, words, error));
        };
        match command.try_get_matches_from_mut(&translated) {
            Ok(matches) => Ok(Some(matches)),
            Err(error) => Err(habits::usage_error(program, command, &translated, &error)),
        }
    }

    /// Writes the error to stderr. Returns the exit code of the error.
    pub fn fail(self, error: &Error) -> ExitCode {
        self.report(error);
        self.report_failure(error);
        ExitCode::from(self.code(error.kind()))
    }

    /// Writes the error to stderr and ends the process, which may be a forked child.
    pub fn exit(self, error: &Error) -> ! {
        self.report(error);
        self.report_failure(error);
        crate::platform::exit(self.code(error.kind()))
    }

    fn report_failure(self, error: &Error) {
        if let Some(report) = ON_FAILURE.get().filter(|_| error.kind() != Kind::Quiet) {
            report(self, error);
        }
    }

    /// Fails on a platform that lacks `what`.
    pub fn unsupported(self, what: &str) -> ExitCode {
        self.fail(&Error::new(format_args!("{what}: not supported on this platform")))
    }

    /// Writes the error to stderr.
    pub fn report(self, error: &Error) {
        if error.kind() != Kind::Quiet {
            let mut text = error.report(self.name);
            let of_kernel = crate::platform::old_kernel(error.errno());
            let of_surroundings =
                || (!error.has_hint()).then(|| crate::platform::surroundings(error)).flatten();
            if let Some(hint) = of_kernel.or_else(of_surroundings) {
                text = format!("{text}{}: hint: {hint}\n", self.name);
            }
            // An error of this write cannot be reported anywhere.
            let _: io::Result<()> = io::stderr().write_all(text.as_bytes());
        }
    }
}

/// A command line of any words, of a program that the platform lacks.
#[derive(Debug, Parser)]
#[command(version)]
pub struct AnyWords {
    /// The options and the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Writes a result to stdout. A reader that has gone ends the tool quietly.
pub fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            Err(Error::with_kind(Kind::Quiet, "stdout is closed"))
        }
        other => other.op("write stdout"),
    }
}

/// Returns a usage error if a link has no program.
pub fn require_program(argv: &[OsString]) -> Result<()> {
    if argv.is_empty() {
        Err(Error::usage("no program given to run").hint("PROG [ARG...] follows the options"))
    } else {
        Ok(())
    }
}

/// The path, or the list of paths, in an environment variable. An empty variable counts as not set.
pub fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_contract() {
        let (link, source) = (Tool::link("l"), Tool::source("s"));
        let codes = |kind| (link.code(kind), source.code(kind));
        assert_eq!(codes(Kind::Usage), (125, 2));
        assert_eq!(codes(Kind::Failed), (125, 1));
        assert_eq!(codes(Kind::NotExecutable), (126, 126));
        assert_eq!(codes(Kind::NotFound), (127, 127));
    }

    /// Is a test only in the process that the next test starts.
    #[test]
    fn a_tool_that_panics() {
        if std::env::var_os("JC_PANIC").is_some() {
            Tool::source("jc-x").begin();
            panic!("{} (os error 1)", std::env::args().len());
        }
    }

    #[test]
    fn a_panic_is_one_line_and_the_code_for_a_failure() {
        let this = std::env::current_exe().unwrap();
        let mut again = std::process::Command::new(this);
        again.args(["--exact", "tool::tests::a_tool_that_panics", "--nocapture"]);
        let ran = again.env("JC_PANIC", "1").env("RUST_BACKTRACE", "1").output().unwrap();
        let text = String::from_utf8(ran.stderr).unwrap();
        assert!(text.starts_with("jc-x: internal error at jc-unshare/src/tool.rs:"), "{text}");
        assert_eq!((text.lines().count(), ran.status.code()), (1, Some(1)), "{text}");
    }
}
