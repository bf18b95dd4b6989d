//! The environment of the payload: the variables of this process, those of files, and single ones, in this order.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jc_unshare::{Context, Error, Result, read_at_most};

/// The options of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct EnvironmentArgs {
    /// Set a variable; without a value, pass on the caller's: NAME[=VALUE] (repeatable)
    #[arg(short = 'e', long, value_name = "NAME", value_parser = variable)]
    env: Vec<Variable>,
    /// Set the variables of a file, a line each (repeatable)
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Start from an empty environment
    #[arg(long)]
    clear_env: bool,
}

/// The name and value of a variable. `None` removes the variable.
pub type Variable = (String, Option<OsString>);

/// The prefix of variables that configure programs of jc. The payload does not inherit these.
const JC_PREFIX: &[u8] = b"JC_";

/// Changes to the environment of this process.
#[derive(Default)]
pub struct Environment {
    clear: bool,
    changes: Vec<(OsString, Option<OsString>)>,
    home: Option<OsString>,
    path: Option<OsString>,
}

impl EnvironmentArgs {
    /// Reads the variables of the files, in the order of the files. A file that is no UTF-8, or has more than
    /// [`MAX_FILE`] bytes, is an error.
    pub fn read_files(&self) -> Result<Vec<Variable>> {
        let files: Result<Vec<_>> = self.env_files.iter().map(|path| read(path)).collect();
        Ok(files?.into_iter().flatten().collect())
    }

    /// The variables with which jc-rootfs executes itself once more, so that `NAME` on the command line has the
    /// same value.
    pub fn for_this_program(&self) -> Environment {
        if self.clear_env { Environment::new(self, &[]) } else { Environment::default() }
    }
}

impl Environment {
    /// The environment of a command line and the variables of its files.
    pub fn new(options: &EnvironmentArgs, files: &[Variable]) -> Self {
        let mut new = Self { clear: options.clear_env, ..Self::default() };
        if !new.clear {
            new.home = std::env::var_os("HOME");
            new.path = std::env::var_os("PATH");
            let names = std::env::vars_os().map(|(name, _)| name);
            let of_jc = names.filter(|name| name.as_bytes().starts_with(JC_PREFIX));
            new.changes.extend(of_jc.map(|name| (name, None)));
        }
        for (name, value) in files.iter().chain(&options.env) {
            new.set(name, value.clone());
        }
        new
    }

    /// Sets a variable. `None` removes the variable.
    pub fn set(&mut self, name: &str, value: Option<OsString>) {
        match name {
            "HOME" => self.home.clone_from(&value),
            "PATH" => self.path.clone_from(&value),
            _ => {}
        }
        self.changes.push((name.into(), value));
    }

    /// Whether the payload has a HOME.
    pub fn has_home(&self) -> bool {
        self.home.is_some()
    }

    /// The PATH of the payload.
    pub fn path(&self) -> Option<&OsStr> {
        self.path.as_deref()
    }

    /// The variables for execve(2). A NUL byte is a usage error.
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

    /// Applies the changes to a command.
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

/// The size limit of a file of variables, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file of variables in the format of docker-run(1).
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
        if variable.0.contains(char::is_whitespace) {
            return Err(error("white space in a name".to_owned()));
        }
        Ok(variable)
    };
    lines.map(parse).collect()
}

/// Parses `NAME=VALUE`, or `NAME` for the value of this process, if it has the variable.
fn variable(word: &str) -> std::result::Result<Variable, String> {
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
    fn a_variable_without_a_value_has_that_of_this_process() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(variable("JC_NOT_SET_ANYWHERE"), Ok(("JC_NOT_SET_ANYWHERE".into(), None)));
        assert_eq!(variable("=x"), Err("no name".into()));
    }

    #[test]
    fn a_file_of_variables_has_one_on_a_line_and_comments() {
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
