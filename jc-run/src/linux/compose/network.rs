//! The network of a container, and the files in /etc that depend on it. The files are in the state directory, and
//! are bound over those of the root.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use jc_unshare::procfs::owns;
use jc_unshare::userns::is_initial;
use jc_unshare::{Context, Error, Result};
use rustix::process::geteuid;
use serde_json::Value;

use super::super::base_path::BasePath;
use super::super::dir;
use super::super::files::StateDir;
use crate::image::Config;
use crate::link::Opt;
use crate::options::NetworkOptions;

/// The files, each with its path in the root.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// The lines of every hosts file.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// The mode of a network of jc-egress, as it is recorded.
const EGRESS: &str = "egress";

/// The network of a container.
pub struct Network {
    /// The mode of jc-net, or that of jc-egress.
    mode: String,
    /// The state directory of the container that owns the network.
    owner: Option<StateDir>,
}

impl Network {
    /// The network that the options name. The default is a bridge for root, and pasta(1) for other users. An
    /// owner of the network that does not run is an error.
    pub fn new(options: &NetworkOptions, base_path: &BasePath) -> Result<Self> {
        if !options.egress.is_empty() {
            refuse_beside_egress(options)?;
            return Ok(Self { mode: EGRESS.to_owned(), owner: None });
        }
        let mode = match &options.mode {
            Some(mode) => mode,
            None if makes_bridges()? => "bridge",
            None => "pasta",
        };
        let Some(word) = mode.strip_prefix("container:") else {
            return Ok(Self { mode: mode.to_owned(), owner: None });
        };
        if options.has_servers {
            return Err(Error::usage(
                "--dns, --dns-search: another container's network has its own",
            ));
        }
        let container = dir::find(base_path, word)?;
        let pid = container.state.payload()?.pid;
        Ok(Self { mode: format!("join:{pid}"), owner: Some(container.open()?) })
    }

    /// Whether the network is that of the caller.
    pub fn is_hosts(&self) -> bool {
        self.mode == "host"
    }

    /// The mode, if jc-egress makes the network.
    pub fn egress(&self) -> Option<&str> {
        Some(self.mode.as_str()).filter(|mode| *mode == EGRESS)
    }

    /// The link that makes or enters the network.
    pub fn link(&self) -> &'static str {
        if self.egress().is_some() { "jc-egress" } else { "jc-net" }
    }

    /// Whether this program can create the namespace while the chain starts.
    pub fn can_be_early(&self) -> bool {
        ["none", "bridge"].contains(&self.mode.as_str())
    }

    /// Whether a link makes the network, and reports its addresses.
    fn is_new(&self) -> bool {
        ["bridge", "pasta", EGRESS].contains(&self.mode.as_str())
    }

    /// Whether the link waits for the payload, since it has open ports, pasta(1) or a proxy.
    pub fn waits(&self, options: &NetworkOptions) -> bool {
        ["pasta", EGRESS].contains(&self.mode.as_str()) || options.publishes
    }

    /// Whether the chain needs a link for the network. jc-unshare makes a network with only a loopback interface, and
    /// the host's network is that of the caller.
    pub fn needs_link(&self, options: &NetworkOptions) -> bool {
        !["none", "host"].contains(&self.mode.as_str()) || !options.passed.is_empty()
    }

    /// The options of the link.
    pub fn options(
        &self,
        options: &NetworkOptions,
        config: &Config,
        hostname: &str,
        state_dir: &Path,
        status_fd: Opt,
    ) -> Vec<Opt> {
        let mut all = match self.egress() {
            Some(_) => vec![Opt::flag("--only-network")],
            None => vec![Opt::new("--network", &self.mode)],
        };
        if self.is_new() || options.has_servers {
            all.push(Opt::new("--resolv-conf", state_dir.join("resolv.conf")));
        }
        if self.is_new() {
            let mut hosts = OsString::from(format!("{hostname}:"));
            hosts.push(state_dir.join("hosts"));
            all.extend([Opt::new("--hosts", hosts), status_fd]);
        }
        all.extend(options.passed.iter().chain(&options.egress).cloned());
        if options.publishes_all {
            all.extend(config.exposed_ports().map(|port| Opt::new("--expose", port)));
        }
        all
    }

    /// The contents of the files, without the lines that jc-net adds. On the network of the host or of another
    /// container, the files are copies. `added` stands at the end of hosts.
    pub fn files(&self, hostname: &str, added: &str) -> Result<Vec<(&'static str, String)>> {
        let (hosts, resolv_conf) = match &self.owner {
            Some(owner) => (recorded(owner, "hosts")?, recorded(owner, "resolv.conf")?),
            None if self.is_hosts() => {
                (read(Path::new("/etc/hosts"))?, read(Path::new("/etc/resolv.conf"))?)
            }
            None if self.is_new() => (LOCALHOST.to_owned(), String::new()),
            None => (format!("{LOCALHOST}127.0.1.1\t{hostname}\n"), String::new()),
        };
        let contents = [format!("{hostname}\n"), hosts + added, resolv_conf];
        Ok(FILES.into_iter().map(|(name, _)| name).zip(contents).collect())
    }
}

