//! `create`: the chain runs up to the gate before the program.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use jc_unshare::exec::locate_tool;
use jc_unshare::info::proc_number;
use jc_unshare::process::Process;
use jc_unshare::{Context as _, Error, Result, print, read_at_most};
use nix::libc::O_NONBLOCK;
use serde_json::{Map, Value};

use super::args::Create;
use super::chain::{self, Inherited, PATIENCE, Running};
use super::compile::{self, Compiled, Context, Descriptors};
use super::config::linux::NetDevice;
use super::delete;
use super::environment::{Environment, Manager, held_capabilities};
use super::shared::SharedRoot;
use super::state::{Container, EVENTS, Record, Root, Status};
use super::stored::StoredConfig;
use super::systemd::Scope;
use super::{group, handover, hooks};
use crate::link::Opt;
use crate::linux::variables::take_values;

/// The most bytes of a `config.json`.
pub const LONGEST: u64 = 16 << 20;

/// The command `create`: see jc-oci(1).
pub fn command(environment: &Environment, options: &Create) -> Result<()> {
    let bundle = Bundle::read(options)?;
    if environment.prints {
        return bundle.print(environment, options.handover.console_socket.as_deref());
    }
    let (container, record) =
        bundle.create(environment, options.handover.console_socket.as_deref())?;
    let given = record.process().map(|process| handover::give(&options.handover, process));
    given.unwrap_or(Ok(())).or_else(|error| undo(environment, container, &record, error))
}

/// Destroys a container whose creation has failed.
pub fn undo<T>(
    environment: &Environment,
    container: Container,
    record: &Record,
    error: Error,
) -> Result<T> {
    if let Err(second) = delete::destroy(environment, container, record) {
        environment.log.warn(&format!("{}: {second}", record.id));
    }
    Err(error)
}

/// A bundle that is to become a container.
pub struct Bundle<'a> {
    options: &'a Create,
    path: PathBuf,
    pub config: StoredConfig,
    preserved: u32,
    listened: Option<u32>,
    /// Whether the program dies with this process, which waits for its end.
    pub is_attended: bool,
}

impl<'a> Bundle<'a> {
    /// Reads and parses `config.json`.
    pub fn read(options: &'a Create) -> Result<Self> {
        let path = options.bundle.canonicalize().on("find", &options.bundle)?;
        let file = path.join(&options.config);
        // The open of a FIFO would wait.
        let opened = File::options().read(true).custom_flags(O_NONBLOCK).open(&file);
        let text = read_at_most(opened.on("open", &file)?, LONGEST, &file)?;
        let config = StoredConfig::parse(&text)?;
        let listened = handover::listened()?;
        let preserved = options.handover.preserve_fds + listened.unwrap_or(0);
        Ok(Self { options, path, config, preserved, listened, is_attended: false })
    }

    /// Whether [`create`](Self::create) starts the container too: the chain ends with this process, which has nothing to do
    /// at the gate after the mounts. A stop there and at the program costs a tenth of the time of `run`.
    fn is_immediate(&self) -> bool {
        let hooks = &self.config.hooks;
        let has_hooks = !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty();
        let has_devices = self.config.linux.as_ref().is_some_and(|it| !it.net_devices.is_empty());
        self.is_attended && !has_hooks && !has_devices
    }

    /// The record of the container before its start.
    fn record(&self, environment: &Environment) -> Result<Record> {
        let id = &self.options.container.id;
        let mut record = Record::new(id, &self.path, self.config.clone())?;
        let linux = self.config.linux();
        record.cgroup = match environment.manager {
            Manager::None => None,
            Manager::Files => {
                let path = group::path(&linux.cgroups_path, id)?;
                // A user who can make no group has none for containers, unless limits need one.
                let is_optional = environment.is_rootless && !limits(linux.resources.as_ref());
                let is_made = !is_optional || group::can_make(&path)?;
                is_made.then_some(path)
            }
            Manager::Systemd => {
                let scope = Scope::parse(&linux.cgroups_path, id)?;
                record.unit = Some(scope.unit.clone());
                Some(scope.path())
            }
        };
        Ok(record)
    }

