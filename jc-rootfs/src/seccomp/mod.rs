//! Which system calls the payload may make (seccomp(2)).

use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use jc_unshare::{Context, Error, Result, read_at_most};

mod abi;
mod bpf;
mod compile;
mod default;
mod mux;
mod outcomes;
mod profile;
mod rules;
mod syscalls;

pub use bpf::Instruction;
use compile::compile;
use profile::{Machine, Profile, kernel};

use crate::sys;

/// Longest profile that is read, in bytes: Docker's has 16,000.
const MAX_FILE: u64 = 1 << 20;

/// What `--seccomp` names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seccomp {
    /// No filter.
    Unconfined,
    /// The one that is built in.
    Default,
    /// A profile in JSON.
    File(PathBuf),
}

impl FromStr for Seccomp {
    type Err = Infallible;

    fn from_str(word: &str) -> std::result::Result<Self, Infallible> {
        Ok(match word {
            "unconfined" => Self::Unconfined,
            "default" => Self::Default,
            _ => Self::File(word.into()),
        })
    }
}

/// A filter, ready for the kernel.
pub struct Filter {
    program: Vec<Instruction>,
    flags: u64,
}

impl Seccomp {
    /// Makes the filter for a payload that may have these capabilities, a bit each.
    pub fn filter(&self, capabilities: u64) -> Result<Option<Filter>> {
        Ok(match self {
            Self::Unconfined => None,
            Self::Default => {
                Some(Filter { program: compile(&default::rules(capabilities))?, flags: 0 })
            }
            Self::File(path) => {
                let text = read_at_most(File::open(path).on("read", path)?, MAX_FILE, path)?;
                let release = rustix::system::uname();
                let release = release.release().to_string_lossy();
                let kernel =
                    kernel(&release).ok_or_else(|| Error::new(format_args!("uname: {release}")))?;
                let filter = parse(&text, capabilities, kernel);
                Some(filter.map_err(|e| e.context(format_args!("seccomp {}", path.display())))?)
            }
        })
    }
}

/// Makes the filter of a profile in JSON, for a payload with these capabilities on this kernel.
pub fn parse(text: &[u8], capabilities: u64, kernel: (u32, u32)) -> Result<Filter> {
    let profile = Profile::parse(text, &Machine { capabilities, kernel })?;
    Ok(Filter { program: compile(&profile.rules())?, flags: profile.flags })
}

impl Filter {
    /// Puts this process under the filter, for good.
    pub fn install(&self) -> Result<()> {
        sys::seccomp_filter(&self.program, self.flags)
            .op("seccomp")
            .map_err(|e| e.hint("a filter needs CAP_SYS_ADMIN or --no-new-privs"))
    }
}
