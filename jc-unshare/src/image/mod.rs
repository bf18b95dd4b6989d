//! The names of images, the registries that have them, and the images of a store (jc-store(5)).

pub mod config_files;
mod digest;
mod entry;
mod name;
mod platform;
mod reference;
pub mod registries;

pub use digest::{Algorithm, Digest, Hasher};
pub use entry::{ImageEntry, MAX_ENTRY};
pub use name::{Name, PLAIN, Transport};
pub use platform::Platform;
pub use reference::{Reference, has_registry, is_loopback, split_port};
