//! `jc-trace`: a recorder of what a program does, and rules from its reports.

pub mod args;
pub mod attach;
mod calls;
mod event;
mod facts;
mod filter;
mod keeper;
mod lookups;
mod memory;
mod observe;
mod place;
mod record;
mod recorder;
mod rules;
mod shared;
mod sources;
mod tables;
mod target;
mod tool;

use std::process::ExitCode;

use jc_unshare::{Result, print};

use args::Args;
pub use tool::TOOL;

/// Records a program, or prints rules.
pub fn run(args: Args) -> Result<ExitCode> {
    if !args.rules.is_given() {
        return record::record(&args.record, &args.operands);
    }
    print(rules::rules(&args.rules, &args.operands)?).map(|()| ExitCode::SUCCESS)
}
