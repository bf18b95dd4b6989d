//! Users and subordinate IDs of a test, in files that are bound over those of /etc.

use std::fs;

use crate::Sandbox;

/// Files over those of /etc, until the value is dropped. A test never relies on the entries of the host.
pub struct Accounts<'a> {
    sandbox: &'a Sandbox,
    names: Vec<&'static str>,
}

impl<'a> Accounts<'a> {
    /// Adds lines to /etc/passwd, and replaces /etc/subuid and /etc/subgid.
    pub fn new(sandbox: &'a Sandbox, users: &str, subuid: &str, subgid: &str) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap() + users;
        Self::bind(sandbox, &[("passwd", &passwd), ("subuid", subuid), ("subgid", subgid)])
    }

    /// Gives root 65,536 subordinate IDs from 100000, and nobody else any.
    pub fn of_root(sandbox: &'a Sandbox) -> Self {
        let range = "root:100000:65536\n";
        Self::bind(sandbox, &[("subuid", range), ("subgid", range)])
    }

    fn bind(sandbox: &'a Sandbox, files: &[(&'static str, &str)]) -> Self {
        for (name, text) in files {
            fs::write(sandbox.path(name), text).unwrap();
            sandbox.sh(&format!("mount --bind {name} /etc/{name}")).run().code(0);
        }
        Self { sandbox, names: files.iter().map(|(name, _)| *name).collect() }
    }
}

impl Drop for Accounts<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            drop(self.sandbox.sh(&format!("umount /etc/{name}")).run());
        }
    }
}
