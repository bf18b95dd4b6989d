//! Container images, from registries and layouts into a verified store.

pub mod compress;
pub mod digest;
pub mod manifest;
pub mod name;
pub mod platform;
pub mod tar;
