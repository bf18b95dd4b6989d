//! Programs that jc-unshare executes.

#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use jc_tests::sandbox;

const TOOL: &str = "jc-unshare";

/// POSIX demands the same of execvp(3), and shells, timeout(1) and unshare(1) do it.
#[test]
fn a_script_without_an_interpreter_is_executed_by_the_shell() {
    sandbox(|s| {
        let script = s.path("jc-script");
        fs::write(&script, "echo \"$0\" \"$@\"\nexit 4\n").unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let (dir, path) = (script.parent().unwrap(), script.display());
        for options in [&["-u", "--"][..], &["-p", "--"]] {
            let ran = s.jc(TOOL).args(options).arg(&script).args(["a", "b c"]).run();
            ran.code(4).stdout(&format!("{path} a b c\n")).stderr("");
            let search = format!("/bin:{}:/usr/bin", dir.display());
            let ran = s.jc(TOOL).env("PATH", search).args(options).args(["jc-script", "d"]).run();
            ran.code(4).stdout(&format!("{path} d\n")).stderr("");
        }
        // The file is executable for nobody.
        fs::set_permissions(&script, Permissions::from_mode(0o644)).unwrap();
        s.jc(TOOL).args(["-u", "--"]).arg(&script).run().code(126).stdout("");
    });
}
