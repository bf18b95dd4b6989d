//! `--status-fd`: the events of a container (jc(7)).

use jc_unshare::Result;
use jc_unshare::events::StatusFd;
use serde_json::{Value, json};

use crate::TOOL;

/// The descriptor for the events of a container, if the caller gives one.
#[derive(Debug, Default)]
pub struct Events(Option<StatusFd>);

impl Events {
    /// Uses the descriptor with this number. The chain does not inherit the descriptor.
    pub fn open(number: Option<u32>) -> Result<Self> {
        let open = |number| StatusFd::open(TOOL, number)?.close_on_exec();
        number.map(open).transpose().map(Self)
    }

    /// Writes an event with more members.
    pub fn report(&self, event: &str, id: &str, more: Value) {
        let Some(status) = self.0 else { return };
        let mut object = json!({ "id": id });
        if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
            object.extend(more.clone());
        }
        // The container matters more than an error of this write.
        let _: Result<()> = status.write(event, &object.to_string());
    }
}
