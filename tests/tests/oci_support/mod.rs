//! Bundles for jc-oci, from the configuration that `jc-oci spec` writes.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use jc_tests::roots::busybox_root;
use jc_tests::{Cmd, Ran, Sandbox, wait_until};
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
        // Control groups are those of the host, whose names all tests share.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        config["linux"]["cgroupsPath"] = json!(format!("/jc-tests-oci-{}", now.as_nanos()));
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

    /// Creates the container `c`, whose output goes to the file `out`.
    pub fn create(&self) -> Ran {
        let line =
            "exec jc-oci --root states --log log create --pid-file pid -b bundle c <&- >out 2>&1";
        self.s.sh(line).run()
    }

    /// The output of the container `c`.
    pub fn out(&self) -> String {
        fs::read_to_string(self.s.path("out")).unwrap()
    }

    /// Creates and starts the container `c`.
    pub fn start(&self) {
        let created = self.create();
        assert!(created.status().success(), "{}", self.out());
        self.oci(&["start", "c"]).run().code(0).stderr("");
    }

    /// The PID that `create` has written.
    pub fn pid(&self) -> u32 {
        fs::read_to_string(self.s.path("pid")).unwrap().parse().unwrap()
    }

    /// Waits until the container `c` has that status.
    pub fn wait_for(&self, status: &str) {
        wait_until(&format!("status {status}"), || self.status("c") == status);
    }

    /// The directories of the container's control group.
    pub fn groups(&self) -> Vec<PathBuf> {
        let name = self.config["linux"]["cgroupsPath"].as_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let cgroups = fields.filter(|fields| fields[2].starts_with("cgroup"));
        let paths = cgroups.map(|fields| PathBuf::from(fields[1]).join(&name[1..]));
        paths.filter(|path| path.exists()).collect()
    }

    /// Asserts that nothing of the container `c` is left.
    pub fn assert_gone(&self) {
        self.oci(&["state", "c"]).run().code(1).fails_as("jc-oci", "container does not exist: c");
        assert_eq!(fs::read_dir(self.s.path("states")).unwrap().count(), 0);
        assert_eq!(self.groups(), [] as [PathBuf; 0]);
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
