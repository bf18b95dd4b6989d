//! Container images, from registries and layouts into a verified store.
//!
//! The way of a layer: [`source`] → [`digest`] → [`compress`] → diff-id → [`tar`] → [`unpack`] into
//! a directory of its own; [`settle`] gives it what it takes from those beneath, and [`store`] makes
//! it visible once all of it has been verified.

pub mod auth;
pub mod beneath;
pub mod cli;
pub mod compress;
pub mod digest;
pub mod http;
pub mod limits;
pub mod manifest;
pub mod name;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod settle;
pub mod source;
pub mod store;
pub mod sys;
pub mod tar;
pub mod tree;
pub mod unpack;
