//! Namespaces of a bundle: those that the container shares, user and time namespaces, the network.

#![cfg(target_os = "linux")]

mod oci_support;

use std::fs;

use jc_tests::{sandbox, wait_until};
use oci_support::Bundle;
use serde_json::{Value, json};

/// Replaces the namespace of a type, or removes it.
fn set(config: &mut Value, kind: &str, namespace: Option<Value>) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|one| one["type"] != kind);
    namespaces.extend(namespace);
}

#[test]
fn without_a_mount_namespace_the_container_has_that_of_the_runtime() {
    sandbox(|s| {
        let script = "readlink /proc/self/ns/mnt; touch /new 2>&1; ls /data; test -c /dev/null && echo device";
        let mut bundle = Bundle::new(s, script);
        fs::create_dir(s.path("data")).unwrap();
        fs::write(s.path("data/file"), "").unwrap();
        let (source, own) = (s.path("data"), fs::read_link("/proc/self/ns/mnt").unwrap());
        bundle.change(|config| {
            set(config, "mount", None);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/data", "source": source, "options": ["bind"]}));
        });
        let expected =
            format!("{}\ntouch: /new: Read-only file system\nfile\ndevice\n", own.display());
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        bundle.run().code(0).stderr("").stdout(&expected);
        assert_eq!(mounts(), before);
        bundle.assert_gone();
        // A failure after the mounts, and one before.
        bundle.change(|config| config["process"]["args"] = json!(["none"]));
        bundle.run().code(1);
        bundle.change(|config| {
            config["mounts"] =
                json!([{"destination": "/a", "source": "/none", "options": ["bind"]}]);
        });
        let ran = bundle.run().code(1);
        assert!(ran.err().contains("/none: No such file or directory"), "{ran}");
        assert_eq!(mounts(), before);
        bundle.assert_gone();
    });
}

#[test]
fn a_mount_namespace_of_a_file_gets_the_mounts_until_delete() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        let holder = s.sh("exec unshare -m sleep 1000").spawn();
        let pid = holder.pid();
        let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
        wait_until("a mount namespace", || namespace(pid) != namespace(std::process::id()));
        let path = format!("/proc/{pid}/ns/mnt");
        bundle.change(|config| set(config, "mount", Some(json!({"type": "mount", "path": path}))));
        let mounts = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let before = mounts();
        bundle.start();
        assert_eq!(namespace(bundle.pid()), namespace(pid));
        assert_ne!(mounts(), before);
        bundle.oci(&["exec", "c", "ls", "/proc/self/exe"]).run().code(0).stderr("");
        bundle.oci(&["delete", "-f", "c"]).run().code(0).stderr("");
        assert_eq!(mounts(), before);
        bundle.assert_gone();
        holder.signal(rustix::process::Signal::KILL);
        holder.wait();
    });
}

#[test]
fn a_caller_that_is_not_root_of_the_user_namespace_makes_the_container() {
    sandbox(|s| {
        let script = "id -u; stat -c %u /tmp/new /bin; wc -l </proc/self/uid_map; cat /data/file";
        let mut bundle = Bundle::new(s, script);
        fs::create_dir(s.path("data")).unwrap();
        fs::write(s.path("data/file"), "secret\n").unwrap();
        s.sh("chmod 700 data; chmod 600 data/file").run().code(0);
        let source = s.path("data/file");
        bundle.change(|config| {
            set(config, "user", Some(json!({"type": "user"})));
            let range = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
            let maps = json!([range(0, 1, 1), range(1, 0, 1), range(2, 2, 1000)]);
            config["linux"]["uidMappings"] = maps.clone();
            config["linux"]["gidMappings"] = maps;
            config["process"]["args"] = json!(["sh", "-c", format!("touch /tmp/new; {script}")]);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
            mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}));
            mounts.push(json!({"destination": "/data/file", "source": source, "options": ["bind"]}));
            config["root"]["readonly"] = json!(false);
        });
        s.sh("chown -R 1:1 bundle/rootfs").run().code(0);
        bundle
            .run()
            .stderr("cat: can't open '/data/file': Permission denied\n")
            .stdout("0\n0\n0\n3\n");
        bundle.change(|config| config["process"]["user"] = json!({"uid": 1, "gid": 1}));
        bundle.run().code(0).stderr("").stdout("1\n1\n0\n3\nsecret\n");
        bundle.assert_gone();
    });
}

