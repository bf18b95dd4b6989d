//! A cgroup for a program (made, limited, joined, reported on and removed), or an action on an existing group.

mod actions;
mod args;
mod delegate;
mod device;
mod device_program;
mod device_rule;
mod devices;
mod group;
mod hierarchy;
mod limits;
mod memory;
mod parent;
mod path;
mod remove;
mod report;
mod resources;
mod setting;
mod sweep;
mod sys;
mod usage;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jc_unshare::events::{StatusFd, exec_reporting};
use jc_unshare::hints::advise;
use jc_unshare::info;
use jc_unshare::namespaces::{Kind, steps};
use jc_unshare::program::Program;
use jc_unshare::supervise::{Child, Exit, NewChild};
use jc_unshare::{Error, Result, require_program, size};
use serde_json::json;

use crate::TOOL;
pub use args::Args;
use args::Measure;
use group::{Group, GroupSpec, sweep_all};
use hierarchy::Version;
use remove::PATIENCE;
use report::{Target, outcome};
use usage::Meter;

/// Runs an action, or the program in a group. Returns the exit code of the payload.
pub fn run(args: Args) -> Result<ExitCode> {
    let has_limits = args.join.is_none() && !args.action.any() || args.action.update.is_some();
    if args.limits.any() && !has_limits {
        return Err(Error::usage("only a new group and --update have limits"));
    }
    args.check_namespaces()?;
    if !args.action.any() {
        return run_program(&args);
    }
    if !args.program.is_empty() {
        return Err(Error::usage("an action runs no program"));
    }
    act(&args).map(|()| ExitCode::SUCCESS)
}

/// Runs an action on an existing group.
fn act(args: &Args) -> Result<()> {
    let (parent, action) = (args.parent.as_deref(), &args.action);
    if action.list {
        actions::list(parent)
    } else if let Some(name) = &action.stat {
        actions::on(name, parent, |group| group.stat(action.watch.map(Duration::from_secs_f64)))
    } else if let Some(name) = &action.update {
        actions::on(name, parent, |group| group.update(&args.limits))
    } else if let Some(name) = &action.freeze {
        actions::on(name, parent, |group| group.freeze(true))
    } else if let Some(name) = &action.thaw {
        actions::on(name, parent, |group| group.freeze(false))
    } else if let Some(name) = &action.kill {
        actions::on(name, parent, |group| group.kill())
    } else if let Some(name) = &action.remove {
        actions::on(name, parent, |group| group.remove())
    } else {
        Ok(())
    }
}

/// Creates the group, or joins one, and runs the program in it.
fn run_program(args: &Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    let report = args.report.as_deref().and_then(|word| word.parse().ok());
    info::check_distinct([("--report", report), ("--status-fd", args.status_fd)])?;
    // This check comes first: a number that is not open yet may become that of a descriptor which this process opens.
    let status = args.status_fd.map(|number| StatusFd::open(TOOL, number)).transpose()?;
    let status = status.map(StatusFd::reporting_failure);
    if let Some(name) = &args.join {
        actions::on(name, args.parent.as_deref(), |group| group.join(args.frozen))?;
        return Err(exec_reporting(status, &args.program));
    }
    if let Some(path) = &args.path {
        return run_at(args, path, status);
    }
    let report = args.report.as_deref().map(Target::open).transpose()?;
    let has_report = report.is_some() || status.is_some();
    let spec = GroupSpec {
        parent: args.parent.clone(),
        name: args.name.clone(),
        evacuate: args.evacuate,
        unattended: args.exec,
        measured: has_report && args.measure == Measure::All,
    };
    let hierarchies = hierarchy::all(spec.measured || args.limits.any())?;
    let group = Group::create(&hierarchies, &args.limits, &spec)?;
    let sweep = |patience| sweep_all(&hierarchies, args.parent.as_deref(), patience);
    if args.delegate {
        group.parts().iter().try_for_each(|part| delegate::mark(part.version, &part.path))?;
    }
    if args.exec {
        sweep(PATIENCE)?;
        group.join()?;
        return Err(exec_reporting(status, &args.program));
    }
    let start = Instant::now();
    let exit = start_program_in(&group, args, status).and_then(|child| {
        // The sweep runs while the program starts. Its errors are no failures of this process, and its time is bounded
        // since it delays the forwarding of signals.
        let _: Result<()> = sweep(Duration::from_millis(20));
        child.wait_keeping(&kept_descriptors(&group, report.as_ref()))
    });
    let end = exit.and_then(|exit| {
        report_usage(&group, exit, start.elapsed(), (report, status))?;
        Ok(exit)
    });
    let removed = group.remove();
    let exit = end?;
    removed.map(|()| exit.end())
}