    /// The chain for a container.
    fn compile(
        &self,
        record: &Record,
        console_socket: Option<&Path>,
        state: &Value,
        descriptors: Descriptors,
    ) -> Result<Compiled> {
        let has_user = self.config.linux().namespaces.iter().any(|one| one.kind == "user");
        let context = Context {
            bundle: &self.path,
            cgroup: record.cgroup.as_deref(),
            waits_for_thaw: false,
            waits_for_scope: record.unit.is_some(),
            descriptors,
            console_socket,
            preserved: self.preserved,
            listened: self.listened,
            parent: self.is_attended.then(Process::this).transpose()?.map(|this| this.pid),
            // A new user namespace has all of them.
            held: if has_user { u64::MAX } else { held_capabilities()? },
            state,
        };
        compile::create(&self.config, &context)
    }

    /// Prints the chain as shell.
    pub fn print(&self, environment: &Environment, console_socket: Option<&Path>) -> Result<()> {
        let record = self.record(environment)?;
        let state = record.early_state();
        let descriptors = Descriptors::after(self.preserved);
        let compiled = self.compile(&record, console_socket, &state, descriptors)?;
        print(compiled.chain().locate()?.to_shell())
    }

    /// Creates the container, and starts it if the chain does not stop. A failure leaves nothing behind.
    pub fn create(
        &self,
        environment: &Environment,
        console_socket: Option<&Path>,
    ) -> Result<(Container, Record)> {
        // The program is waited for and gets signals by its number in /proc.
        if proc_number()? != std::process::id() {
            let error = Error::new("/proc: the procfs of another PID namespace");
            return Err(error.hint("unshare --mount-proc mounts that of its own"));
        }
        let mut record = self.record(environment)?;
        let (stops, waits) = (!self.is_immediate(), record.unit.is_some());
        let mut inherited = Inherited::gates(self.preserved, stops, waits)?;
        if compile::creates_network_early(self.config.linux())? {
            inherited = inherited.with_network(self.preserved)?;
        }
        let state = record.early_state();
        // Before anything is made: a configuration that has no chain is an error.
        let compiled = self.compile(&record, console_socket, &state, inherited.numbers())?;
        compiled.warnings.iter().for_each(|text| environment.log.warn(text));
        let root = Root::open(environment.root.as_deref(), true)?;
        root.check_free(&record.id)?;
        record.shared_root = SharedRoot::of(&self.config, &self.path)?;
        let container = root.create(&record.id)?;
        // Before the lock the processes may be those of another `create`.
        if let Err(error) = record.cgroup.as_deref().map_or(Ok(()), group::check_unused) {
            container.remove()?;
            return Err(error);
        }
        match self.launch(environment, &container, &mut record, (compiled, inherited)) {
            Ok(()) => Ok((container, record)),
            Err(error) => undo(environment, container, &record, error),
        }
    }

    /// Runs the chain up to the gate before the program, or to the program.
    fn launch(
        &self,
        environment: &Environment,
        container: &Container,
        record: &mut Record,
        (mut compiled, inherited): (Compiled, Inherited),
    ) -> Result<()> {
        container.write(record)?;
        let variables = take_values(&mut compiled.links);
        let chain = compiled.chain().locate()?;
        environment.log.debug(|| String::from_utf8_lossy(&chain.to_shell()).into_owned());
        let mut running = chain::start(Some(container), inherited, &chain, &variables)?;
        let outcome = self.enter_scope(record, &mut running).and_then(|()| {
            running.send_network()?;
            let pass = if self.is_immediate() { Self::attend_start } else { Self::pass_gates };
            pass(self, container, record, &mut running)
        });
        if outcome.is_err() {
            // The links wait at a gate as long as it is not closed.
            running.close_gates();
        }
        running.child.wait().op("wait")?;
        outcome
    }

