//! The state of a container: that of the OCI runtime specification, with annotations, and the facts by which
//! other programs join the container (jc-state(5)).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jc_unshare::process::Process;
use jc_unshare::time::since_epoch;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::files::StateDir;
use crate::link::{Opt, RecordedOpt};

/// The file in the state directory.
const FILE: &str = "state.json";

/// The state of one container (OCI runtime-spec, runtime.md).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification.
    pub oci_version: String,
    /// The ID, 12 hexadecimal digits.
    pub id: String,
    /// The part of the life of the container.
    pub status: Status,
    /// The payload, or PID 1 of the container, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The path of the state directory.
    pub bundle: PathBuf,
    /// The annotations of jc, which begin with `jc.`, and the labels of the user.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The facts for jc-exec and jc-stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
}

/// The facts by which a process joins a container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Join {
    /// The control group, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Group>,
    /// The kinds of namespaces that jc-unshare joins.
    pub namespaces: Vec<String>,
    /// The options of jc-rootfs about a program.
    pub options: Vec<RecordedOpt>,
}

/// A control group of jc-cgroup.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Group {
    /// The name of the group.
    pub name: String,
    /// The `--parent`, if one is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl Group {
    /// The option of jc-cgroup for the parent.
    pub fn parent_option(&self) -> Option<Opt> {
        self.parent.as_ref().map(|parent| Opt::new("--parent", parent))
    }
}

/// The states of the specification.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The chain assembles the container.
    Creating,
    /// The payload has been executed.
    Running,
    /// The payload has ended.
    Stopped,
}

impl State {
    /// The state of a container before its start.
    pub fn new(id: &str, bundle: &Path) -> Self {
        let mut state = Self {
            oci_version: "1.2.0".to_owned(),
            id: id.to_owned(),
            status: Status::Creating,
            pid: None,
            bundle: bundle.to_owned(),
            annotations: BTreeMap::new(),
            join: None,
        };
        state.set("created", now());
        state
    }

    /// Sets an annotation of jc.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.annotations.insert(format!("jc.{key}"), value.to_string());
    }

    /// An annotation of jc.
    pub fn get(&self, key: &str) -> Option<&str> {
        // A lookup by key would allocate memory for each of ten thousand states.
        let found = self.annotations.iter().find(|(name, _)| name.strip_prefix("jc.") == Some(key));
        found.map(|(_, value)| value.as_str())
    }

    /// A process that an annotation names.
    pub fn process(&self, key: &str) -> Option<Process> {
        self.get(key)?.parse().ok()
    }

    /// The payload of a container that runs.
    pub fn payload(&self) -> Result<Process> {
        let running = |_: &Process| self.status == Status::Running;
        match self.process("process").filter(running) {
            Some(payload) if payload.runs()? => Ok(payload),
            _ => Err(self.error("does not run")),
        }
    }

    /// An error about the container, with its name, or with the ID of a container without a name.
    pub fn error(&self, why: impl Display) -> Error {
        Error::new(format_args!("{}: {why}", self.get("name").unwrap_or(&self.id)))
    }

    /// Whether the state stays after the end of the container.
    pub fn is_kept(&self) -> bool {
        self.get("keep").is_some()
    }

    /// Reads the state from its directory. `None`: no state has been written.
    pub fn read(directory: &StateDir) -> Result<Option<Self>> {
        let Some(mut state) = directory.read_json::<Self>(FILE)? else { return Ok(None) };
        // The path in the file is not trusted.
        let path = directory.path();
        if Some(state.id.as_ref()) != path.file_name() {
            return Err(Error::new(format_args!("read {}: not its ID", path.join(FILE).display())));
        }
        path.clone_into(&mut state.bundle);
        Ok(Some(state))
    }

    /// Writes the state to its directory, by rename.
    pub fn write(&self, directory: &StateDir) -> Result<()> {
        let mut json =
            serde_json::to_vec(self).map_err(|e| Error::new(format_args!("state: {e}")))?;
        json.push(b'\n');
        directory.replace(FILE, &json)
    }

    /// Removes the file. Every sweep then removes the directory.
    pub fn remove(directory: &StateDir) -> Result<()> {
        match unlinkat(directory, FILE, AtFlags::empty()) {
            // A directory with that name is no state, and is removed with the state directory.
            Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            removed => removed.on("remove", directory.path().join(FILE)),
        }
    }

    /// Removes the processes, which have ended, from the state.
    pub fn stop(&mut self) {
        (self.status, self.pid) = (Status::Stopped, None);
        for key in ["jc.process", "jc.supervisor"] {
            self.annotations.remove(key);
        }
    }

    /// The state in this boot. PIDs of another boot belong to other processes now.
    pub fn in_boot(mut self, boot: &str) -> Self {
        if self.get("boot") != Some(boot) {
            self.stop();
        }
        self
    }
}

/// Whether a text is the ID of a container: 12 hexadecimal digits.
pub fn is_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The ID of this boot (random(4)), which is read once.
pub fn boot_id() -> Result<&'static str> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(PATH).on("read", PATH)?;
    Ok(ID.get_or_init(|| text.trim_end().to_owned()))
}

/// Seconds since 1970, with three decimals.
pub fn now() -> String {
    let now = since_epoch();
    format!("{}.{:03}", now.as_secs(), now.subsec_millis())
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn a_written_state_is_read_back_from_its_own_directory_only() {
        let base = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = base.path().join(name);
            std::fs::create_dir(&path).unwrap();
            StateDir::open(CWD, &path, &path).unwrap().unwrap()
        };
        let (own, other) = (open("0123456789ab"), open("ba9876543210"));
        assert_eq!(State::read(&own).unwrap(), None);
        let mut state = State::new("0123456789ab", own.path());
        state.set("name", "web");
        state.pid = Some(7);
        state.write(&own).unwrap();
        assert_eq!(State::read(&own).unwrap(), Some(state.clone()));
        assert_eq!((state.get("name"), state.get("image")), (Some("web"), None));
        let text = std::fs::read_to_string(own.path().join(FILE)).unwrap();
        assert!(
            text.starts_with(r#"{"ociVersion":"1.2.0","id":"0123456789ab","status":"creating""#)
        );
        state.write(&other).unwrap();
        assert!(State::read(&other).is_err());
    }
}
