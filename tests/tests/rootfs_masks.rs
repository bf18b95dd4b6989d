//! jc-rootfs: files that a payload must not see or change.

#![cfg(target_os = "linux")]

use jc_tests::sandbox;

mod rootfs_support;
use rootfs_support::{in_layer, root};

#[test]
fn a_masked_path_is_empty_and_cannot_be_written() {
    sandbox(|s| {
        root(s, "root");
        s.sh("mkdir root/d && echo secret >root/d/f && echo secret >root/f").run().code(0);
        s.sh("ln -s /d root/to-d && ln -s d/f root/to-f").run().code(0);
        for (path, probe, output) in [
            ("/d", "ls -A /d; touch /d/x 2>/dev/null || echo no", "no\n"),
            ("/f", "cat /f; echo x >/f; cat /f", ""),
            ("/to-d", "ls -A /d", ""),
            ("/to-f", "cat /d/f", ""),
        ] {
            in_layer(s, &["--mask", path], probe).run().stdout(output);
        }
        in_layer(s, &["--mask", "/none"], ":")
            .run()
            .code(125)
            .stderr("jc-rootfs: open /none: No such file or directory\n");
        in_layer(s, &["--mask", "none"], ":").run().code(125).fails_as("jc-rootfs", "--mask");
    });
}

#[test]
fn a_read_only_path_is_read_only_with_all_below() {
    sandbox(|s| {
        root(s, "root");
        s.sh("mkdir root/d && echo a >root/d/f").run().code(0);
        let script =
            "cat /d/f; for f in /d/f /d/new /d/t/new; do echo x >$f || echo $f; done 2>/dev/null";
        in_layer(s, &["--ro-path", "/d", "--tmpfs", "/d/t"], script)
            .run()
            .stdout("a\n/d/f\n/d/new\n/d/t/new\n");
    });
}

#[test]
fn the_default_masks_cover_the_kernel() {
    sandbox(|s| {
        root(s, "root");
        let script = "
            for f in acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats; do
                if [ -d /proc/$f ]; then ls -A /proc/$f; elif [ -e /proc/$f ]; then head -c 1 /proc/$f; fi
            done
            for d in firmware devices/virtual/powercap; do
                if [ -d /sys/$d ]; then ls -A /sys/$d; fi
            done
            for f in bus fs irq sys sysrq-trigger; do
                [ ! -e /proc/$f ] || grep -q \" /proc/$f proc ro,\" /proc/mounts || echo /proc/$f can be written
            done
            echo x >/proc/sys/kernel/hostname && echo /proc/sys can be written";
        in_layer(s, &["--mask", "default"], script).run().stdout("");
        in_layer(s, &[], "head -c 1 /proc/timer_list | wc -c").run().stdout("1\n");
        // Other files in place of /proc and /sys stay unchanged.
        s.sh("mkdir -p root/proc/keys root/proc/sys && echo a >root/proc/keys/f").run().code(0);
        let image = ["--proc", "none", "--sys", "none", "--mask", "default"];
        in_layer(s, &image, "cat /proc/keys/f; touch /proc/sys/x").run().code(0).stdout("a\n");
        // A procfs that another option mounts is masked too.
        let bind = ["--proc", "none", "-v", "/proc:/proc", "--mask", "default"];
        in_layer(s, &bind, "cat /proc/timer_list | wc -c").run().code(0).stdout("0\n");
        let script = "cat /proc/keys; echo x >/proc/sys/kernel/hostname || echo no";
        let words = ["-Ur", "jc-unshare", "-pu", "--", "jc-rootfs", "--mask", "default"];
        s.cmd("unshare")
            .args(words)
            .args(["--layer", "root", "--", "sh", "-c", script])
            .run()
            .stdout("no\n");
    });
}
