//! What is recorded of a container: the OCI runtime specification's state, and annotations
//! (jc-state(5)).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jc_unshare::process::Process;
use jc_unshare::{Context, Error, Result};
use serde::{Deserialize, Serialize};

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

    /// Whether it stays recorded when it has ended.
    pub fn is_kept(&self) -> bool {
        self.get("keep").is_some()
    }

    /// Reads it from its directory; nothing if there is none, or none that can be read.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    /// Writes it to its directory, whole or not at all.
    pub fn write(&self) -> Result<()> {
        let (path, new) = (self.bundle.join(FILE), self.bundle.join("state.json.new"));
        let mut json =
            serde_json::to_vec(self).map_err(|e| Error::new(format_args!("state: {e}")))?;
        json.push(b'\n');
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new).on("create", &new)?;
        file.write_all(&json).on("write", &new)?;
        file.sync_data().on("fsync", &new)?;
        fs::rename(&new, &path).on("rename", &path)
    }
}

/// Seconds since 1970, with three decimals.
pub fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}", now.as_secs(), now.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::new("0123456789ab", dir.path());
        state.set("name", "web");
        state.pid = Some(7);
        state.write().unwrap();
        assert_eq!(State::read(dir.path()), Some(state.clone()));
        assert_eq!((state.get("name"), state.get("image")), (Some("web"), None));
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(
            text.starts_with(r#"{"ociVersion":"1.2.0","id":"0123456789ab","status":"creating""#)
        );
    }
}
