//! A look into a pipe.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

/// Copies up to `length` bytes of a pipe, and leaves them there, by tee(2). The result is empty at the end of the
/// input, and `None` if the descriptor cannot be read in this way.
pub fn peek(fd: BorrowedFd<'_>, length: usize) -> io::Result<Option<Vec<u8>>> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut copy = match tee(fd, &writer, length, SpliceFlags::empty()) {
        Ok(available) => vec![0; available],
        Err(Errno::INVAL | Errno::NOSYS) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !copy.is_empty() {
        let length = read(&reader, &mut copy)?;
        copy.truncate(length);
    }
    Ok(Some(copy))
}
