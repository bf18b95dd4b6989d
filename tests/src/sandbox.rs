//! A sandbox for each test: a process of its own that is PID 1 of new pid, mount, network, uts and
//! ipc namespaces. Whatever a test leaves behind there is found, and dies with it.

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

use crate::command::Cmd;
use crate::leaks::{Snapshot, running};
use crate::programs::{bin_dir, target_dir, workspace_dir};
use crate::skip;

/// How long a test may take unless [`sandbox_for`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the kernel may take to be done with network namespaces.
const SWEEPING: Duration = Duration::from_secs(3);

/// The variable that tells a test program to be the inside of a sandbox.
const INSIDE: &str = "JC_TESTS_INSIDE";

/// How the inside says how it ended. libtest itself has 0 for "no such test", too.
const PASSED: i32 = 93;
const SKIPPED: i32 = 94;
const FAILED: i32 = 95;

/// The test's own directory, empty, on a tmpfs.
const SCRATCH: &str = "/srv";

/// The programs under test, mounted where every user can reach them: their own directory may lie below one
/// that only root can enter.
const PROGRAMS: &str = "/mnt";
const BIN: &str = "/mnt/bin";

/// Directories that are empty and private inside: what is left in them is the test's.
const WATCHED: [&str; 3] = ["/tmp", "/run", "/var/tmp"];

/// The state of other container tools.
const CONTAINERS: &str = "/var/lib/containers";

/// The hostname inside.
const HOSTNAME: &str = "jc-tests-host";

/// What a test has inside of its sandbox.
pub struct Sandbox {
    bin: PathBuf,
}

/// Runs the body of a test in a sandbox of its own, and checks what it leaves behind. To be called
/// by a test function with a closure, whose name says which test to run inside.
pub fn sandbox<F: FnOnce(&Sandbox)>(body: F) {
    sandbox_for(TIMEOUT, body);
}

/// [`sandbox`] for a test that needs more time.
pub fn sandbox_for<F: FnOnce(&Sandbox)>(timeout: Duration, body: F) {
    if is_inside() {
        inside(body);
    }
    outside(&test_name::<F>(), timeout);
}

/// Whether this process is the inside of a sandbox.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Ends the inside of a sandbox, where the test cannot run.
pub(crate) fn leave_skipped(why: &str) -> ! {
    println!("{}{why}", skip::MARK);
    std::process::exit(SKIPPED)
}

/// `file::module::test::{{closure}}` without its ends, which is what libtest calls the test.
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
        // Namespaces belong to a thread: one of its own, so that this one keeps the host's.
        scope.spawn(|| run_inside(test, timeout)).join().unwrap()
    });
    // libtest's own words about one test would only confuse.
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

/// Runs this test program again, as PID 1 of new namespaces, and gives all that it wrote.
fn run_inside(test: &str, timeout: Duration) -> (ExitStatus, String) {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (sender, receiver) = channel();
    // Before the new pid namespace, in which only the child can begin.
    thread::spawn(move || {
        let mut output = Vec::new();
        let read = reader.read_to_end(&mut output).map(|_| output);
        // Nobody listens any more if the child could not be started.
        let _: Result<(), _> = sender.send(read.unwrap());
    });
    nix::sched::unshare(namespaces).unwrap();
    // A caller may ignore signals: a shell does for a job in the background, and nohup(1).
    let mut child = Command::new("env")
        .arg("--default-signal")
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("TERM", "xterm")
        .env_remove("LANG")
        // The place and the words say it all.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    // Its end closes the pipe: nothing in a pid namespace outlives PID 1.
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
    // An interrupted test run must not leave this behind; as PID 1 it would not hear of SIGINT.
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
    // Caught here: libtest would take the panic that a test expects of its sandbox for a success.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        body(&sandbox);
        // The bridge stays for the next container until somebody sweeps, and is in use until the
        // kernel has taken apart the last network namespace, which it does in its own time.
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

/// Gives this process the attributes that tests expect, whatever the caller has: priority, umask, no descriptors
/// but the standard ones, and their usual soft limit.
fn reset_attributes() {
    const DESCRIPTORS: u64 = 1024;
    let numbers = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number: &i32| *number > 2).collect::<Vec<_>>() {
        // The directory itself is closed already.
        let _: nix::Result<()> = nix::unistd::close(number);
    }
    setpriority_process(None, 0).unwrap();
    umask(Mode::from_raw_mode(0o022));
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).unwrap();
}

/// Empty tmpfses in place of the directories that a test uses or watches; what it needs of those
/// that lie below one stays visible.
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
        // Devices work on it: a test of nodev must not pass because of that.
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(c"mode=1777")).unwrap();
    }
    mount("tmpfs", PROGRAMS, "tmpfs", MountFlags::NODEV, Some(c"mode=755")).unwrap();
    fs::create_dir(BIN).unwrap();
    move_mount(programs, "", CWD, BIN, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    // Where skopeo remembers what it has seen, for all users of the host.
    if Path::new(CONTAINERS).exists() {
        mount("tmpfs", CONTAINERS, "tmpfs", MountFlags::NODEV, None).unwrap();
    }
    // mount(8) makes it, whenever it has something to do.
    fs::create_dir("/run/mount").unwrap();
    for (path, tree) in kept {
        // A directory within another is there already.
        if !path.exists() {
            fs::create_dir_all(path).unwrap();
            move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        }
    }
}

impl Sandbox {
    /// A program of jc, by its name, with a store of the test's own.
    pub fn jc(&self, name: &str) -> Cmd {
        self.cmd(self.bin(name))
    }

    /// The path of a program of jc.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Any program, with those of jc on its `PATH`.
    pub fn cmd(&self, program: impl AsRef<OsStr>) -> Cmd {
        let path = env::var("PATH").unwrap_or_default();
        Cmd::new(program)
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.bin.display()))
            .env("JC_STORE", self.store())
            .env("LC_ALL", "C")
    }

    /// A line of shell, as a user would type it.
    pub fn sh(&self, script: &str) -> Cmd {
        self.cmd("sh").args(["-c", script])
    }

    /// A path of that name in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(SCRATCH).join(name)
    }

    /// Where the programs of this test keep what they pull.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The other processes in the sandbox, at this moment, as `PID COMMAND`.
    pub fn processes(&self) -> Vec<String> {
        running().into_iter().map(|(pid, command)| format!("{pid} {command}")).collect()
    }

    /// Waits until no other process is left. Panics if that takes more than a moment.
    #[track_caller]
    pub fn wait_for_no_process(&self) {
        let start = Instant::now();
        while !self.processes().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(2), "still here: {:?}", self.processes());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The hostname outside of the containers of this test.
    pub fn hostname(&self) -> &'static str {
        HOSTNAME
    }
}

/// The directories that a test must leave as they were.
pub(crate) fn watched() -> [&'static str; 3] {
    WATCHED
}

/// Where the volumes of containers are.
pub(crate) fn store_volumes() -> PathBuf {
    Path::new(SCRATCH).join("store/volumes")
}

/// Where the store's half-made things are.
pub(crate) fn store_tmp() -> PathBuf {
    Path::new(SCRATCH).join("store/tmp")
}
