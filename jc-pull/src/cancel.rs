//! Giving up: when one image fails, what is under way for it and for those behind it stops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often who waits looks whether to give up.
pub const TICK: Duration = Duration::from_millis(50);

/// Tells one image's work to stop.
#[derive(Clone, Debug)]
pub struct Cancel {
    given_up: Arc<AtomicUsize>,
    image: usize,
}

impl Default for Cancel {
    fn default() -> Self {
        Self { given_up: Arc::new(AtomicUsize::new(usize::MAX)), image: 0 }
    }
}

impl Cancel {
    /// The same for the image at that place on the command line.
    #[must_use]
    pub fn for_image(&self, image: usize) -> Self {
        Self { given_up: Arc::clone(&self.given_up), image }
    }

    /// Gives up this image and those behind it.
    pub fn give_up(&self) {
        self.given_up.fetch_min(self.image, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) <= self.image
    }

    /// An error if it is time to stop.
    pub fn check(&self) -> io::Result<()> {
        if self.is_given_up() { Err(io::Error::other("given up")) } else { Ok(()) }
    }

    /// Waits, but not for what is given up.
    pub fn sleep(&self, how_long: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            self.check()?;
            match how_long.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(TICK)),
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stops_its_own_image_and_those_behind() {
        let all = Cancel::default();
        let images: Vec<Cancel> = (0..3).map(|n| all.for_image(n)).collect();
        images[1].give_up();
        let stopped: Vec<bool> = images.iter().map(Cancel::is_given_up).collect();
        assert_eq!(stopped, [false, true, true]);
        assert!(images[2].sleep(Duration::from_secs(60)).is_err());
        images[0].sleep(Duration::from_millis(1)).unwrap();
    }
}
