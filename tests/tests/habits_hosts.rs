//! Hosts of every kind: a chroot, user namespaces, and containers without and with privileges.

#![cfg(target_os = "linux")]

use jc_tests::cgroups::can_limit;
use jc_tests::image::{Image, Layout};
use jc_tests::lab::Lab;
use jc_tests::layer::Layer;
use jc_tests::roots::busybox_layer;
use jc_tests::seccomp::without_if;
use jc_tests::{Ann, Sandbox, require, sandbox};
use serde_json::json;

/// An image, and a directory with the programs, the image and the file systems that a root needs.
fn prepare(s: &Sandbox) {
    let more = Layer::new().symlink("lib", "usr/lib").symlink("lib64", "usr/lib64");
    let image = Image::new().layer(busybox_layer()).layer(more).config(json!({"Cmd": ["id"]}));
    Layout::new(s.path("image")).image("x", &image);
    s.sh(
        "echo host > marker; mkdir -p c/srv c/proc c/sys c/dev c/run c/tmp c/etc c/var c/usr c/programs
        cp -r image c/srv/; cp $(dirname $(command -v jc-run))/jc-* c/programs/; ln -s usr/lib usr/lib64 usr/bin c/
        mount --rbind /proc c/proc; mount --rbind /sys c/sys; mount --rbind /dev c/dev; mount --bind /usr c/usr",
    )
    .run()
    .code(0);
}

/// The way out of a chroot(2): `..` of a directory outside of the root.
const ESCAPE: &str = "perl -e 'mkdir \"/d\"; chroot \"/d\" or die; chdir \"..\" for 1 .. 40; chroot \".\"; \
    print -e \"/srv/marker\" ? \"escaped\\n\" : \"held\\n\"'";

/// pivot_root(2) needs a mount point as "/", and leaves all that is above.
#[test]
fn a_payload_in_a_chroot_does_not_reach_the_host() {
    sandbox(|s| {
        prepare(s);
        let run = "env -u JC_STORE -u JC_STATE_DIR chroot c /programs/jc-run --network none -v /usr:/usr --image oci:/srv/image";
        let exec = "chroot c /programs/jc-exec joined";
        for mount in [
            "",
            "mount --bind c c; mount --rbind /proc c/proc; mount --rbind /sys c/sys; mount --rbind /dev c/dev; mount --bind /usr c/usr",
        ] {
            s.sh(&format!(":; {mount}")).run().code(0);
            s.sh(&format!("{run} -- sh -c 'echo $(id -u) $(hostname | wc -c)'"))
                .run()
                .code(0)
                .stdout("0 13\n");
            s.sh(&format!("{run} -- {ESCAPE}")).run().code(0).stdout("held\n");
            s.sh(&format!("{run} -d --name joined -- sleep 1000")).run().code(0);
            s.sh(&format!("{exec} -- {ESCAPE}")).run().code(0).stdout("held\n");
            s.sh("chroot c /programs/jc-rm -f joined").run().code(0);
        }
        // The mounts of the host stay as they are.
        s.sh("test -e /proc/self/stat && test -e c/proc/self/stat && test -d /sys/fs")
            .run()
            .code(0);
        s.sh("umount -l c/usr c/dev c/sys c/proc; umount -l c; umount -l c/usr c/dev c/sys c/proc")
            .run();
    });
}

