//! Rules from reports: each kind is a pure function of the facts.

mod allow;
mod files;
mod landlock;
mod limits;
mod seccomp;

use std::ffi::OsString;

use jc_unshare::{Error, Result};

use super::args::RuleArgs;
use super::facts::Facts;

/// The rules of the reports, as text.
pub fn rules(args: &RuleArgs, reports: &[OsString]) -> Result<Vec<u8>> {
    if reports.is_empty() {
        return Err(Error::usage("no report given"));
    }
    let mut facts = Facts::default();
    for report in reports {
        facts.read(report.as_ref())?;
    }
    if args.seccomp {
        return seccomp::profile(&facts, args.exact, args.base.is_some());
    }
    Ok(if args.files {
        files::files(&facts)
    } else if args.allow {
        allow::allow(&facts)?.into()
    } else if args.limits {
        limits::limits(&facts, args.margin)?.into()
    } else {
        landlock::landlock(&facts)?
    })
}
