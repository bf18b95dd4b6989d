//! Bundles for jc-oci, from the configuration that `jc-oci spec` writes.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::path::PathBuf;

use jc_tests::roots::busybox_root;
use jc_tests::{Cmd, Ran, Sandbox};
use serde_json::{Value, json};

/// A bundle with a root of busybox.
pub struct Bundle<'a> {
    s: &'a Sandbox,
    pub path: PathBuf,
    pub config: Value,
}

impl<'a> Bundle<'a> {
    /// A bundle without a terminal, whose program is a script for sh.
    pub fn new(s: &'a Sandbox, script: &str) -> Self {
        let path = s.path("bundle");
        fs::create_dir(&path).unwrap();
        busybox_root(s, "bundle/rootfs");
        s.jc("jc-oci").args(["spec", "-b"]).arg(&path).run().code(0);
        let text = fs::read(path.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        let bundle = Self { s, path, config };
        bundle.write();
        bundle
    }

    /// Changes the configuration and writes it.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.write();
    }

    fn write(&self) {
        fs::write(self.path.join("config.json"), self.config.to_string()).unwrap();
    }

    /// A command of jc-oci, with its states in the sandbox.
    pub fn oci(&self, words: &[&str]) -> Cmd {
        oci(self.s, words)
    }

    /// Runs the container `c` to its end.
    pub fn run(&self) -> Ran {
        self.oci(&["run", "-b"]).arg(&self.path).arg("c").run()
    }

    /// The status of a container.
    pub fn status(&self, id: &str) -> String {
        let state: Value =
            serde_json::from_str(&self.oci(&["state", id]).run().code(0).out()).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}

/// A command of jc-oci, with its states in the sandbox.
pub fn oci(s: &Sandbox, words: &[&str]) -> Cmd {
    s.jc("jc-oci").arg("--root").arg(s.path("states")).args(words)
}
