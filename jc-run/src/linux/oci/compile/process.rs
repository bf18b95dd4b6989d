//! `process`: the options about the program, for a new container and for `exec`.

use jc_unshare::{Error, Result};

use super::capabilities;
use super::context::Context;
use crate::link::Opt;
use crate::linux::oci::config::Process;
use crate::linux::oci::config::process::{IoPriority, Rlimit};

/// The options of jc-rootfs about a program.
pub fn options(
    process: &Process,
    context: &Context<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Opt>> {
    check(process)?;
    let mut options = vec![Opt::flag("--clear-env"), Opt::flag("--new-session")];
    options.extend(process.env.iter().map(|pair| Opt::new("-e", pair)));
    if let Some(count) = context.listened {
        // sd_listen_fds(3).
        options.extend([
            Opt::new("-e", format!("LISTEN_FDS={count}")),
            Opt::new("-e", "LISTEN_PID=1"),
        ]);
    }
    let user = &process.user;
    options.push(Opt::new("--user", format!("{}:{}", user.uid, user.gid)));
    options.extend(user.additional_gids.iter().map(|gid| Opt::new("--group-add", gid.to_string())));
    options.extend(user.umask.map(|umask| Opt::new("--umask", format!("{umask:04o}"))));
    options.push(Opt::flag("--own-stdio"));
    options.push(Opt::new("--workdir", &process.cwd));
    options.extend(capabilities::options(process.capabilities.as_ref(), context.held, warnings));
    options.extend(limits(&process.rlimits)?);
    options.extend(process.no_new_privileges.then(|| Opt::flag("--no-new-privs")));
    options.extend(process.oom_score_adj.map(|n| Opt::new("--oom-score-adj", n.to_string())));
    options.extend(process.scheduler.as_ref().map(|it| Opt::new("--scheduler", it.to_string())));
    options.extend(process.io_priority.as_ref().map(priority).transpose()?);
    let labels = [("--apparmor", &process.apparmor_profile), ("--selinux", &process.selinux_label)];
    let labels = labels.into_iter().filter(|(_, label)| !label.is_empty());
    options.extend(labels.map(|(name, label)| Opt::new(name, label)));
    if context.preserved > 0 {
        options.push(Opt::new("--preserve-fds", context.preserved.to_string()));
    }
    options.extend(terminal(process, context)?);
    Ok(options)
}

fn check(process: &Process) -> Result<()> {
    let fault = |text: &str| Err(Error::new(text));
    if process.args.is_empty() {
        return fault("process.args: is empty");
    }
    if process.command_line.is_some() || process.user.username.is_some() {
        return fault("process.commandLine, process.user.username: not supported on this platform");
    }
    if !process.cwd.is_absolute() {
        return fault("process.cwd: not an absolute path");
    }
    match process.env.iter().find(|pair| pair.find('=').is_none_or(|at| at == 0)) {
        Some(pair) => Err(Error::new(format_args!("process.env: {pair:?}: not NAME=VALUE"))),
        None => Ok(()),
    }
}

/// A terminal needs a socket that takes its master side.
fn terminal(process: &Process, context: &Context<'_>) -> Result<Vec<Opt>> {
    match (process.terminal, context.console_socket) {
        (true, Some(path)) => {
            let size = process.console_size.filter(|size| size.height > 0 || size.width > 0);
            let size = size.map(|size| format!("{}x{}", size.height, size.width));
            let socket = Opt::new("--console-socket", path);
            Ok([socket]
                .into_iter()
                .chain(size.map(|size| Opt::new("--console-size", size)))
                .collect())
        }
        (true, None) => Err(Error::new(
            "cannot allocate tty if jc-oci will detach without setting console socket",
        )),
        (false, Some(_)) => {
            Err(Error::new("cannot use console socket if jc-oci will not detach or allocate tty"))
        }
        (false, None) => Ok(Vec::new()),
    }
}

fn limits(limits: &[Rlimit]) -> Result<Vec<Opt>> {
    let value = |limit: u64| match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => limit.to_string(),
    };
    let mut options = Vec::new();
    for (at, limit) in limits.iter().enumerate() {
        let Some(name) = limit.kind.strip_prefix("RLIMIT_") else {
            return Err(Error::new(format_args!("process.rlimits: unknown type {:?}", limit.kind)));
        };
        if limits[..at].iter().any(|earlier| earlier.kind == limit.kind) {
            return Err(Error::new(format_args!(
                "process.rlimits: {} is listed twice",
                limit.kind
            )));
        }
        let (name, soft, hard) = (name.to_lowercase(), value(limit.soft), value(limit.hard));
        options.push(Opt::new("--ulimit", format!("{name}={soft}:{hard}")));
    }
    Ok(options)
}

fn priority(priority: &IoPriority) -> Result<Opt> {
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => "rt",
        "IOPRIO_CLASS_BE" => "be",
        "IOPRIO_CLASS_IDLE" => "idle",
        class => {
            return Err(Error::new(format_args!("process.ioPriority: unknown class {class:?}")));
        }
    };
    Ok(Opt::new("--io-priority", format!("{class}:{}", priority.priority)))
}
