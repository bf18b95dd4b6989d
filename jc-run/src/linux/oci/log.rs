//! Messages, in the lines of runc, which engines parse: `level`, `msg` and `time`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use jc_unshare::escape::Escaped;
use jc_unshare::time::rfc3339_now;
use jc_unshare::{Context, Error, Kind, Result, Tool};
use serde_json::json;

/// The file of `--log`.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    is_json: bool,
    is_verbose: bool,
}

impl Log {
    /// Opens the file for appending.
    pub fn open(path: Option<&Path>, format: &str, is_verbose: bool) -> Result<Self> {
        let open =
            |path: &Path| File::options().append(true).create(true).open(path).on("open", path);
        Ok(Self { file: path.map(open).transpose()?, is_json: format == "json", is_verbose })
    }

    /// Writes an error to stderr and to the file. Callers of other runtimes look for the word on stderr.
    pub fn error(&self, tool: Tool, error: Error) {
        if error.kind() != Kind::Quiet {
            self.write("error", &error.to_string());
        }
        tool.report(&error.context("error"));
    }

    /// Writes a warning: to the file, or without a file to stderr.
    pub fn warn(&self, text: &str) {
        match &self.file {
            Some(_) => self.write("warning", text),
            None => {
                // A closed stderr has no reader.
                let _: io::Result<()> =
                    writeln!(io::stderr(), "jc-oci: warning: {}", Escaped(text));
            }
        }
    }

    /// Writes a message if `--debug` asks for it.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.is_verbose {
            self.write("debug", &text());
        }
    }

    fn write(&self, level: &str, text: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let line = self.line(level, text);
        // The message has no other place than this file, or is on stderr already.
        let _: io::Result<()> = file.write_all(line.as_bytes());
    }

    fn line(&self, level: &str, text: &str) -> String {
        let time = rfc3339_now();
        if self.is_json {
            return format!("{}\n", json!({ "level": level, "msg": text, "time": time }));
        }
        format!("time={} level={level} msg={}\n", json!(time), json!(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_that_of_runc() {
        let log = |is_json| Log { file: None, is_json, is_verbose: false };
        let line = log(true).line("error", "a \"b\"");
        assert!(line.starts_with(r#"{"level":"error","msg":"a \"b\"","time":"2"#), "{line}");
        let line = log(false).line("error", "a \"b\"");
        assert!(line.ends_with("Z\" level=error msg=\"a \\\"b\\\"\"\n"), "{line}");
    }
}
