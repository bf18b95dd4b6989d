//! The bytes of one blob, over as many connections as there may be attempts.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jc_unshare::{Error, Result};
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::CONTENT_RANGE;

use super::Registry;
use crate::cancel::Cancel;
use crate::http::{Fault, Retry, root_cause};
use crate::manifest::Descriptor;

/// The bytes that make up for a second of waiting.
const SLOWEST: u64 = 16 << 10;

/// Reads a blob from the first byte to the last, and goes on where a connection broke.
pub struct Blob {
    registry: Arc<Registry>,
    descriptor: Descriptor,
    cancel: Cancel,
    body: Option<Response>,
    /// Bytes of the body that were read from an earlier one.
    repeated: u64,
    seen: u64,
    retry: Retry,
    patience: Patience,
}

/// The time that a blob may still keep its reader waiting. Waiting uses it up, and bytes that come
/// fill it again, up to its size at the start.
struct Patience {
    left: Duration,
    most: Duration,
}

impl Patience {
    const fn new(most: Duration) -> Self {
        Self { left: most, most }
    }

    /// Takes a wait that brought so many bytes; false if there is no patience left.
    fn spend(&mut self, waited: Duration, bytes: usize) -> bool {
        let earned = (bytes as u64).saturating_mul(1_000_000_000) / SLOWEST;
        let left = self.left.saturating_add(Duration::from_nanos(earned)).checked_sub(waited);
        self.left = left.unwrap_or_default().min(self.most);
        left.is_some()
    }
}

impl Blob {
    /// Connects, so that errors of the first answer show here.
    pub fn start(registry: Arc<Registry>, descriptor: Descriptor, cancel: Cancel) -> Result<Self> {
        let options = registry.http().options();
        let retry = Retry::new(options.retries);
        let patience = Patience::new(options.patience());
        let (body, repeated, seen) = (None, 0, 0);
        let mut blob = Self { registry, descriptor, cancel, body, repeated, seen, retry, patience };
        while let Err(fault) = blob.connect() {
            blob.retry.wait(fault, &blob.cancel).map_err(|fault| fault.error)?;
        }
        Ok(blob)
    }

    /// Makes one attempt to get the bytes that are missing.
    fn connect(&mut self) -> Result<(), Fault> {
        let response = self.registry.blob_from(&self.descriptor, self.seen)?;
        self.repeated = self.seen;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let start =
                range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            if start != Some(self.seen) {
                let (seen, range) = (self.seen, range.unwrap_or("none"));
                let why = format_args!("asked for bytes from {seen}, got range {range:?}");
                return Err(Fault::lasting(Error::new(why)));
            }
            self.repeated = 0;
        }
        self.body = Some(response);
        Ok(())
    }

    /// Reads once. Bytes that were read before are dropped and count as none.
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Fault> {
        let Some(body) = self.body.as_mut() else { return self.connect().map(|()| None) };
        let passing = |why: String| Fault::passing(Error::new(why));
        let start = Instant::now();
        let n = body.read(buffer).map_err(|e| {
            let timeout =
                e.kind() == io::ErrorKind::TimedOut || root_cause(&e).contains("timed out");
            let why = if timeout { "no more bytes in time".to_owned() } else { root_cause(&e) };
            passing(format!("after {} bytes: {why}", self.seen))
        });
        let came = n.as_ref().map_or(0, |n| *n);
        if !self.patience.spend(start.elapsed(), came) {
            let why = format_args!("too slow: {} bytes in all that time", self.seen);
            return Err(Fault::lasting(Error::new(why)));
        }
        let n = n?;
        let repeated = self.repeated.min(n as u64) as usize;
        self.repeated -= repeated as u64;
        buffer.copy_within(repeated..n, 0);
        let (seen, size) = (self.seen, self.descriptor.size);
        match n - repeated {
            0 if n > 0 => Ok(None),
            0 if seen < size => Err(passing(format!("ends after {seen} of {size} bytes"))),
            new => Ok(Some(new)),
        }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            self.cancel.check()?;
            let fault = match self.attempt(buffer) {
                Ok(Some(n)) => {
                    self.seen += n as u64;
                    return Ok(n);
                }
                Ok(None) => continue,
                Err(fault) => fault,
            };
            // All of it is here; the digest decides.
            if self.seen == self.descriptor.size {
                return Ok(0);
            }
            self.body = None;
            let waited = self.retry.wait(fault, &self.cancel);
            waited.map_err(|fault| io::Error::other(fault.error.to_string()))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_where_too_few_bytes_come() {
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(second * 4);
        for _ in 0..100 {
            assert!(patience.spend(second, 16 << 10), "bytes make up for the wait");
        }
        assert!(patience.spend(second / 10, 1 << 30), "no more than at the start is saved up");
        assert!(patience.spend(second * 3, 0));
        assert!(!patience.spend(second * 2, 1));
    }
}
