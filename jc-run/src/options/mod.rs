//! The command line of `jc-run`, parsed once into a struct of meanings.

pub mod args;
pub mod table;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;
use jc_unshare::{Error, Result};

use crate::link::{Form, Opt};
use table::{Owner, given, is_anonymous, values};

/// The meaning of a command line.
#[derive(Debug)]
pub struct Options {
    /// The source of the record.
    pub source: Source,
    /// The program on the command line, in place of the image's.
    pub program: ProgramOptions,
    /// The life of the container and its record.
    pub life: LifeOptions,
    /// The form in which the chain is printed, instead of being run.
    pub print: Option<Form>,
    /// The options as jc-trace spells them.
    pub trace: Vec<Opt>,
    pub limits: LimitOptions,
    pub network: NetworkOptions,
    pub namespaces: NamespaceOptions,
    pub root: RootOptions,
    /// The payload and its privileges.
    pub payload: PayloadOptions,
}

/// An image, as jc-pull gets it.
#[derive(Debug)]
pub struct ImageSource {
    /// The name of the image.
    pub reference: String,
    /// The time at which jc-pull asks the registry.
    pub policy: String,
    /// Another platform than that of the host.
    pub platform: Option<String>,
}

/// The source of the record.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An image of jc-pull.
    Image(ImageSource),
    /// A directory, without an image.
    Directory(PathBuf),
    /// Standard input.
    Stdin,
}

/// `--entrypoint` and the operands.
#[derive(Debug)]
pub struct ProgramOptions {
    /// The value of `--entrypoint`. An empty value removes the image's entry point.
    pub entrypoint: Option<OsString>,
    pub arguments: Vec<OsString>,
}

/// Options about the life of a container and its record.
#[derive(Debug)]
pub struct LifeOptions {
    pub name: Option<String>,
    pub labels: Vec<(String, String)>,
    pub stop_signal: Option<String>,
    pub detached: bool,
    pub interactive: bool,
    pub has_terminal: bool,
    pub keeps_changes: bool,
    /// The state directory stays after the end of the container.
    pub is_kept: bool,
    /// The value of `--log-size` in bytes.
    pub log_size: u64,
    pub status_fd: Option<u32>,
    pub state_dir: Option<PathBuf>,
}

impl LifeOptions {
    /// Whether the record or an event has the exit status of the payload.
    pub fn needs_exit_status(&self) -> bool {
        self.is_kept || self.status_fd.is_some()
    }
}

/// The options that become options of jc-cgroup.
#[derive(Debug)]
pub struct LimitOptions {
    /// The options as jc-cgroup spells them.
    pub passed: Vec<Opt>,
    pub parent: Option<OsString>,
    pub report: Option<OsString>,
    pub has_memory: bool,
}

/// The options that become options of jc-net, or of jc-egress in its place.
#[derive(Debug)]
pub struct NetworkOptions {
    pub mode: Option<String>,
    /// The options as jc-net spells them.
    pub passed: Vec<Opt>,
    /// `--dns` or `--dns-search` is given.
    pub has_servers: bool,
    /// The lines of `--add-host` for /etc/hosts.
    pub hosts: String,
    /// `--publish` or `--publish-all` is given.
    pub publishes: bool,
    pub publishes_all: bool,
    /// The options as jc-egress spells them.
    pub egress: Vec<Opt>,
    /// `--allow`, `--allow-private`, `--allow-file` or `--egress-learn` is given.
    pub has_rules: bool,
}

/// The options that become options of jc-unshare.
#[derive(Debug)]
pub struct NamespaceOptions {
    pub pid: Mode,
    pub ipc: Mode,
    pub uts: Mode,
    pub user: Option<String>,
    /// `--uidmap` and `--gidmap`, as jc-unshare spells them.
    pub id_maps: Vec<Opt>,
    pub hostname: Option<OsString>,
    /// The options of jc-unshare for the UTS namespace.
    pub names: Vec<Opt>,
}

/// The owner of a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The container.
    Private,
    /// The host.
    Host,
    /// Another container.
    Container(String),
}

/// Options for the root of jc-rootfs.
#[derive(Debug)]
pub struct RootOptions {
    /// The options as jc-rootfs spells them.
    pub passed: Vec<Opt>,
    /// The paths of fresh directories, as those of an image's volumes.
    pub volumes: Vec<String>,
    /// The paths at which options mount something.
    pub mount_points: Vec<PathBuf>,
    pub read_only: bool,
    pub has_upper: bool,
}

