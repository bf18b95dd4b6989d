//! The namespaces of a container except network and mount namespace: its own, and those of other containers.

use jc_unshare::Result;

use super::super::base_path::BasePath;
use super::super::dir;
use crate::link::Opt;
use crate::options::{Mode, NamespaceOptions};

/// The namespaces that differ from those of the host.
pub struct Namespaces {
    /// The options of jc-unshare, except for a new PID namespace.
    pub options: Vec<Opt>,
    /// The option of jc-rootfs for the PID namespace of another container. jc-rootfs enters this namespace last, so that
    /// its processes see nothing of the host.
    pub join_pids: Option<Opt>,
    /// The container has a new PID namespace.
    pub has_new_pids: bool,
    /// The container has a new UTS namespace.
    pub has_new_uts: bool,
    /// The kinds that jc-unshare makes or joins.
    kinds: Vec<&'static str>,
}

impl Namespaces {
    /// The namespaces that the options name. Another container that does not run is an error.
    pub fn new(options: &NamespaceOptions, base_path: &BasePath) -> Result<Self> {
        let pid_in = |id: &str| Ok(dir::find(base_path, id)?.state.payload()?.pid);
        let mut namespaces = Self {
            options: vec![Opt::flag("-C")],
            join_pids: None,
            has_new_pids: options.pid == Mode::Private,
            has_new_uts: options.uts == Mode::Private,
            kinds: vec!["cgroup"],
        };
        if let Mode::Container(id) = &options.pid {
            namespaces.join_pids = Some(Opt::new("--join-pid", pid_in(id)?.to_string()));
        }
        for (kind, letter, mode) in [("uts", "-u", &options.uts), ("ipc", "-i", &options.ipc)] {
            let option = match mode {
                Mode::Private => Opt::flag(letter),
                Mode::Container(id) => Opt::new("--join", format!("{}:{kind}", pid_in(id)?)),
                Mode::Host => continue,
            };
            namespaces.options.push(option);
            namespaces.kinds.push(kind);
        }
        Ok(namespaces)
    }

    /// The kinds that jc-unshare joins for jc-exec. jc-rootfs joins the PID namespace, last.
    pub fn joined(&self, has_user: bool, has_net: bool) -> Vec<String> {
        let (user, net) = (has_user.then_some("user"), has_net.then_some("net"));
        let kinds = user.into_iter().chain(self.kinds.iter().copied()).chain(net);
        kinds.map(str::to_owned).collect()
    }
}
