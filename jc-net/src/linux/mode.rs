//! The kinds of network.

use std::path::PathBuf;
use std::str::FromStr;

/// A value of `--network`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Network {
    /// A new namespace that is connected to a bridge of the host.
    Bridge,
    /// A new namespace with loopback only.
    None,
    /// The namespace of the caller.
    Host,
    /// The namespace of a file, such as those of ip-netns(8).
    Ns(PathBuf),
    /// The namespace of a process.
    Join(u32),
    /// A new namespace behind pasta(1).
    Pasta,
}

impl Network {
    /// The name of the kind, without path or PID.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
            Self::Ns(_) => "ns",
            Self::Join(_) => "join",
            Self::Pasta => "pasta",
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "bridge" => return Ok(Self::Bridge),
            "none" => return Ok(Self::None),
            "host" => return Ok(Self::Host),
            "pasta" => return Ok(Self::Pasta),
            _ => {}
        }
        if let Some(path) = word.strip_prefix("ns:").filter(|path| !path.is_empty()) {
            return Ok(Self::Ns(path.into()));
        }
        match word.strip_prefix("join:").map(str::parse::<u32>) {
            Some(Ok(pid)) if pid > 0 => Ok(Self::Join(pid)),
            Some(_) => Err("join: needs the number of a process".to_owned()),
            None => Err(format!(
                "not one of bridge, none, host, pasta, ns:PATH, join:PID; --bridge {word} makes a network of that name"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_name_a_file_or_a_process() {
        for (word, mode) in [
            ("bridge", Network::Bridge),
            ("none", Network::None),
            ("host", Network::Host),
            ("pasta", Network::Pasta),
            ("ns:/run/netns/x", Network::Ns("/run/netns/x".into())),
            ("join:7", Network::Join(7)),
        ] {
            assert_eq!(word.parse(), Ok(mode));
        }
        for wrong in ["", "ns", "ns:", "join", "join:", "join:x", "join:0", "join:-1", "Bridge"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
