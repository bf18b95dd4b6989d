//! The bytes of one blob, over several connections if some fail.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use jc_unshare::{Error, Result, strerror};
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;

use crate::cancel::Cancel;
use crate::http::{Fault, Options, Response, Retry, root_cause};

/// The lowest rate, in bytes a second, at which a blob may come for any time. A slower blob uses up its [`Patience`].
const SLOWEST: u64 = 16 << 10;

/// Makes one attempt to get a blob from a byte on. The answer of a server that does not know ranges begins at the
/// first byte.
pub type Connect = Box<dyn Fn(u64) -> Result<Response, Fault> + Send>;

/// Reads a blob from its first byte to its last, over as many connections as there are attempts.
pub struct Blob {
    connect: Connect,
    size: u64,
    cancel: Cancel,
    /// Absent between attempts and after the end, so that the next request gets the connection.
    body: Option<Response>,
    has_ended: bool,
    /// The bytes at the start of this body that an earlier body has delivered. They are passed over.
    repeated: u64,
    received: u64,
    retry: Retry,
    patience: Patience,
}

/// The time that a blob may still keep its reader waiting. Waits subtract from the time, and bytes add to
/// it, up to its initial value.
struct Patience {
    left: Duration,
    most: Duration,
}

impl Patience {
    const fn new(most: Duration) -> Self {
        Self { left: most, most }
    }

    /// Subtracts a wait, and adds for the bytes that the wait brought. `false` if no time is left.
    fn spend(&mut self, waited: Duration, bytes: usize) -> bool {
        let earned = (bytes as u64).saturating_mul(1_000_000_000) / SLOWEST;
        let left = self.left.saturating_add(Duration::from_nanos(earned)).checked_sub(waited);
        self.left = left.unwrap_or_default().min(self.most);
        left.is_some()
    }
}

impl Blob {
    /// Connects. Errors are those of the last attempt to get an answer.
    pub fn start(connect: Connect, size: u64, options: &Options, cancel: Cancel) -> Result<Self> {
        let mut retry = Retry::new(options.retries);
        let body = retry.run(&cancel, || connect(0)).map_err(|fault| fault.error)?;
        Ok(Self {
            connect,
            size,
            cancel,
            body: Some(body),
            has_ended: false,
            repeated: 0,
            received: 0,
            retry,
            patience: Patience::new(options.patience()),
        })
    }

    /// Makes one attempt to get the bytes that are missing.
    fn reconnect(&mut self) -> Result<(), Fault> {
        let response = (self.connect)(self.received)?;
        self.repeated = self.received;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let start =
                range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            if start != Some(self.received) {
                let (received, range) = (self.received, range.unwrap_or("none"));
                let why = format_args!("asked for bytes from {received}, got range {range:?}");
                return Err(Fault::permanent(Error::new(why)));
            }
            self.repeated = 0;
        }
        self.body = Some(response);
        Ok(())
    }

    /// Reads new bytes from one connection. Zero bytes are the end of the blob.
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        loop {
            self.cancel.check().map_err(|e| Fault::permanent(Error::new(strerror(&e))))?;
            let n = self.read_body(buffer)?;
            let repeated = self.repeated.min(n as u64) as usize;
            self.repeated -= repeated as u64;
            buffer.copy_within(repeated..n, 0);
            let (received, size) = (self.received, self.size);
            match n - repeated {
                0 if n > 0 => {}
                0 if received < size => {
                    let why = format_args!("ends after {received} of {size} bytes");
                    return Err(Fault::temporary(Error::new(why)));
                }
                new => return Ok(new),
            }
        }
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        if self.body.is_none() {
            self.reconnect()?;
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        let start = Instant::now();
        let n = body.read(buffer).map_err(|e| {
            let timeout =
                e.kind() == io::ErrorKind::TimedOut || root_cause(&e).contains("timed out");
            let why = if timeout { "no more bytes in time".to_owned() } else { root_cause(&e) };
            Fault::temporary(Error::new(format_args!("after {} bytes: {why}", self.received)))
        });
        let came = n.as_ref().map_or(0, |n| *n);
        if !self.patience.spend(start.elapsed(), came) {
            let why = format_args!("too slow: {} bytes in all that time", self.received);
            return Err(Fault::permanent(Error::new(why)));
        }
        n
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.has_ended {
            return Ok(0);
        }
        let (mut retry, cancel) = (self.retry, self.cancel.clone());
        let outcome = retry.run(&cancel, || {
            let outcome = self.attempt(buffer);
            if !matches!(outcome, Ok(1..)) {
                self.body = None;
            }
            match outcome {
                // The digest decides about a blob with all its bytes.
                Err(_) if self.received == self.size => Ok(0),
                outcome => outcome,
            }
        });
        self.retry = retry;
        let n = outcome.map_err(|fault| io::Error::other(fault.error.to_string()))?;
        self.received += n as u64;
        self.has_ended = n == 0;
        Ok(n)
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
