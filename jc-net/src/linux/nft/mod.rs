//! Messages of nf_tables in one transaction (`linux/netfilter/nf_tables.h`). nft(8) would add milliseconds to a start, and
//! may not be installed.

mod batch;
mod constants;
mod query;
mod rule;

use jc_unshare::{Error, Result};
use rustix::io::Errno;

use crate::linux::netlink::NetlinkResult;

pub use batch::{Batch, Hook, Map};
pub use query::{chains, elements, has_chain, has_table, is_marked, read_chain, read_elements};
pub use rule::{Field, Rule, octets};

/// The error of an operation, with a hint where the kernel may lack a module.
pub fn explain<T>(answer: NetlinkResult<T>, doing: &str) -> Result<T> {
    answer.map_err(|error| {
        let errno = error.errno;
        let lacks = matches!(errno, Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::INVAL)
            || errno == Errno::NOENT;
        let error: Error = error.during(doing);
        if !lacks {
            return error;
        }
        error
            .hint("the kernel may lack nf_tables or a part of it: nft_chain_nat, nft_masq, nft_fib, nft_log")
    })
}
