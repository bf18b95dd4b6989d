//! `--sysctl`: kernel settings of the namespaces of the payload.

use jc_unshare::procfs::{self, namespace};
use jc_unshare::{Context, Error, Result};
use nix::libc;
use rustix::fs::stat;

/// A setting that belongs to a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sysctl {
    /// The path below /proc/sys.
    path: String,
    value: String,
    /// The name of the namespace in /proc/PID/ns.
    namespace: &'static str,
}

/// The settings of namespaces (namespaces(7), Linux' admin-guide/sysctl/kernel.rst), by the start of their paths.
const SETTINGS: [(&str, &str); 6] = [
    ("net/", "net"),
    ("fs/mqueue/", "ipc"),
    ("kernel/msg", "ipc"),
    ("kernel/sem", "ipc"),
    ("kernel/shm", "ipc"),
    ("kernel/domainname", "uts"),
];

/// Parses `KEY=VALUE`. KEY has dots between its parts, or slashes if a part has dots, as in sysctl(8).
pub fn sysctl(word: &str) -> std::result::Result<Sysctl, String> {
    let (key, value) = word.split_once('=').ok_or("not KEY=VALUE")?;
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let is_path = key.find(['.', '/']).is_some_and(|first| key[first..].starts_with('/'));
    let path = if is_path { key.to_owned() } else { key.chars().map(swap).collect() };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("no setting {key:?}"));
    }
    let found = SETTINGS.into_iter().find(|(start, _)| path.starts_with(start));
    let (_, namespace) = found.ok_or_else(|| format!("{key:?} is no setting of a namespace"))?;
    Ok(Sysctl { path, value: value.to_owned(), namespace })
}

impl Sysctl {
    /// Writes the setting, by the host's procfs. A setting of the host's namespace is an error.
    pub fn apply(&self) -> Result<()> {
        let (path, name) = (&self.path, self.namespace);
        let host = format!("/proc/1/ns/{name}");
        match stat(host.as_str()) {
            Ok(host) if host.st_ino == namespace(name)? => {
                return Err(Error::usage(format_args!(
                    "--sysctl {path}: the {name} namespace is the host's"
                )));
            }
            // PID 1 belongs to another user, so this process is not in its user namespace, and the kernel refuses writes
            // to settings of its namespaces.
            Err(rustix::io::Errno::ACCESS) => {}
            other => drop(other.on("stat", host)?),
        }
        procfs::write(&format!("sys/{path}"), &self.value).map_err(|error| match error.errno() {
            Some(libc::ENOENT) => error.hint("this kernel lacks the setting"),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_a_setting_of_a_namespace() {
        for (word, path, namespace) in [
            ("net.ipv4.ip_forward=1", "net/ipv4/ip_forward", "net"),
            ("net.ipv4.conf.eth0/100.rp_filter=1", "net/ipv4/conf/eth0.100/rp_filter", "net"),
            ("net/ipv4/conf/eth0.100/rp_filter=1", "net/ipv4/conf/eth0.100/rp_filter", "net"),
            ("kernel.msgmax=1", "kernel/msgmax", "ipc"),
            ("fs.mqueue.msg_max=1", "fs/mqueue/msg_max", "ipc"),
            ("kernel.domainname=1", "kernel/domainname", "uts"),
        ] {
            let value = "1".to_owned();
            assert_eq!(sysctl(word), Ok(Sysctl { path: path.into(), value, namespace }), "{word}");
        }
        for word in
            ["net.x", "kernel.panic=1", "vm.swappiness=1", "net/../kernel/x=1", "net.=1", "=1"]
        {
            assert!(sysctl(word).is_err(), "{word}");
        }
    }
}
