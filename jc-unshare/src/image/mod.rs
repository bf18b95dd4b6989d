//! The names of images, and the images of a store (jc-store(5)).

use std::env;
use std::path::PathBuf;

mod digest;
mod entry;
mod name;
mod platform;
mod reference;

pub use digest::{Algorithm, Digest, Hasher};
pub use entry::{ImageEntry, MAX_ENTRY};
pub use name::{Name, PLAIN, Transport};
pub use platform::Platform;
pub use reference::{Reference, has_registry, is_loopback, split_port};

/// The variable that names another file in place of all of containers-registries.conf(5).
pub const REGISTRIES_CONF: &str = "CONTAINERS_REGISTRIES_CONF";

/// The directories of containers-registries.conf(5): that of the user, if there is one, and that of the system.
pub fn registry_directories() -> [Option<PathBuf>; 2] {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    [config.map(|config| config.join("containers")), Some("/etc/containers".into())]
}
