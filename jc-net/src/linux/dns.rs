//! The files of `--resolv-conf` and `--hosts` (resolv.conf(5), hosts(5)).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jc_unshare::{Context, Error, Result};

/// The file of the host with its name servers, and files with the servers behind a stub resolver on loopback: those of
/// systemd-resolved, of NetworkManager, and of resolvconf for dnsmasq.
const HOSTS_OWN: &str = "/etc/resolv.conf";
const BEHIND_STUBS: [&str; 3] = [
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/dnsmasq/resolv.conf",
];

/// A value of `--hosts`, `NAME:FILE`.
#[derive(Clone, Debug)]
pub struct HostsLine {
    name: String,
    file: PathBuf,
}

impl FromStr for HostsLine {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, file) = word.split_once(':').ok_or("not NAME:FILE")?;
        let plain = |b: u8| b.is_ascii_graphic() && b != b'#';
        if name.is_empty() || file.is_empty() || !name.bytes().all(plain) {
            return Err("not NAME:FILE".to_owned());
        }
        Ok(Self { name: name.to_owned(), file: file.into() })
    }
}

impl HostsLine {
    /// Adds a line for each address to the file. ENOENT: the file does not exist.
    pub fn append(&self, addresses: &[IpAddr]) -> Result<()> {
        let lines = addresses.iter().map(|address| format!("{address}\t{}\n", self.name));
        let lines: String = lines.collect();
        let mut file = OpenOptions::new().append(true).open(&self.file).on("open", &self.file)?;
        file.write_all(lines.as_bytes()).on("write", &self.file)
    }
}

/// The name servers that a network namespace reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// All servers of the host, also on loopback.
    Host,
    /// The servers of the host, except servers on loopback.
    Outside {
        /// Whether servers with IPv6 addresses are reachable.
        v6: bool,
    },
    /// The namespace reaches no server.
    Nothing,
}

impl Reach {
    fn has(self, server: &str) -> bool {
        // An address with a scope (fe80::1%eth0) names a link of the host.
        let Ok(address) = server.parse::<IpAddr>() else { return self == Self::Host };
        match self {
            Self::Host => true,
            Self::Outside { v6 } => !address.is_loopback() && (v6 || address.is_ipv4()),
            Self::Nothing => false,
        }
    }
}

/// The options for the files that later links bind over those of the root.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The file in the format of resolv.conf(5).
    pub resolv_conf: Option<&'a Path>,
    /// The name servers, in place of the host's.
    pub servers: &'a [IpAddr],
    /// The domains to search, in place of the host's.
    pub search: &'a [String],
    /// The lines for files in the format of hosts(5).
    pub hosts: &'a [HostsLine],
}

impl Files<'_> {
    /// Writes the files. A host without a reachable server is an error.
    pub fn write(&self, reach: Reach, addresses: &[IpAddr]) -> Result<()> {
        if let Some(path) = self.resolv_conf {
            write_resolv_conf(path, self, reach)?;
        }
        self.hosts.iter().try_for_each(|line| line.append(addresses))
    }
}

fn write_resolv_conf(path: &Path, files: &Files<'_>, reach: Reach) -> Result<()> {
    let own = read(HOSTS_OWN)?.unwrap_or_default();
    let mut behind = None;
    for stub in BEHIND_STUBS {
        behind = behind.map_or_else(|| read(stub), |found| Ok(Some(found)))?;
    }
    fs::write(path, contents(files, reach, &own, behind.as_deref())?).on("write", path)
}

fn read(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        text => text.on("read", path).map(Some),
    }
}

/// The values of the lines that begin with a keyword.
fn values<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once([' ', '\t']));
    lines.filter(|(first, _)| *first == word).map(|(_, value)| value.trim()).collect()
}

