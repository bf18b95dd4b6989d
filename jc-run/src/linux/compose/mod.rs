//! The container for a record: the values of the image, replaced by those of the command line. One function
//! composes each link.

mod harden;
mod namespaces;
pub mod network;
#[cfg(test)]
mod tests;
mod trace;
mod user;
mod volumes;

use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::path::PathBuf;

use jc_unshare::early_network::Sender;
use jc_unshare::record::{Record, Root};
use jc_unshare::sys::is_inherited;
use jc_unshare::{Error, Result, shell, signals};
use rustix::process::geteuid;

use super::anonymous;
use super::base_path::BasePath;
use super::bundle::{Bundle, Directory, StatusFds};
use super::state::{Group, Join, State};
use crate::image::Config;
use crate::link::{Chain, Link, Opt, spare_unshare};
use crate::options::{LifeOptions, Mode, Options};
use namespaces::Namespaces;
use network::Network;
use trace::Trace;
pub use user::{maps_one_id, store_namespace};

/// Composes a container of this ID.
pub fn compose(
    options: &Options,
    record: &Record,
    id: &str,
    base_path: &BasePath,
) -> Result<Bundle> {
    let (config, payload) = Config::with_program(record, &options.program)?;
    let root = record.root()?;
    let state_dir = base_path.path.join(id);
    let volumes = volumes::volumes(&options.root, &config, &root, &state_dir)?;
    let composer = Composer::new(options, config, id, state_dir, base_path)?;
    let (rootfs, changes) = composer.rootfs(&root, volumes.options)?;
    let (group, unshare) = composer.namespaces();
    let links = [
        composer.trace.link(options),
        group,
        composer.user_namespace(),
        composer.net(),
        unshare,
        Some(rootfs),
    ];
    let links = links.into_iter().flatten().collect();
    let mut state = State::new(id, &composer.state_dir);
    state.join = Some(composer.join()?);
    describe(&mut state, &options.life, record, &composer.config, &payload)?;
    if let Some(mode) = composer.network.egress() {
        state.set("network", mode);
    }
    let directories: Vec<Directory> = volumes.directories.into_iter().chain(changes).collect();
    Ok(Bundle {
        state,
        files: composer.network.files(&composer.hostname, &options.network.hosts)?,
        volumes: directories.first().map(|_| anonymous::path(id)).transpose()?,
        directories,
        status_fds: composer.status_fds,
        net_fd: composer.net_fd,
        chain: Chain::new(links, payload),
        needs_exit_status: options.life.needs_exit_status(),
        log_size: options.life.log_size,
    })
}

/// The facts that several links depend on.
struct Composer<'a> {
    options: &'a Options,
    config: Config,
    id: &'a str,
    state_dir: PathBuf,
    hostname: String,
    namespaces: Namespaces,
    network: Network,
    /// The options of a user namespace. The list is empty without a user namespace.
    user: Vec<Opt>,
    status_fds: StatusFds,
    /// The descriptor of the pipe between PID 1 and the link that waits for it.
    init_fd: Option<u32>,
    /// The descriptor of the socket from which a link gets a network namespace that this program creates.
    net_fd: Option<u32>,
    trace: Trace,
}

