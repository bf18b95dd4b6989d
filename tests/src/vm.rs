//! Virtual machines with kernels of Debian and cgroup v2, which the machine of the tests may lack: the static programs,
//! busybox and a script, in an initramfs or on a disk.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{Cmd, Sandbox, skip};

/// The start of every script. `ok` and `is` print the lines that [`Machine::run`] counts.
const PRELUDE: &str = r#"#!/bin/busybox sh
echo
ok() { echo "ok: $*"; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else echo "not ok: $1: got <$2>, not <$3>"; fi; }
. /script.sh
echo "end of script"
poweroff -f
"#;

/// The first process of a machine. No program can leave an initramfs by pivot_root(2), so the script gets a tmpfs, or the
/// disk if there is one.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in $(cat /modules/base.list); do insmod /modules/$module.ko $([ $module != brd ] || echo rd_nr=1 rd_size=65536); done
if [ -e /dev/vda ]; then
    mount -t ext4 /dev/vda /new && init=/sbin/init && umount /sys/fs/cgroup
    cp /prelude.sh /script.sh /new/ && cp /bin/jc-* /new/usr/bin/
else
    mount -t tmpfs tmpfs /new && init='/bin/sh /prelude.sh'
    cp -a /bin /etc /prelude.sh /script.sh /new/
    mkdir /new/lib && cp /modules/* /new/lib/
    mkdir /new/proc /new/sys /new/dev /new/tmp /new/run
fi
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
exec switch_root /new $init
"#;

/// A virtual machine: its kernel, and the programs in it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The directory of the fixtures with `vmlinuz`, the modules and their lists.
    pub kernel: &'static str,
    /// The emulator and its options for the kind of machine.
    pub emulator: &'static [&'static str],
    /// The device of the kernel's console.
    pub console: &'static str,
    /// A directory of the fixtures with programs and busybox for the machine's processor, if that is not this machine's.
    pub programs: Option<&'static str>,
    /// A disk image of the fixtures, whose `/sbin/init` runs `/prelude.sh`.
    pub disk: Option<&'static str>,
    /// The time limit of a script, a bound against hangs.
    pub limit: Duration,
}

impl Machine {
    /// The kernel of this machine's Debian release.
    pub const STABLE: Self = Self {
        kernel: "kernel",
        emulator: &["qemu-system-x86_64"],
        console: "ttyS0",
        programs: None,
        disk: None,
        limit: Duration::from_secs(600),
    };
    /// The oldest kernel in Debian's archive: 5.10.
    pub const OLDEST: Self = Self { kernel: "kernel-oldest", ..Self::STABLE };
    /// An emulated 64-bit ARM processor.
    pub const AARCH64: Self = Self {
        kernel: "kernel-arm64",
        emulator: &["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72"],
        console: "ttyAMA0",
        programs: Some("programs-arm64"),
        disk: None,
        limit: Duration::from_secs(1800),
    };
    /// A Debian system whose first process is systemd.
    pub const SYSTEMD: Self = Self { disk: Some("systemd.img"), ..Self::STABLE };

    /// Runs a script of busybox's shell in the machine. The script ends, each of its checks (`ok NAME`, `is NAME FOUND
    /// EXPECTED`) holds, and each `is` of its text was reached, or the test fails.
    pub fn run(self, sandbox: &Sandbox, script: &str) {
        let fixtures = PathBuf::from(env::var_os("JC_FIXTURES").unwrap_or_default());
        let kernel = fixtures.join(self.kernel);
        if !kernel.join("base.list").exists() {
            skip(&format!("no kernel in {}", kernel.display()));
        }
        let programs = self.programs.map(|dir| fixtures.join(dir));
        let image = sandbox.path("initramfs.gz");
        fs::write(&image, initramfs(sandbox, &kernel, programs.as_deref(), script)).unwrap();
        let append = format!("console={} quiet panic=-1 no_timer_check", self.console);
        let mut machine = Cmd::new(self.emulator[0])
            .args(&self.emulator[1..])
            // With a thread for each processor, one of them may go on with code that the other has patched: the kernel
            // then loops at a breakpoint of a static key, such as that of the first quota.
            .args(["-accel", "tcg,thread=single", "-smp", "2", "-m", "1024"])
            .args(["-nographic", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel.join("vmlinuz"))
            .arg("-initrd")
            .arg(&image)
            .args(["-append", &append]);
        if let Some(disk) = self.disk {
            // The snapshot option keeps the image unchanged.
            let disk =
                format!("file={},if=virtio,format=raw,snapshot=on", fixtures.join(disk).display());
            machine = machine.args(["-drive", &disk]);
        }
        let ran = machine.timeout(self.limit).run();
        let shown = ran.out().replace('\r', "");
        let lines = |start: &str| shown.lines().filter(|line| line.starts_with(start)).count();
        let checks = script.matches("\nis ").count() + script.matches("; is ").count();
        assert!(shown.contains("end of script"), "the script did not come to its end:\n{shown}");
        assert_eq!(lines("not ok: "), 0, "in the machine:\n{shown}");
        assert_eq!(lines("ok: "), checks, "in the machine:\n{shown}");
    }
}

fn initramfs(sandbox: &Sandbox, kernel: &Path, programs: Option<&Path>, script: &str) -> Vec<u8> {
    let mut archive = Cpio::default();
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "new", "modules"] {
        archive.add(dir, 0o040_755, b"");
    }
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("prelude.sh", 0o100_755, PRELUDE.as_bytes());
    archive.add("script.sh", 0o100_644, script.as_bytes());
    archive.add(
        "etc/passwd",
        0o100_644,
        b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    );
    archive.add("etc/group", 0o100_644, b"root:x:0:\nuser:x:1000:\n");
    for (name, content) in files(kernel).filter(|(name, _)| name != "vmlinuz") {
        archive.add(&format!("modules/{name}"), 0o100_644, &content);
    }
    if programs.is_none() {
        let busybox = sandbox.sh("command -v busybox").run().code(0).out();
        archive.add("bin/busybox", 0o100_755, &fs::read(busybox.trim()).unwrap());
    }
    for (name, content) in files(programs.unwrap_or(sandbox.bin("").as_path())) {
        archive.add(&format!("bin/{name}"), 0o100_755, &content);
    }
    archive.finish()
}

/// Name and content of each file of a directory.
fn files(dir: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    entries
        .into_iter()
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
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
