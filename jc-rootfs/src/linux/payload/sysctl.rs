//! `--sysctl`: kernel settings of the namespaces of the payload.

use jc_unshare::procfs::{self, namespace, owns};
use jc_unshare::{Context, Error, Result, userns};
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
        if is_hosts(name)? {
            return Err(Error::usage(format_args!(
                "--sysctl {path}: the {name} namespace is the host's"
            )));
        }
        procfs::write(&format!("sys/{path}"), &self.value).map_err(|error| match error.errno() {
            Some(libc::ENOENT) => error.hint("this kernel lacks the setting"),
            _ => error,
        })
    }
}

/// Whether the namespace of that name is the host's, which is that of PID 1.
fn is_hosts(name: &str) -> Result<bool> {
    let inode = |path: &str| -> Result<u64> { Ok(stat(path).on("stat", path)?.st_ino) };
    if name == "net" {
        // Each network has inodes of its own below /proc/PID/net, which every process may look at.
        return Ok(inode("/proc/1/net/dev")? == inode("/proc/self/net/dev")?);
    }
    let host = format!("/proc/1/ns/{name}");
    match inode(&host) {
        // This process may not inspect PID 1 (ptrace(2)), which is in another user namespace or has more capabilities.
        Err(error) if error.errno() == Some(libc::EACCES) => {
            let own = (name, namespace(name)?);
            Ok(if userns::is_initial()? { INITIAL.contains(&own) } else { !owns(name)? })
        }
        found => Ok(found? == namespace(name)?),
    }
}

/// The inode numbers of the first namespaces of the kernel (PROC_UTS_INIT_INO, PROC_IPC_INIT_INO in linux/proc_ns.h).
const INITIAL: [(&str, u64); 2] = [("uts", 0xEFFF_FFFE), ("ipc", 0xEFFF_FFFF)];

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