impl<'a> Composer<'a> {
    fn new(
        options: &'a Options,
        config: Config,
        id: &'a str,
        state_dir: PathBuf,
        base_path: &BasePath,
    ) -> Result<Self> {
        let hostname = hostname(options, id);
        let namespaces = Namespaces::new(&options.namespaces, base_path)?;
        let network = Network::new(&options.network, base_path)?;
        let user = user::options(&options.namespaces)?;
        harden::check_net_admin(options, !user.is_empty())?;
        harden::check_sys_admin(&options.payload, &user)?;
        // Options may name descriptors of the caller, which a link would lose.
        let report = options.limits.report.as_ref().and_then(|word| word.to_str()?.parse().ok());
        let is_callers = |number: u32| Some(number) == report || is_inherited(number);
        let mut free = (3..).filter(|number| !is_callers(*number));
        let mut next = || free.next().unwrap_or(u32::MAX);
        let status_fds = StatusFds { others: next(), last: next() };
        let init_fd = options.payload.has_init.then(&mut next);
        let trace = Trace::new(options, &mut next);
        let is_early = user.is_empty() && options.print.is_none() && network.can_be_early();
        let net_fd = if is_early && Sender::is_possible()? { Some(next()) } else { None };
        Ok(Self {
            options,
            config,
            id,
            state_dir,
            hostname,
            namespaces,
            network,
            user,
            status_fds,
            init_fd,
            net_fd,
            trace,
        })
    }

    /// Whether a cgroup is needed: for limits, or to kill all processes of the payload without a PID namespace.
    fn has_cgroup(&self) -> bool {
        !self.options.limits.passed.is_empty() || !self.namespaces.has_new_pids
    }

    /// Whether jc-cgroup makes namespaces, which spares jc-unshare. jc-unshare has to wait if it runs PID 1 or maps IDs, or
    /// if jc-net waits in between.
    fn cgroup_makes_namespaces(&self) -> bool {
        self.has_cgroup()
            && self.init_fd.is_none()
            && self.user.is_empty()
            && !self.network.waits(&self.options.network)
    }

    /// Whether jc-unshare makes the PID namespace, and waits for the payload.
    fn unshare_waits(&self) -> bool {
        self.namespaces.has_new_pids && !self.cgroup_makes_namespaces()
    }

    /// The links that make the group, and namespaces except those of users and of networks.
    fn namespaces(&self) -> (Option<Link>, Option<Link>) {
        let (mut group, mut options) = (self.cgroup(), self.unshare());
        if let Some(group) = group.as_mut().filter(|_| self.cgroup_makes_namespaces()) {
            options = spare_unshare(group, options);
        }
        (group, (!options.is_empty()).then(|| Link::new("jc-unshare", options)))
    }

    /// Whether the user namespace comes first. An ordinary user needs one to make a network. The network of root belongs
    /// to the host, and one jc-unshare makes all other namespaces.
    fn user_namespace_is_first(&self) -> bool {
        !self.user.is_empty() && self.has_net_link() && !geteuid().is_root()
    }

    /// Whether a link makes or enters the network.
    fn has_net_link(&self) -> bool {
        self.network.needs_link(&self.options.network)
    }

    fn status_fd(&self) -> Opt {
        Opt::new("--status-fd", self.status_fds.others.to_string())
    }

    fn cgroup(&self) -> Option<Link> {
        if !self.has_cgroup() {
            return None;
        }
        let (limits, life) = (&self.options.limits, &self.options.life);
        let mut options = vec![Opt::new("--name", self.id)];
        // jc-cgroup reports whether memory ran out, and the exit status if jc-unshare is no parent of the payload.
        if life.needs_exit_status() && (limits.has_memory || !self.unshare_waits()) {
            options.push(self.status_fd());
            let is_reported = limits.report.is_some() || self.trace.is_active();
            options.extend((!is_reported).then(|| Opt::new("--measure", "limited")));
        }
        options.extend(limits.passed.iter().cloned());
        options.extend(self.trace.usage_option(limits));
        Some(Link::new("jc-cgroup", options))
    }

    fn user_namespace(&self) -> Option<Link> {
        self.user_namespace_is_first().then(|| Link::new("jc-unshare", self.user.clone()))
    }

    fn net(&self) -> Option<Link> {
        let options = &self.options.network;
        let (config, name) = (&self.config, self.hostname.as_str());
        self.has_net_link().then(|| {
            let status_fd = self.status_fd();
            let mut options =
                self.network.options(options, config, name, &self.state_dir, status_fd);
            options.extend(self.net_option());
            Link::new(self.network.link(), options)
        })
    }

