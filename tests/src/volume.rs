//! The volume of tests, and pseudo-random numbers.

use std::env;
use std::time::Duration;

/// The factor for the number of kills, starts and rounds: `JC_TEST_VOLUME`, or 1.
pub fn volume() -> u32 {
    let set = env::var("JC_TEST_VOLUME").unwrap_or_else(|_| "1".to_owned());
    set.parse().unwrap_or_else(|_| panic!("JC_TEST_VOLUME={set}: not a number"))
}

/// Pseudo-random numbers, the same for the same seed (Knuth's MMIX generator).
pub struct Random(pub u64);

impl Random {
    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0 >> 32) * u128::from(limit)) >> 32) as u64
    }

    /// A time below the limit.
    pub fn time_below(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(self.below(limit.as_nanos() as u64))
    }
}
