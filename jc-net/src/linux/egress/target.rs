//! The host that a connection of the program leads to, or the reason of its end.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use rustix::io::Errno;

use super::names::{self, Names};
use super::rule::{Check, DNS};
use super::rules::{Refusal, Rules};

/// The host to which a connection leads, and the rule that allows the connection.
#[derive(Debug)]
pub struct Target {
    /// The address that the program has used.
    pub address: IpAddr,
    /// The port that the program has used.
    pub port: u16,
    /// The name, if the address is a synthetic one.
    pub name: Option<Rc<str>>,
    /// The text of the rule that allows it.
    pub rule: String,
    /// The form that the first bytes must have.
    pub check: Check,
    /// Whether the name may lead to an address that is not public.
    pub private: bool,
}

impl Target {
    /// The target of a connection to an address, if a rule allows the connection. Error: the name, if the address has one, and
    /// the reason.
    pub fn allowed(
        wanted: SocketAddr,
        names: &Names,
        rules: &Rules,
    ) -> Result<Self, (Option<Rc<str>>, Refusal)> {
        let (address, port) = (wanted.ip(), wanted.port());
        let name = names.name(address);
        let rule = match &name {
            _ if port == DNS => None,
            Some(name) => Some(rules.by_name(name, port)),
            None if names::is_own(address) => Some(Err(Refusal::NoRule)),
            None => Some(rules.by_address(address, port)),
        };
        let rule = rule.transpose().map_err(|refusal| (name.clone(), refusal))?;
        let checked = rule.filter(|_| name.is_some());
        let check = checked.map_or(Check::Tcp, |rule| rule.check(port));
        let private = rule.is_some_and(|rule| rule.private);
        let rule = rule.map(ToString::to_string).unwrap_or_default();
        Ok(Self { address, port, name, rule, check, private })
    }
}

/// The reason for which a connection ends before its time.
#[derive(Debug)]
pub enum Failure {
    /// No rule allows it, or its first bytes are others than the rule wants.
    Refused(&'static str),
    /// The connection is allowed, and a lookup, a dial or a socket has failed.
    Broken(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Broken(jc_unshare::strerror(&errno.into()))
    }
}
