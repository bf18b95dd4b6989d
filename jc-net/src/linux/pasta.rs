//! `--network pasta`: a network namespace that pasta(1) connects. pasta forwards packets through sockets of its own and
//! needs no privilege on the host.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Seek, SeekFrom, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipnetwork::IpNetwork;
use jc_unshare::events::{StatusFd, exec_reporting};
use jc_unshare::hints::advise;
use jc_unshare::process::Process;
use jc_unshare::supervise::{Child, NewChild};
use jc_unshare::sys::{clone, close_all_but};
use jc_unshare::{Context, Error, Result, exec};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use serde_json::json;

use crate::TOOL;
use crate::linux::args::Args;
use crate::linux::dns::Reach;
use crate::linux::enter::is_root_of_host;
use crate::linux::lease::INSIDE;
use crate::linux::link::{self, LOOPBACK};
use crate::linux::netlink::Socket;
use crate::linux::ports::{self, Forward, Protocol};
use crate::linux::{addresses, status};

/// Runs the program in a namespace of pasta, and ends pasta after the program.
pub fn run(args: &Args, status: Option<StatusFd>) -> Result<ExitCode> {
    refuse_root_of_host()?;
    let pasta = find()?;
    let forwards = forwards(args)?;
    let (mut gate, mut open) = pipe().op("pipe")?;
    let child = NewChild::of(TOOL)
        .in_namespaces(clone::NEWNET)
        .spawn(|_| inside(args, &mut gate, status, &forwards).unwrap_or_else(|error| error))
        .map_err(advise(clone::NEWNET))?
        .reporting(status);
    drop(gate);
    let helper = start(&pasta, &child, &forwards)?;
    open.write_all(b"!").op("release the program")?;
    drop(open);
    let exit = child.wait_keeping(&helper.descriptors())?;
    helper.kill()?;
    Ok(exit.end())
}

/// Checks that the caller is not root of the host: pasta(1) drops the privileges of root, and then cannot enter a namespace
/// that root has made.
fn refuse_root_of_host() -> Result<()> {
    if is_root_of_host()? {
        Err(Error::new("--network pasta: not available to root of the host")
            .hint("use --network bridge, or jc-unshare -U -r in front, which makes another root"))
    } else {
        Ok(())
    }
}

fn find() -> Result<PathBuf> {
    exec::find("pasta".as_ref(), env::var_os("PATH").as_deref()).map_err(|_| {
        Error::new("pasta: not found in PATH")
            .hint("Debian's package passt has pasta; --network none needs no program")
    })
}

/// The ports, which must be free at this moment. pasta binds them later.
fn forwards(args: &Args) -> Result<Vec<Forward>> {
    let list = "/proc/net/if_inet6";
    let bound = ports::bind_all(&args.published(), fs::exists(list).on("stat", list)?)?;
    match bound.forwards.iter().find(|forward| forward.protocol == Protocol::Sctp) {
        Some(_) => Err(Error::usage("--network pasta: publishes no ports of sctp")),
        None => Ok(bound.forwards),
    }
}

/// The argument of pasta for the ports of one protocol.
fn specification(forwards: &[Forward], protocol: Protocol) -> String {
    let of = forwards.iter().filter(|forward| forward.protocol == protocol);
    let words: BTreeSet<String> = of
        .map(|f| {
            if f.host.is_unspecified() {
                format!("{}:{}", f.host_port, f.port)
            } else {
                format!("{}/{}:{}", f.host, f.host_port, f.port)
            }
        })
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.into_iter().collect::<Vec<_>>().join(",")
    }
}

