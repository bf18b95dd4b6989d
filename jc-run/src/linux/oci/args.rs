//! The command line, which is that of runc.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::error::Error;
use clap::{
    Arg, ArgMatches, Args as Group, Command, CommandFactory, FromArgMatches, Parser, Subcommand,
};

/// The words of the command line.
pub static WORDS: LazyLock<Vec<OsString>> = LazyLock::new(|| std::env::args_os().collect());

/// Whether the words may ask for the help.
pub fn is_help_asked() -> bool {
    WORDS.iter().any(|word| word == "--help" || word == "-h")
}

/// Create and run containers from OCI bundles, as chains of links
#[derive(Debug, Parser)]
#[group(skip)]
#[command(
    name = "jc-oci",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = false,
    override_usage = "jc-oci [options] COMMAND [options] ID [ARG...]"
)]
pub struct Args {
    /// Keep the states of containers in this directory [default: /run/jc-oci, or $XDG_RUNTIME_DIR/jc-oci]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append messages to this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write messages as text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"], hide_possible_values = true)]
    pub log_format: String,
    /// Write the chain to the log
    #[arg(long)]
    pub debug: bool,
    /// Let systemd make cgroups, by busctl(1)
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Make cgroups by cgroupfs, systemd, or not at all (disabled)
    #[arg(long, value_name = "HOW", default_value = "cgroupfs", value_parser = ["cgroupfs", "systemd", "disabled"], hide_possible_values = true)]
    pub cgroup_manager: String,
    /// Run containers without cgroups where none can be made: true, false or auto
    #[arg(long, value_name = "WHETHER", default_value = "auto", value_parser = ["true", "false", "auto"], hide_possible_values = true)]
    pub rootless: String,
    /// Print the chain of create, run or exec instead of running it
    #[arg(long)]
    pub print: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

impl Args {
    /// The parser, whose help has the options of all commands.
    pub fn with_help() -> Command {
        let command = Self::command();
        let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let sections: Vec<String> = visible.filter_map(section).collect();
        command.after_help(sections.join("\n\n"))
    }
}

/// The options of one command, with a heading.
fn section(command: &Command) -> Option<String> {
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    let lines: Vec<String> = options.map(line).collect();
    (!lines.is_empty()).then(|| format!("{}:\n{}", command.get_name(), lines.join("\n")))
}

fn line(arg: &Arg) -> String {
    let short = arg.get_short().map_or("    ".to_owned(), |short| format!("-{short}, "));
    let value = arg
        .get_value_names()
        .unwrap_or_default()
        .first()
        .filter(|_| arg.get_action().takes_values());
    let value = value.map_or(String::new(), |value| format!(" <{value}>"));
    let name = format!("{short}--{}{value}", arg.get_long().unwrap_or_default());
    format!("  {name:32} {}", arg.get_help().map(ToString::to_string).unwrap_or_default())
}

/// The command and its options.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a container, whose program waits for start
    Create(Named<Create>),
    /// Start the program of a created container
    Start(Named<Id>),
    /// Create and start a container, and wait for its end
    Run(Named<Run>),
    /// Print the state of a container, as JSON
    State(Named<Id>),
    /// Send a signal to a container
    Kill(Named<Kill>),
    /// Remove a stopped container
    Delete(Named<Delete>),
    /// Execute a program in a container
    Exec(Named<Exec>),
    /// Stop all processes of a container
    Pause(Named<Id>),
    /// Continue all processes of a container
    Resume(Named<Id>),
    /// Change the limits of a container
    Update(Named<Update>),
    /// List the processes of a container
    Ps(Named<Ps>),
    /// List containers
    List(Named<List>),
    /// Print the resource usage of a container
    Events(Named<Events>),
    /// Print what this runtime supports, as JSON
    Features,
    /// Write a config.json to start from
    Spec(Named<Spec>),
    /// Not supported
    #[command(hide = true)]
    Checkpoint(Named<Rest>),
    /// Not supported
    #[command(hide = true)]
    Restore(Named<Rest>),
}

/// The options of a command, which the parser has if a word is the name of the command: those of all commands take a tenth of
/// the processor time of this program.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<T: Group> Group for Named<T> {
    fn augment_args(command: Command) -> Command {
        let is_named = WORDS.iter().any(|word| word == command.get_name());
        if is_named || is_help_asked() { T::augment_args(command) } else { command }
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Named<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Words of a command that is refused.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

/// The operand that names a container.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Id {
    /// The ID of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// The streams and files of a new process.
#[derive(Clone, Debug, Default, Group)]
#[group(skip)]
pub struct Handover {
    /// Send the master side of the terminal to this socket
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Send a descriptor of the process to this socket
    #[arg(long, value_name = "PATH")]
    pub pidfd_socket: Option<PathBuf>,
    /// Write the PID of the process to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Pass N descriptors from 3 on to the program
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    pub preserve_fds: u32,
}

/// The options of `create`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Create {
    /// The directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Read this file of the bundle in place of config.json
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    pub config: PathBuf,
    #[command(flatten)]
    pub handover: Handover,
    /// Accepted for compatibility: the root is changed by pivot_root(2) in any case
    #[arg(long)]
    no_pivot: bool,
    /// Accepted for compatibility: each program has a session keyring of its own
    #[arg(long)]
    pub no_new_keyring: bool,
    #[command(flatten)]
    pub container: Id,
}