/// A table of surroundings: a line in front of `jc-run --network none`, its exit code, and a part of its output.
#[test]
fn each_surrounding_works_or_has_a_reason() {
    sandbox(|s| {
        prepare(s);
        s.sh("jc-pull -q oci:/srv/image").run().code(0);
        let inner = "-v /srv:/srv -v $(dirname $(command -v jc-run)):/programs --image oci:/srv/image -- env PATH=/programs:/bin JC_STORE=/tmp/s";
        let privileged = format!("jc-run --network none --privileged {inner}");
        let confined = format!("jc-run --network none {inner}");
        for (before, code, text) in [
            ("", 0, "uid=0"),
            ("unshare -Ur env JC_STATE_DIR=/tmp/st", 0, "uid=0"),
            ("unshare -Urm --propagation private env JC_STATE_DIR=/tmp/st", 0, "uid=0"),
            ("jc-unshare -U -r -- env JC_STATE_DIR=/tmp/st", 0, "uid=0"),
            (&privileged, 0, "uid=0"),
            (&confined, 125, "Operation not permitted"),
        ] {
            let ran = s.sh(&format!("{before} jc-run --network none --image oci:/srv/image")).run();
            let shown = format!("{before}\n{ran}");
            assert_eq!(ran.status().code(), Some(code), "{shown}");
            assert!(ran.out().contains(text) || ran.err().contains(text), "{shown}");
        }
        let forbidden = "jc-unshare -U -r -- sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
            JC_STATE_DIR=/tmp/st exec jc-run --userns auto --uidmap 0:0:1 --network none --image oci:/srv/image'";
        let ran = s.sh(forbidden).run();
        assert!(!ran.status().success(), "{ran}");
        s.sh("umount -l c/usr c/dev c/sys c/proc").run();
    });
}

/// A surrounding is a line that ends in `exec`; the lines behind it have an exit code and a part of their output.
fn check(s: &Sandbox, surrounding: &str, lines: &[(&str, i32, &str)]) {
    for (line, code, text) in lines {
        let line = format!("{surrounding} {}", line.replace("IMAGE", "oci:/srv/image"));
        let ran = s.sh(&line).run();
        let shown = format!("{line}\n{ran}");
        assert_eq!(ran.status().code(), Some(*code), "{shown}");
        assert!(ran.out().contains(text) || ran.err().contains(text), "{shown}");
    }
}

const NONE: &str = "jc-run --network none --image IMAGE";

#[test]
fn without_a_procfs_each_program_works_or_says_so() {
    sandbox(|s| {
        prepare(s);
        s.sh("jc-pull -q oci:/srv/image && umount -l c/usr c/dev c/sys c/proc").run().code(0);
        let missing = "hint: no procfs is mounted: mount -t proc proc /proc";
        // The sandbox has a procfs on that of the host.
        s.sh("printf 'while umount -l /proc 2>/dev/null; do :; done; exec \"$@\"' > without")
            .run()
            .code(0);
        check(
            s,
            "unshare -m --propagation private sh without",
            &[
                (NONE, 125, missing),
                ("jc-run --image IMAGE", 125, missing),
                ("jc-rootfs / -- true", 125, missing),
                ("jc-cgroup -m 64M -- true", 125, missing),
                ("jc-net -- true", 125, missing),
                ("jc-egress --allow a:1 -- true", 125, missing),
                ("jc-unshare -U -r -- true", 125, "hint: mount -t proc proc /proc"),
                ("jc-unshare -pum --hostname box -- hostname", 0, "box"),
                ("jc-net --network none -- true", 0, ""),
                ("jc-landlock --rx / -- true", 0, ""),
                ("jc-images", 0, "oci:/srv/image"),
                ("jc-list", 0, "ID"),
            ],
        );
    });
}

#[test]
fn on_a_read_only_root_the_writable_directories_are_named() {
    sandbox(|s| {
        prepare(s);
        s.sh("jc-pull -q oci:/srv/image && umount -l c/usr c/dev c/sys c/proc; cp -r image other")
            .run()
            .code(0);
        s.sh("printf 'mount --rbind / / && for dir in / $READ_ONLY; do mount -o remount,ro,bind $dir; done; exec \"$@\"' > frozen")
            .run()
            .code(0);
        let frozen = "unshare -m --propagation private env";
        check(s, &format!("{frozen} sh frozen"), &[(NONE, 0, "uid=0")]);
        check(
            s,
            &format!("{frozen} READ_ONLY=/run sh frozen"),
            &[
                (NONE, 125, "hint: --state-dir DIR, or JC_STATE_DIR"),
                (&format!("env JC_STATE_DIR=/tmp/st {NONE}"), 0, "uid=0"),
            ],
        );
        check(
            s,
            &format!("{frozen} READ_ONLY=/srv sh frozen"),
            &[
                // A stored image needs no change.
                (NONE, 0, "uid=0"),
                ("jc-run --network none --image oci:/srv/other", 125, "Read-only file system"),
                ("jc-run --network none --image oci:/srv/other", 125, "hint: --store"),
                (
                    "env JC_STORE=/tmp/store jc-run --network none --image oci:/srv/other",
                    0,
                    "uid=0",
                ),
            ],
        );
        s.sh("rm -rf /tmp/store /tmp/st").run().code(0);
    });
}

