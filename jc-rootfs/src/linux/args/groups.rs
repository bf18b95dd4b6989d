//! Groups of options that few command lines name.

use std::path::PathBuf;

use jc_unshare::on_demand::Group;

use super::{values, words};
use crate::linux::landlock;
use crate::linux::mount::node;
use crate::linux::payload::sysctl;

/// Options for a caller that lists the mounts, nodes and settings of the container itself.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct ManualArgs {
    /// Mount nothing but what is asked for: no /proc, /dev and /sys, unless an option names them
    #[arg(long)]
    pub(crate) bare: bool,
    /// Mount as a line of fstab(5) says: SRC DST TYPE [OPTIONS] (repeatable, in this order)
    #[arg(long = "mount", value_name = "LINE", value_parser = words::word)]
    pub(crate) words: Vec<words::Word>,
    /// Make a device node: TYPE:MAJOR:MINOR:MODE:UID:GID:PATH (repeatable)
    #[arg(long = "node", value_name = "SPEC", value_parser = node::node)]
    pub(crate) nodes: Vec<node::Node>,
    /// Set the propagation of the root: [r]shared, [r]slave, [r]private or [r]unbindable (with --bare)
    #[arg(long, value_name = "HOW", value_parser = words::root_propagation, requires = "bare")]
    pub(crate) root_propagation: Option<(u64, words::Depth)>,
    /// Become root of the user namespace once the files of the host are open (with --bare)
    #[arg(long, requires = "bare")]
    pub(crate) become_root: bool,
    /// Mount in the mount namespace of this file, where the mounts stay, and change the root by chroot(2) (with --bare)
    #[arg(long, value_name = "PATH", requires = "bare", conflicts_with = "join_pid")]
    pub(crate) mount_namespace: Option<PathBuf>,
    /// Set a kernel setting of the namespaces: KEY=VALUE (repeatable)
    #[arg(long = "sysctl", value_name = "KEY=VALUE", value_parser = sysctl::sysctl)]
    pub(crate) sysctls: Vec<sysctl::Sysctl>,
}

impl Group for ManualArgs {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("bare", None),
        ("mount", None),
        ("node", None),
        ("root-propagation", None),
        ("become-root", None),
        ("mount-namespace", None),
        ("sysctl", None),
    ];
}

/// Options for the terminal, the parent, the namespaces and the observers of the payload.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct ProcessArgs {
    /// Make the user of PROG the owner of its standard streams, except devices
    #[arg(long)]
    pub(crate) own_stdio: bool,
    /// Let the jc-trace at this descriptor record PROG, from its execution on
    #[arg(long, value_name = "N", conflicts_with_all = ["no_wait", "gates", "hooks"])]
    pub(crate) trace_fd: Option<u32>,
    /// Restrict PROG by a rule of jc-landlock, such as ro=PATH or connect=PORT; sets no_new_privs (repeatable)
    #[arg(long = "landlock", value_name = "RULE", value_parser = landlock::word)]
    pub(crate) landlock: Vec<landlock::Word>,
    /// Begin a new session, which has no controlling terminal
    #[arg(long)]
    pub(crate) new_session: bool,
    /// Give PROG a terminal of the container, and send the master side to a socket
    #[arg(long, value_name = "PATH")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Set the size of the terminal (with --console-socket)
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = values::terminal_size, requires = "console_socket")]
    pub(crate) console_size: Option<(u16, u16)>,
    /// Start PROG in the PID namespace of process PID, entered as the last step
    #[arg(long, value_name = "PID", conflicts_with_all = ["join", "chroot", "init_fd", "gates", "hooks"])]
    pub(crate) join_pid: Option<u32>,
    /// Stay as PID 1 that forwards signals and reaps orphans, and write stops of PROG to descriptor N
    #[arg(long, value_name = "N", conflicts_with_all = ["join", "chroot"])]
    pub(crate) init_fd: Option<u32>,
    /// Enter the root of the container of process PID, instead of assembling one
    #[arg(long, value_name = "PID", conflicts_with_all = [
        "layers", "record", "upper", "read_only", "binds", "tmpfs", "proc", "dev", "sys", "shm_size",
        "devices", "masks", "ro_paths", "chroot", "bare", "words", "nodes", "sysctls", "gates", "hooks",
    ])]
    pub(crate) join: Option<u32>,
    /// Exit as soon as PROG is executed, which lives on (with --join)
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// End PROG by SIGKILL when process PID dies, which must be the parent when PROG is executed
    #[arg(long, value_name = "PID", conflicts_with_all = ["join", "join_pid", "init_fd", "chroot"])]
    pub(crate) die_with_parent: Option<u32>,
}

impl Group for ProcessArgs {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("own-stdio", None),
        ("trace-fd", None),
        ("landlock", None),
        ("new-session", None),
        ("console-socket", None),
        ("console-size", None),
        ("join-pid", None),
        ("init-fd", None),
        ("join", None),
        ("no-wait", None),
        ("die-with-parent", None),
    ];
}

#[cfg(test)]
mod tests {
    use jc_unshare::on_demand::assert_names;

    use super::*;

    #[test]
    fn the_names_are_those_of_all_options_of_a_group() {
        assert_names::<ManualArgs>();
        assert_names::<ProcessArgs>();
    }
}
