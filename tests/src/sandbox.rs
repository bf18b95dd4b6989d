//! A sandbox for each test: a process that is PID 1 of new PID, mount, network, UTS and IPC namespaces. The sandbox
//! finds all objects that a test leaves there, and the objects end with it.

use std::any::type_name;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    move_mount, open_tree,
};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setpriority_process,
    setrlimit, umask,
};

use crate::command::{self, Cmd};
use crate::inside::{FAILED, INSIDE, PASSED, SCRATCH, SKIPPED, WATCHED, is_inside};
use crate::leaks::Snapshot;
use crate::processes::running;
use crate::programs::{bin_dir, target_dir, workspace_dir};
use crate::skip;

/// The time limit of a test without [`sandbox_for`].
const TIMEOUT: Duration = Duration::from_secs(180);

/// The time that the kernel needs to remove network namespaces.
const SWEEPING: Duration = Duration::from_secs(3);

/// The mount point of the programs under test. Other users cannot reach the original directory if a directory above
/// it belongs to root alone.
const PROGRAMS: &str = "/mnt";
const BIN: &str = "/mnt/bin";

/// The state of other container programs.
const CONTAINERS: &str = "/var/lib/containers";

/// The host name inside.
const HOSTNAME: &str = "jc-tests-host";

/// The inside of the sandbox of a test.
pub struct Sandbox {
    bin: PathBuf,
}

/// Runs the body of a test in a sandbox, and checks the objects that remain. A test function calls this function with
/// a closure, whose type has the name of the test.
pub fn sandbox<F: FnOnce(&Sandbox)>(body: F) {
    sandbox_for(TIMEOUT, body);
}

/// Runs a test like [`sandbox`], with another time limit.
pub fn sandbox_for<F: FnOnce(&Sandbox)>(timeout: Duration, body: F) {
    if is_inside() {
        inside(body);
    }
    outside(&test_name::<F>(), timeout);
}

/// The name of the test for libtest, from the type of the closure: `file::module::test::{{closure}}` without its
/// ends.
fn test_name<F>() -> String {
    let path = type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_, name)| name);
    path.trim_end_matches("::{{closure}}").to_owned()
}

fn outside(test: &str, timeout: Duration) {
    if !rustix::process::geteuid().is_root() {
        return skip::record(test, "needs root");
    }
    let (status, output) = thread::scope(|scope| {
        // Namespaces belong to a thread, so a thread of its own makes them.
        scope.spawn(|| run_inside(test, timeout)).join().unwrap()
    });
    // The messages of libtest about a single test would be confusing.
    let shown: Vec<&str> = output
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with("running ") && !l.starts_with("test result: "))
        .collect();
    match status.code() {
        Some(PASSED) => {}
        Some(SKIPPED) => {
            let why = shown.iter().find_map(|l| l.split_once(skip::MARK)).map_or("?", |(_, w)| w);
            skip::record(test, why);
        }
        Some(0) => panic!("the sandbox found no test {test}"),
        Some(FAILED) => panic!("in its sandbox:\n{}", shown.join("\n")),
        _ => panic!("in its sandbox: {status}\n{}", shown.join("\n")),
    }
}

/// Executes this test program as PID 1 of new namespaces. Returns its exit status and all output.
fn run_inside(test: &str, timeout: Duration) -> (ExitStatus, String) {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (sender, receiver) = channel();
    // The thread starts before the new PID namespace, in which only the child can start threads.
    thread::spawn(move || {
        let mut output = Vec::new();
        let read = reader.read_to_end(&mut output).map(|_| output);
        // The receiver has gone if the child could not be started.
        let _: Result<(), _> = sender.send(read.unwrap());
    });
    nix::sched::unshare(namespaces).unwrap();
    // The caller may ignore signals, like a shell for a background job, or nohup(1).
    let mut child = Command::new("env")
        .arg("--default-signal")
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("TERM", "xterm")
        .env_remove("LANG")
        // The location and the message of a panic are enough.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    // The pipe ends with PID 1, since no process of a PID namespace survives PID 1.
    let output = receiver.recv_timeout(timeout);
    if output.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    match output.or_else(|_| receiver.recv()) {
        Ok(output) => (status, String::from_utf8_lossy(&output).into_owned()),
        Err(e) => panic!("no output: {e}"),
    }
}

