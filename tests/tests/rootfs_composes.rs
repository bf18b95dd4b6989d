//! jc-rootfs passes on the changes that other programs make to their own process before they execute the rest, and
//! has no options for them.

#![cfg(target_os = "linux")]

use jc_tests::{require, sandbox};

mod rootfs_support;
use rootfs_support::root;

/// A program in front of the chain, its changes, and a script that shows them.
const FRONTS: [(&str, &str); 13] = [
    ("nice -n 7", "cut -d' ' -f19 /proc/self/stat"),
    ("choom -n 543 --", "cat /proc/self/oom_score_adj"),
    ("taskset -c 0", "grep Cpus_allowed_list /proc/self/status"),
    ("setsid -w", "test $(cut -d' ' -f6 /proc/$$/stat) = $$; echo $?"),
    (
        "prlimit --nofile=77:88 --core=0 --fsize=1000000",
        "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -f",
    ),
    ("chrt -b 0", "cut -d' ' -f41 /proc/self/stat"),
    ("ionice -c 2 -n 6", "exec ionice"),
    ("nohup", "grep SigIgn /proc/self/status | sed 's/.*0//'"),
    ("env -i PATH=/bin A=b HOME=/h", "env | grep -v -e ^PWD= -e ^SHLVL= -e ^OLDPWD= | sort"),
    ("sh -c 'umask 027; exec \"$@\"' sh", "umask"),
    ("sh -c 'ulimit -n 66; exec \"$@\"' sh", "ulimit -n"),
    ("timeout 0.3", "echo begun; exec sleep 100"),
    ("setpriv --no-new-privs", "grep NoNewPrivs /proc/self/status"),
];

#[test]
fn the_effect_of_a_program_in_front_stays() {
    sandbox(|s| {
        for (program, package) in
            [("choom", "util-linux"), ("taskset", "util-linux"), ("chrt", "util-linux")]
        {
            require(s, program, package);
        }
        root(s, "root");
        s.sh("mkdir -p root/proc && mount --bind /proc root/proc").run().code(0);
        let tool = s.bin("jc-rootfs").display().to_string();
        // All chains use the same shell, since Debian's prints some of this in another form.
        let chains = ["root", "--layer root", "--upper tmpfs root", "--chroot root"]
            .map(|form| format!("{tool} {form} -- /bin/sh"));
        let joins = format!("{tool} --join $$ -- /srv/root/bin/sh");
        for (front, script) in FRONTS {
            let run = |chain: &str| {
                let line = format!("exec {front} {chain} -c \"$0\" </dev/null");
                let ran = s.cmd("bash").args(["-c", &line, script]).run();
                (ran.status().code(), ran.out(), ran.err())
            };
            let plain = run("/srv/root/bin/sh");
            assert!(plain.0 == Some(0) || front.starts_with("timeout"), "{front}: {plain:?}");
            for chain in chains.iter().chain([&joins]) {
                assert_eq!(run(chain), plain, "{front} {chain}");
            }
        }
        s.sh("umount root/proc").run().code(0);
    });
}
