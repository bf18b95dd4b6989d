//! The bodies of answers, none of them without a bound.

use std::io::Read;
use std::time::Instant;

use jc_unshare::{Error, strerror};
use reqwest::Method;

use super::fault::{Fault, failed, root_cause};
use super::pool::Response;
use crate::cancel::Cancel;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Reads a whole body of at most `most` bytes. A body that is longer is an error, and so is one that
/// has not ended at `until`.
pub fn read_body(
    response: &mut Response,
    most: usize,
    until: Instant,
    cancel: &Cancel,
) -> Result<Vec<u8>, Fault> {
    let url = response.url().clone();
    let fault = |why: &str| failed(&Method::GET, &url, why);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let n = response.read(&mut buffer).map_err(|e| Fault::passing(fault(&root_cause(&e))))?;
        bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if bytes.len() > most {
            return Err(Fault::lasting(fault(&format!("an answer of more than {most} bytes"))));
        }
        if n == 0 {
            return Ok(bytes);
        }
        if Instant::now() > until {
            return Err(Fault::passing(fault("too slow")));
        }
        let given_up = |e| Fault::lasting(Error::new(strerror(&e)));
        cancel.check().map_err(given_up)?;
    }
}
