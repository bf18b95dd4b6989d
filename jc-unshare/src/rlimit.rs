//! Resource limits of this process (getrlimit(2)).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Context, Result};
use crate::platform::MAX_DESCRIPTORS;

/// Raises RLIMIT_NOFILE, which is usually 1,024, to the hard limit. Returns the new limit. `None`: there is no limit.
pub fn raise_descriptors() -> Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.into_iter().chain(MAX_DESCRIPTORS).min();
    setrlimit(Resource::Nofile, Rlimit { current: most, ..limit }).op("setrlimit RLIMIT_NOFILE")?;
    Ok(most)
}
