//! Failures of all tools: one line with operation, object and cause, an optional hint, and the exit code
//! that `jc(7)` documents.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Read};
use std::path::Path;

use crate::escape::Escaped;

use nix::errno::Errno;

/// The result of every fallible function of the workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of failure of an [`Error`]; with the tool's [`Family`](crate::Family) it
/// gives the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The tool could not do its job.
    Failed,
    /// The program was found, and is not executable (126).
    NotExecutable,
    /// The program was not found (127).
    NotFound,
    /// The tool ends without a message: the reader of its output has gone, or another process has reported
    /// the failure.
    Quiet,
}

/// A failure with its message for the user: `operation object: strerror`, lower case, no full stop.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    errno: Option<i32>,
}

impl Error {
    /// The tool could not do its job.
    pub fn new(message: impl Display) -> Self {
        Self::with_kind(Kind::Failed, message)
    }

    /// A failure of [`Kind::Usage`].
    pub fn usage(message: impl Display) -> Self {
        Self::with_kind(Kind::Usage, message)
    }

    /// A failure of the given kind.
    pub fn with_kind(kind: Kind, message: impl Display) -> Self {
        Self { kind, message: message.to_string(), hint: None, errno: None }
    }

    /// A failure that another process has reported.
    pub fn quiet() -> Self {
        Self::with_kind(Kind::Quiet, "")
    }

    /// Replaces the kind of failure.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Adds a line with a remedy. An earlier hint stays, since it is nearer to the cause.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// Removes the hint, for one that fits better.
    #[must_use]
    pub fn without_hint(self) -> Self {
        Self { hint: None, ..self }
    }

    /// Adds the errno(3) of the system call that failed.
    #[must_use]
    pub fn caused_by(self, errno: i32) -> Self {
        Self { errno: Some(errno), ..self }
    }

    /// Puts the operation of the caller in front of the message.
    #[must_use]
    pub fn context(mut self, context: impl Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Appends a text of the kernel to the message.
    #[must_use]
    pub fn detail(mut self, detail: impl Display) -> Self {
        self.message = format!("{}{detail}", self.message);
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a hint follows the message.
    pub fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// The errno(3), if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    fn because(cause: &io::Error, doing: impl Display) -> Self {
        let message = format_args!("{doing}: {}", strerror(cause)).to_string();
        Self { errno: cause.raw_os_error(), ..Self::new(message) }
    }

    /// The text for the user: the message and the hint, with the tool's name in front of each line.
    pub fn report(&self, tool: &str) -> String {
        let mut text = format!("{tool}: {}\n", Escaped(shortened(&self.message)));
        if let Some(hint) = &self.hint {
            // Writing to a String cannot fail.
            let _: fmt::Result = writeln!(text, "{tool}: hint: {}", Escaped(shortened(hint)));
        }
        text
    }
}

/// The longest message, in bytes: words of an image or a registry may be part of it.
const LONGEST: usize = 8 << 10;

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.message).fmt(f)
    }
}

/// The text of strerror(3), without Rust's `(os error N)`.
pub fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// Turns the error of a system call into an [`Error`] with the operation and its object.
pub trait Context<T> {
    /// `operation: strerror`
    fn op(self, operation: &str) -> Result<T>;
    /// `operation object: strerror`
    fn on(self, operation: &str, object: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn op(self, operation: &str) -> Result<T> {
        self.map_err(|e| Error::because(&e.into(), operation))
    }

    fn on(self, operation: &str, object: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| {
            let object = object.as_ref().display();
            Error::because(&e.into(), format_args!("{operation} {object}"))
        })
    }
}

/// Distinguishes a path that does not exist from a failed lookup.
pub trait Absent<T> {
    /// The value, or `None` where the errno means that a path does not exist: ENOENT, ENOTDIR. Every
    /// other error stays an error.
    fn absent(self) -> Result<Option<T>>;
}

impl<T> Absent<T> for Result<T> {
    fn absent(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.errno, Some(ENOENT | ENOTDIR)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

const ENOENT: i32 = Errno::ENOENT as i32;
const ENOTDIR: i32 = Errno::ENOTDIR as i32;

/// Whether `path` leads to a file. Symbolic links are followed. Every errno of stat(2) that does not mean
/// absence is an error.
pub fn exists(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    Ok(std::fs::metadata(path).on("stat", path).absent()?.is_some())
}

/// Reads the rest of a file, up to `max` bytes, since the file of another user or a device may be endless.
/// More bytes are an error, whose message has `path`.
pub fn read_at_most(file: impl Read, max: u64, path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    // Without a capacity, the first read asks for 32 bytes.
    let mut bytes = Vec::with_capacity(usize::try_from(max.min(4 << 10)).unwrap_or_default());
    file.take(max + 1).read_to_end(&mut bytes).on("read", path)?;
    if bytes.len() as u64 > max {
        let path = path.display();
        return Err(Error::new(format_args!("read {path}: longer than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_an_error() {
        assert_eq!(read_at_most(&b"abc"[..], 3, "f").unwrap(), b"abc");
        let error = read_at_most(&b"abcd"[..], 3, "f").unwrap_err();
        assert_eq!(error.to_string(), "read f: longer than 3 bytes");
        assert!(read_at_most(io::repeat(0), 1 << 20, "f").is_err());
    }

    #[test]
    fn a_report_has_a_bound() {
        let long = Error::new("\u{e9}".repeat(1 << 20)).hint("x".repeat(1 << 20));
        let report = long.report("jc-x");
        assert!(report.starts_with("jc-x: \u{e9}") && report.contains("\njc-x: hint: x"));
        assert_eq!(report.len(), 2 * LONGEST + "jc-x: \njc-x: hint: \n".len());
    }

    #[test]
    fn only_the_errno_of_a_missing_path_is_absence() {
        for (errno, absent) in [
            (Errno::ENOENT, true),
            (Errno::ENOTDIR, true),
            (Errno::EACCES, false),
            (Errno::EIO, false),
            (Errno::ELOOP, false),
            (Errno::ENOMEM, false),
        ] {
            let failed: Result<()> = Err(io::Error::from(errno)).op("stat");
            assert_eq!(failed.absent().is_ok(), absent, "{errno}");
        }
        assert_eq!(Ok(5).absent().unwrap(), Some(5));
        assert!(exists("/").unwrap());
        assert!(!exists("/nonexistent/x").unwrap());
    }

    #[test]
    fn a_system_error_reads_as_operation_object_strerror() {
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(22));
        let error = failed.on("pivot_root", "/srv/alpine").unwrap_err();
        assert_eq!(
            error.report("jc-rootfs"),
            "jc-rootfs: pivot_root /srv/alpine: Invalid argument\n"
        );
    }

    #[test]
    fn the_first_hint_is_nearest_to_the_cause() {
        let error = Error::new("x").hint("near").hint("far");
        assert_eq!(error.report("t"), "t: x\nt: hint: near\n");
    }

    #[test]
    fn control_characters_cannot_break_the_line() {
        assert_eq!(Error::new("a\nb\x1b[2J").to_string(), "a\\nb\\u{1b}[2J");
        let report = Error::new("\u{202e}x").hint("\u{9b}y").report("t");
        assert_eq!(report, "t: \\u{202e}x\nt: hint: \\u{9b}y\n");
    }
}
