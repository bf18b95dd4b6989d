//! `--gate` and `--hook`: points of the start at which this process waits for its caller and runs programs.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jc_unshare::on_demand::Group;
use jc_unshare::process::{Process, ends_until};
use jc_unshare::{Context, Error, Result, info};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::started::Started;

/// A point of the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    /// All mounts are made, and the root is still the host's.
    Mounts,
    /// The program is executed next.
    Exec,
}

impl Gate {
    fn name(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::Exec => "exec",
        }
    }

    /// Splits `GATE=VALUE`.
    fn split(word: &str) -> std::result::Result<(Self, &str), String> {
        match word.split_once('=') {
            Some(("mounts", value)) => Ok((Self::Mounts, value)),
            Some(("exec", value)) => Ok((Self::Exec, value)),
            _ => Err("begins neither with mounts= nor with exec=".to_owned()),
        }
    }
}

/// The options of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct GateArgs {
    /// Wait at a gate until a byte comes from a descriptor: mounts=N or exec=N (repeatable)
    #[arg(long = "gate", value_name = "GATE=N", value_parser = waiting)]
    pub(super) gates: Vec<(Gate, u32)>,
    /// Run a program behind a gate: mounts=HOOK or exec=HOOK, a hook of the OCI in JSON (repeatable)
    #[arg(long = "hook", value_name = "GATE=HOOK", value_parser = hook)]
    hooks: Vec<(Gate, Hook)>,
    /// Give hooks this state of the OCI in JSON, with the PID and the status of the container
    #[arg(long = "state", value_name = "JSON")]
    state: Option<State>,
}

impl Group for GateArgs {
    const NAMES: &'static [(&'static str, Option<char>)] =
        &[("gate", None), ("hook", None), ("state", None)];
}

fn waiting(word: &str) -> std::result::Result<(Gate, u32), String> {
    let (gate, number) = Gate::split(word)?;
    Ok((gate, number.parse().map_err(|_| format!("not a descriptor: {number:?}"))?))
}

/// A hook of the OCI's config.md, "POSIX-platform Hooks".
#[derive(Clone, Debug, Deserialize)]
pub struct Hook {
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    /// In seconds.
    timeout: Option<u64>,
}

fn hook(word: &str) -> std::result::Result<(Gate, Hook), String> {
    let (gate, json) = Gate::split(word)?;
    let hook: Hook = serde_json::from_str(json).map_err(|error| error.to_string())?;
    match (hook.path.is_absolute(), hook.timeout) {
        (false, _) => Err("the path of the hook is not absolute".to_owned()),
        (_, Some(0)) => Err("the timeout of the hook is not above 0".to_owned()),
        _ => Ok((gate, hook)),
    }
}

/// The state of a container (runtime.md, "State").
#[derive(Clone, Debug)]
pub struct State(Map<String, Value>);

impl FromStr for State {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        serde_json::from_str(word).map(Self).map_err(|error| error.to_string())
    }
}

impl State {
    /// The state with the PID of the payload, and with a status unless the state has one.
    pub fn of(&self, process: Process, status: &str) -> Map<String, Value> {
        let mut state = self.0.clone();
        state.insert("pid".into(), process.pid.into());
        state.entry("status").or_insert_with(|| status.into());
        state
    }
}

impl GateArgs {
    /// Whether the payload must be known by its PID on the host.
    pub fn needs_process(&self) -> bool {
        self.state.is_some()
    }

    /// The state of a container that the payload joins, as the command line has it.
    pub fn given_state(&self) -> Option<Map<String, Value>> {
        self.state.as_ref().map(|State(state)| state.clone())
    }
}

/// The gates of a start.
#[derive(Default)]
pub struct Gates {
    waits: Vec<(Gate, OwnedFd)>,
    hooks: Vec<(Gate, Hook)>,
    state: Option<(State, Process)>,
}

impl Gates {
    /// Takes over the descriptors of the caller. `this` is this process as the host's procfs shows it.
    pub fn open(args: &GateArgs, this: Option<Process>) -> Result<Self> {
        let open = |(gate, number): &(Gate, u32)| Ok((*gate, info::inherit_fd(*number, "--gate")?));
        let waits = args.gates.iter().map(open).collect::<Result<_>>()?;
        let state = args.state.clone().zip(this);
        Ok(Self { waits, hooks: args.hooks.clone(), state })
    }

