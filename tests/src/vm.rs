//! A small virtual machine with Debian's kernel and cgroup v2, for what this machine may not have:
//! the static programs, busybox and a script in an initramfs.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{Cmd, Sandbox, skip};

/// Software emulation on a loaded machine takes its time.
const TIMEOUT: Duration = Duration::from_secs(200);

/// The programs that come along.
const PROGRAMS: [&str; 5] = ["jc-cgroup", "jc-net", "jc-rootfs", "jc-run", "jc-unshare"];

/// What the script starts with: applets, file systems, modules, those of jc-net in /lib; and out of the initramfs, which no
/// program can pivot away.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
insmod /overlay.ko
insmod /brd.ko rd_nr=1 rd_size=65536
mount -t tmpfs tmpfs /new
cp -a /bin /etc /script.sh /new/
mkdir /new/lib && cp /net/* /new/lib/
mkdir /new/proc /new/sys /new/dev /new/tmp /new/run
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
exec switch_root /new /bin/sh -c '
    echo
    ok() { echo "ok: $*"; }
    is() { if [ "$2" = "$3" ]; then ok "$1"; else echo "not ok: $1: got <$2>, not <$3>"; fi; }
    . /script.sh
    echo "end of script"
    poweroff -f'
"#;

/// Runs a script of busybox's shell in the machine and checks that it comes to its end, that each of
/// its checks (`ok WHAT`, `is WHAT FOUND EXPECTED`) held, and that there were `checks` of them.
pub fn run_in_vm(sandbox: &Sandbox, script: &str, checks: usize) {
    let kernel = PathBuf::from(env::var_os("JC_FIXTURES").unwrap_or_default()).join("kernel");
    if !kernel.join("vmlinuz").exists() || !kernel.join("net.list").exists() {
        skip(&format!("no kernel in {}", kernel.display()));
    }
    let image = sandbox.path("initramfs.gz");
    fs::write(&image, initramfs(sandbox, &kernel, script)).unwrap();
    let ran = Cmd::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-smp", "2", "-m", "768", "-nographic", "-no-reboot", "-kernel"])
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(&image)
        .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"])
        .timeout(TIMEOUT)
        .run();
    let shown = ran.out().replace('\r', "");
    let lines = |start: &str| shown.lines().filter(|line| line.starts_with(start)).count();
    assert!(shown.contains("end of script"), "the script did not come to its end:\n{shown}");
    assert_eq!(lines("not ok: "), 0, "in the machine:\n{shown}");
    assert_eq!(lines("ok: "), checks, "in the machine:\n{shown}");
}

fn initramfs(sandbox: &Sandbox, kernel: &Path, script: &str) -> Vec<u8> {
    let mut archive = Cpio::default();
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "new", "net"] {
        archive.add(dir, 0o040_755, b"");
    }
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("script.sh", 0o100_644, script.as_bytes());
    archive.add(
        "etc/passwd",
        0o100_644,
        b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    );
    archive.add("etc/group", 0o100_644, b"root:x:0:\nuser:x:1000:\n");
    for module in ["overlay.ko", "brd.ko"] {
        archive.add(module, 0o100_644, &fs::read(kernel.join(module)).unwrap());
    }
    // What jc-net needs is for its script to load, in this order.
    let list = fs::read_to_string(kernel.join("net.list")).unwrap();
    archive.add("net/list", 0o100_644, list.as_bytes());
    for module in list.split_whitespace() {
        let file = format!("{module}.ko");
        archive.add(&format!("net/{file}"), 0o100_644, &fs::read(kernel.join(&file)).unwrap());
    }
    let busybox = sandbox.sh("command -v busybox").run().code(0).out();
    archive.add("bin/busybox", 0o100_755, &fs::read(busybox.trim()).unwrap());
    for name in PROGRAMS {
        let program = fs::read(sandbox.bin(name)).unwrap();
        archive.add(&format!("bin/{name}"), 0o100_755, &program);
    }
    archive.finish()
}

/// An archive in the format that the kernel unpacks (buffer-format.rst), "new ASCII".
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            data.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.map(|field| format!("{field:08x}")).concat().bytes());
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(&self.bytes).unwrap();
        compressed.finish().unwrap()
    }
}
