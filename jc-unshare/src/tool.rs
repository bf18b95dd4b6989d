//! `main` of every tool: parse, run, and turn the outcome into the contract's exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, Parser};

use crate::error::{Context, Error, Kind, Result};

/// The contract about exit codes that a tool keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// Runs a payload and passes its exit code on; 125 is its own failure, usage included.
    Link,
    /// Prints a result or manages something: 0, 1 failed, 2 usage.
    Source,
}

/// The tool that this process is.
static RUNNING: OnceLock<Tool> = OnceLock::new();

/// The start of each error line, and the exit code for a failure, of the tool that this process is.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only the heap of Linux asks"))]
pub(crate) fn running() -> (&'static str, u8) {
    RUNNING.get().map_or(("jc", 125), |tool| (tool.name, tool.code(Kind::Failed)))
}

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

    /// A tool that prints or manages.
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

    /// Says which tool this process is, for the errors of a tool that cannot go on: a panic, which is an
    /// error of the program, and memory that cannot be allocated. Either ends the process with one line and
    /// the code for a failure.
    pub fn begin(self) {
        // Already set: that tool goes on in this process.
        let _: std::result::Result<(), Self> = RUNNING.set(self);
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("no message");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            // std panics where the kernel refuses it something, and says what.
            let text = text.split(" (os error").next().unwrap_or(text);
            self.exit(&match place.starts_with("/rustc/") {
                true => Error::new(text),
                false => Error::new(format_args!("internal error at {place}: {text}")),
            })
        }));
    }

    /// Parses the command line as `A`, runs, and reports. `--help` and `--version` go to stdout.
    pub fn main<A: Parser>(self, run: impl FnOnce(A) -> Result<ExitCode>) -> ExitCode {
        self.parsed(A::command, |matches| {
            run(A::from_arg_matches_mut(matches).map_err(|e| usage_error(&e))?)
        })
    }

    /// Does the same as [`main`](Self::main), for a command line that is built at run time.
    pub fn main_with(
        self,
        command: impl FnOnce() -> Command,
        run: impl FnOnce(&ArgMatches) -> Result<ExitCode>,
    ) -> ExitCode {
        self.parsed(command, |matches| run(matches))
    }

    fn parsed(
        self,
        command: impl FnOnce() -> Command,
        run: impl FnOnce(&mut ArgMatches) -> Result<ExitCode>,
    ) -> ExitCode {
        self.begin();
        crate::platform::map_ahead();
        // The parser's memory stays: its destructors cost time, and exec(3) or the exit frees it.
        let mut command = ManuallyDrop::new(command());
        let outcome = match command.try_get_matches_from_mut(std::env::args_os()) {
            Ok(matches) => run(&mut ManuallyDrop::new(matches)),
            Err(e) => match e.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    print(e.render().to_string()).map(|()| ExitCode::SUCCESS)
                }
                _ => Err(usage_error(&e)),
            },
        };
        outcome.unwrap_or_else(|error| self.fail(&error))
    }

    /// Writes the error to stderr and gives the exit code for it.
    pub fn fail(self, error: &Error) -> ExitCode {
        self.report(error);
        ExitCode::from(self.code(error.kind()))
    }

    /// Reports the error and ends the process: for a forked child.
    pub fn exit(self, error: &Error) -> ! {
        self.report(error);
        std::process::exit(self.code(error.kind()).into())
    }

    /// Fails on a platform that lacks `what`.
    pub fn unsupported(self, what: &str) -> ExitCode {
        self.fail(&Error::new(format_args!("{what}: not supported on this platform")))
    }

    /// Writes the error to stderr.
    pub fn report(self, error: &Error) {
        if error.kind() != Kind::Quiet {
            let mut text = error.report(self.name);
            if let Some(hint) = crate::platform::old_kernel(error.errno()) {
                text = format!("{text}{}: hint: {hint}\n", self.name);
            }
            // A closed stderr leaves no place for the error of this write.
            let _: io::Result<()> = io::stderr().write_all(text.as_bytes());
        }
    }
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

fn usage_error(error: &clap::Error) -> Error {
    Error::usage(one_line(&error.render().to_string()))
}

/// clap explains in paragraphs; the contract is one line: the first paragraph, joined.
fn one_line(rendered: &str) -> String {
    let paragraph = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let lines: Vec<&str> = paragraph.lines().take_while(|l| !l.is_empty()).map(str::trim).collect();
    lines.join(" ")
}

/// Refuses a link without a program (contract 1).
pub fn require_program(argv: &[OsString]) -> Result<()> {
    if argv.is_empty() { Err(Error::usage("no program given to run")) } else { Ok(()) }
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

    #[test]
    fn a_clap_error_becomes_one_line() {
        let rendered = "error: unexpected argument '--x' found\n\nUsage: jc-run [OPTIONS]\n";
        assert_eq!(one_line(rendered), "unexpected argument '--x' found");
        let rendered = "error: the following required arguments were not provided:\n  <A>\n\nUsage";
        assert_eq!(one_line(rendered), "the following required arguments were not provided: <A>");
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
