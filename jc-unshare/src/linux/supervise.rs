//! The waiting link: a parent that behaves as if its child had been executed in its place. The parent forwards
//! signals, follows stops and continues, and exits as the child does. When the parent is killed, the child dies too.

pub use super::child::Child;
pub use super::exit::Exit;
pub use super::lifeline::Lifeline;
pub use super::poll::{Poller, are_ready, at_end, readable};
pub use super::spawn::{Execution, NewChild};
