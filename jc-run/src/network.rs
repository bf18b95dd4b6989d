//! The container's network, and the files in /etc that have to do with it: made in the state dir,
//! bound over the root's.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use clap::ArgMatches;
use jc_unshare::{Context, Error, Result};
use rustix::process::geteuid;
use serde_json::Value;

use crate::dir;
use crate::files::StateDir;
use crate::flags::{Owner, given, option};
use crate::image::Config;
use crate::place::Place;
use crate::plan::words;

/// The files, each with its place.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// What every host knows.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Which network it is.
pub struct Network {
    mode: String,
    /// The state directory of the container whose network it is.
    other: Option<StateDir>,
}

impl Network {
    /// The one that is asked for, else a bridge, or for who may not make one, pasta(1).
    pub fn of(matches: &ArgMatches, place: &Place) -> Result<Self> {
        let default = if geteuid().is_root() { "bridge" } else { "pasta" };
        let mode = matches.get_one::<String>("network").map_or(default, String::as_str);
        let Some(word) = mode.strip_prefix("container:") else {
            return Ok(Self { mode: mode.to_owned(), other: None });
        };
        if Self::has_servers(matches) {
            return Err(Error::usage(
                "--dns, --dns-search: another container's network has its own",
            ));
        }
        let container = dir::find(place, word)?;
        let pid = container.state.payload()?.pid;
        Ok(Self { mode: format!("join:{pid}"), other: Some(container.open()?) })
    }

    /// Whether it is that of the caller.
    pub fn is_hosts(&self) -> bool {
        self.mode == "host"
    }

    /// Whether its name servers are to be others than its own.
    fn has_servers(matches: &ArgMatches) -> bool {
        matches.contains_id("dns") || matches.contains_id("dns-search")
    }

    /// Whether jc-net makes it, and so has something to tell.
    pub fn is_made(&self) -> bool {
        ["bridge", "pasta"].contains(&self.mode.as_str())
    }

    /// Whether jc-net waits, with something in hand: ports, or pasta.
    pub fn is_held(&self, matches: &ArgMatches) -> bool {
        self.mode == "pasta" || matches.contains_id("publish") || matches.get_flag("publish-all")
    }

    /// jc-net's options.
    pub fn options(
        &self,
        matches: &ArgMatches,
        config: &Config,
        hostname: &str,
        state_dir: &Path,
        status_fd: u32,
    ) -> Vec<OsString> {
        let mut options = option("--network", self.mode.as_ref());
        if self.is_made() || Self::has_servers(matches) {
            options.extend(option("--resolv-conf", state_dir.join("resolv.conf").as_os_str()));
        }
        if self.is_made() {
            let mut hosts = OsString::from(format!("{hostname}:"));
            hosts.push(state_dir.join("hosts"));
            options.extend(option("--hosts", &hosts));
            options.extend(words(&["--status-fd", &status_fd.to_string()]));
        }
        options.extend(given(matches, Owner::Net));
        if matches.get_flag("publish-all") {
            options
                .extend(config.exposed_ports().flat_map(|port| option("--expose", port.as_ref())));
        }
        options
    }

    /// The files' contents, but for what jc-net adds: on the host's network, or another container's,
    /// they are theirs.
    pub fn files(&self, hostname: &str) -> Result<Vec<(&'static str, String)>> {
        let (hosts, resolv_conf) = match &self.other {
            Some(other) => (recorded(other, "hosts")?, recorded(other, "resolv.conf")?),
            None if self.is_hosts() => {
                (read(Path::new("/etc/hosts"))?, read(Path::new("/etc/resolv.conf"))?)
            }
            None if self.is_made() => (LOCALHOST.to_owned(), String::new()),
            None => (format!("{LOCALHOST}127.0.1.1\t{hostname}\n"), String::new()),
        };
        let contents = [format!("{hostname}\n"), hosts, resolv_conf];
        Ok(FILES.into_iter().map(|(name, _)| name).zip(contents).collect())
    }
}

/// The options that put the files in their places, read-only: the state dir is in memory, and a payload
/// that writes to it could fill that.
pub fn binds(state_dir: &Path) -> Vec<OsString> {
    let bind = |(name, place): &(&str, &str)| {
        let mut spec = OsString::from(state_dir.join(name));
        spec.push(":");
        spec.push(place);
        spec.push(":ro");
        option("-v", &spec)
    };
    FILES.iter().flat_map(bind).collect()
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
