//! Container images, from registries and layouts into a verified store.
//!
//! [`resolve`] finds out what a name stands for, and [`pull`] sees to the layers. The way of a layer,
//! in [`stream`]: [`source`] → [`digest`] → [`compress`] → diff-id → [`tar`] → [`unpack`] into a
//! directory of its own; [`settle`] gives it what it takes from those beneath, and [`store`] makes it
//! visible once all of it has been verified.

pub mod auth;
pub mod beneath;
pub mod beside;
pub mod cancel;
pub mod check;
pub mod cli;
pub mod compress;
pub mod credentials;
pub mod digest;
pub mod files;
pub mod flatten;
pub mod fuzz;
pub mod http;
pub mod implied;
pub mod in_use;
pub mod limits;
pub mod manage;
pub mod manifest;
pub mod merge;
pub mod name;
pub mod pack;
pub mod parallel;
pub mod pipe;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod registries;
pub mod resolve;
pub mod rootless;
pub mod settle;
pub mod source;
pub mod store;
pub mod stream;
pub mod sums;
pub mod sys;
pub mod tar;
pub mod tree;
pub mod unpack;
pub mod way;
pub mod writeback;
