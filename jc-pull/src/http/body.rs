//! The bodies of answers, with limits for bytes and time.

use std::io::Read;
use std::time::Instant;

use jc_unshare::{Error, strerror};
use reqwest::Method;

use super::fault::{Fault, failed, root_cause};
use super::pool::Response;
use crate::cancel::Cancel;

/// The bytes of one read.
const PIECE: usize = 64 << 10;

/// Reads a whole body. A body of more than `max` bytes is an error, and so is a body that has not ended
/// at `until`.
pub fn read_body(
    response: &mut Response,
    max: usize,
    until: Instant,
    cancel: &Cancel,
) -> Result<Vec<u8>, Fault> {
    let url = response.url().clone();
    let fault = |why: &str| failed(&Method::GET, &url, why);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let n = response.read(&mut buffer).map_err(|e| Fault::temporary(fault(&root_cause(&e))))?;
        bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if bytes.len() > max {
            return Err(Fault::permanent(fault(&format!("an answer of more than {max} bytes"))));
        }
        if n == 0 {
            return Ok(bytes);
        }
        if Instant::now() > until {
            return Err(Fault::temporary(fault("too slow")));
        }
        let given_up = |e| Fault::permanent(Error::new(strerror(&e)));
        cancel.check().map_err(given_up)?;
    }
}
