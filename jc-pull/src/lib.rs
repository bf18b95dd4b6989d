//! Container images, from registries and layouts into a verified store.

pub mod auth;
pub mod compress;
pub mod digest;
pub mod http;
pub mod manifest;
pub mod name;
pub mod platform;
pub mod settle;
pub mod source;
pub mod sys;
pub mod tar;
pub mod tree;
pub mod unpack;
