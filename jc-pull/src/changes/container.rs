//! The changes of a container that jc-run keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use jc_unshare::{Context, Error, Result, exists};

use super::freeze::Frozen;
use crate::containers::{Listed, list};

/// The directory of the changes in the directory of the volumes (jc-store(5)).
const CHANGES: &str = "changes";

/// The changes of a container.
pub struct Container {
    /// The directory with `upper` and `lower`.
    pub directory: PathBuf,
    /// The payload, while the container runs.
    pub pid: Option<u32>,
    name: String,
}

impl Container {
    /// Finds a container by its name, its ID, or the beginning of exactly one ID. `None`: no container has it. A
    /// container whose changes are not kept is an error.
    pub fn find(word: &str, state_dir: Option<&Path>) -> Result<Option<Self>> {
        let states = list(state_dir, Stdio::inherit())?;
        let Some(state) = choose(word, &states)? else { return Ok(None) };
        let refuse = |why: &str| Error::new(format_args!("{word}: {why}"));
        let none = || {
            refuse("its changes are in memory").hint(
                "jc-run --keep keeps changes; those of --upper DIR are in DIR, and --rootfs DIR is changed itself",
            )
        };
        let link = state.bundle.join("volumes");
        let volumes = match fs::read_link(&link) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(none()),
            other => other.on("readlink", &link)?,
        };
        let directory = volumes.join(CHANGES);
        if !exists(&directory)? {
            return Err(none());
        }
        let pid = state.pid.filter(|_| state.status != "stopped");
        if pid.is_none() && state.status == "creating" {
            return Err(refuse("is being started"));
        }
        Ok(Some(Self { directory, pid, name: word.to_owned() }))
    }

    /// Stops all processes of the container until the result is dropped.
    pub fn freeze(&self) -> Result<Option<Frozen>> {
        self.pid.map(Frozen::container).transpose().map_err(|e| e.context(&self.name))
    }
}

fn choose<'a>(word: &str, states: &'a [Listed]) -> Result<Option<&'a Listed>> {
    let mut named = states.iter();
    if let Some(state) = named.find(|state| state.id == word || state.name() == Some(word)) {
        return Ok(Some(state));
    }
    let begins: Vec<_> = states.iter().filter(|state| state.id.starts_with(word)).collect();
    match begins.as_slice() {
        [] => Ok(None),
        [state] if !word.is_empty() => Ok(Some(state)),
        more => Err(Error::new(format_args!(
            "\"{word}\" is ambiguous: it matches {} containers",
            more.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_word_is_a_name_an_id_or_the_beginning_of_one_id() {
        let state = |id: &str, name: &str| Listed {
            id: id.to_owned(),
            status: "stopped".to_owned(),
            pid: None,
            bundle: PathBuf::new(),
            annotations: BTreeMap::from([("jc.name".to_owned(), name.to_owned())]),
        };
        let states = [state("0123", "web"), state("0145", "01"), state("ab00", "0123")];
        let id = |word: &str| choose(word, &states).unwrap().map(|state| state.id.as_str());
        assert_eq!(id("web"), Some("0123"));
        assert_eq!(id("01"), Some("0145"));
        assert_eq!(id("ab"), Some("ab00"));
        assert_eq!(id("0123"), Some("0123"));
        assert_eq!(id("x"), None);
        assert_eq!(
            choose("0", &states).err().unwrap().to_string(),
            "\"0\" is ambiguous: it matches 2 containers"
        );
        assert!(choose("", &states).is_err());
    }
}