/// Starts pasta, and waits until pasta has configured the namespace.
fn start(pasta: &Path, child: &Child, forwards: &[Forward]) -> Result<Child> {
    let path = format!("/proc/{}/ns/net", child.proc_number()?);
    let namespace = File::open(&path).on("open", &path)?;
    let log = memfd_create("pasta", MemfdFlags::CLOEXEC).op("memfd_create")?;
    let (mut ready, ready_writer) = pipe().op("pipe")?;
    // pasta has dropped the privilege to open the files by their own paths.
    let by_fd = |fd: i32| format!("/proc/self/fd/{fd}");
    let (netns, pid) = (by_fd(namespace.as_raw_fd()), by_fd(ready_writer.as_raw_fd()));
    let (tcp, udp) =
        (specification(forwards, Protocol::Tcp), specification(forwards, Protocol::Udp));
    let words = [
        "--foreground",
        "--quiet",
        "--config-net",
        "--no-map-gw",
        "--netns-only",
        "--netns",
        &netns,
        "--pid",
        &pid,
        "--ns-ifname",
        INSIDE,
        "--tcp-ports",
        &tcp,
        "--udp-ports",
        &udp,
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
    ];
    let mut argv = vec![OsString::from(pasta)];
    argv.extend(words.iter().map(OsString::from));
    let helper = NewChild::of(TOOL).spawn(|_| {
        let prepared = become_helper(&namespace, &ready_writer, &log);
        prepared.err().unwrap_or_else(|| exec::exec(&argv))
    })?;
    drop((ready_writer, namespace));
    // pasta writes its PID when it is ready. The end of the pipe means that pasta has ended.
    if ready.read(&mut [0; 16]).op("read from pasta")? == 0 {
        return Err(failed(File::from(log)));
    }
    Ok(helper)
}

/// Closes the descriptors of the program, except those that pasta needs.
fn become_helper(namespace: &File, ready: &PipeWriter, log: &OwnedFd) -> Result<()> {
    // The program's pipes must end when the program closes them.
    let [stdin, stdout, stderr] = [stdin(), stdout(), stderr()];
    close_all_but(&[stdin, stdout, stderr, namespace.as_fd(), ready.as_fd(), log.as_fd()]);
    for fd in [namespace.as_fd(), ready.as_fd()] {
        fcntl_setfd(fd, FdFlags::empty()).op("fcntl")?;
    }
    let null = File::options().read(true).write(true).open("/dev/null").on("open", "/dev/null")?;
    dup2_stdin(&null).op("dup2")?;
    dup2_stdout(&null).op("dup2")?;
    dup2_stderr(log).op("dup2")
}

/// The error of pasta, by the last line of its log.
fn failed(mut log: File) -> Error {
    let mut text = String::new();
    let read = log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_string(&mut text));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.contains("syslog"));
    let last = lines.rfind(|line| !line.is_empty());
    let last = last.filter(|_| read.is_ok()).unwrap_or("ended without an error message");
    let error = Error::new(format_args!("pasta: {last}"));
    if last.contains("tun socket") {
        error.hint("pasta needs access to /dev/net/tun: chmod 666 /dev/net/tun")
    } else if last.contains("interface not usable") {
        error.hint("the host has no route to the outside: --network none, or --network host")
    } else {
        error
    }
}

/// Waits for pasta, prepares the new namespace, and executes the program. Returns only an error.
fn inside(
    args: &Args,
    gate: &mut PipeReader,
    status: Option<StatusFd>,
    forwards: &[Forward],
) -> Result<Error> {
    // The waiting link has written its error, or is dead.
    gate.read_exact(&mut [0]).map_err(|_| Error::quiet())?;
    let socket = Socket::route()?;
    let up = socket.ask(link::set_up(LOOPBACK));
    up.map_err(|error| error.during("set lo up"))?;
    let networks = addresses::list(&socket)?;
    let addresses: Vec<_> = networks.iter().map(IpNetwork::ip).collect();
    let v6 = networks.iter().any(IpNetwork::is_ipv6);
    args.files().write(Reach::Outside { v6 }, &addresses)?;
    if let Some(status) = status {
        let network = json!({
            "network": "pasta",
            "interface": INSIDE,
            "addresses": status::networks(networks.into_iter()),
            "ports": status::ports(forwards),
        });
        status.report("network", &network.to_string())?;
        status.started(Process::this()?)?;
    }
    Ok(exec_reporting(status, &args.program))
}
