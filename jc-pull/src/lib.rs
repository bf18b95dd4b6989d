//! Container images, from registries, layouts and archives into a verified store.
//!
//! [`cli`] is the recipe: `resolve` finds the manifest of a name, `pull` fetches the layers. The bytes of
//! a layer pass through `source`, `digest`, `compress`, `digest` again (diff-id), `tar` and `unpack` into
//! a directory of their own. `inherit` completes the directory with parts of the lower layers, and
//! `store` makes the layer visible.

mod atomic;
mod auth;
mod cancel;
pub mod changes;
mod check;
pub mod cli;
mod commit;
pub mod commit_cli;
mod compress;
mod config_edit;
mod containers;
mod copy;
mod credentials;
mod digest;
mod dir_stack;
mod documents;
mod encode;
mod flatten;
pub mod fuzz;
mod http;
mod implied;
mod in_use;
mod inherit;
mod layer_names;
mod limits;
pub mod manage;
mod manifest;
mod merged;
mod only;
mod outgoing;
mod output;
mod pack;
mod parallel;
mod pipe;
mod progress;
mod pull;
mod push;
pub mod push_cli;
mod record_input;
mod record_line;
mod registry_args;
mod resolve;
mod rewrite;
mod rootless;
mod sink;
mod source;
mod staging;
mod store;
mod stored;
mod stream;
mod sums;
mod sys;
mod tar;
mod target;
mod tree;
mod unpack;
mod walk;
mod writeback;
