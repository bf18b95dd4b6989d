//! An ordinary user of the host.

use crate::accounts::Accounts;
use crate::command::Cmd;
use crate::require::require;
use crate::sandbox::Sandbox;

/// The ordinary user `ann`, 4321, with the home directory `/srv/ann`, who exists as long as this value.
pub struct Ann<'a> {
    sandbox: &'a Sandbox,
    _accounts: Accounts<'a>,
}

impl<'a> Ann<'a> {
    /// The user and group ID.
    pub const ID: u32 = 4321;

    /// Makes the user, without subordinate IDs.
    pub fn new(s: &'a Sandbox) -> Self {
        Self::with_ids(s, "")
    }

    /// Makes the user, with the subordinate IDs from 200000 to 265535. Skips the test where newuidmap(1) is absent.
    pub fn with_range(s: &'a Sandbox) -> Self {
        require(s, "newuidmap", "uidmap");
        Self::with_ids(s, "ann:200000:65536\n")
    }

    fn with_ids(s: &'a Sandbox, ids: &str) -> Self {
        s.sh("mkdir -p ann && chown 4321:4321 ann").run().code(0);
        let user = "ann:x:4321:4321::/srv/ann:/bin/sh\n";
        Self { sandbox: s, _accounts: Accounts::new(s, user, ids, ids) }
    }

    /// A shell command of the user, in the home directory, with the user's default store.
    pub fn sh(&self, script: &str) -> Cmd {
        let user =
            ["--reuid=4321", "--regid=4321", "--clear-groups", "--", "env", "-u", "JC_STORE"];
        let cmd = self.sandbox.cmd("setpriv").args(user).arg("HOME=/srv/ann");
        cmd.args(["sh", "-c", &format!("cd /srv/ann\n{script}")])
    }
}
