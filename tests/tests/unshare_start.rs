//! How jc-unshare starts: in less time than the tool that it follows, and whatever can be executed.

#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use jc_tests::time::start_times;
use jc_tests::{sandbox, sandbox_for, skip};

const TOOL: &str = "jc-unshare";

#[test]
fn sooner_than_unshare_1() {
    sandbox_for(Duration::from_secs(120), |s| {
        if std::env::var_os("JC_BIN_DIR").is_none() {
            skip!("this is about the programs as `make` builds them");
        }
        let command = |program: &str, options: &[&str]| {
            let mut command = Command::new(program);
            command.args(options).args(["--", "/bin/true"]);
            command
        };
        let own = s.bin(TOOL).into_os_string().into_string().unwrap();
        for (ours, theirs) in [(&["-u"][..], &["-u"][..]), (&["-p"], &["-p", "-f"])] {
            let [jc, util_linux, alone] = start_times(
                [command(&own, ours), command("unshare", theirs), Command::new("/bin/true")],
                300,
            );
            eprintln!("{ours:?}: {jc:?}, unshare(1) {util_linux:?}, without either {alone:?}");
            assert!(jc < util_linux, "{ours:?}: {jc:?}, unshare(1) {util_linux:?}");
        }
    });
}

/// As POSIX has execvp(3) do, and so every shell, timeout(1) and unshare(1).
#[test]
fn a_script_that_names_no_interpreter() {
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
        // The kernel would, but may not.
        fs::set_permissions(&script, Permissions::from_mode(0o644)).unwrap();
        s.jc(TOOL).args(["-u", "--"]).arg(&script).run().code(126).stdout("");
    });
}
