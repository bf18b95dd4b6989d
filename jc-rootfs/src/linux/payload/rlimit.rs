//! Resource limits (getrlimit(2)).

use std::str::FromStr;

use jc_unshare::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

/// A resource limit, `NAME=SOFT[:HARD]` on the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ulimit {
    name: &'static str,
    resource: Resource,
    /// The limits are in the unit of the resource. `None` is no limit (RLIM_INFINITY).
    soft: Option<u64>,
    hard: Option<u64>,
}

/// The names of getrlimit(2) in lower case, without `RLIMIT_`.
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let (name, values) = word.split_once('=').ok_or("not NAME=SOFT[:HARD]")?;
        let known = RESOURCES.into_iter().find(|(known, _)| *known == name);
        let (name, resource) = known.ok_or_else(|| format!("no resource {name:?}"))?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (value(soft)?, value(hard)?);
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err("the soft limit is above the hard one".to_owned());
        }
        Ok(Self { name, resource, soft, hard })
    }
}

fn value(word: &str) -> std::result::Result<Option<u64>, String> {
    match word {
        "unlimited" | "-1" => Ok(None),
        _ if word.starts_with('+') => Err(format!("not a number: {word:?}")),
        // The largest number is RLIM_INFINITY, which has a name.
        _ => match word.parse() {
            Ok(u64::MAX) | Err(_) => Err(format!("not a number: {word:?}")),
            Ok(number) => Ok(Some(number)),
        },
    }
}

impl Ulimit {
    /// Sets the limit of this process. EPERM: the hard limit rises, and this process has no CAP_SYS_RESOURCE.
    pub fn apply(&self) -> Result<()> {
        let limit = Rlimit { current: self.soft, maximum: self.hard };
        setrlimit(self.resource, limit)
            .on("setrlimit", self.name)
            .map_err(|e| e.hint("raising a hard limit needs CAP_SYS_RESOURCE"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_resource_and_one_or_two_numbers() {
        for (word, resource, soft, hard) in [
            ("nofile=10:20", Resource::Nofile, Some(10), Some(20)),
            ("core=0", Resource::Core, Some(0), Some(0)),
            ("stack=8388608:unlimited", Resource::Stack, Some(8_388_608), None),
            ("memlock=-1", Resource::Memlock, None, None),
        ] {
            let limit: Ulimit = word.parse().unwrap();
            assert_eq!((limit.resource, limit.soft, limit.hard), (resource, soft, hard), "{word}");
        }
        for (word, message) in [
            ("nofile", "not NAME=SOFT[:HARD]"),
            ("files=1", "no resource \"files\""),
            ("nofile=2:1", "the soft limit is above the hard one"),
            ("nofile=unlimited:1", "the soft limit is above the hard one"),
            ("nofile=", "not a number: \"\""),
            ("nofile=1k", "not a number: \"1k\""),
            ("nofile=+1", "not a number: \"+1\""),
            ("nofile=1:2:3", "not a number: \"2:3\""),
            ("nofile=18446744073709551615", "not a number: \"18446744073709551615\""),
        ] {
            assert_eq!(word.parse::<Ulimit>(), Err(message.to_owned()), "{word}");
        }
    }
}