/// Runs the program in the group of a path, which stays.
fn run_at(args: &Args, path: &Path, status: Option<StatusFd>) -> Result<ExitCode> {
    let report = args.report.as_deref().map(Target::open).transpose()?;
    let group = Group::at(&hierarchy::all(true)?, path, &args.limits)?;
    if args.exec {
        group.join()?;
        return Err(exec_reporting(status, &args.program));
    }
    if args.no_wait {
        let (flags, program) = program_in(&group, args, status)?;
        return NewChild::of(TOOL)
            .in_namespaces(flags)
            .in_cgroup(group.v2())
            .start_program(program)
            .map_err(advise(flags));
    }
    let start = Instant::now();
    let exit = start_program_in(&group, args, status)?
        .wait_keeping(&kept_descriptors(&group, report.as_ref()))?;
    report_usage(&group, exit, start.elapsed(), (report, status))?;
    Ok(exit.end())
}

/// Writes the usage of the group, and an out-of-memory message to stderr.
fn report_usage(
    group: &Group,
    exit: Exit,
    wall: Duration,
    (report, status): (Option<Target>, Option<StatusFd>),
) -> Result<()> {
    let directories = group.parts().iter().map(|part| (part.version, part.path.as_path()));
    let meter = Meter(directories.collect());
    if report.is_some() || status.is_some() {
        let mut usage = outcome(exit, wall);
        usage.extend(meter.read()?);
        report.map_or(Ok(()), |mut report| report.write(&usage))?;
        // The exit status of the payload matters more than an error of this write, as for the event exited.
        let _: Option<Result<()>> =
            status.map(|status| status.report("usage", &json!(usage).to_string()));
    }
    report_out_of_memory(exit, &meter);
    Ok(())
}

fn start_program_in(group: &Group, args: &Args, status: Option<StatusFd>) -> Result<Child> {
    let (flags, program) = program_in(group, args, status)?;
    NewChild::of(TOOL)
        .in_namespaces(flags)
        .in_cgroup(group.v2())
        .spawn_program(program)
        .map_err(advise(flags))
}

/// The program after the steps into the group and its namespaces, and the flags of the namespaces that the child begins
/// in.
fn program_in(group: &Group, args: &Args, status: Option<StatusFd>) -> Result<(u64, Program)> {
    let (new, cgroup) = (&args.namespaces, Kind::Cgroup.flag());
    let mut inside = group.steps(Version::V1)?;
    // The root of a cgroup namespace is the group of the process that makes the namespace.
    inside.extend(new.cgroup.then(|| steps::unshare(cgroup)));
    inside.extend(new.steps());
    Ok((new.flags() & !cgroup, Program::new(&args.program)?.after(inside).reporting(status)))
}

/// The descriptors that stay open while the program runs. All others are closed, so that the program alone has the
/// caller's pipes open.
fn kept_descriptors<'a>(group: &'a Group, report: Option<&'a Target>) -> Vec<BorrowedFd<'a>> {
    group.locks().chain(report.map(AsFd::as_fd)).chain([rustix::stdio::stderr()]).collect()
}

/// Writes to stderr that the kernel killed the program because memory ran out.
fn report_out_of_memory(exit: Exit, meter: &Meter<'_>) {
    const SIGKILL: u8 = 137;
    // An error of the read only leaves the message out, since the exit status of the payload matters more.
    let is_out_of_memory = || matches!(meter.oom_kills(), Ok(Some(1..)));
    if exit.code() != SIGKILL || !is_out_of_memory() {
        return;
    }
    let bytes = |figure: Result<Option<u64>>| match figure {
        Ok(Some(n)) => size::show(n),
        _ => "unknown".to_owned(),
    };
    let (limit, peak) = (bytes(meter.memory_limit()), bytes(meter.memory_peak()));
    TOOL.report(&Error::new(format_args!(
        "out of memory: killed at the limit of {limit}, the peak was {peak}"
    )));
}
