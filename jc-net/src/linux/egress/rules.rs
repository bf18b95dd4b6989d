//! All rules, and what they say of a name and a connection.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use jc_unshare::{Context, Error, Result, read_at_most};

use super::rule::Rule;

/// The most rules of a run: each is compared at each connection.
pub const MOST: usize = 4096;
/// The longest file of rules, in bytes.
const LONGEST: u64 = 1 << 20;

/// The rules of a run.
#[derive(Debug, Default)]
pub struct Rules {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// The reason for which the rules refuse a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// No rule allows it.
    NoRule,
    /// A rule of `--deny` has it.
    Denied,
}

impl Refusal {
    /// The words in the log.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoRule => "no rule",
            Self::Denied => "denied by a rule",
        }
    }
}

impl Rules {
    /// Rules of the command line. Error: there are too many.
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Result<Self> {
        if allow.len() + deny.len() > MOST {
            Err(Error::usage(format_args!("more than {MOST} rules")))
        } else {
            Ok(Self { allow, deny })
        }
    }

    /// The rule by which the resolver answers a name.
    pub fn resolves(&self, name: &str) -> std::result::Result<&Rule, Refusal> {
        let rule = self.allow.iter().find(|rule| rule.names(name).is_some());
        let is_denied = |rule: &Rule| rule.has_all_ports() && rule.names(name).is_some();
        match rule {
            _ if self.deny.iter().any(is_denied) => Err(Refusal::Denied),
            rule => rule.ok_or(Refusal::NoRule),
        }
    }

    /// The rule that allows a connection by name: the one that names the host most exactly. Of equals, one
    /// of `--allow-private` comes first.
    pub fn by_name(&self, name: &str, port: u16) -> std::result::Result<&Rule, Refusal> {
        if self.deny.iter().any(|rule| rule.has_port(port) && rule.names(name).is_some()) {
            return Err(Refusal::Denied);
        }
        let with_port = self.allow.iter().rev().filter(|rule| rule.has_port(port));
        let matching = with_port.filter_map(|rule| Some(((rule.names(name)?, rule.private), rule)));
        matching.max_by_key(|(rank, _)| *rank).map(|(_, rule)| rule).ok_or(Refusal::NoRule)
    }

    /// The rule that allows a connection by literal address.
    pub fn by_address(&self, address: IpAddr, port: u16) -> std::result::Result<&Rule, Refusal> {
        if self.denies(address, port) {
            return Err(Refusal::Denied);
        }
        let has = |rule: &&Rule| rule.has_port(port) && rule.has_address(address);
        self.allow.iter().find(has).ok_or(Refusal::NoRule)
    }

    /// Whether `--deny` has the address, also as one of a name.
    pub fn denies(&self, address: IpAddr, port: u16) -> bool {
        self.deny.iter().any(|rule| rule.has_port(port) && rule.has_address(address))
    }
}

/// Reads a file of rules: one on a line, `#` begins a comment.
pub fn read(path: &Path) -> Result<Vec<Rule>> {
    let file = File::open(path).on("open", path)?;
    let bytes = read_at_most(file, LONGEST, path)?;
    let at = |number: usize, why: &str| {
        Error::usage(format_args!("{} line {}: {why}", path.display(), number + 1))
    };
    let text = str::from_utf8(&bytes).map_err(|_| at(0, "not UTF-8"))?;
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let rule = line.split('#').next().unwrap_or_default().trim();
        if !rule.is_empty() {
            rules.push(Rule::from_line(rule).map_err(|why| at(number, &why))?);
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let parse = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect();
        Rules::new(parse(allow), parse(deny)).unwrap()
    }

    #[test]
    fn the_most_exact_rule_decides() {
        let rules = rules(&["*.b:443", "*.a.b:443:tcp", "x.a.b:443:ech"], &["bad.a.b:*", "x.b:80"]);
        let text = |name, port| rules.by_name(name, port).map(ToString::to_string);
        assert_eq!(text("x.a.b", 443).as_deref(), Ok("x.a.b:443:ech"));
        assert_eq!(text("y.a.b", 443).as_deref(), Ok("*.a.b:443:tcp"));
        assert_eq!(text("x.b", 443).as_deref(), Ok("*.b:443"));
        assert_eq!(text("b", 443), Err(Refusal::NoRule));
        assert_eq!(text("bad.a.b", 443), Err(Refusal::Denied));
        assert_eq!(text("x.b", 80), Err(Refusal::Denied));
        assert!(rules.resolves("x.b").is_ok());
        assert_eq!(rules.resolves("bad.a.b"), Err(Refusal::Denied));
        assert_eq!(rules.resolves("c"), Err(Refusal::NoRule));
    }

    #[test]
    fn addresses_have_rules_of_their_own() {
        let rules = rules(&["a.b:443", "10.1.0.0/16:5432"], &["10.1.9.0/24:*"]);
        let by = |address: &str, port| rules.by_address(address.parse().unwrap(), port).is_ok();
        assert!(by("10.1.2.3", 5432));
        assert!(!by("10.1.2.3", 443));
        assert!(!by("10.1.9.3", 5432));
        assert!(!by("192.0.2.1", 443));
    }

    #[test]
    fn a_file_has_one_rule_a_line() {
        let path = std::env::temp_dir().join(format!("jc-egress-rules-{}", std::process::id()));
        let read_text = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let all = read(&path);
            std::fs::remove_file(&path).unwrap();
            all.map(|rules| rules.len()).map_err(|e| e.to_string())
        };
        assert_eq!(read_text("# hosts\n\ngithub.com:443 # TLS\r\n*.crates.io:443"), Ok(2));
        let error = read_text("a.b:443\nnonsense\n").unwrap_err();
        assert!(error.ends_with("line 2: not HOST:PORT[,PORT...][:tls|http|tcp|ech]"), "{error}");
        assert!(read_text(&"#".repeat(2 << 20)).is_err());
    }
}
