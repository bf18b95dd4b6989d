//! What is recorded of a container: the OCI runtime specification's state, and annotations
//! (jc-state(5)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jc_unshare::process::Process;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::files::StateDir;

/// Its file in the state dir.
const FILE: &str = "state.json";

/// The state of one container (OCI runtime-spec, runtime.md).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification.
    pub oci_version: String,
    /// 12 hexadecimal digits.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// The payload, or whatever is first in the container, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The state dir itself.
    pub bundle: PathBuf,
    /// All that the specification has no member for.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The specification's words.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The chain is at work.
    Creating,
    /// The payload has been executed.
    Running,
    /// It has ended.
    Stopped,
}

impl State {
    /// That of a container that is about to be.
    pub fn new(id: &str, bundle: &Path) -> Self {
        let mut state = Self {
            oci_version: "1.2.0".to_owned(),
            id: id.to_owned(),
            status: Status::Creating,
            pid: None,
            bundle: bundle.to_owned(),
            annotations: BTreeMap::new(),
        };
        state.set("created", now());
        state
    }

    /// Notes an annotation of jc's.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.annotations.insert(format!("jc.{key}"), value.to_string());
    }

    /// An annotation of jc's.
    pub fn get(&self, key: &str) -> Option<&str> {
        // Without making a key for each of ten thousand states.
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
            _ => Err(Error::new(format_args!("{}: does not run", self.id))),
        }
    }

    /// Whether it stays recorded when it has ended.
    pub fn is_kept(&self) -> bool {
        self.get("keep").is_some()
    }

    /// Reads it from its directory; `None` if none has been written.
    pub fn read(directory: &StateDir) -> Result<Option<Self>> {
        let Some(mut state) = directory.read_json::<Self>(FILE)? else { return Ok(None) };
        // The place is known; the file is not asked for it.
        let path = directory.path();
        if Some(state.id.as_ref()) != path.file_name() {
            return Err(Error::new(format_args!("read {}: not its ID", path.join(FILE).display())));
        }
        path.clone_into(&mut state.bundle);
        Ok(Some(state))
    }

    /// Writes it to its directory, whole or not at all.
    pub fn write(&self, directory: &StateDir) -> Result<()> {
        let mut json =
            serde_json::to_vec(self).map_err(|e| Error::new(format_args!("state: {e}")))?;
        json.push(b'\n');
        directory.replace(FILE, &json)
    }

    /// Removes it from its directory: any sweep then removes the directory.
    pub fn remove(directory: &StateDir) -> Result<()> {
        match unlinkat(directory, FILE, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.on("remove", directory.path().join(FILE)),
        }
    }

    /// Forgets the processes, which have ended.
    pub fn stop(&mut self) {
        (self.status, self.pid) = (Status::Stopped, None);
        for key in ["jc.process", "jc.supervisor"] {
            self.annotations.remove(key);
        }
    }

    /// The state as it is in this boot: the PIDs of another boot belong to other processes.
    pub fn in_boot(mut self, boot: &str) -> Self {
        if self.get("boot") != Some(boot) {
            self.stop();
        }
        self
    }
}

/// The ID of this boot (random(4)).
pub fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(PATH).on("read", PATH).map(|id| id.trim_end().to_owned())
}

/// Seconds since 1970, with three decimals.
pub fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
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
