//! `jc-exec`: one more program in a container. It too is a chain: the one that jc-run has recorded,
//! with the payload's number in it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, mem};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jc_unshare::process::{Process, ends_within};
use jc_unshare::program::{Program, Variable};
use jc_unshare::supervise::{Exit, spawn_program};
use jc_unshare::{Error, Result, Tool, id};

use crate::chain::Chain;
use crate::compose::PID;
use crate::console::Console;
use crate::dir::{self, Found};
use crate::flags::{option, values};
use crate::place::Place;
use crate::plan::{EXEC, words};
use crate::state::{State, Status};
use crate::terminal::Terminal;
use crate::{own, tools};

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-exec");

/// How long a container takes to end of which other processes have been killed: its first is last.
const ENDING: Duration = Duration::from_millis(100);

/// The command line.
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
    .arg(own::print())
    .arg(
        Arg::new("operands")
            .value_name("ID PROG")
            .num_args(0..)
            .trailing_var_arg(true)
            .value_parser(value_parser!(OsString))
            .help("The container, the program and its arguments"),
    )
}

/// Executes the program and hands on its exit code.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let operands: Vec<OsString> = values(matches, "operands").cloned().collect();
    let Some((id, program)) = operands.split_first() else {
        return Err(Error::usage("no container given"));
    };
    let program = program.strip_prefix(&["--".into()][..]).unwrap_or(program);
    jc_unshare::require_program(program)?;
    let container = dir::find(&Place::of(matches)?, &id.to_string_lossy())?;
    let state = &container.state;
    let console = state.bundle.join(format!("console.{}", id::random()?));
    let mut links = links(matches, &container, &console)?;
    if let Some(form) = matches.get_one::<String>("print") {
        let chain = Chain::new(links, program.to_vec()).locate()?;
        return chain.print(form, || chain.to_shell());
    }
    let variables = links.last_mut().map(take_values).unwrap_or_default();
    let chain = Chain::new(links, program.to_vec()).locate()?;
    let run = || run_chain(&chain, &variables, state);
    if matches.get_flag("tty") {
        let terminal = Terminal::open()?;
        let socket = Console::listen(&console)?;
        let code = terminal.attend(TOOL, (socket, &console), || run().map(Exit::code));
        // jc-rootfs may have failed before it came to that.
        let _: std::io::Result<()> = std::fs::remove_file(&console);
        return code;
    }
    run().map(Exit::end)
}

fn run_chain(chain: &Chain, variables: &[Variable], state: &State) -> Result<Exit> {
    let program = Program::new(&chain.argv())?.required().with_variables(variables)?;
    let child = spawn_program(TOOL, 0, None, program)?;
    let exit = child.wait()?;
    let payload = state.process("process").map(Process::open).transpose()?.flatten();
    let has_ended = || payload.as_ref().is_none_or(|pidfd| ends_within(pidfd, ENDING));
    match exit {
        Exit::Code(125 | 137) | Exit::Signal(9) if has_ended() => {
            Err(Error::new(format_args!("{}: the container has ended", state.id)))
        }
        exit => Ok(exit),
    }
}

/// The links that jc-run has recorded, for this process and with these options.
fn links(
    matches: &ArgMatches,
    container: &Found,
    console: &std::path::Path,
) -> Result<Vec<Vec<OsString>>> {
    let state = &container.state;
    let pid = match (state.status, state.process("process")) {
        (Status::Running, Some(payload)) if payload.runs()? => payload.pid.to_string(),
        (Status::Creating, _) => {
            return Err(Error::new(format_args!("{}: has not begun yet", state.id)));
        }
        _ => return Err(Error::new(format_args!("{}: the container has ended", state.id))),
    };
    let recorded: Option<Vec<Vec<String>>> = container.open()?.read_json(EXEC)?;
    let recorded =
        recorded.ok_or_else(|| Error::new(format_args!("{}: has no {EXEC}", state.id)))?;
    let link = |link: Vec<String>| link.into_iter().map(OsString::from).collect();
    let mut links: Vec<Vec<OsString>> = recorded.into_iter().map(link).collect();
    for word in links.iter_mut().flat_map(|link| link.iter_mut().skip(1).take(2)) {
        let kinds = word.to_str().and_then(|word| word.strip_prefix(PID)).map(str::to_owned);
        if let Some(kinds) = kinds.filter(|kinds| kinds.is_empty() || kinds.starts_with(':')) {
            *word = format!("{pid}{kinds}").into();
        }
    }
    if let Some(rootfs) = links.last_mut() {
        for (name, spelling) in [("user", "-u"), ("workdir", "-w")] {
            if let Some(value) = matches.get_one::<OsString>(name) {
                remove_option(rootfs, spelling);
                rootfs.extend(option(spelling, value));
            }
        }
        if matches.get_flag("tty") {
            rootfs.extend(words(&["-e", "TERM"]));
            rootfs.extend(option("--console-socket", console.as_os_str()));
        }
        rootfs.extend(values(matches, "env").flat_map(|value| option("-e", value)));
    }
    Ok(links)
}

/// Takes the values of variables out of the options of jc-rootfs, which finds them in its environment:
/// every user can read the command line of a process, and only its own user the environment
/// (proc_pid_cmdline(5), proc_pid_environ(5)). Variables that the links use themselves stay.
fn take_values(rootfs: &mut Vec<OsString>) -> Vec<Variable> {
    let is_links = |name: &[u8]| name == b"PATH" || name.starts_with(b"JC_");
    let (mut variables, mut is_variable) = (Vec::new(), false);
    for word in rootfs {
        if !mem::replace(&mut is_variable, word == "-e") {
            continue;
        }
        let bytes = word.as_bytes();
        let (name, value) = match bytes.iter().position(|b| *b == b'=') {
            Some(end) if is_links(&bytes[..end]) => continue,
            Some(end) => (&bytes[..end], Some(OsStr::from_bytes(&bytes[end + 1..]).to_owned())),
            None => (bytes, env::var_os(&word)),
        };
        let name = OsStr::from_bytes(name).to_owned();
        word.clone_from(&name);
        variables.push((name, value));
    }
    variables
}

/// Removes an option with its value. A value never looks like an option.
fn remove_option(words: &mut Vec<OsString>, spelling: &str) {
    let joined = |word: &OsString| word.to_string_lossy().starts_with(&format!("{spelling}-"));
    if let Some(at) = words.iter().position(|word| word == spelling) {
        words.drain(at..words.len().min(at + 2));
    } else if let Some(at) = words.iter().position(joined) {
        words.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_leave_the_command_line() {
        let link = |line: &str| line.split('|').map(OsString::from).collect::<Vec<_>>();
        let mut rootfs =
            link("jc-rootfs|-e|A=1=2|-u|web|-e|PATH=/b|-e|JC_TESTS_NONE|-e|JC_X=3|-e|A=");
        let variable = |name: &str, value: Option<&str>| (name.into(), value.map(Into::into));
        let taken =
            [variable("A", Some("1=2")), variable("JC_TESTS_NONE", None), variable("A", Some(""))];
        assert_eq!(take_values(&mut rootfs), taken);
        let left = "jc-rootfs|-e|A|-u|web|-e|PATH=/b|-e|JC_TESTS_NONE|-e|JC_X=3|-e|A";
        assert_eq!(rootfs, link(left));
    }
}
