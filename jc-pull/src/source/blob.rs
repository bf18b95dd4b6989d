//! One blob's bytes, however many connections they take.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jc_unshare::Error;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::CONTENT_RANGE;

use super::Registry;
use crate::cancel::Cancel;
use crate::digest::invalid;
use crate::http::{Retry, root_cause};
use crate::manifest::Descriptor;

/// A blob that comes slower than this, in bytes per second, does not come.
const SLOWEST: u64 = 16 << 10;
/// As much progress makes up for a failure before it, in bytes.
const PROGRESS: u64 = 1 << 20;

/// Reads a blob from the first byte to the last, going on where a connection broke.
pub struct Blob {
    registry: Arc<Registry>,
    descriptor: Descriptor,
    cancel: Cancel,
    body: Option<Response>,
    seen: u64,
    retry: Retry,
    /// Where `retry` began to count.
    since: u64,
    deadline: Instant,
}

impl Blob {
    /// `first` is the answer to a request for all of it.
    pub fn new(
        registry: Arc<Registry>,
        descriptor: Descriptor,
        first: Response,
        cancel: Cancel,
    ) -> Self {
        let options = registry.http().options();
        let patience = options.timeout.saturating_mul(super::WHOLE_CALL);
        let allowed = patience.saturating_add(Duration::from_secs(descriptor.size / SLOWEST));
        let now = Instant::now();
        let deadline =
            now.checked_add(allowed).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        let retry = Retry::new(options.retries);
        Self { registry, descriptor, cancel, body: Some(first), seen: 0, retry, since: 0, deadline }
    }

    fn open(&mut self) -> io::Result<()> {
        let failed = |e: Error| io::Error::other(e.to_string());
        let mut response =
            self.registry.blob_from(&self.descriptor, self.seen, &self.cancel).map_err(failed)?;
        let mut rest = self.seen;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let start =
                range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            if start != Some(self.seen) {
                let range = range.unwrap_or("none");
                let message = format!("asked for bytes from {}, got range {range:?}", self.seen);
                return Err(invalid(message));
            }
            rest = 0;
        }
        // All of it again: what is known already is passed over.
        let skipped = io::copy(&mut response.by_ref().take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(io::Error::other(format!("ends after {skipped} bytes")));
        }
        self.body = Some(response);
        Ok(())
    }

    /// Waits before the next attempt, or gives the failure back if there is none.
    fn pause(&mut self, error: io::Error) -> io::Result<()> {
        self.body = None;
        if error.kind() == io::ErrorKind::InvalidData {
            return Err(error);
        }
        if self.seen >= self.since + PROGRESS {
            self.retry = Retry::new(self.registry.http().options().retries);
        }
        self.since = self.seen;
        match self.retry.next(None) {
            Some(pause) => self.cancel.sleep(pause),
            None => Err(error),
        }
    }

    fn attempt(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.body.is_none() {
            self.open()?;
        }
        let body = self.body.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
        let n = body.read(buffer).map_err(|e| {
            let timeout =
                e.kind() == io::ErrorKind::TimedOut || root_cause(&e).contains("timed out");
            let why = if timeout { "no more bytes in time".to_owned() } else { root_cause(&e) };
            io::Error::other(format!("after {} bytes: {why}", self.seen))
        })?;
        if n == 0 && self.seen < self.descriptor.size {
            let (seen, size) = (self.seen, self.descriptor.size);
            return Err(io::Error::other(format!("ends after {seen} of {size} bytes")));
        }
        Ok(n)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            self.cancel.check()?;
            if Instant::now() > self.deadline {
                let message = format!("too slow: {} bytes in all that time", self.seen);
                return Err(io::Error::other(message));
            }
            match self.attempt(buffer) {
                Ok(n) => {
                    self.seen += n as u64;
                    return Ok(n);
                }
                // All of it is here; the digest will tell.
                Err(_) if self.seen == self.descriptor.size => return Ok(0),
                Err(e) => self.pause(e)?,
            }
        }
    }
}
