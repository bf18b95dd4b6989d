//! What `jc-pull` said and did: its record, and the store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ran::Ran;
use crate::sandbox::Sandbox;

impl Sandbox {
    /// Pulls an image, and gives its record. Panics if that fails, or says anything else on stdout.
    #[track_caller]
    pub fn pull(&self, image: &str) -> Value {
        record(&self.jc("jc-pull").arg(image).run())
    }

    /// Pulls a bad image. Panics unless that is an error of one line that leaves the store as it was.
    #[track_caller]
    pub fn refuse(&self, image: &str) -> Ran {
        let before = paths(&self.store());
        let ran = self.jc("jc-pull").args(["-q", image]).run();
        let after = paths(&self.store());
        // The first pull makes a store, with its directories; nothing may be in those.
        let is_part = |path: &PathBuf| path.parent() == Some(&self.store()) && path.is_dir();
        let new: Vec<&PathBuf> =
            after.difference(&before).filter(|path| !is_part(path)).take(9).collect();
        assert!(new.is_empty(), "new in the store: {new:?}\n{ran}");
        ran.code(1).stdout("").fails_as("jc-pull", "")
    }
}

/// The record that a successful pull of one image has printed.
#[track_caller]
pub fn record(ran: &Ran) -> Value {
    assert!(ran.status().success(), "{ran}");
    let out = ran.out();
    assert!(out.ends_with('\n') && out.lines().count() == 1, "not one line\n{ran}");
    serde_json::from_str(&out).unwrap()
}

/// The directories of a record's layers, lowest first.
pub fn layer_dirs(record: &Value) -> Vec<PathBuf> {
    let layers = record["layers"].as_array().unwrap();
    layers.iter().map(|layer| PathBuf::from(layer.as_str().unwrap())).collect()
}

/// Every path below a directory.
pub fn paths(dir: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            all.extend(paths(&path));
        }
        all.insert(path);
    }
    all
}
