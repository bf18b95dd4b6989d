//! Compression of layers in several threads.
//!
//! A layer is compressed in blocks of the same size, each a gzip member or a zstd frame of its own: the concatenation
//! is a valid stream (RFC 1952, 2.2; RFC 8878, 3), and its bytes do not depend on the number of threads.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use crate::parallel::lock;
use flate2::bufread::GzEncoder;

/// The bytes of a block.
const BLOCK: usize = 1 << 20;

/// The level of gzip if none is given: below the usual 6, for less time at the cost of a longer result.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// The form of new layers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compression {
    Gzip(u32),
    Zstd(i32),
    None,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip(GZIP_LEVEL)
    }
}

impl FromStr for Compression {
    type Err = String;

    /// Parses `gzip[:LEVEL]`, `zstd[:LEVEL]` or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let level = |default: i32, highest: i32| match level {
            None => Ok(default),
            Some(level) => {
                let level = level.parse().ok().filter(|n| (1..=highest).contains(n));
                level.ok_or_else(|| format!("not a level from 1 to {highest}"))
            }
        };
        match name {
            "gzip" => Ok(Self::Gzip(level(GZIP_LEVEL.cast_signed(), 9)?.cast_unsigned())),
            "zstd" => Ok(Self::Zstd(level(ZSTD_LEVEL, 19)?)),
            "none" if text == "none" => Ok(Self::None),
            _ => Err("not gzip[:LEVEL], zstd[:LEVEL] or none".to_owned()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Compression {
    /// The media type of a layer (image-spec layer.md).
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Gzip(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }

    /// Starts threads that compress `tar`. Errors are those of threads that cannot be made.
    pub fn start(self, tar: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::None => Ok(tar),
            _ => Ok(Box::new(Encoder::start(self, tar)?)),
        }
    }

    fn block(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(level) => {
                let mut packed = Vec::with_capacity(bytes.len() / 2);
                let level = flate2::Compression::new(level);
                GzEncoder::new(bytes, level).read_to_end(&mut packed)?;
                Ok(packed)
            }
            Self::Zstd(level) => zstd::bulk::compress(bytes, level),
            Self::None => Ok(bytes.to_vec()),
        }
    }
}

/// A block and the place for its result.
type Job = (Vec<u8>, Sender<io::Result<Vec<u8>>>);

/// Reads the compressed bytes. The threads end with this value, or with the tar.
struct Encoder {
    /// The results of the blocks, in their order.
    results: Receiver<Receiver<io::Result<Vec<u8>>>>,
    block: Vec<u8>,
    at: usize,
    has_ended: bool,
}

impl Encoder {
    fn start(compression: Compression, tar: Box<dyn Read + Send>) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        // A block for each thread, and one that waits.
        let (queue, results) = sync_channel(threads + 1);
        let (jobs, waiting) = sync_channel::<Job>(1);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new().spawn(move || work(compression, &waiting))?;
        }
        std::thread::Builder::new().spawn(move || feed(tar, &queue, &jobs))?;
        Ok(Self { results, block: Vec::new(), at: 0, has_ended: false })
    }
}

/// Compresses blocks until there are no more.
fn work(compression: Compression, waiting: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is free while a block is compressed.
        let job = lock(waiting).recv();
        let Ok((block, result)) = job else { return };
        // The send fails if the reader of the results is gone.
        let _: Result<(), _> = result.send(compression.block(&block));
    }
}

/// Divides a tar into blocks.
fn feed(
    mut tar: Box<dyn Read + Send>,
    queue: &SyncSender<Receiver<io::Result<Vec<u8>>>>,
    jobs: &SyncSender<Job>,
) {
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let outcome = tar.by_ref().take(BLOCK as u64).read_to_end(&mut block);
        let (result, receiver) = channel();
        if queue.send(receiver).is_err() {
            return;
        }
        match outcome {
            // The end. The send fails if the reader of the results is gone.
            Ok(0) => drop(result.send(Ok(Vec::new()))),
            Ok(_) => {
                if jobs.send((block, result)).is_ok() {
                    continue;
                }
            }
            // The reader of the results may be gone.
            Err(e) => drop(result.send(Err(e))),
        }
        return;
    }
}

impl Read for Encoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.has_ended {
            let broken = |_| io::Error::other("a thread of the compression has ended");
            self.block = self.results.recv().map_err(broken)?.recv().map_err(broken)??;
            (self.at, self.has_ended) = (0, self.block.is_empty());
        }
        let n = self.block.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Decoder;

    fn encode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let tar = Box::new(io::Cursor::new(bytes.to_vec()));
        let mut packed = Vec::new();
        compression.start(tar).unwrap().read_to_end(&mut packed).unwrap();
        packed
    }

    #[test]
    fn a_compressed_tar_is_the_tar_again_and_the_same_each_time() {
        let bytes: Vec<u8> = (0..BLOCK * 5 + 77).map(|n| (n * n / 1000 % 251) as u8).collect();
        for compression in [Compression::default(), Compression::Zstd(3), Compression::None] {
            for length in [1, BLOCK - 1, BLOCK, BLOCK + 1, bytes.len()] {
                let packed = encode(compression, &bytes[..length]);
                let mut found = Vec::new();
                Decoder::new(packed.as_slice()).unwrap().read_to_end(&mut found).unwrap();
                assert!(found == bytes[..length], "{compression:?} {length}");
                assert!(packed == encode(compression, &bytes[..length]), "{compression:?}");
            }
        }
    }

    #[test]
    fn an_error_of_the_tar_comes_through() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += buffer.len();
                if self.0 > 3 * BLOCK { Err(io::Error::other("broken")) } else { Ok(buffer.len()) }
            }
        }
        let mut encoder = Compression::default().start(Box::new(Broken(0))).unwrap();
        let error = io::copy(&mut encoder, &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }

    #[test]
    fn levels_have_bounds() {
        for (text, found) in [
            ("gzip", Some(Compression::default())),
            ("gzip:9", Some(Compression::Gzip(9))),
            ("zstd", Some(Compression::Zstd(3))),
            ("zstd:19", Some(Compression::Zstd(19))),
            ("none", Some(Compression::None)),
            ("gzip:0", None),
            ("gzip:10", None),
            ("zstd:20", None),
            ("none:1", None),
            ("xz", None),
        ] {
            assert_eq!(text.parse::<Compression>().ok(), found, "{text}");
            let again = found.map(|form| form.to_string().parse::<Compression>());
            assert_eq!(again, found.map(Ok), "{text}");
        }
    }
}
