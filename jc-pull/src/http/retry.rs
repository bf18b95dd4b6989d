//! Attempts and the pauses between them.

use std::sync::OnceLock;
use std::time::Duration;

use jc_unshare::temporary::random;
use jc_unshare::{Error, strerror};
use reqwest::header::RETRY_AFTER;

use super::fault::Fault;
use super::pool::Response;
use crate::cancel::Cancel;

/// The first pause. Each pause is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(400);
/// The longest pause that the server does not ask for.
const LONGEST: Duration = Duration::from_secs(15);
/// A server that asks for a longer pause ends the attempts.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The function that reports the fault before a pause, so that a pull which waits is not silent.
static REPORT: OnceLock<fn(&Error)> = OnceLock::new();

/// Sets the function that reports the fault before each pause.
pub fn report_pauses(report: fn(&Error)) {
    REPORT.get_or_init(|| report);
}

/// The attempts at one object that are left.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    left: u32,
    done: u32,
}

impl Retry {
    /// `times` is the number of attempts after the first.
    pub const fn new(times: u32) -> Self {
        Self { left: times, done: 0 }
    }

    /// Makes attempts with pauses between them, until one succeeds. The last fault comes back if the fault
    /// is not transient, no attempt is left, or the image has failed.
    pub fn run<T>(
        &mut self,
        cancel: &Cancel,
        mut attempt: impl FnMut() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        loop {
            let fault = match attempt() {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            let pause = if fault.transient { self.next(fault.retry_after) } else { None };
            let Some(pause) = pause else { return Err(fault) };
            if let Some(report) = REPORT.get() {
                let seconds = pause.as_secs_f64();
                report(&Error::new(format_args!(
                    "{}: another attempt in {seconds:.1} s",
                    fault.error
                )));
            }
            cancel.sleep(pause).map_err(|e| Fault::permanent(Error::new(strerror(&e))))?;
        }
    }

    /// The pause before the next attempt. The result is `None` if no attempt is left.
    fn next(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        if retry_after.is_some_and(|retry_after| retry_after > MAX_RETRY_AFTER) {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let pause = FIRST.saturating_mul(1 << self.done.min(8)).min(LONGEST);
        self.done += 1;
        // Many clients that failed together do not retry together.
        let jitter = pause.mul_f64(0.5 + (random() % 1000) as f64 / 1000.0);
        Some(retry_after.map_or(jitter, |retry_after| retry_after.max(FIRST)))
    }
}

/// The seconds of `Retry-After`. Registries do not use the form with a date.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut retry = Retry::new(8);
        let mut pauses = Vec::new();
        while let Some(pause) = retry.next(None) {
            pauses.push(pause);
        }
        assert_eq!(pauses.len(), 8);
        for (n, pause) in pauses.iter().enumerate() {
            let middle = FIRST.saturating_mul(1 << n).min(LONGEST);
            assert!((middle / 2..=middle * 3 / 2).contains(pause), "{n}: {pause:?}");
        }
    }

    #[test]
    fn a_server_may_ask_for_a_pause_that_is_not_too_long() {
        let mut retry = Retry::new(2);
        assert_eq!(retry.next(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(retry.next(Some(Duration::ZERO)), Some(FIRST));
        assert_eq!(Retry::new(2).next(Some(Duration::from_secs(61))), None);
    }
}
