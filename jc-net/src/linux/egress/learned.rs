//! `--learn`: the rules that would have allowed what happened.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use jc_unshare::Result;
use jc_unshare::named_file::NamedFile;

use super::rule::{Check, Rule};
use super::rules::MOST;

/// The rules so far, and the file for them.
#[derive(Debug)]
pub struct Learned {
    file: NamedFile,
    /// The form of the first bytes, and whether the name leads to an address that is not public, by host and port.
    rules: BTreeMap<(String, u16), (Check, bool)>,
}

impl Learned {
    /// No rules yet. Error: the file could not be written later.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { file: NamedFile::for_replacement(path, "--learn")?, rules: BTreeMap::new() })
    }

    /// The directory of the file.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Adds the rule of a connection. The weakest form counts. Error: why no file can have the rule.
    pub fn add(
        &mut self,
        name: Option<&str>,
        address: SocketAddr,
        check: Check,
        is_private: bool,
    ) -> std::result::Result<(), &'static str> {
        let port = address.port();
        let (host, new) = match (name, address.ip()) {
            (Some(name), _) => (name.to_owned(), (check, is_private)),
            (None, IpAddr::V4(address)) => (address.to_string(), (Check::default(port), false)),
            (None, IpAddr::V6(address)) => (format!("[{address}]"), (Check::default(port), false)),
        };
        let key = (host, port);
        let Some(found) = self.rules.get_mut(&key) else {
            if self.rules.len() >= MOST {
                return Err("more rules than a file may have");
            }
            if Rule::from_line(&line((&key, &new))).is_err() {
                return Err("an address that no rule may name");
            }
            self.rules.insert(key, new);
            return Ok(());
        };
        *found = (found.0.max(new.0), found.1 | new.1);
        Ok(())
    }

    /// Writes the file, in the order of sort(1).
    pub fn write(&self) -> Result<()> {
        let mut lines: Vec<String> = self.rules.iter().map(line).collect();
        lines.sort();
        self.file.replace(lines.concat().as_bytes())
    }
}

/// The line of a rule.
fn line(((host, port), (check, is_private)): (&(String, u16), &(Check, bool))) -> String {
    let is_default = *check == Check::default(*port);
    let check = if is_default { String::new() } else { format!(":{}", check.word()) };
    let private = if *is_private { "private " } else { "" };
    format!("{private}{host}:{port}{check}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_rules_are_as_many_as_a_file_may_have() {
        let path = std::env::temp_dir().join(format!("jc-egress-learned-{}", std::process::id()));
        let mut learned = Learned::new(&path).unwrap();
        let mut add = |number: usize, check| {
            let host = format!("a{number}.example");
            learned.add(Some(&host), ([192, 0, 2, 1], 443).into(), check, false)
        };
        for number in 0..MOST {
            assert_eq!(add(number, Check::Tls), Ok(()));
        }
        assert!(add(MOST, Check::Tls).is_err());
        assert_eq!(add(0, Check::Tcp), Ok(()), "a weaker form of a rule that is there");
        learned.write().unwrap();
        let rules = crate::linux::egress::rules::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((rules.len(), rules[0].check(443)), (MOST, Check::Tcp));
    }
}