    /// The options of jc-unshare.
    fn unshare(&self) -> Vec<Opt> {
        let mut options = Vec::new();
        if !self.user_namespace_is_first() {
            options.extend(self.user.iter().cloned());
        }
        if !self.has_net_link() && !self.network.is_hosts() && self.net_fd.is_none() {
            options.extend([Opt::flag("-n"), Opt::flag("--loopback")]);
        }
        options.extend(self.namespaces.options.iter().cloned());
        if self.namespaces.has_new_pids {
            options.push(Opt::flag("-p"));
        }
        let reports_end = self.unshare_waits() && self.options.life.needs_exit_status();
        options.extend(reports_end.then(|| self.status_fd()));
        if self.namespaces.has_new_uts && self.options.namespaces.hostname.is_none() {
            options.push(Opt::new("--hostname", &self.hostname));
        }
        options.extend(self.init_option());
        options.extend(self.options.namespaces.names.iter().cloned());
        options
    }

    fn init_option(&self) -> Option<Opt> {
        self.init_fd.map(|number| Opt::new("--init-fd", number.to_string()))
    }

    fn net_option(&self) -> Option<Opt> {
        self.net_fd.map(|number| Opt::new("--net-fd", number.to_string()))
    }

    /// The last link, and a directory for changes that are kept.
    fn rootfs(&self, root: &Root, volumes: Vec<Opt>) -> Result<(Link, Option<Directory>)> {
        let mut options = network::binds(&self.state_dir);
        options.extend(volumes);
        options.extend(harden::root(&self.options.payload));
        options.extend(self.options.root.passed.iter().cloned());
        options.push(Opt::new("--status-fd", self.status_fds.last.to_string()));
        if self.options.life.has_terminal {
            options.push(Opt::new("--console-socket", self.state_dir.join("console")));
        }
        options.extend(self.init_option());
        options.extend(self.trace.listener_option());
        options.extend(self.net_option().filter(|_| !self.has_net_link()));
        options.extend(self.namespaces.join_pids.clone());
        options.extend(self.payload());
        let mut link = Link::new("jc-rootfs", options);
        Ok(match root {
            Root::Directory(directory) => {
                // Mount points are made in an upper directory where nothing may change.
                let unchanged = self.options.root.read_only && !self.options.root.has_upper;
                link.options.extend(unchanged.then(|| Opt::new("--upper", "tmpfs")));
                link.operands.push(directory.into());
                (link, None)
            }
            Root::Layers(layers) => {
                link.options.extend(layers.iter().map(|layer| Opt::new("--layer", layer)));
                let (upper, changes) = self.upper();
                link.options.extend(upper);
                (link, changes)
            }
        })
    }

    /// The upper directory over layers: in memory, or if the changes are kept, beside the volumes in the store, since
    /// a payload must not fill the file system of the state directory.
    fn upper(&self) -> (Option<Opt>, Option<Directory>) {
        match (self.options.root.has_upper, self.options.life.keeps_changes) {
            (true, _) => (None, None),
            (false, false) => (Some(Opt::new("--upper", "tmpfs")), None),
            (false, true) => {
                let name = format!("{}/changes", anonymous::VOLUMES);
                let upper = Opt::new("--upper", self.state_dir.join(&name));
                (Some(upper), Some(Directory { name, mode: 0o700, owner: None }))
            }
        }
    }

    /// The options about the payload, which jc-exec gives to its programs too. The environment of a container is
    /// that of the image and the command line, not that of the caller.
    fn payload(&self) -> Vec<Opt> {
        let payload = &self.options.payload;
        let mut options = vec![Opt::flag("--clear-env")];
        if self.options.life.has_terminal || stdin().is_terminal() {
            options.push(Opt::new("-e", "TERM"));
        }
        options.push(Opt::new("-e", format!("HOSTNAME={}", self.hostname)));
        options.extend(self.config.env_options());
        let kept = user::kept_user(&self.options.namespaces);
        let user = kept.as_deref().unwrap_or_else(|| self.config.user());
        options.extend((!payload.has_user).then(|| Opt::new("-u", user)));
        // The ambient capabilities of the chain end at a payload whose sets are given.
        if payload.privileged && kept.is_some() {
            options.push(Opt::new("--cap-add", "ALL"));
        }
        options.extend(self.config.dir_option().filter(|_| !payload.has_workdir));
        options.extend(harden::payload(payload));
        options.extend(payload.passed.iter().cloned());
        options
    }

