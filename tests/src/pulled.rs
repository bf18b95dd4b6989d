//! Results of `jc-pull`: the record, and the store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::command::Cmd;
use crate::image::{Built, Layout};
use crate::ran::Ran;
use crate::sandbox::Sandbox;

/// The time limit of a pull, which includes waits in tests of bad networks.
const TIMEOUT: Duration = Duration::from_secs(100);

impl Sandbox {
    /// Pulls an image. Returns its record. Panics if the pull fails, or if stdout has more than the record.
    #[track_caller]
    pub fn pull(&self, image: &str) -> Value {
        record(&self.jc("jc-pull").arg(image).run())
    }

    /// Pulls a bad image. Panics unless the pull fails with one line, and leaves the store unchanged.
    #[track_caller]
    pub fn refuse(&self, image: &str) -> Ran {
        let before = paths(&self.store());
        let ran = self.jc("jc-pull").args(["-q", image]).run();
        let after = paths(&self.store());
        // The first pull makes a store with empty directories.
        let is_part = |path: &PathBuf| path.parent() == Some(&self.store()) && path.is_dir();
        let new: Vec<&PathBuf> =
            after.difference(&before).filter(|path| !is_part(path)).take(9).collect();
        assert!(new.is_empty(), "new in the store: {new:?}\n{ran}");
        ran.code(1).stdout("").fails_as("jc-pull", "")
    }
}

/// A store in a directory with its own configuration and layouts. A test may have several stores.
pub struct Store<'a> {
    sandbox: &'a Sandbox,
    directory: PathBuf,
}

impl<'a> Store<'a> {
    /// A store that does not exist yet.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("store-{}", MADE.fetch_add(1, Ordering::SeqCst));
        let directory = sandbox.path(&name);
        fs::create_dir(&directory).unwrap();
        Self { sandbox, directory }
    }

    /// The path for `--store`.
    pub fn path(&self) -> PathBuf {
        self.beside("store")
    }

    /// A path beside the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file beside the store.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.beside(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes an image as a layout beside the store, under the tag `t`. Returns the name of the image.
    pub fn layout(&self, name: &str, image: &Built) -> String {
        let path = self.beside(name);
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
        Layout::new(&path).put("t", image);
        format!("oci:{}", path.display())
    }

    /// A program of jc-pull's package with this store, and only the configuration of the test.
    pub fn program(&self, name: &str, arguments: &[&str]) -> Cmd {
        let mut cmd = self.sandbox.jc(name).arg("--store").arg(self.path()).args(arguments);
        for name in ["JC_STORE", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
            cmd = cmd.env_remove(name);
        }
        for name in ["DOCKER_CONFIG", "http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            cmd = cmd.env_remove(name).env_remove(&name.to_uppercase());
        }
        cmd = cmd.env("HOME", self.beside("home")).timeout(TIMEOUT);
        cmd.env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
    }

    /// A command line of `jc-pull` with this store.
    pub fn command(&self, arguments: &[&str]) -> Cmd {
        self.program("jc-pull", arguments)
    }

    /// Runs `jc-pull` with this store.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).run()
    }

    /// Pulls images. Returns the records. Panics if the pull fails.
    #[track_caller]
    pub fn pull(&self, arguments: &[&str]) -> Vec<Value> {
        let ran = self.run(arguments).code(0);
        ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Pulls images. Returns the line of the error. Panics unless the pull fails with this code.
    #[track_caller]
    pub fn fail(&self, code: i32, arguments: &[&str]) -> String {
        failure(&self.run(arguments), code)
    }

    /// Every path in the store.
    pub fn listing(&self) -> BTreeSet<PathBuf> {
        paths(&self.path())
    }
}

/// The error line of a failed `jc-pull`. Panics if stderr has more than that line, a hint, and the layers that were
/// fetched.
#[track_caller]
pub fn failure(ran: &Ran, code: i32) -> String {
    failure_of("jc-pull", ran, code)
}

/// The error line of a failed program of jc-pull's package, as [`failure`] has it.
#[track_caller]
pub fn failure_of(program: &str, ran: &Ran, code: i32) -> String {
    let (own, hint) = (format!("{program}: "), format!("{program}: hint: "));
    let err = ran.err();
    assert!(ran.status().code() == Some(code) && ran.out().is_empty(), "code {code}?\n{ran}");
    let lines: Vec<&str> = err.lines().filter(|l| !l.ends_with(" done")).collect();
    assert!(lines.iter().all(|l| l.starts_with(&own)), "{ran}");
    assert!(lines.len() == 1 || lines[1].starts_with(&hint), "{ran}");
    assert!(lines.len() <= 2, "{ran}");
    lines[0].to_owned()
}

/// The record that a successful pull of one image printed.
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
