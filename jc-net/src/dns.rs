//! Name servers and names: what `--resolv-conf` and `--hosts` write (resolv.conf(5), hosts(5)).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jc_unshare::{Context, Error, Result};

/// Where this host says who its name servers are, and where those are named that stand behind a
/// stub which listens on loopback: systemd-resolved's, NetworkManager's, resolvconf's for dnsmasq.
const HOSTS_OWN: &str = "/etc/resolv.conf";
const BEHIND_STUBS: [&str; 3] = [
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/dnsmasq/resolv.conf",
];

/// `NAME:FILE`
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
    /// Adds a line for each address to the file, which must be there.
    pub fn append(&self, addresses: &[IpAddr]) -> Result<()> {
        let lines = addresses.iter().map(|address| format!("{address}\t{}\n", self.name));
        let lines: String = lines.collect();
        let mut file = OpenOptions::new().append(true).open(&self.file).on("open", &self.file)?;
        file.write_all(lines.as_bytes()).on("write", &self.file)
    }
}

/// How the container is connected, as far as name servers are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// It has the host's loopback.
    Host,
    /// It gets to where the host gets, but not to the host's loopback; and by IPv6 or not.
    Outside {
        /// Whether it has IPv6.
        v6: bool,
    },
    /// Nowhere.
    Nothing,
}

impl Reach {
    fn has(self, server: &str) -> bool {
        // A link's own address is of a link of the host.
        let Ok(address) = server.parse::<IpAddr>() else { return self == Self::Host };
        match self {
            Self::Host => true,
            Self::Outside { v6 } => !address.is_loopback() && (v6 || address.is_ipv4()),
            Self::Nothing => false,
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// These servers.
    pub servers: &'a [IpAddr],
    /// These domains to search.
    pub search: &'a [String],
}

/// Writes the file.
pub fn write(path: &Path, wanted: &Wanted<'_>, reach: Reach) -> Result<()> {
    let own = read(HOSTS_OWN)?.unwrap_or_default();
    let mut behind = None;
    for stub in BEHIND_STUBS {
        behind = behind.map_or_else(|| read(stub), |found| Ok(Some(found)))?;
    }
    fs::write(path, contents(wanted, reach, &own, behind.as_deref())?).on("write", path)
}

fn read(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        text => text.on("read", path).map(Some),
    }
}

/// The values of the lines that begin with that word.
fn values<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once([' ', '\t']));
    lines.filter(|(first, _)| *first == word).map(|(_, value)| value.trim()).collect()
}

fn contents(wanted: &Wanted<'_>, reach: Reach, own: &str, behind: Option<&str>) -> Result<String> {
    let reachable = |text| -> Vec<String> {
        let servers = values(text, "nameserver").into_iter().filter(|server| reach.has(server));
        servers.map(str::to_owned).collect()
    };
    let servers = match (wanted.servers, reach) {
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
    // The last of them counts (resolv.conf(5)).
    let search = match wanted.search {
        [] => values(own, "search").pop().map(str::to_owned),
        domains => Some(domains.join(" ")),
    };
    // A dot alone is no domain: it takes the host's away.
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
        let wanted = Wanted { servers: &servers, search: &search };
        contents(&wanted, reach, own, Some(behind)).unwrap_or_else(|e| format!("error: {e}"))
    }

    #[test]
    fn servers_that_can_be_reached() {
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
    fn what_is_asked_for_comes_first() {
        let own = "domain x\nsearch a\nsearch b\nnameserver 192.0.2.1\n";
        let all = made(&["127.0.0.1", "2001:db8::1"], &["c", "d"], OUTSIDE, own, "");
        assert_eq!(all, "nameserver 127.0.0.1\nnameserver 2001:db8::1\nsearch c d\n");
        assert_eq!(made(&[], &["."], OUTSIDE, own, ""), "nameserver 192.0.2.1\n");
        assert_eq!(made(&[], &[], OUTSIDE, own, ""), "nameserver 192.0.2.1\nsearch b\n");
        assert_eq!(made(&["192.0.2.9"], &[], Reach::Nothing, "", ""), "nameserver 192.0.2.9\n");
    }

    #[test]
    fn lines_of_hosts() {
        for wrong in ["", "a", "a:", ":b", "a b:c", "a#:b", "a\n:b"] {
            assert!(wrong.parse::<HostsLine>().is_err(), "{wrong}");
        }
        let line: HostsLine = "box:/a:b".parse().unwrap();
        assert_eq!((line.name.as_str(), line.file.as_path()), ("box", Path::new("/a:b")));
    }
}