    /// The facts by which jc-exec and jc-stop reach the container.
    fn join(&self) -> Result<Join> {
        let parent = self.options.limits.parent.clone().map(OsString::into_string).transpose();
        let parent =
            parent.map_err(|word| Error::new(format_args!("{}: is not UTF-8", word.display())))?;
        let options = self.payload().into_iter().filter_map(|option| resolve(option).transpose());
        let options: Result<Vec<_>> = options.map(|option| option?.try_into()).collect();
        let (has_user, has_net) = (!self.user.is_empty(), !self.network.is_hosts());
        Ok(Join {
            cgroup: self.has_cgroup().then(|| Group { name: self.id.to_owned(), parent }),
            namespaces: self.namespaces.joined(has_user, has_net),
            options: options?,
        })
    }
}

fn hostname(options: &Options, id: &str) -> String {
    match &options.namespaces.hostname {
        Some(name) => name.to_string_lossy().into_owned(),
        None if options.namespaces.uts != Mode::Private => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        None => id.to_owned(),
    }
}

/// Sets the annotations of the state for jc-list and jc-stop, and the labels.
fn describe(
    state: &mut State,
    life: &LifeOptions,
    record: &Record,
    config: &Config,
    payload: &[OsString],
) -> Result<()> {
    let rootfs = record.rootfs.as_ref().map(|path| path.display().to_string());
    for (key, value) in [
        ("name", life.name.clone()),
        ("image", record.reference.clone().or(rootfs)),
        ("digest", record.digest.clone()),
        ("stop-signal", stop_signal(life, config)?),
        ("keep", life.is_kept.then(|| "true".to_owned())),
        ("command", Some(shell::line(payload))),
    ] {
        if let Some(value) = value {
            state.set(key, value);
        }
    }
    state.annotations.extend(life.labels.iter().cloned());
    Ok(())
}

/// The signal for jc-stop. A word of the image that is no signal is ignored, so that jc-stop works.
fn stop_signal(life: &LifeOptions, config: &Config) -> Result<Option<String>> {
    let is_signal = |word: &&String| signals::number(word).is_some();
    match &life.stop_signal {
        None => Ok(config.stop_signal.as_ref().filter(is_signal).cloned()),
        Some(word) if is_signal(&word) => Ok(Some(word.clone())),
        Some(word) => Err(Error::usage(format_args!("--stop-signal {word}: not a signal"))),
    }
}

/// An option with the present value of the caller's variable, and with absolute paths, since jc-exec runs later and in
/// another directory. `None`: the caller lacks the variable.
fn resolve(option: Opt) -> Result<Option<Opt>> {
    let Some(value) = option.value().map(ToOwned::to_owned) else { return Ok(Some(option)) };
    let bytes = value.as_encoded_bytes();
    match option.name() {
        "-e" if !bytes.contains(&b'=') => Ok(std::env::var_os(&value).map(|found| {
            let pair = [value, found].join(std::ffi::OsStr::new("="));
            option.with_value(pair)
        })),
        name @ ("--env-file" | "--seccomp") if name == "--env-file" || bytes.contains(&b'/') => {
            let path = std::path::absolute(&value)
                .map_err(|e| Error::new(format_args!("{name} {}: {e}", value.display())))?;
            Ok(Some(option.with_value(path)))
        }
        _ => Ok(Some(option)),
    }
}
