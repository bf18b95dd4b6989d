//! What the tool does on Linux.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use jc_unshare::supervise::{Exit, spawn_program};
use jc_unshare::{Error, Result, exec, require_program};

use crate::actions::{self, named, tell};
use crate::group::{Group, Wish, sweep_all};
use crate::hierarchy::{self, Version};
use crate::remove::PATIENCE;
use crate::report::{Target, outcome};
use crate::usage::Meter;
use crate::{Args, Measure, TOOL, delegate};

/// Acts on a group that runs, if the arguments name an action.
pub fn act(args: &Args) -> Result<Option<ExitCode>> {
    if !args.is_action() {
        return Ok(None);
    }
    if !args.program.is_empty() {
        return Err(Error::usage("an action runs no program"));
    }
    let place = args.parent.as_deref();
    let find = |name: &str| named(name, place);
    if args.list {
        actions::list(place)?;
    } else if let Some(name) = &args.stat {
        find(name)?.stat(args.watch.map(Duration::from_secs_f64))?;
    } else if let Some(name) = &args.update {
        find(name)?.update(&args.limits)?;
    } else if let Some((name, stop)) = args
        .freeze
        .as_ref()
        .map(|name| (name, true))
        .or(args.thaw.as_ref().map(|name| (name, false)))
    {
        find(name)?.freeze(stop)?;
    } else if let Some(name) = &args.kill {
        find(name)?.kill()?;
    } else if let Some(name) = &args.remove {
        find(name)?.remove()?;
    }
    Ok(Some(ExitCode::SUCCESS))
}

/// Makes the group and runs the program in it.
pub fn run(args: &Args) -> Result<ExitCode> {
    require_program(&args.program)?;
    if let Some(name) = &args.join {
        named(name, args.parent.as_deref())?.join()?;
        return Err(exec::exec(&args.program));
    }
    let mut report = args.report.as_deref().map(Target::open).transpose()?;
    let wish = Wish {
        parent: args.parent.clone(),
        name: args.name.clone(),
        evacuate: args.evacuate,
        unattended: args.exec,
        measured: report.is_some() && args.measure == Measure::All,
    };
    let hierarchies = hierarchy::all()?;
    let group = Group::make(&hierarchies, &args.limits, &wish)?;
    let sweep = |patience| sweep_all(&hierarchies, args.parent.as_deref(), patience);
    if args.delegate {
        group.parts().iter().try_for_each(|part| delegate::mark(part.version(), &part.path))?;
    }
    if args.exec {
        sweep(PATIENCE)?;
        group.join(None)?;
        return Err(exec::exec(&args.program));
    }
    let start = Instant::now();
    let mut meter = None;
    let exit = supervise(&group, args, || {
        meter = report.is_some().then(|| group.meter());
        // What others have left is no failure of this one, nor to keep it from its signals for long.
        let _: Result<()> = sweep(Duration::from_millis(20));
    });
    let end = exit.and_then(|exit| {
        if let (Some(report), Some(meter)) = (&mut report, &meter) {
            let mut bill = outcome(exit, start.elapsed());
            bill.extend(meter.read());
            report.write(&bill)?;
        }
        if exit.code() == SIGKILL {
            explain(&meter.unwrap_or_else(|| group.meter()));
        }
        Ok(exit)
    });
    let removed = group.remove();
    let exit = end?;
    removed.map(|()| exit.end())
}

/// Waits for the program, which has begun before `meanwhile` is done.
fn supervise(group: &Group, args: &Args, meanwhile: impl FnOnce()) -> Result<Exit> {
    let child = spawn_program(TOOL, 0, group.v2(), |_| match group.join(Some(Version::V1)) {
        Ok(()) => exec::exec(&args.program),
        Err(error) => error,
    })?;
    meanwhile();
    child.wait()
}

/// The code of a program that SIGKILL has ended.
const SIGKILL: u8 = 137;

/// A process that is killed for want of memory says nothing, so this does.
fn explain(meter: &Meter) {
    if meter.oom_kills().unwrap_or(0) == 0 {
        return;
    }
    let bytes = |n: Option<u64>| n.map_or_else(|| "unknown".to_owned(), |n| format!("{n} bytes"));
    let (limit, peak) = (bytes(meter.memory_limit()), bytes(meter.memory_peak()));
    tell(&format!(
        "{}: killed for want of memory: the limit is {limit}, the peak was {peak}",
        TOOL.name()
    ));
}

/// A name that is one directory, and none of the kernel's files, which have a dot.
pub fn name(word: &str) -> std::result::Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    match word.bytes().all(fine) && (1..=64).contains(&word.len()) {
        true => Ok(word.to_owned()),
        false => Err("not a name of up to 64 letters, digits, - and _".to_owned()),
    }
}
