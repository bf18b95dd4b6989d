//! `config.json` of a bundle, as the OCI runtime specification 1.3 defines it (config.md, config-linux.md). Unknown
//! members are ignored, as the specification demands; each known one is applied or refused.

pub mod linux;
mod null;
pub mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use jc_unshare::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use linux::Linux;
use null::null_is_default;
pub use process::Process;

/// The configuration of a bundle.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub oci_version: String,
    pub root: Option<Root>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub linux: Option<Linux>,
    /// Members for other platforms, which must be absent on this one.
    windows: Option<Value>,
    solaris: Option<Value>,
    vm: Option<Value>,
    zos: Option<Value>,
}

/// The root file system.
#[derive(Clone, Debug, Deserialize)]
pub struct Root {
    pub path: PathBuf,
    #[serde(default)]
    pub readonly: bool,
}

/// An entry of `mounts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<PathBuf>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub options: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<linux::IdMapping>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<linux::IdMapping>,
}

/// Programs to run at points of the life of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    #[serde(deserialize_with = "null_is_default")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default")]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// The six lists with their names.
    fn all(&self) -> impl Iterator<Item = (&'static str, &Vec<Hook>)> {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
        .into_iter()
    }
}

/// A program with arguments, an environment and a time-out in seconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Hook {
    pub path: PathBuf,
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// `None`: the hook inherits the environment of the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    pub timeout: Option<i64>,
}

impl Config {
    /// Refuses a configuration that the specification does not allow, or that means nothing on Linux.
    pub fn check(&self) -> Result<()> {
        check_version(&self.oci_version)?;
        let others = [&self.windows, &self.solaris, &self.vm, &self.zos];
        for (value, name) in others.into_iter().zip(["windows", "solaris", "vm", "zos"]) {
            if value.is_some() {
                return Err(Error::new(format_args!("{name}: not supported on this platform")));
            }
        }
        for (name, hooks) in self.hooks.all() {
            for hook in hooks {
                let path = hook.path.display();
                if !hook.path.is_absolute() {
                    return Err(Error::new(format_args!(
                        "hooks.{name}: {path}: not an absolute path"
                    )));
                }
                if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                    return Err(Error::new(format_args!(
                        "hooks.{name}: {path}: timeout is not above zero"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The `linux` member, or an empty one.
    pub fn linux(&self) -> &Linux {
        static EMPTY: LazyLock<Linux> = LazyLock::new(Linux::default);
        self.linux.as_ref().unwrap_or(&EMPTY)
    }

    /// The root. An error without one: the specification demands it on Linux.
    pub fn root(&self) -> Result<&Root> {
        self.root.as_ref().ok_or_else(|| Error::new("config.json: root is missing"))
    }

    /// The program. `start` needs it, and this runtime needs it to create the container.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().ok_or_else(|| Error::new("config.json: process is missing"))
    }
}

/// Accepts the versions 1.x.y of the specification, and pre-releases of them.
fn check_version(version: &str) -> Result<()> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (core, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let parts: Vec<&str> = core.split('.').collect();
    match parts.as_slice() {
        ["1", minor, patch] if number(minor) && number(patch) => Ok(()),
        _ => Err(Error::new(format_args!("ociVersion {version:?}: not a version 1.x.y"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_first_specification_are_accepted() {
        for version in ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0+x"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in ["", "1", "1.0", "2.0.0", "0.9.0", "1.a.0", "1.0.0.0"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn a_list_of_go_may_be_null() {
        let text = br#"{"ociVersion":"1.0.0","mounts":[{"destination":"/a","options":null}],"hooks":{"poststop":null},"x":1}"#;
        let config: Config = serde_json::from_slice(text).unwrap();
        assert!(config.mounts[0].options.is_empty() && config.hooks.poststop.is_empty());
    }

    #[test]
    fn members_of_other_platforms_and_relative_hooks_are_refused() {
        for (member, message) in [
            (r#""windows":{}"#, "windows: not supported on this platform"),
            (r#""hooks":{"prestart":[{"path":"a"}]}"#, "hooks.prestart: a: not an absolute path"),
            (
                r#""hooks":{"poststop":[{"path":"/a","timeout":0}]}"#,
                "hooks.poststop: /a: timeout is not above zero",
            ),
        ] {
            let text = format!(r#"{{"ociVersion":"1.0.0",{member}}}"#);
            let config: Config = serde_json::from_str(&text).unwrap();
            assert_eq!(config.check().unwrap_err().to_string(), message);
        }
    }
}
