//! Names for what has to have one and is given none.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Context, Result};

/// 12 hexadecimal digits, as Docker shows them for a container. Not a pid: other PID namespaces may
/// see the same cgroups and directories.
pub fn random() -> Result<String> {
    let mut bytes = [0; 6];
    getrandom(&mut bytes, GetRandomFlags::empty()).op("getrandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
