//! `--status-fd`: a line of JSON for each thing that happens to a container.

use std::fs::File;
use std::io::{self, Write};

use jc_unshare::{Error, Result, strerror, sys};
use serde_json::{Value, json};

/// Who is told.
#[derive(Debug, Default)]
pub struct Events(Option<File>);

impl Events {
    /// Takes over the descriptor of that number.
    pub fn open(number: Option<u32>) -> Result<Self> {
        let Some(number) = number else { return Ok(Self(None)) };
        if number <= 2 {
            return Err(Error::usage(format_args!(
                "--status-fd {number}: that one is the program's"
            )));
        }
        let fd = sys::take_fd(number)
            .map_err(|e| Error::usage(format_args!("--status-fd {number}: {}", strerror(&e))))?;
        Ok(Self(Some(fd.into())))
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
