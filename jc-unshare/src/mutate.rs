//! Mutations of seeds for tests of parsers, the same in each run.

use std::io;
use std::path::PathBuf;

/// A generator of pseudo-random numbers (xorshift64).
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// The next number. 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// The content of the files in a directory, sorted by name.
pub fn seeds(directory: &str) -> io::Result<Vec<Vec<u8>>> {
    let paths = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Changes bytes in up to five places. `special` are bytes that have a meaning for the parser.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random, special: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let byte = special.get(random.below(special.len())).copied().unwrap_or_default();
        match (random.below(6), bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, _) => bytes.insert(at.min(bytes.len()), byte),
            (2, Some(_)) => drop(bytes.remove(at)),
            (3, Some(old)) => *old ^= 1 << random.below(8),
            (4, Some(_)) => {
                let end = (at + random.below(600)).min(bytes.len());
                let piece = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.splice(at..at, piece);
            }
            (_, Some(old)) => *old = byte,
            (_, None) => {}
        }
    }
}
