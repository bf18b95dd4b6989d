//! A reader in a thread of its own, with a short queue.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};

use crate::cancel::{Cancel, TICK};

/// The bytes of one piece.
const PIECE: usize = 128 << 10;
/// The pieces in the queue.
const AHEAD: usize = 3;

/// The reading end. After a cancel it fails soon, even while the thread waits for the network. The thread
/// ends with its wait or with the process.
pub struct Pipe {
    pieces: Receiver<io::Result<Vec<u8>>>,
    used: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    cancel: Cancel,
}

impl Pipe {
    /// Starts a thread that reads from the result of `open`. An error is that of a thread that cannot be
    /// made.
    pub fn new<R: Read>(
        open: impl FnOnce() -> io::Result<R> + Send + 'static,
        cancel: Cancel,
    ) -> io::Result<Self> {
        Self::start(cancel, move |sender, spare| {
            open().and_then(|mut reader| pump(&mut reader, sender, &spare))
        })
    }

    /// Starts a thread that executes `write`, and reads the bytes that it writes. An error is that of a
    /// thread that cannot be made.
    pub fn of_writer(
        write: impl FnOnce(&mut PieceWriter<'_>) -> io::Result<()> + Send + 'static,
        cancel: Cancel,
    ) -> io::Result<Self> {
        Self::start(cancel, move |sender, spare| {
            let mut writer = PieceWriter { sender, spare, piece: Vec::with_capacity(PIECE) };
            write(&mut writer)?;
            writer.flush()?;
            // The empty piece marks the end.
            writer.flush_always()
        })
    }

    fn start(
        cancel: Cancel,
        work: impl FnOnce(&SyncSender<io::Result<Vec<u8>>>, Receiver<Vec<u8>>) -> io::Result<()>
        + Send
        + 'static,
    ) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(AHEAD);
        let (used, spare) = channel();
        std::thread::Builder::new().spawn(move || {
            if let Err(e) = work(&sender, spare) {
                // The send fails if the reading end is gone.
                let _: Result<(), _> = sender.send(Err(e));
            }
        })?;
        Ok(Self { pieces, used, piece: Vec::new(), at: 0, ended: false, cancel })
    }

    fn next(&mut self) -> io::Result<()> {
        // The thread fills the buffer again, if the thread still runs.
        let _: Result<(), _> = self.used.send(std::mem::take(&mut self.piece));
        self.at = 0;
        loop {
            self.cancel.check()?;
            match self.pieces.recv_timeout(TICK) {
                Ok(piece) => {
                    self.piece = piece.inspect_err(|_| self.ended = true)?;
                    self.ended = self.piece.is_empty();
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

/// Reads to the end. An empty piece marks the end.
fn pump(
    reader: &mut impl Read,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        // Small pieces cost more context switches than they save time.
        while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match reader.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        piece.truncate(filled);
        if sender.send(Ok(piece)).is_err() || filled == 0 {
            return Ok(());
        }
    }
}

/// The writing end of a pipe, in a thread of its own.
pub struct PieceWriter<'a> {
    sender: &'a SyncSender<io::Result<Vec<u8>>>,
    spare: Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl PieceWriter<'_> {
    fn flush_always(&mut self) -> io::Result<()> {
        let mut next = self.spare.try_recv().unwrap_or_default();
        next.clear();
        next.reserve(PIECE);
        let piece = std::mem::replace(&mut self.piece, next);
        self.sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PieceWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.piece.len() == PIECE {
            self.flush_always()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.flush_always() }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() && !self.ended {
            self.next()?;
        }
        Ok(self.piece.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.piece.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_through_in_order() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        for length in [0, 1, PIECE, PIECE + 1, bytes.len()] {
            let content = bytes[..length].to_vec();
            let mut pipe =
                Pipe::new(move || Ok(io::Cursor::new(content)), Cancel::default()).unwrap();
            let mut found = Vec::new();
            pipe.read_to_end(&mut found).unwrap();
            assert!(found == bytes[..length], "{length}");
            assert_eq!(pipe.fill_buf().unwrap(), b"");
        }
    }

    #[test]
    fn a_thread_that_writes_is_read_to_its_end() {
        for length in [0, 1, PIECE, PIECE + 1, 1_000_000] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let copy = bytes.clone();
            let write = move |writer: &mut PieceWriter<'_>| writer.write_all(&copy);
            let mut pipe = Pipe::of_writer(write, Cancel::default()).unwrap();
            let mut found = Vec::new();
            pipe.read_to_end(&mut found).unwrap();
            assert!(found == bytes, "{length}");
        }
        let fail = |writer: &mut PieceWriter<'_>| {
            writer.write_all(b"some")?;
            Err(io::Error::other("broken"))
        };
        let mut pipe = Pipe::of_writer(fail, Cancel::default()).unwrap();
        let mut found = Vec::new();
        assert_eq!(pipe.read_to_end(&mut found).unwrap_err().to_string(), "broken");
    }

    #[test]
    fn errors_come_through_behind_the_bytes_before_them() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    Err(io::Error::other("broken"))
                } else {
                    Ok(buffer.len())
                }
            }
        }
        let mut pipe = Pipe::new(|| Ok(Broken(false)), Cancel::default()).unwrap();
        let mut found = Vec::new();
        assert_eq!(pipe.read_to_end(&mut found).unwrap_err().to_string(), "broken");
        assert_eq!(found.len(), PIECE);
    }

    #[test]
    fn giving_up_does_not_wait_for_the_far_end() {
        struct Stuck;
        impl Read for Stuck {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                std::thread::park();
                Ok(0)
            }
        }
        let cancel = Cancel::default();
        let mut pipe = Pipe::new(|| Ok(Stuck), cancel.clone()).unwrap();
        cancel.give_up();
        assert!(pipe.fill_buf().is_err());
    }
}