    /// Lets systemd make the scope of the container with the first link, which waits for it.
    fn enter_scope(&self, record: &mut Record, running: &mut Running) -> Result<()> {
        if record.unit.is_none() {
            return Ok(());
        }
        let scope = Scope::parse(&self.config.linux().cgroups_path, &record.id)?;
        let pid = running.child.id();
        // A scope that has not been made is not to be stopped.
        let started = scope.start(pid).inspect_err(|_| record.unit = None);
        if let Err(error) = started.and_then(|()| scope.enter(pid)) {
            // The first link goes on when its gate closes, and jc-cgroup would make the group.
            running.child.kill().op("kill")?;
            return Err(error);
        }
        running.open_scope()
    }

    fn pass_gates(
        &self,
        container: &Container,
        record: &mut Record,
        running: &mut Running,
    ) -> Result<()> {
        let hooks = &self.config.hooks;
        let program = self.config.process()?.args[0].as_str();
        let is_gate = |name: &'static str| {
            move |event: &Value| event["event"] == "gate" && event["gate"] == name
        };
        let gate = running.events.expect(Some(PATIENCE), program, is_gate("mounts"))?;
        let process = chain::process(&gate, self.config.linux())?;
        // Before the gate opens: when it closes the chain ends, and later the record has the process.
        record.process = Some((process.pid, process.start));
        container.write(record)?;
        let state = record.state(Status::Creating);
        hooks::run("prestart", &hooks.prestart, &state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state)?;
        for (name, device) in &self.config.linux().net_devices {
            move_device(name, device, process)?;
        }
        running.open_gate()?;
        running.events.expect(self.patience(), program, is_gate("exec"))?;
        record.phase = Status::Created;
        container.write(record)
    }

    /// Waits for the execution of the program by a chain whose only gate opens early, so that no link has to wait.
    fn attend_start(
        &self,
        container: &Container,
        record: &mut Record,
        running: &mut Running,
    ) -> Result<()> {
        let program = self.config.process()?.args[0].as_str();
        let is_it = |event: &Value| event["event"] == "started" && event["link"] == "jc-rootfs";
        let started = running.events.expect(self.patience(), program, is_it)?;
        let process = chain::process(&started, self.config.linux())?;
        record.process = Some((process.pid, process.start));
        container.write(record)?;
        // The parent of the program is this process once the first link has ended.
        running.child.wait().op("wait")?;
        let opened = running.open_gate();
        // A link that has failed before the gate has written why.
        running.events.expect_end(program)?;
        opened?;
        record.phase = Status::Running;
        container.write(record)?;
        container.remove_file(EVENTS)
    }

    /// The longest time between two events: hooks of the chain may take any.
    fn patience(&self) -> Option<Duration> {
        Some(PATIENCE).filter(|_| self.config.hooks.create_container.is_empty())
    }
}

/// Whether resources limit anything. Only root of the initial user namespace may change rules of devices (devices.rst,
/// bpf(2)), and engines write empty objects.
fn limits(resources: Option<&Map<String, Value>>) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(Value::is_null),
        Value::Array(elements) => elements.is_empty(),
        _ => false,
    };
    let mut all = resources.into_iter().flatten();
    all.any(|(name, value)| name != "devices" && !is_empty(value))
}

/// Moves an interface to the network namespace of a process.
fn move_device(name: &str, device: &NetDevice, process: Process) -> Result<()> {
    let renamed = match device.name.as_str() {
        "" => name.to_owned(),
        new => format!("{name}={new}"),
    };
    let options = [Opt::new("--move-device", renamed), Opt::new("--to", process.pid.to_string())];
    let mut command = Command::new(locate_tool("jc-net".as_ref())?);
    command.args(options.iter().flat_map(Opt::words)).stdin(Stdio::null());
    group::output(&mut command).map(drop).map_err(|error| error.context("linux.netDevices"))
}