/// bwrap(1) sets no_new_privs, so that newuidmap(1) has no privileges.
#[test]
fn inside_bwrap_a_user_maps_one_id() {
    sandbox(|s| {
        require(s, "bwrap", "bubblewrap");
        prepare(s);
        s.sh("umount -l c/usr c/dev c/sys c/proc").run().code(0);
        let ann = Ann::with_range(s);
        for bwrap in [
            "bwrap --bind / / --dev-bind /dev /dev --proc /proc",
            "bwrap --unshare-all --bind / / --dev /dev --proc /proc",
        ] {
            check(s, &format!("{bwrap} env JC_STATE_DIR=/tmp/st"), &[(NONE, 0, "uid=0")]);
            for (line, code, text) in [
                (NONE.to_owned(), 125, "no_new_privs is set here"),
                (NONE.to_owned(), 125, "jc-run --userns map-root"),
                (format!("{NONE} --"), 125, "newuidmap"),
                (NONE.replace("--image", "--userns map-root --image"), 0, "uid=0"),
                ("jc-landlock --rx / -- true".to_owned(), 0, ""),
            ] {
                let line =
                    format!("{bwrap} env -u JC_STORE {line}").replace("IMAGE", "oci:/srv/image");
                let ran = ann.sh(&line).run();
                assert_eq!(ran.status().code(), Some(code), "{line}\n{ran}");
                assert!(ran.out().contains(text) || ran.err().contains(text), "{line}\n{ran}");
            }
        }
        drop(ann);
        s.wait_for_no_process();
    });
}

/// Root of a user namespace, in the network of the host: the default is that of an ordinary user.
#[test]
fn root_of_a_user_namespace_is_no_root_of_the_host() {
    sandbox(|s| {
        require(s, "pasta", "passt");
        let lab = Lab::new();
        prepare(s);
        s.sh("umount -l c/usr c/dev c/sys c/proc; chmod 755 /run").run().code(0);
        s.sh("mknod tun c 10 200 && chmod 666 tun && mount --bind tun /dev/net/tun").run().code(0);
        let ann = Ann::new(s);
        for (line, code, text) in [
            ("jc-run --image IMAGE -- ip -o -4 addr show scope global", 0, "198.51.100.2"),
            ("jc-run --network none --image IMAGE -- ip -o link", 0, "lo"),
            (
                "jc-run -d --name n --network none --image IMAGE -- sleep 100 && test -d .local/state/jc && unshare -Ur jc-rm -f n",
                0,
                "",
            ),
            ("jc-run --network bridge --image IMAGE", 125, "--network pasta works"),
            ("jc-run -m 64M --network none --image IMAGE", 125, "a run without limits needs none"),
        ] {
            let line = format!("unshare -Ur {}", line.replace("IMAGE", "oci:/srv/image"));
            let ran = ann.sh(&format!("unset JC_STORE; {line}")).run();
            assert_eq!(ran.status().code(), Some(code), "{line}\n{ran}");
            assert!(ran.out().contains(text) || ran.err().contains(text), "{line}\n{ran}");
        }
        drop(ann);
        s.sh("chmod 1777 /run; umount /dev/net/tun").run().code(0);
        s.wait_for_no_process();
        lab.end();
    });
}

