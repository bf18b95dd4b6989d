//! Cancellation: an image that fails ends the work for itself, and for the images behind it on the command line.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The longest time between two looks at whether work has to end.
pub const TICK: Duration = Duration::from_millis(50);

/// The cancellation of the work for one image.
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
    /// The cancellation for the image with this number on the command line.
    #[must_use]
    pub fn for_image(&self, image: usize) -> Self {
        Self { given_up: Arc::clone(&self.given_up), image }
    }

    /// Ends the work for this image and for the images after it.
    pub fn give_up(&self) {
        self.given_up.fetch_min(self.image, Ordering::Relaxed);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) <= self.image
    }

    /// An error if the work has to end.
    pub fn check(&self) -> io::Result<()> {
        if self.is_given_up() { Err(io::Error::other("given up")) } else { Ok(()) }
    }

    /// Sleeps. An error if the work has to end meanwhile.
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
