//! `--status-fd`: a line of JSON for each thing that happens to a container.

use std::fs::File;
use std::io::{self, Write};

use jc_unshare::{Result, info};
use serde_json::{Value, json};

/// Who is told.
#[derive(Debug, Default)]
pub struct Events(Option<File>);

impl Events {
    /// Takes over the descriptor of that number.
    pub fn open(number: Option<u32>) -> Result<Self> {
        let fd = number.map(|number| info::take(number, "--status-fd")).transpose()?;
        Ok(Self(fd.map(File::from)))
    }

    /// Tells what a container has become, and more about that.
    pub fn tell(&mut self, status: &str, id: &str, more: Value) {
        let Some(file) = &mut self.0 else { return };
        let mut event = json!({ "status": status, "id": id });
        if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
            event.extend(more.clone());
        }
        // Who has stopped listening need not be told.
        let _: io::Result<()> = writeln!(file, "{event}");
    }
}