/// Whether the default is a bridge: for root, except root of a user namespace in a network of the host.
fn makes_bridges() -> Result<bool> {
    Ok(geteuid().is_root() && (is_initial()? || owns("net")?))
}

/// Checks that no option opens the network past jc-egress, or has no effect.
fn refuse_beside_egress(options: &NetworkOptions) -> Result<()> {
    if options.publishes {
        return Err(Error::usage("-p, -P: ports cannot be published together with --allow"));
    }
    if options.mode.is_some() || !options.passed.is_empty() {
        return Err(Error::usage("--network and its options: --allow makes a network of its own"));
    }
    if options.has_rules { Ok(()) } else { Err(Error::usage("--deny, --egress-log: need --allow")) }
}

/// The options that bind the files over those of the root, read-only: the state directory is in memory, and a
/// payload that writes to it could fill that.
pub fn binds(state_dir: &Path) -> Vec<Opt> {
    let bind = |(name, path): &(&str, &str)| {
        let mut spec = OsString::from(state_dir.join(name));
        spec.push(format!(":{path}:ro"));
        Opt::new("-v", spec)
    };
    FILES.iter().map(bind).collect()
}

/// A file that another container sees in /etc.
fn recorded(other: &StateDir, name: &str) -> Result<String> {
    let text = other.read(name)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read(path: &Path) -> Result<String> {
    match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.on("read", path).map(|text| String::from_utf8_lossy(&text).into_owned()),
    }
}

/// The addresses and the published ports, as `ADDRESS:PORT->PORT/PROTOCOL`, in the event of jc-net.
pub fn summary(network: &Value) -> (String, String) {
    let list = |key: &str| network.get(key).and_then(Value::as_array).into_iter().flatten();
    let addresses: Vec<&str> = list("addresses").filter_map(Value::as_str).collect();
    let port = |port: &Value| {
        let (address, protocol) = (port["host-address"].as_str()?, port["protocol"].as_str()?);
        let address =
            if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        Some(format!("{address}:{}->{}/{protocol}", port["host-port"], port["port"]))
    };
    let ports: Vec<String> = list("ports").filter_map(port).collect();
    (addresses.join(" "), ports.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_are_shown_in_short() {
        let status = r#"{"network":"bridge","addresses":["10.88.0.5/16","fd00::5/64"],"ports":[
            {"protocol":"tcp","host-address":"0.0.0.0","host-port":8080,"port":80},
            {"protocol":"udp","host-address":"::","host-port":53,"port":53}]}"#;
        let (addresses, ports) = summary(&serde_json::from_str(status).unwrap());
        assert_eq!(addresses, "10.88.0.5/16 fd00::5/64");
        assert_eq!(ports, "0.0.0.0:8080->80/tcp [::]:53->53/udp");
    }
}
