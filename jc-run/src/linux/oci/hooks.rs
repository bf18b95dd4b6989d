//! Hooks in the namespaces of the runtime (config.md, "POSIX-platform Hooks").

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::config::Hook;

/// Runs hooks in order, each with the state on stdin. The first failure ends the run.
pub fn run(name: &str, hooks: &[Hook], state: &Value) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(name, hook, state))
}

/// Runs a hook, and waits for its end.
pub fn run_one(name: &str, hook: &Hook, state: &Value) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    if let Some(env) = &hook.env {
        command.env_clear().envs(env.iter().filter_map(|pair| pair.split_once('=')));
    }
    // Output of hooks would be output of the container.
    command.stdin(stdin(state)?).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().on("exec", &hook.path)?;
    let fault = |text: &dyn std::fmt::Display| {
        Err(Error::new(format_args!("error running {name} hook {}: {text}", hook.path.display())))
    };
    let Some(seconds) = hook.timeout.and_then(|seconds| seconds.try_into().ok()) else {
        return check(child.wait().on("wait", &hook.path)?).or_else(|text| fault(&text));
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait().on("wait", &hook.path)? {
            return check(status).or_else(|text| fault(&text));
        }
        if Instant::now() >= deadline {
            // With the programs that the hook has started: the hook leads a process group of its own.
            kill_process_group(Pid::from_child(&child), Signal::KILL).on("kill", &hook.path)?;
            child.wait().on("wait", &hook.path)?;
            return fault(&format_args!("killed after {seconds} seconds"));
        }
        sleep(Duration::from_millis(5));
    }
}

/// A file in memory: a hook that does not read its state holds up nobody.
fn stdin(state: &Value) -> Result<File> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC).op("memfd_create")?);
    file.write_all(state.to_string().as_bytes()).op("write the state")?;
    file.rewind().op("lseek")?;
    Ok(file)
}

fn check(status: ExitStatus) -> std::result::Result<(), String> {
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
