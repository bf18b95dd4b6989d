//! The configuration of an image (OCI image-spec config.md), combined with the command line as Docker does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use jc_unshare::record::Record;
use jc_unshare::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::link::Opt;
use crate::options::ProgramOptions;

/// The part of an image's `config` object that a runner uses. Each member may be null or absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    /// The signal for jc-stop.
    pub stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, Value>>,
    exposed_ports: Option<BTreeMap<String, Value>>,
}

impl Config {
    /// Reads the record's `config`.
    fn of(record: &Record) -> Result<Self> {
        serde_json::from_value(Value::Object(record.config.clone()))
            .map_err(|e| Error::new(format_args!("record: config: {e}")))
    }

    /// Reads the record's `config`, and replaces the program by that of the command line. Returns the payload too.
    pub fn with_program(
        record: &Record,
        program: &ProgramOptions,
    ) -> Result<(Self, Vec<OsString>)> {
        let mut config = Self::of(record)?;
        if let Some(entrypoint) = &program.entrypoint {
            config.replace_entrypoint(entrypoint)?;
        }
        let payload = config.argv(&program.arguments)?;
        Ok((config, payload))
    }

    /// Replaces the entry point, and with it `Cmd`.
    fn replace_entrypoint(&mut self, entrypoint: &OsStr) -> Result<()> {
        let word = entrypoint.to_str().ok_or_else(|| Error::usage("--entrypoint: is not UTF-8"))?;
        let words = match word {
            "" => None,
            // podman(1) takes an array too.
            _ if word.starts_with('[') => Some(serde_json::from_str(word).map_err(|_| {
                Error::usage(format_args!("--entrypoint {word}: not an array of strings in JSON"))
            })?),
            _ => Some(vec![word.to_owned()]),
        };
        (self.entrypoint, self.cmd) = (words, None);
        Ok(())
    }

    /// The paths of the volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().flatten().map(|(path, _)| path.as_str())
    }

    /// The ports that the image listens on, as `PORT[/PROTOCOL]`.
    pub fn exposed_ports(&self) -> impl Iterator<Item = &str> {
        self.exposed_ports.iter().flatten().map(|(port, _)| port.as_str())
    }

    /// The payload: the entrypoint, then the user's arguments or else the image's.
    fn argv(&self, user: &[OsString]) -> Result<Vec<OsString>> {
        let words = |list: &Option<Vec<String>>| -> Vec<OsString> {
            list.iter().flatten().map(OsString::from).collect()
        };
        let arguments = if user.is_empty() { words(&self.cmd) } else { user.to_vec() };
        let argv = [words(&self.entrypoint), arguments].concat();
        if argv.is_empty() {
            return Err(Error::usage("no program given, and the image names none")
                .hint("PROG [ARG...] follows the options: jc-run ... -- sh"));
        }
        Ok(argv)
    }

    /// Variables as `NAME=VALUE`. PATH is always among them.
    fn env(&self) -> Vec<String> {
        // Without "=" an option would pass on the value of the caller.
        let assign =
            |word: &String| if word.contains('=') { word.clone() } else { format!("{word}=") };
        let words = self.env.iter().flatten().map(assign);
        let mut env: Vec<String> = words.collect();
        if !env.iter().any(|word| word.starts_with("PATH=")) {
            env.insert(0, format!("PATH={DEFAULT_PATH}"));
        }
        env
    }

    /// The options that set the environment.
    pub fn env_options(&self) -> Vec<Opt> {
        self.env().into_iter().map(|word| Opt::new("-e", word)).collect()
    }

    /// The option for the working directory, if the image has one.
    pub fn dir_option(&self) -> Option<Opt> {
        self.working_dir().map(|dir| Opt::new("-w", dir))
    }

    /// The working directory, if the image has one.
    fn working_dir(&self) -> Option<&str> {
        self.working_dir.as_deref().filter(|dir| !dir.is_empty())
    }

    /// The user, root if the image has none.
    pub fn user(&self) -> &str {
        self.user.as_deref().filter(|user| !user.is_empty()).unwrap_or("0")
    }
}

/// The PATH of an image that has none, as Docker sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn entrypoint_and_cmd_combine_as_in_docker() {
        let both = r#"{"Entrypoint":["/entry"],"Cmd":["a","b"]}"#;
        for (json, user, argv) in [
            (both, &[][..], &["/entry", "a", "b"][..]),
            (both, &["x"], &["/entry", "x"]),
            (r#"{"Cmd":["sh"]}"#, &[], &["sh"]),
            (r#"{"Cmd":["sh"],"Entrypoint":null}"#, &["ls", "-l"], &["ls", "-l"]),
            (r#"{"Entrypoint":["/entry"]}"#, &[], &["/entry"]),
        ] {
            let user: Vec<OsString> = user.iter().map(OsString::from).collect();
            assert_eq!(config(json).argv(&user).unwrap(), argv, "{json} {user:?}");
        }
        assert!(config(r#"{"Cmd":[],"Entrypoint":[]}"#).argv(&[]).is_err());
    }

    #[test]
    fn an_image_that_says_nothing_has_dockers_defaults() {
        let config = config(r#"{"User":"","WorkingDir":"","Env":null}"#);
        assert_eq!((config.user(), config.working_dir()), ("0", None));
        assert_eq!(config.env(), [format!("PATH={DEFAULT_PATH}")]);
    }

    #[test]
    fn an_image_cannot_fetch_variables_of_the_caller() {
        let config = config(r#"{"Env":["SECRET","PATH=/b"]}"#);
        assert_eq!(config.env(), ["SECRET=", "PATH=/b"]);
    }
}
