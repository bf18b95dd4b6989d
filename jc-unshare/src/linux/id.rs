//! Random bytes and random names.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Context, Result};

/// Returns random bytes of the kernel (getrandom(2)).
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty()).op("getrandom")?;
    Ok(bytes)
}

/// A name of 12 hexadecimal digits, as Docker shows for a container. A PID would not be unique: other PID namespaces
/// may use the same cgroups and directories.
pub fn random() -> Result<String> {
    Ok(random_bytes::<6>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