fn contents(files: &Files<'_>, reach: Reach, own: &str, behind: Option<&str>) -> Result<String> {
    let reachable = |text| -> Vec<String> {
        let servers = values(text, "nameserver").into_iter().filter(|server| reach.has(server));
        servers.map(str::to_owned).collect()
    };
    let servers = match (files.servers, reach) {
        ([], Reach::Nothing) => Vec::new(),
        ([], _) => {
            let found = reachable(own);
            let found =
                if found.is_empty() { reachable(behind.unwrap_or_default()) } else { found };
            if found.is_empty() {
                return Err(Error::new(format_args!(
                    "{HOSTS_OWN}: names no server that can be reached from inside"
                ))
                .hint("--dns names one"));
            }
            found
        }
        (servers, _) => servers.iter().map(IpAddr::to_string).collect(),
    };
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    // The last search line counts (resolv.conf(5)).
    let search = match files.search {
        [] => values(own, "search").pop().map(str::to_owned),
        domains => Some(domains.join(" ")),
    };
    // A single dot removes the search list of the host.
    if let Some(search) = search.filter(|search| !search.is_empty() && search != ".") {
        text.push_str(&format!("search {search}\n"));
    }
    for options in values(own, "options") {
        text.push_str(&format!("options {options}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Reach = Reach::Outside { v6: true };

    fn made(servers: &[&str], search: &[&str], reach: Reach, own: &str, behind: &str) -> String {
        let servers: Vec<IpAddr> = servers.iter().map(|s| s.parse().unwrap()).collect();
        let search: Vec<String> = search.iter().map(|s| (*s).to_owned()).collect();
        let files = Files { resolv_conf: None, servers: &servers, search: &search, hosts: &[] };
        contents(&files, reach, own, Some(behind)).unwrap_or_else(|e| format!("error: {e}"))
    }

    #[test]
    fn only_reachable_servers_are_named() {
        let stub = "nameserver 127.0.0.53\noptions edns0\nsearch a b\n";
        let real = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\n";
        for (reach, own, behind, expected) in [
            (OUTSIDE, "nameserver 192.0.2.1\n", real, "nameserver 192.0.2.1\n"),
            (
                OUTSIDE,
                stub,
                real,
                "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a b\noptions edns0\n",
            ),
            (
                Reach::Outside { v6: false },
                stub,
                real,
                "nameserver 192.0.2.53\nsearch a b\noptions edns0\n",
            ),
            (Reach::Host, stub, real, "nameserver 127.0.0.53\nsearch a b\noptions edns0\n"),
            (Reach::Nothing, stub, real, "search a b\noptions edns0\n"),
            (OUTSIDE, "", real, "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"),
        ] {
            assert_eq!(made(&[], &[], reach, own, behind), expected, "{reach:?} {own}");
        }
        let none = made(&[], &[], OUTSIDE, stub, "nameserver ::1\n");
        assert!(none.starts_with("error: /etc/resolv.conf: "), "{none}");
    }

    #[test]
    fn options_replace_the_lines_of_the_host() {
        let own = "domain x\nsearch a\nsearch b\nnameserver 192.0.2.1\n";
        let all = made(&["127.0.0.1", "2001:db8::1"], &["c", "d"], OUTSIDE, own, "");
        assert_eq!(all, "nameserver 127.0.0.1\nnameserver 2001:db8::1\nsearch c d\n");
        assert_eq!(made(&[], &["."], OUTSIDE, own, ""), "nameserver 192.0.2.1\n");
        assert_eq!(made(&[], &[], OUTSIDE, own, ""), "nameserver 192.0.2.1\nsearch b\n");
        assert_eq!(made(&["192.0.2.9"], &[], Reach::Nothing, "", ""), "nameserver 192.0.2.9\n");
    }

    #[test]
    fn a_line_of_hosts_has_a_name_and_a_file() {
        for wrong in ["", "a", "a:", ":b", "a b:c", "a#:b", "a\n:b"] {
            assert!(wrong.parse::<HostsLine>().is_err(), "{wrong}");
        }
        let line: HostsLine = "box:/a:b".parse().unwrap();
        assert_eq!((line.name.as_str(), line.file.as_path()), ("box", Path::new("/a:b")));
    }
}