    /// Whether this process waits at that gate.
    pub fn waits_at(&self, gate: Gate) -> bool {
        self.waits.iter().any(|(at, _)| *at == gate)
    }

    /// Reports the gate, waits for a byte, and runs the hooks.
    pub fn pass(&self, gate: Gate, started: Option<&Started>) -> Result<()> {
        for (_, fd) in self.waits.iter().filter(|(at, _)| *at == gate) {
            started.map_or(Ok(()), |started| started.report_gate(gate.name()))?;
            let operation = || format!("gate {}", gate.name());
            let mut byte = [0];
            let length = loop {
                match rustix::io::read(fd, &mut byte) {
                    Err(rustix::io::Errno::INTR) => {}
                    read => break read.op(&operation())?,
                }
            };
            if length == 0 {
                return Err(Error::new(format_args!("{}: the caller has closed it", operation())));
            }
        }
        let hooks = self.hooks.iter().filter(|(at, _)| *at == gate);
        hooks.map(|(_, hook)| hook).try_for_each(|hook| self.run(gate, hook))
    }

    /// The state of the command line, with the PID of the payload, and with this status unless it has one.
    pub fn state(&self, status: &str) -> Option<Map<String, Value>> {
        self.state.as_ref().map(|(state, process)| state.of(*process, status))
    }

    fn run(&self, gate: Gate, hook: &Hook) -> Result<()> {
        let status = match gate {
            Gate::Mounts => "creating",
            Gate::Exec => "created",
        };
        let text =
            self.state(status).map_or_else(String::new, |state| Value::Object(state).to_string());
        let (name, arguments) = match hook.args.split_first() {
            Some((name, arguments)) => (name.as_ref(), arguments),
            None => (hook.path.as_os_str(), &[][..]),
        };
        let variables = hook.env.iter().filter_map(|variable| variable.split_once('='));
        let mut command = Command::new(&hook.path);
        command.arg0(name).args(arguments).env_clear().envs(variables).stdin(in_memory(&text)?);
        wait(&mut command, hook)
    }
}

/// Runs a hook to its end, or to the end of its time.
fn wait(command: &mut Command, hook: &Hook) -> Result<()> {
    let path = hook.path.display();
    let mut child = command.spawn().on("hook", &hook.path)?;
    if let Some(seconds) = hook.timeout {
        let pid = Pid::from_child(&child);
        let deadline = Instant::now() + Duration::from_secs(seconds.min(1 << 30));
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).op("pidfd_open")?;
        if !ends_until(&pidfd, deadline)? {
            child.kill().on("kill hook", &hook.path)?;
            child.wait().on("hook", &hook.path)?;
            return Err(Error::new(format_args!("hook {path}: runs for more than {seconds} s")));
        }
    }
    let status = child.wait().on("hook", &hook.path)?;
    if status.success() { Ok(()) } else { Err(Error::new(format_args!("hook {path}: {status}"))) }
}

/// A file in memory: the root may lack /dev/null, and a write to a pipe fails if a hook does not read its input.
fn in_memory(text: &str) -> Result<File> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC).op("memfd_create")?);
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).op("write the state")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_all_options_of_the_group() {
        jc_unshare::on_demand::assert_names::<GateArgs>();
    }

    #[test]
    fn a_gate_has_a_descriptor_and_a_hook_an_absolute_path() {
        assert_eq!(waiting("mounts=7"), Ok((Gate::Mounts, 7)));
        for word in ["mounts", "mounts=", "exec=-1", "exit=3", "exec=x"] {
            assert!(waiting(word).is_err(), "{word}");
        }
        let (gate, found) = hook(r#"exec={"path":"/a","args":["a","b"],"timeout":3}"#).unwrap();
        assert_eq!((gate, found.args.len(), found.timeout), (Gate::Exec, 2, Some(3)));
        for word in ["exec={}", r#"exec={"path":"a"}"#, r#"exec={"path":"/a","timeout":0}"#] {
            assert!(hook(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_state_gets_a_pid_and_keeps_its_status() {
        let process = Process { pid: 7, start: 1 };
        let state: State = r#"{"id":"x","pid":1}"#.parse().unwrap();
        let text = Value::Object(state.of(process, "created")).to_string();
        assert_eq!(text, r#"{"id":"x","pid":7,"status":"created"}"#);
        let state: State = r#"{"status":"running"}"#.parse().unwrap();
        assert_eq!(state.of(process, "created")["status"], "running");
        assert!("[]".parse::<State>().is_err());
    }
}
