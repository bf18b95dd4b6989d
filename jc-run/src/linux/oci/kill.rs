//! `kill`: a signal to the program of a container, or to all its processes.

use jc_unshare::process::Process;
use jc_unshare::{Absent, Error, Result, signals};
use nix::libc::SIGKILL;

use super::args::Kill;
use super::environment::Environment;
use super::state::{Record, Root, Status};
use super::{group, list};

/// The command `kill`: see jc-oci(1).
pub fn command(environment: &Environment, options: &Kill) -> Result<()> {
    let signal = match options.signal.trim_start_matches('-') {
        // The kernel checks whether the process is there, and sends nothing (kill(2)).
        "0" => 0,
        word => signals::number(word)
            .ok_or_else(|| Error::new(format_args!("unknown signal {:?}", options.signal)))?,
    };
    let root = Root::open(environment.root.as_deref(), false)?;
    let record = root.find(&options.container.id)?.read()?;
    let status = list::status(&record)?;
    if options.all {
        return all(&record, signal, status);
    }
    let process = record.process().filter(|_| status != Status::Stopped);
    let stopped = || Error::new("container not running");
    let process = process.ok_or_else(stopped)?;
    let has_pid_namespace = record.config.linux().namespaces.iter().any(|one| one.kind == "pid");
    // Without a PID namespace the kernel ends only the program.
    if signal == SIGKILL && record.cgroup.is_some() && !has_pid_namespace {
        return if end_group(&record)? { Ok(()) } else { Err(stopped()) };
    }
    if !process.signal(signal)? {
        return Err(stopped());
    }
    if signal == SIGKILL && status == Status::Paused { group::thaw(&record) } else { Ok(()) }
}

/// Kills all processes of the group, also of a frozen one. `false`: the group has been removed with its processes.
fn end_group(record: &Record) -> Result<bool> {
    let is_there = group::act_if_there(record, "--kill")?;
    group::thaw(record).map(|()| is_there)
}

/// Sends the signal to all processes of the group. A container that has stopped may have some left, or none. A program
/// that has left the group receives the signal if the group is empty.
fn all(record: &Record, signal: i32, status: Status) -> Result<()> {
    let members = record.cgroup.as_ref().map_or(Ok(Vec::new()), |path| group::members(path))?;
    if members.is_empty() {
        let process = record.process().filter(|_| status != Status::Stopped);
        return process.map_or(Ok(()), |process| process.signal(signal).map(drop));
    }
    if signal == SIGKILL {
        return end_group(record).map(drop);
    }
    for pid in members {
        // A process that has ended meanwhile needs no signal.
        if let Some(process) = Process::numbered(pid).absent()? {
            process.signal(signal)?;
        }
    }
    Ok(())
}