/// Options for the payload of jc-rootfs.
#[derive(Debug)]
pub struct PayloadOptions {
    /// The options as jc-rootfs spells them.
    pub passed: Vec<Opt>,
    pub has_user: bool,
    pub has_workdir: bool,
    /// The capabilities of `--cap-add`, in upper case and without `CAP_`.
    pub added: Vec<String>,
    /// The capabilities of `--cap-drop`, in the same form.
    pub dropped: Vec<String>,
    pub privileged: bool,
    pub has_init: bool,
    pub security: Security,
}

/// The values of `--security-opt`.
#[derive(Debug, Default)]
pub struct Security {
    /// The profile of `seccomp=PROFILE`.
    pub seccomp: Option<String>,
    pub gains_privileges: bool,
    pub is_unmasked: bool,
    pub controls_host_network: bool,
}

impl Options {
    /// Parses a command line. Usage errors: an option of another program, or a value that has no meaning.
    pub fn parse(matches: &ArgMatches) -> Result<Self> {
        let form = matches.get_one::<String>("print");
        Ok(Self {
            source: Source::parse(matches)?,
            program: ProgramOptions {
                entrypoint: matches.get_one("entrypoint").cloned(),
                arguments: values(matches, "program").cloned().collect(),
            },
            life: LifeOptions::parse(matches),
            print: form.map(|form| Form::parse(form)),
            trace: given(matches, Owner::Trace),
            limits: LimitOptions {
                passed: given(matches, Owner::Cgroup),
                parent: matches.get_one("cgroup-parent").cloned(),
                report: matches.get_one("report").cloned(),
                has_memory: matches.contains_id("memory"),
            },
            network: NetworkOptions::parse(matches),
            namespaces: NamespaceOptions::parse(matches)?,
            root: RootOptions::parse(matches),
            payload: PayloadOptions::parse(matches)?,
        })
    }
}

impl Source {
    fn parse(matches: &ArgMatches) -> Result<Self> {
        let file = matches.get_one::<PathBuf>("record").cloned();
        let image = matches.get_one::<String>("image").cloned();
        let rootfs = matches.get_one::<PathBuf>("rootfs").cloned();
        let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        let of_image = ["platform", "pull"].into_iter().find(is_given);
        if let Some(name) = of_image.filter(|_| image.is_none()) {
            return Err(Error::usage(format_args!("--{name}: needs --image"))
                .hint("jc-pull --platform and --policy choose the image of a record"));
        }
        let policy = matches.get_one::<String>("pull").map_or("missing", String::as_str);
        match (file, image, rootfs) {
            (Some(file), None, None) => Ok(Self::File(file)),
            (None, Some(reference), None) => {
                let platform = matches.get_one::<String>("platform").cloned();
                Ok(Self::Image(ImageSource { reference, policy: policy.to_owned(), platform }))
            }
            (None, None, Some(rootfs)) => Ok(Self::Directory(rootfs)),
            (None, None, None) => Ok(Self::Stdin),
            _ => Err(Error::usage("--record, --image and --rootfs are mutually exclusive")),
        }
    }
}

impl LifeOptions {
    fn parse(matches: &ArgMatches) -> Self {
        let (keeps, detached) = (matches.get_flag("keep"), matches.get_flag("detach"));
        Self {
            name: matches.get_one("name").cloned(),
            labels: matches.get_many("label").into_iter().flatten().cloned().collect(),
            stop_signal: matches.get_one("stop-signal").cloned(),
            detached,
            interactive: matches.get_flag("interactive"),
            has_terminal: matches.get_flag("tty"),
            keeps_changes: keeps,
            is_kept: keeps || detached && !matches.get_flag("rm"),
            log_size: matches.get_one("log-size").copied().unwrap_or_default(),
            status_fd: matches.get_one("status-fd").copied(),
            state_dir: matches.get_one("state-dir").cloned(),
        }
    }
}

impl NetworkOptions {
    fn parse(matches: &ArgMatches) -> Self {
        let publishes_all = matches.get_flag("publish-all");
        Self {
            mode: matches.get_one("network").cloned(),
            passed: given(matches, Owner::Net),
            hosts: matches.get_many("add-host").into_iter().flatten().map(String::as_str).collect(),
            has_servers: matches.contains_id("dns") || matches.contains_id("dns-search"),
            publishes: publishes_all || matches.contains_id("publish"),
            publishes_all,
            egress: given(matches, Owner::Egress),
            has_rules: ["allow", "allow-private", "allow-file", "egress-learn"]
                .iter()
                .any(|name| matches.contains_id(name)),
        }
    }
}