fn inside<F: FnOnce(&Sandbox)>(body: F) -> ! {
    // An interrupted test run must end this process too. PID 1 would not receive SIGINT.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    assert_eq!(std::process::id(), 1, "not in a pid namespace of its own");
    reset_attributes();
    private_directories(&[
        workspace_dir().canonicalize().unwrap(),
        target_dir(3).canonicalize().unwrap(),
    ]);
    nix::unistd::sethostname(HOSTNAME).unwrap();
    env::set_current_dir(SCRATCH).unwrap();
    Cmd::new("ip").args(["link", "set", "lo", "up"]).run().code(0);

    let sandbox = Sandbox { bin: BIN.into() };
    let before = Snapshot::take();
    // The panic is caught here, since libtest would take an expected panic for a success.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        body(&sandbox);
        // The bridge stays until a sweep, and is in use until the kernel has removed the last network namespace,
        // which happens asynchronously.
        let start = Instant::now();
        while Path::new("/proc/self/net/dev_snmp6/jc0").exists() && start.elapsed() < SWEEPING {
            sandbox.jc("jc-net").arg("--gc").run().code(0);
            thread::sleep(Duration::from_millis(10));
        }
        let leaks = before.leaks();
        assert!(leaks.is_empty(), "left behind:\n    {}", leaks.join("\n    "));
    }));
    std::process::exit(if outcome.is_ok() { PASSED } else { FAILED })
}

/// Resets the attributes of this process, whatever the caller has: priority, umask, descriptors, and the limit of
/// descriptors.
fn reset_attributes() {
    const DESCRIPTORS: u64 = 1024;
    let numbers = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number: &i32| *number > 2).collect::<Vec<_>>() {
        // The descriptor of the directory itself is closed already.
        let _: nix::Result<()> = nix::unistd::close(number);
    }
    setpriority_process(None, 0).unwrap();
    umask(Mode::from_raw_mode(0o022));
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).unwrap();
}

/// Mounts empty tmpfses over the directories that a test uses or watches. Needed directories below them stay visible.
fn private_directories(keep: &[PathBuf]) {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("proc", "/proc", "proc", MountFlags::empty(), None).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let programs = open_tree(CWD, bin_dir(), flags).unwrap();
    let masked: Vec<&str> = WATCHED.into_iter().chain([SCRATCH]).collect();
    let kept: Vec<(&PathBuf, OwnedFd)> = keep
        .iter()
        .filter(|path| masked.iter().any(|dir| path.starts_with(dir)))
        .map(|path| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
            (path, open_tree(CWD, path, flags | OpenTreeFlags::OPEN_TREE_CLOEXEC).unwrap())
        })
        .collect();
    for dir in masked {
        // The tmpfs permits devices, so that a test of nodev depends on the program alone.
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(c"mode=1777")).unwrap();
    }
    mount("tmpfs", PROGRAMS, "tmpfs", MountFlags::NODEV, Some(c"mode=755")).unwrap();
    fs::create_dir(BIN).unwrap();
    move_mount(programs, "", CWD, BIN, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    // skopeo caches information about registries there, for all users of the host.
    if Path::new(CONTAINERS).exists() {
        mount("tmpfs", CONTAINERS, "tmpfs", MountFlags::NODEV, None).unwrap();
    }
    // mount(8) makes the directory at its first use.
    fs::create_dir("/run/mount").unwrap();
    for (path, tree) in kept {
        // A directory below another one exists already.
        if !path.exists() {
            fs::create_dir_all(path).unwrap();
            move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        }
    }
}

impl Sandbox {
    /// A program of jc, with a store of the test.
    pub fn jc(&self, name: &str) -> Cmd {
        self.cmd(self.bin(name))
    }

    /// The path of a program of jc.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Any program, with the programs of jc on its `PATH`.
    pub fn cmd(&self, program: impl AsRef<OsStr>) -> Cmd {
        let path = env::var("PATH").unwrap_or_default();
        Cmd::new(program)
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.bin.display()))
            .env("JC_STORE", self.store())
            .env("LC_ALL", "C")
    }

    /// A shell command line.
    pub fn sh(&self, script: &str) -> Cmd {
        self.cmd("sh").args(["-c", script])
    }

    /// A path in the directory of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(SCRATCH).join(name)
    }

    /// The store of the programs of this test.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The other processes of the sandbox at this moment, as `PID COMMAND`.
    pub fn processes(&self) -> Vec<String> {
        running().into_iter().map(|(pid, command)| format!("{pid} {command}")).collect()
    }

    /// Waits until no other process is left. Panics after some seconds.
    #[track_caller]
    pub fn wait_for_no_process(&self) {
        let start = Instant::now();
        while !self.processes().is_empty() {
            assert!(start.elapsed() < command::TIMEOUT, "still here: {:?}", self.processes());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The host name outside the containers of the test.
    pub fn hostname(&self) -> &'static str {
        HOSTNAME
    }
}