#[test]
fn a_device_of_a_user_namespace_has_the_attributes_of_the_host() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "stat -c '%a %t,%T' /dev/shm/node; cat /dev/shm/node");
        s.sh("mount -t tmpfs node /dev/shm; mknod -m 0644 /dev/shm/node c 1 3; chown 5:6 /dev/shm/node").run().code(0);
        s.sh("chown -R 1000:1000 bundle/rootfs").run().code(0);
        bundle.change(|config| {
            set(config, "user", Some(json!({"type": "user"})));
            let maps = json!([{"containerID": 0, "hostID": 1000, "size": 1000}]);
            config["linux"]["uidMappings"] = maps.clone();
            config["linux"]["gidMappings"] = maps;
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        });
        let device = json!({"path": "/dev/shm/node", "type": "c", "major": 1, "minor": 3, "fileMode": 0o644});
        let own = "mode 0644, owner 65534:65534";
        for (uid, gid, fault) in [
            (None, None, ""),
            // An engine copies the numbers of the host.
            (Some(5), Some(6), ""),
            (Some(0), Some(6), "mode 0644, owner 0:6"),
        ] {
            bundle.change(|config| {
                let mut device = device.clone();
                (device["uid"], device["gid"]) = (json!(uid), json!(gid));
                config["linux"]["devices"] = json!([device]);
            });
            let ran = bundle.run();
            if fault.is_empty() {
                ran.code(0).stdout("644 1,3\n");
            } else {
                let text =
                    format!("bind /dev/shm/node: asked for {fault}, the host's node has {own}");
                assert!(ran.code(1).err().contains(&text));
            }
            bundle.assert_gone();
        }
        s.sh("umount /dev/shm").run().code(0);
    });
}

#[test]
fn a_time_namespace_leaves_the_program_known() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "sleep 1000");
        bundle.change(|config| {
            set(config, "time", Some(json!({"type": "time"})));
            config["linux"]["timeOffsets"] =
                json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 1, "nanosecs": 5}});
        });
        bundle.start();
        assert_eq!(bundle.status("c"), "running");
        let exec = bundle.oci(&["exec", "c", "cat", "/proc/self/timens_offsets"]).run();
        let offsets = exec.code(0).out();
        let words: Vec<&str> = offsets.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "1", "5", "boottime", "1000000", "0"]);
        bundle.oci(&["kill", "c", "KILL"]).run().code(0);
        bundle.wait_for("stopped");
        bundle.oci(&["delete", "c"]).run().code(0).stderr("");
        bundle.assert_gone();
    });
}

/// Signals would reach other processes, or none.
#[test]
fn a_procfs_of_another_pid_namespace_is_an_error() {
    sandbox(|s| {
        Bundle::new(s, "echo never");
        let line = "unshare -p -f jc-oci --root states run -b bundle c";
        let ran = s.sh(line).run().code(1).stdout("");
        ran.fails_as("jc-oci", "/proc: the procfs of another PID namespace");
        assert!(!s.path("states").exists());
    });
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    sandbox(|s| {
        let bundle = Bundle::new(s, "cat /sys/class/net/lo/flags; ls /sys/class/net");
        bundle.run().code(0).stdout("0x9\nlo\n");
        bundle.assert_gone();
    });
}

#[test]
fn mounts_are_listed_in_the_order_of_the_configuration() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "cut -d ' ' -f 5 /proc/self/mountinfo | grep -v '^/$'");
        fs::create_dir(s.path("data")).unwrap();
        let source = s.path("data");
        bundle.change(|config| {
            let tmpfs = |path: &str| json!({"destination": path, "type": "tmpfs", "source": "tmpfs"});
            let bind = |path: &str| json!({"destination": path, "source": source, "options": ["bind"]});
            config["mounts"] = json!([
                {"destination": "/proc", "type": "proc"}, tmpfs("/tmp"), bind("/tmp/a"), tmpfs("/tmp/b"), bind("/tmp/c"),
            ]);
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        });
        bundle.run().code(0).stdout("/proc\n/tmp\n/tmp/a\n/tmp/b\n/tmp/c\n");
    });
}

#[test]
fn a_new_tmpfs_has_the_mode_of_the_directory_that_it_covers() {
    sandbox(|s| {
        let mut bundle = Bundle::new(s, "stat -c %a /tmp /var/www /ro; touch /ro/x");
        let root = bundle.path.join("rootfs");
        fs::create_dir(root.join("ro")).unwrap();
        s.sh("chmod 1777 bundle/rootfs/tmp; chmod 710 bundle/rootfs/var/www; chmod 751 bundle/rootfs/ro").run().code(0);
        bundle.change(|config| {
            config["mounts"] = json!([
                {"destination": "/tmp", "type": "tmpfs"},
                {"destination": "/var/www", "type": "tmpfs", "options": ["mode=700"]},
                {"destination": "/ro", "type": "tmpfs", "options": ["ro"]},
            ]);
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        });
        let ran = bundle.run().code(1).stdout("1777\n700\n751\n");
        assert_eq!(ran.err(), "touch: /ro/x: Read-only file system\n");
    });
}