impl NamespaceOptions {
    fn parse(matches: &ArgMatches) -> Result<Self> {
        let mode = |name: &str| Mode::parse(name, matches.get_one(name).map(String::as_str));
        let hostname = matches.get_one::<OsString>("hostname");
        // The name becomes a word of /etc/hosts.
        let is_letter = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        let is_name =
            |name: &&OsString| !name.is_empty() && name.as_encoded_bytes().iter().all(is_letter);
        if let Some(name) = hostname.filter(|name| !is_name(name)) {
            let name = name.display();
            return Err(Error::usage(format_args!(
                "--hostname {name:?}: not letters, digits, -, _ and ."
            )));
        }
        Ok(Self {
            pid: mode("pid")?,
            ipc: mode("ipc")?,
            uts: mode("uts")?,
            user: matches.get_one("userns").cloned(),
            id_maps: given(matches, Owner::User),
            hostname: hostname.cloned(),
            names: given(matches, Owner::Unshare),
        })
    }
}

impl Mode {
    fn parse(name: &str, word: Option<&str>) -> Result<Self> {
        let word = word.unwrap_or("private");
        match word.split_once(':').unwrap_or((word, "")) {
            ("private", "") => Ok(Self::Private),
            ("host", "") => Ok(Self::Host),
            ("container", id) => Ok(Self::Container(id.to_owned())),
            _ => {
                let message = format_args!("--{name} {word}: not private, host or container:ID");
                Err(Error::usage(message))
            }
        }
    }
}

impl RootOptions {
    fn parse(matches: &ArgMatches) -> Self {
        // Source, mount point and options of a bind mount; mount point and options of a tmpfs.
        let path = |index: usize| {
            move |spec: &OsString| spec.to_string_lossy().split(':').nth(index).map(PathBuf::from)
        };
        let binds = values(matches, "volume").filter_map(path(1));
        let fresh = values(matches, "volume").filter(|value| is_anonymous(value));
        Self {
            volumes: fresh.map(|value| value.to_string_lossy().into_owned()).collect(),
            passed: given(matches, Owner::Rootfs),
            mount_points: binds.chain(values(matches, "tmpfs").filter_map(path(0))).collect(),
            read_only: matches.get_flag("read-only"),
            has_upper: matches.contains_id("upper"),
        }
    }
}

impl PayloadOptions {
    fn parse(matches: &ArgMatches) -> Result<Self> {
        let capabilities = |option: &str| {
            let lists =
                values(matches, option).map(|word| word.to_string_lossy().to_ascii_uppercase());
            let name = |name: &str| name.trim_start_matches("CAP_").to_owned();
            lists.flat_map(|list| list.split(',').map(name).collect::<Vec<_>>()).collect()
        };
        Ok(Self {
            passed: given(matches, Owner::Payload),
            has_user: matches.contains_id("user"),
            has_workdir: matches.contains_id("workdir"),
            added: capabilities("cap-add"),
            dropped: capabilities("cap-drop"),
            privileged: matches.get_flag("privileged"),
            has_init: matches.get_flag("init"),
            security: Security::parse(matches)?,
        })
    }
}

impl Security {
    fn parse(matches: &ArgMatches) -> Result<Self> {
        let mut security = Self::default();
        for word in matches.get_many::<String>("security-opt").into_iter().flatten() {
            match word.split_once(['=', ':']).unwrap_or((word, "")) {
                ("seccomp", profile) if !profile.is_empty() => {
                    security.seccomp = Some(profile.to_owned());
                }
                ("no-new-privileges", "" | "true") => security.gains_privileges = false,
                ("no-new-privileges", "false") => security.gains_privileges = true,
                ("systempaths", "unconfined") | ("unmask", "ALL" | "all") => {
                    security.is_unmasked = true
                }
                ("net-admin", "host") => security.controls_host_network = true,
                // jc changes neither the profile of AppArmor nor the label of SELinux.
                ("apparmor", "unconfined") | ("label", "disable") => {}
                _ => {
                    return Err(Error::usage(format_args!("--security-opt {word}: not known"))
                        .hint(
                            "seccomp=FILE|unconfined, no-new-privileges=false, \
                         systempaths=unconfined, net-admin=host",
                        ));
                }
            }
        }
        Ok(security)
    }
}