/// The options of `run`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the end
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the container after its end
    #[arg(long)]
    pub keep: bool,
    /// Accepted for compatibility: the program is a child of this process in any case
    #[arg(long)]
    pub no_subreaper: bool,
}

/// The options of `kill`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Kill {
    /// Send the signal to all processes of the container
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub container: Id,
    /// A name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM", allow_hyphen_values = true)]
    pub signal: String,
}

/// The options of `delete`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Delete {
    /// Kill the container if it runs; no error if it is absent
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub container: Id,
}

/// The options of `exec`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Exec {
    /// Take the program from this file, as `process` of config.json
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for the end
    #[arg(short, long)]
    pub detach: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Start in this directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set a variable: NAME=VALUE (repeatable)
    #[arg(short, long = "env", value_name = "PAIR")]
    pub env: Vec<String>,
    /// Run as this user: UID[:GID]
    #[arg(short, long, value_name = "USER", value_parser = user)]
    pub user: Option<(u32, Option<u32>)>,
    /// Add a group (repeatable)
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Add a capability (repeatable)
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Set no_new_privs: no program raises its privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Set the profile of AppArmor
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set the label of SELinux
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Join this cgroup below that of the container
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Execute the program in a paused container too
    #[arg(long)]
    pub ignore_paused: bool,
    #[command(flatten)]
    pub handover: Handover,
    #[command(flatten)]
    pub container: Id,
    /// The program and its arguments
    #[arg(value_name = "PROG", trailing_var_arg = true)]
    pub program: Vec<String>,
}

/// The options of `update`. The value -1 means no limit.
#[derive(Debug, Group)]
#[group(skip)]
#[command(allow_negative_numbers = true)]
pub struct Update {
    /// Take limits from this file, as `linux.resources` of config.json; - is stdin
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Limit memory, in bytes or with a suffix k, m, g
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Set the soft limit of memory
    #[arg(long, value_name = "SIZE")]
    pub memory_reservation: Option<String>,
    /// Limit memory and swap together
    #[arg(long, value_name = "SIZE")]
    pub memory_swap: Option<String>,
    /// Limit memory of the kernel (refused by Linux since 5.16)
    #[arg(long, value_name = "SIZE")]
    pub kernel_memory: Option<String>,
    /// Limit memory of TCP buffers (cgroup v1)
    #[arg(long, value_name = "SIZE")]
    pub kernel_memory_tcp: Option<String>,
    /// Limit the number of processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Set the shares of CPU time
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Set the period of the CPU limit, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_period: Option<u64>,
    /// Limit CPU time in a period, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_quota: Option<i64>,
    /// Let unused CPU time accumulate to this limit, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_burst: Option<u64>,
    /// Set the period of the realtime limit, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_period: Option<u64>,
    /// Limit realtime CPU time in a period, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_runtime: Option<i64>,
    /// Make processes run only on idle CPUs: 1, or 0
    #[arg(long, value_name = "N")]
    pub cpu_idle: Option<i64>,
    /// Run on these CPUs only
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Use memory of these NUMA nodes only
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Set the weight of disk input and output
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    #[command(flatten)]
    pub container: Id,
}

/// The options of `ps`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Ps {
    /// Print a table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"], hide_possible_values = true)]
    pub format: String,
    #[command(flatten)]
    pub container: Id,
    /// The options for ps(1)
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<OsString>,
}

/// The options of `list`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct List {
    /// Print a table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"], hide_possible_values = true)]
    pub format: String,
    /// Print only the IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// The options of `events`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Events {
    /// Print the usage once
    #[arg(long)]
    pub stats: bool,
    /// Print the usage every so often, such as 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = seconds)]
    pub interval: f64,
    #[command(flatten)]
    pub container: Id,
}

/// The options of `spec`.
#[derive(Debug, Group)]
#[group(skip)]
pub struct Spec {
    /// The directory for config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Map the caller to root in a user namespace
    #[arg(long = "rootless")]
    pub is_rootless: bool,
}

fn user(word: &str) -> Result<(u32, Option<u32>), String> {
    let number = |word: &str| word.parse::<u32>().map_err(|_| "not UID[:GID]".to_owned());
    match word.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(word)?, None)),
    }
}

fn seconds(word: &str) -> Result<f64, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
    let parsed = units.iter().find_map(|(unit, factor)| {
        word.strip_suffix(unit)?.parse::<f64>().ok().map(|number| number * factor)
    });
    parsed.filter(|s| (0.001..=1e6).contains(s)).ok_or_else(|| "not a time such as 5s".to_owned())
}
