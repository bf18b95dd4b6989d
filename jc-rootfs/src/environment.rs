//! The payload's environment: what this process has, files, and single variables, in this order.

#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::ffi::CString;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jc_unshare::{Context, Error, Result, read_at_most};

use crate::Args;

/// A variable and its value; none if it is to be absent.
pub type Variable = (String, Option<OsString>);

/// What jc's own variables begin with: settings of its tools, which are no business of a payload.
const OWN: &[u8] = b"JC_";

/// What becomes of this process's environment.
#[derive(Default)]
pub struct Environment {
    clear: bool,
    changes: Vec<(OsString, Option<OsString>)>,
    home: Option<OsString>,
    path: Option<OsString>,
}

impl Environment {
    /// What the command line and the files say of it.
    pub fn new(args: &Args, files: &[Variable]) -> Self {
        let mut new = Self { clear: args.clear_env, ..Self::default() };
        if !new.clear {
            new.home = std::env::var_os("HOME");
            new.path = std::env::var_os("PATH");
            let names = std::env::vars_os().map(|(name, _)| name);
            let own = names.filter(|name| name.as_bytes().starts_with(OWN));
            new.changes.extend(own.map(|name| (name, None)));
        }
        for (name, value) in files.iter().chain(&args.env) {
            new.set(name, value.clone());
        }
        new
    }

    /// Sets a variable, or takes it away.
    pub fn set(&mut self, name: &str, value: Option<OsString>) {
        match name {
            "HOME" => self.home.clone_from(&value),
            "PATH" => self.path.clone_from(&value),
            _ => {}
        }
        self.changes.push((name.into(), value));
    }

    /// Whether there is a HOME.
    pub fn has_home(&self) -> bool {
        self.home.is_some()
    }

    /// The PATH that the payload will have.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only the full tool needs it"))]
    pub fn path(&self) -> Option<&OsStr> {
        self.path.as_deref()
    }

    /// All variables, as execve(2) takes them. Usage error: a NUL byte.
    #[cfg(target_os = "linux")]
    pub fn strings(self) -> Result<Vec<CString>> {
        let inherited = std::env::vars_os().filter(|_| !self.clear);
        let mut variables: BTreeMap<OsString, OsString> = inherited.collect();
        for (name, value) in self.changes {
            match value {
                Some(value) => drop(variables.insert(name, value)),
                None => drop(variables.remove(&name)),
            }
        }
        let strings = variables
            .into_iter()
            .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let strings: std::result::Result<_, _> = strings.collect();
        strings.map_err(|_| Error::usage("a NUL byte in a variable"))
    }

    /// Gives it to a command.
    pub fn apply(self, command: &mut Command) {
        if self.clear {
            command.env_clear();
        }
        for (name, value) in self.changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

/// The variables of files, one file after the other.
pub fn files(paths: &[PathBuf]) -> Result<Vec<Variable>> {
    let files: Result<Vec<_>> = paths.iter().map(|path| read(path)).collect();
    Ok(files?.into_iter().flatten().collect())
}

/// Longest file of variables that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file of variables, as docker-run(1) does.
fn read(path: &Path) -> Result<Vec<Variable>> {
    let bytes = read_at_most(File::open(path).on("read", path)?, MAX_FILE, path)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(format_args!("read {}: is not UTF-8", path.display())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim_start()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parse = |(number, line)| {
        let error = |why| Error::new(format_args!("{} line {number}: {why}", path.display()));
        let variable = variable(line).map_err(error)?;
        match variable.0.contains(char::is_whitespace) {
            true => Err(error("white space in a name".to_owned())),
            false => Ok(variable),
        }
    };
    lines.map(parse).collect()
}

/// Parses `NAME=VALUE`, or `NAME` for the value that this process has; absent, it stays absent.
pub fn variable(word: &str) -> std::result::Result<Variable, String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.into())),
        None => (word, std::env::var_os(word)),
    };
    if name.is_empty() { Err("no name".to_owned()) } else { Ok((name.to_owned(), value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn variables() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(variable("JC_NOT_SET_ANYWHERE"), Ok(("JC_NOT_SET_ANYWHERE".into(), None)));
        assert_eq!(variable("=x"), Err("no name".into()));
    }

    #[test]
    fn files_of_variables() {
        let parse = |text: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text).unwrap();
            let name = file.path().display().to_string();
            read(file.path()).map_err(|e| e.to_string().replace(&name, "FILE"))
        };
        let set = |name: &str, value: &str| (name.to_owned(), Some(value.into()));
        let text = "\u{feff}A=1\n\n# B=2\n  C = 3 \nD=\nE=\"x\" #y\r\nJC_NOT_SET_ANYWHERE\n";
        let text = text.replace("C = 3 ", "C= 3 ");
        assert_eq!(
            parse(text.as_bytes()),
            Ok(vec![
                set("A", "1"),
                set("C", " 3 "),
                set("D", ""),
                set("E", "\"x\" #y"),
                ("JC_NOT_SET_ANYWHERE".to_owned(), None),
            ])
        );
        for (text, message) in [
            (&b"A=1\nB C=2\n"[..], "FILE line 2: white space in a name"),
            (b"=1\n", "FILE line 1: no name"),
            (b"A=\xff\n", "read FILE: is not UTF-8"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()));
        }
    }
}