/// A container of podman: the default restrictions are named, and a privileged one is like a host.
#[test]
fn inside_podman_the_lack_of_a_capability_is_named() {
    sandbox(|s| {
        require(s, "podman", "podman");
        require(s, "runc", "runc");
        prepare(s);
        s.sh("umount -l c/usr c/dev c/sys c/proc; rm -r c/usr c/bin; cp -a /bin/busybox c/; mkdir c/bin").run().code(0);
        s.sh("for name in sh env id true; do ln -s /busybox c/bin/$name; done").run().code(0);
        let podman = |options: &str| {
            format!(
                "podman --root /srv/storage --runroot /run/storage --storage-driver vfs --cgroup-manager cgroupfs \
                 --runtime runc run --rm --network none {options} -e PATH=/programs:/bin --rootfs /srv/c"
            )
        };
        let lacks = "root without CAP_SYS_ADMIN, as in a container with default restrictions";
        check(
            s,
            &podman(""),
            &[
                (NONE, 125, lacks),
                ("jc-run --image IMAGE", 125, "root without CAP_NET_ADMIN"),
                ("jc-unshare -p -- true", 125, lacks),
                ("jc-rootfs / -- true", 125, lacks),
                ("jc-landlock --rx / -- id -u", 0, "0"),
                ("jc-images", 0, "oci:/srv/image"),
            ],
        );
        check(
            s,
            &podman("--privileged"),
            &[(NONE, 0, "uid=0"), ("jc-run --network none --image IMAGE -- true", 0, "")],
        );
        if can_limit("memory") {
            let line = NONE.replace("jc-run", "jc-run -m 64M");
            check(s, &podman(""), &[(&line, 125, "cgroups are read-only")]);
            check(s, &podman("--privileged"), &[(&line, 0, "uid=0")]);
        }
        s.sh("rm -rf /run/libpod /run/runc /run/storage /run/containers /run/crun").run().code(0);
        s.wait_for_no_process();
    });
}

/// A kernel without nf_tables, and one without IPv6: sockets of these families do not exist.
#[test]
fn a_kernel_without_a_protocol_is_named() {
    sandbox(|s| {
        prepare(s);
        s.sh("umount -l c/usr c/dev c/sys c/proc; jc-pull -q oci:/srv/image; ip link set lo up")
            .run()
            .code(0);
        const NETLINK_NETFILTER: u64 = 12;
        let socket = nix::libc::SYS_socket;
        let ports =
            "jc-run -p 127.0.0.1:8080:80 --dns 192.0.2.1 --image IMAGE -- ip -o link show eth0";
        without_if(socket, (2, NETLINK_NETFILTER), nix::libc::EPROTONOSUPPORT, || {
            check(
                s,
                "",
                &[
                    (NONE, 0, "uid=0"),
                    (ports, 125, "nf_tables"),
                    ("jc-run --dns 192.0.2.1 --image IMAGE", 125, "--network none"),
                    ("jc-egress --allow a:1 -- true", 125, "nf_tables"),
                ],
            );
        });
        let inet6 = nix::libc::AF_INET6 as u64;
        without_if(socket, (0, inet6), nix::libc::EAFNOSUPPORT, || {
            check(s, "", &[(NONE, 0, "uid=0"), (ports, 0, "eth0")]);
        });
        s.sh("jc-list").run().code(0);
        s.sh("jc-net --gc").run().code(0);
    });
}

/// The sysctl is one of the user namespace, so the host keeps its own.
#[test]
fn forbidden_user_namespaces_are_named_by_their_sysctl() {
    sandbox(|s| {
        prepare(s);
        s.sh("umount -l c/usr c/dev c/sys c/proc; chmod -R a+rX image").run().code(0);
        let forbid = "jc-unshare -U --map-users 0:0:65536 --map-groups 0:0:65536 -- sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
             mkdir home; chown 4321 home; exec setpriv --reuid 4321 --regid 4321 --clear-groups env -u JC_STORE HOME=/srv/home \"$@\"' sh";
        let named = "hint: the sysctl user.max_user_namespaces is 0";
        check(
            s,
            forbid,
            &[
                (NONE, 125, named),
                ("jc-unshare -U -r -- true", 125, named),
                ("jc-landlock --rx / -- id -u", 0, "4321"),
            ],
        );
        s.wait_for_no_process();
    });
}
