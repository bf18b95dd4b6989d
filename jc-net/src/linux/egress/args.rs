//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use jc_unshare::{Error, Result, require_program};

use super::rule::Rule;
use super::rules::{self, Rules};
use crate::linux::dns::HostsLine;

/// Give PROG a network that leads to the hosts of a list only, then run it
#[derive(Debug, Parser)]
#[group(skip)]
#[command(name = "jc-egress", version, override_usage = "jc-egress [options] [--] PROG [ARG...]")]
pub struct Args {
    /// Allow connections: HOST:PORT[,PORT...|*][:tls|http|tcp|ech] (repeatable)
    #[arg(long, value_name = "RULE")]
    pub allow: Vec<Rule>,
    /// Allow a name also where it leads to an address that is not public (repeatable)
    #[arg(long, value_name = "RULE", value_parser = Rule::private)]
    pub allow_private: Vec<Rule>,
    /// Allow the rules of a file, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub allow_file: Vec<PathBuf>,
    /// Allow all connections, and write the rules that would have allowed them to FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow", "allow_private", "allow_file"])]
    pub learn: Option<PathBuf>,
    /// Deny these connections, whatever is allowed (repeatable)
    #[arg(long, value_name = "RULE")]
    pub deny: Vec<Rule>,
    /// Append a line of JSON for each decision to a file or descriptor
    #[arg(long, value_name = "FILE|FD")]
    pub log: Option<String>,
    /// Make only the network: a later link (jc-rootfs) confines the program
    #[arg(long)]
    pub only_network: bool,
    /// Leave N descriptors after stderr open
    #[arg(long, value_name = "N", conflicts_with = "only_network")]
    pub preserve_fds: Option<u32>,
    /// Write the name server to FILE, in the form of /etc/resolv.conf
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Append the program's addresses under NAME to FILE, in the form of /etc/hosts (repeatable)
    #[arg(long, value_name = "NAME:FILE")]
    pub hosts: Vec<HostsLine>,
    /// Write events to this descriptor: the network, the start and end of PROG
    #[arg(long, value_name = "N")]
    pub status_fd: Option<u32>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROG")]
    pub program: Vec<OsString>,
}

impl Args {
    /// The rules of the command line. Error: there are none, or one of a file is malformed.
    pub fn rules(&self) -> Result<Rules> {
        require_program(&self.program)?;
        let mut allow = [&self.allow[..], &self.allow_private].concat();
        allow.extend(self.learn.as_ref().map(|_| Rule::any()));
        if allow.is_empty() && self.allow_file.is_empty() {
            return Err(Error::usage(
                "no rule: --allow, --allow-private or --allow-file gives some, and --learn all",
            ));
        }
        for path in &self.allow_file {
            allow.extend(rules::read(path)?);
        }
        Rules::new(allow, self.deny.clone())
    }
}
