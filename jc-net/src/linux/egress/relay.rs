//! Moving bytes from one socket to another by splice(2), through a pipe and not through memory of this
//! process.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// The most bytes that one call moves.
const CHUNK: usize = 1 << 20;
/// The room that is asked for in a pipe, in bytes: packets of a network card fill it one page each.
const ROOM: usize = 256 << 10;
/// The calls that a connection makes before other connections have their turn.
pub const TURN: usize = 16;
/// The most empty pipes that are kept.
const MOST_PIPES: usize = 32;

/// A socket, which epoll(7) reports when its state changes.
#[derive(Debug)]
pub struct Side {
    /// The socket, which does not block.
    pub fd: OwnedFd,
    /// Whether a read may have something: bytes, the end or an error.
    pub readable: bool,
    /// Whether a write may have room.
    pub writable: bool,
}

impl Side {
    /// A socket of which nothing is known yet.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, readable: false, writable: false }
    }
}

/// The two ends of a pipe.
type Pipe = (OwnedFd, OwnedFd);

/// Pipes without bytes in them. A connection has one only while bytes wait in it.
#[derive(Debug, Default)]
pub struct Pipes(Vec<Pipe>);

impl Pipes {
    fn take_pipe(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user who has many pipes gets no larger ones (pipe(7)); those work too.
        let _ = fcntl_setpipe_size(&pipe.0, ROOM);
        Ok(pipe)
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        if self.0.len() < MOST_PIPES {
            self.0.push(pipe);
        }
    }
}

/// A direction of a connection.
#[derive(Debug, Default)]
pub struct Flow {
    pipe: Option<Pipe>,
    /// The number of bytes in the pipe.
    held: usize,
    /// The number of bytes that have been moved.
    pub moved: u64,
    /// Whether the end has been read, and passed on.
    pub is_over: bool,
}

/// The reason for which a flow has stopped for now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// A socket has nothing, or no room. epoll(7) reports when that changes.
    Waits,
    /// Other connections have their turn.
    Turn,
}

impl Flow {
    /// Moves the bytes that are there. Error: one of the sockets is broken.
    pub fn pump(
        &mut self,
        from: &mut Side,
        to: &mut Side,
        pipes: &mut Pipes,
    ) -> Result<Stop, Errno> {
        for _ in 0..TURN {
            if self.held == 0 && !self.fill(from, pipes)? {
                return Ok(Stop::Waits);
            }
            if self.held == 0 {
                return self.end(to).map(|()| Stop::Waits);
            }
            if !self.drain(to)? {
                return Ok(Stop::Waits);
            }
            if let Some(pipe) = self.pipe.take_if(|_| self.held == 0) {
                pipes.return_pipe(pipe);
            }
        }
        Ok(Stop::Turn)
    }

    /// Fills the pipe, which is empty, so that EAGAIN is about the socket. Returns whether there were bytes or
    /// the end, which leaves the pipe empty.
    fn fill(&mut self, from: &mut Side, pipes: &mut Pipes) -> Result<bool, Errno> {
        if self.is_over || !from.readable {
            return Ok(false);
        }
        let pipe = pipes.take_pipe()?;
        let fill = || splice(&from.fd, None, &pipe.1, None, CHUNK, SpliceFlags::NONBLOCK);
        let filled = retry_on_intr(fill);
        if let Ok(length @ 1..) = filled {
            (self.held, self.pipe) = (length, Some(pipe));
            return Ok(true);
        }
        pipes.return_pipe(pipe);
        from.readable = filled != Err(Errno::AGAIN);
        match filled {
            Err(Errno::AGAIN) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Empties the pipe. Returns whether all is written.
    fn drain(&mut self, to: &mut Side) -> Result<bool, Errno> {
        while let Some((reader, _)) = self.pipe.as_ref().filter(|_| self.held > 0 && to.writable) {
            let held = self.held;
            let drain = || splice(reader, None, &to.fd, None, held, SpliceFlags::NONBLOCK);
            match retry_on_intr(drain) {
                Ok(length) => {
                    self.held -= length;
                    self.moved += length as u64;
                }
                Err(Errno::AGAIN) => to.writable = false,
                Err(errno) => return Err(errno),
            }
        }
        Ok(self.held == 0)
    }

    /// Passes the end on.
    pub fn end(&mut self, to: &mut Side) -> Result<(), Errno> {
        self.is_over = true;
        match shutdown(to.fd.as_fd(), Shutdown::Write) {
            // The other side has reset the connection, which a read reports.
            Err(Errno::NOTCONN) => Ok(()),
            other => other,
        }
    }
}
