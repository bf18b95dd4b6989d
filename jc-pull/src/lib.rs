//! Container images, from registries and layouts into a verified store.
//!
//! [`resolve`] finds out what a name stands for, and [`pull`] sees to the layers. The way of a layer,
//! in [`stream`]: [`source`] → [`digest`] → [`compress`] → diff-id → [`tar`] → [`unpack`] into a
//! directory of its own; [`settle`] gives it what it takes from those beneath, and [`store`] makes it
//! visible once all of it has been verified.

mod atomic;
mod auth;
mod cancel;
mod check;
pub mod cli;
mod compress;
mod config_files;
mod copy;
mod credentials;
mod digest;
mod dir_stack;
mod flatten;
pub mod fuzz;
mod http;
mod implied;
mod in_use;
mod inherit;
mod layer_names;
mod limits;
mod locked;
pub mod manage;
mod manifest;
mod merged;
mod name;
mod pack;
mod parallel;
mod pipe;
mod platform;
mod progress;
mod pull;
mod record_line;
mod registries;
mod resolve;
mod rootless;
mod source;
mod staging;
mod store;
mod stream;
mod sums;
mod sys;
mod tar;
mod tree;
mod unpack;
mod walk;
mod writeback;
