//! `jc-exec`: one more program in a container, by a chain of links that join the recorded namespaces.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jc_unshare::process::ends_within;
use jc_unshare::program::{Program, Variable};
use jc_unshare::supervise::{Exit, NewChild};
use jc_unshare::{Error, Result, Tool, id};

use super::base_path::BasePath;
use super::console::Console;
use super::state::{State, Status};
use super::terminal::Terminal;
use super::variables::take_values;
use super::{dir, tools};
use crate::link::{Chain, Form, Link, Opt};
use crate::options::args;
use crate::options::table::values;

/// The name and exit codes of the program.
pub const TOOL: Tool = Tool::link("jc-exec");

/// The longest time between the end of another program of a container and the end of the payload. When PID 1 ends, the
/// kernel kills all other processes first.
const ENDING: Duration = Duration::from_millis(100);

/// Builds the command line parser.
pub fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let value = |name: &'static str, short, value| {
        let arg =
            Arg::new(name).long(name).short(short).value_name(value).action(ArgAction::Append);
        arg.value_parser(value_parser!(OsString))
    };
    tools::command(
        "jc-exec",
        "Execute a program in a running container",
        "jc-exec [options] ID [--] PROG [ARG...]",
    )
    .arg(
        flag("interactive")
            .short('i')
            .help("Ignored, for compatibility: stdin is always connected"),
    )
    .arg(flag("tty").short('t').help("Give the program a terminal of its own"))
    .arg(
        value("user", 'u', "USER").action(ArgAction::Set).help("Run as this user of the container"),
    )
    .arg(
        value("workdir", 'w', "DIR")
            .action(ArgAction::Set)
            .help("Start in this directory of the container"),
    )
    .arg(
        value("env", 'e', "NAME[=VALUE]")
            .help("Set one more variable; without a value, pass on the caller's"),
    )
    .arg(
        Arg::new("env-file")
            .long("env-file")
            .value_name("FILE")
            .action(ArgAction::Append)
            .value_parser(value_parser!(OsString))
            .help("Set the variables of a file"),
    )
    .arg(args::print())
    .arg(
        Arg::new("operands")
            .value_name("ID PROG")
            .num_args(0..)
            .trailing_var_arg(true)
            .value_parser(value_parser!(OsString))
            .help("The container, the program and its arguments"),
    )
}

/// The meaning of a command line.
struct ExecOptions {
    base_path: BasePath,
    id: String,
    program: Vec<OsString>,
    print: Option<Form>,
    has_terminal: bool,
    user: Option<Opt>,
    workdir: Option<Opt>,
    env: Vec<Opt>,
}

impl ExecOptions {
    fn parse(matches: &ArgMatches) -> Result<Self> {
        let operands: Vec<OsString> = values(matches, "operands").cloned().collect();
        let Some((id, program)) = operands.split_first() else {
            return Err(Error::usage("no container given").hint("jc-exec ID PROG [ARG...]"));
        };
        let program = program.strip_prefix(&["--".into()][..]).unwrap_or(program);
        jc_unshare::require_program(program)?;
        let value = |name: &str, spelling| {
            matches.get_one::<OsString>(name).map(|value| Opt::new(spelling, value))
        };
        let form = matches.get_one::<String>("print");
        Ok(Self {
            base_path: tools::base_path(matches)?,
            id: id.to_string_lossy().into_owned(),
            program: program.to_vec(),
            print: form.map(|form| Form::parse(form)),
            has_terminal: matches.get_flag("tty"),
            user: value("user", "-u"),
            workdir: value("workdir", "-w"),
            env: values(matches, "env-file")
                .map(|file| Opt::new("--env-file", file))
                .chain(values(matches, "env").map(|value| Opt::new("-e", value)))
                .collect(),
        })
    }
}

/// Executes the program, and exits with its exit code.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let options = ExecOptions::parse(matches)?;
    let state = dir::find(&options.base_path, &options.id)?.state;
    let console = state.bundle.join(format!("console.{}", id::random()?));
    let mut links = links(&options, &state, &console)?;
    if let Some(form) = options.print {
        let chain = Chain::new(links, options.program).locate()?;
        return chain.print(form, || chain.to_shell());
    }
    let variables = take_values(&mut links);
    let chain = Chain::new(links, options.program).locate()?;
    let run = || run_chain(&chain, &variables, &state);
    if options.has_terminal {
        let terminal = Terminal::open()?;
        let socket = Console::listen(&console)?;
        let code = terminal.attend(TOOL, (socket, &console), || run().map(Exit::code));
        // jc-rootfs may have failed before it connected.
        let _: std::io::Result<()> = std::fs::remove_file(&console);
        return code;
    }
    run().map(Exit::end)
}

fn run_chain(chain: &Chain, variables: &[Variable], state: &State) -> Result<Exit> {
    let program = Program::new(&chain.argv())?.required().with_variables(variables)?;
    let child = NewChild::of(TOOL).spawn_program(program)?;
    let exit = child.wait()?;
    let payload = state.process("process");
    let has_ended = || -> Result<bool> {
        let Some(payload) = payload else { return Ok(true) };
        Ok(payload.is_ending()? || payload.open()?.is_none_or(|pidfd| ends_within(&pidfd, ENDING)))
    };
    match exit {
        Exit::Code(125 | 137) | Exit::Signal(9) if has_ended()? => {
            Err(state.error("the container has ended"))
        }
        exit => Ok(exit),
    }
}

/// The links that join the container.
fn links(options: &ExecOptions, state: &State, console: &Path) -> Result<Vec<Link>> {
    let pid = match (state.status, state.process("process")) {
        (Status::Running, Some(payload)) if !payload.is_ending()? => payload.pid.to_string(),
        (Status::Creating, _) => {
            return Err(state.error("has not begun yet"));
        }
        _ => return Err(state.error("the container has ended")),
    };
    let join = state.join.as_ref();
    let join = join.ok_or_else(|| state.error("its state has no join"))?;
    let cgroup = join.cgroup.as_ref().map(|group| {
        let options = group.parent_option().into_iter().chain([Opt::new("--join", &group.name)]);
        Link::new("jc-cgroup", options.collect())
    });
    let namespaces = format!("{pid}:{}", join.namespaces.join(","));
    let has_user = join.namespaces.iter().any(|kind| kind == "user");
    let keep = has_user.then(|| Opt::flag("--keep-caps"));
    let unshare = [Opt::new("--join", namespaces)].into_iter().chain(keep).collect();
    let unshare = Link::new("jc-unshare", unshare);
    let mut rootfs = vec![Opt::new("--join", &pid)];
    let given = [&options.user, &options.workdir];
    let is_replaced =
        |recorded: &Opt| given.into_iter().flatten().any(|option| option.name() == recorded.name());
    let recorded = join.options.iter().cloned().map(Opt::from);
    rootfs.extend(recorded.filter(|option| !is_replaced(option)));
    rootfs.extend(given.into_iter().flatten().cloned());
    if options.has_terminal {
        rootfs.extend([Opt::new("-e", "TERM"), Opt::new("--console-socket", console)]);
    }
    rootfs.extend(options.env.iter().cloned());
    Ok(cgroup.into_iter().chain([unshare, Link::new("jc-rootfs", rootfs)]).collect())
}
