//! A program that gets no memory ends with one line and the code for a failure, without a panic.

#![cfg(target_os = "linux")]

use jc_tests::sandbox;

/// Limits of the address space in bytes: from less than the kernel needs to execute a program, to more than enough.
fn limits() -> impl Iterator<Item = u64> {
    (100..800).map(|step| step * 8192)
}

#[test]
fn a_program_without_memory_ends_with_one_line() {
    sandbox(|s| {
        for (command, failed) in [
            (&["jc-unshare", "-u", "--", "jc-list"][..], 125),
            (&["jc-cgroup", "--list"], 125),
            (&["jc-net", "--list"], 125),
            (&["jc-list"], 1),
        ] {
            let said = format!("{}: out of memory\n", command[0]);
            let (mut out_of_memory, mut succeeded) = (0, 0);
            for limit in limits() {
                let limit = format!("--as={limit}");
                let ran = s.cmd("prlimit").args([&limit, "--"]).args(command).run();
                // Before main the program has no name yet. With a lower limit the kernel kills the program.
                match (ran.status().code(), ran.err().as_str()) {
                    (Some(0), "") => succeeded += 1,
                    (Some(code), text) if text == said => {
                        assert_eq!(code, failed, "{ran}");
                        out_of_memory += 1;
                    }
                    (Some(125), text) => assert!(text.ends_with(": out of memory\n"), "{ran}"),
                    (Some(1), text) => assert_eq!(text, "jc-list: out of memory\n", "{ran}"),
                    (code, text) => {
                        assert_eq!((code, text, out_of_memory), (None, "", 0), "{ran}");
                    }
                }
                if succeeded > 3 {
                    break;
                }
            }
            assert!(
                out_of_memory > 0 && succeeded > 0,
                "{command:?}: {out_of_memory}, {succeeded}"
            );
        }
    });
}
