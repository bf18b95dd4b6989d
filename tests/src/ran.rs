//! The result of a command, and checks of the result.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

/// A command that has ended. A failed check panics with all output.
pub struct Ran {
    pub(crate) line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ran {
    /// Checks the exit code. A command that a signal killed has none.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "exit code\n{self}");
        self
    }

    /// Checks the exit code in the form of a shell: 128 + N after a kill by signal N.
    #[track_caller]
    pub fn shell_code(self, code: i32) -> Self {
        let seen = self.status.code().or(self.status.signal().map(|signal| 128 + signal));
        assert_eq!(seen, Some(code), "exit code in a shell\n{self}");
        self
    }

    /// Checks that a signal killed the command.
    #[track_caller]
    pub fn killed_by(self, signal: Signal) -> Self {
        assert_eq!(self.status.signal(), Some(signal.as_raw()), "signal\n{self}");
        self
    }

    /// Checks that stdout is this text.
    #[track_caller]
    pub fn stdout(self, text: &str) -> Self {
        assert_eq!(self.out(), text, "stdout\n{self}");
        self
    }

    /// Checks that stderr is this text.
    #[track_caller]
    pub fn stderr(self, text: &str) -> Self {
        assert_eq!(self.err(), text, "stderr\n{self}");
        self
    }

    /// Checks that stderr is one line of this tool that contains a text. A hint may follow.
    #[track_caller]
    pub fn fails_as(self, tool: &str, text: &str) -> Self {
        let err = self.err();
        let mut lines = err.lines();
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with(&format!("{tool}: ")), "not a line of {tool}\n{self}");
        assert!(first.contains(text), "the line lacks {text:?}\n{self}");
        let rest: Vec<&str> = lines.collect();
        let hint = format!("{tool}: hint: ");
        assert!(
            rest.is_empty() || rest.len() == 1 && rest[0].starts_with(&hint),
            "more than a line and a hint\n{self}"
        );
        self
    }

    /// The stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The stdout as bytes.
    pub fn out_bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// The exit status of the command.
    pub fn status(&self) -> ExitStatus {
        self.status
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("    {}\n    {}\n", self.line, self.status);
        for (name, output) in [("stdout", self.out()), ("stderr", self.err())] {
            for line in output.lines() {
                // Writing to a String cannot fail.
                let _: std::fmt::Result = writeln!(text, "    {name}: {line}");
            }
        }
        f.write_str(&text)
    }
}
