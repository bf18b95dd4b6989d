//! A read of exactly one line from stdin. The bytes after the line belong to the payload.

use std::io;
use std::os::fd::BorrowedFd;

use jc_unshare::record::MAX_LINE;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{FileType, SeekFrom, fstat, seek};
use rustix::io::read;

use crate::linux::peek;

/// The number of bytes of one look, which is also the default capacity of a pipe (pipe(7)).
const CHUNK: usize = 64 << 10;

/// Reads up to and including the first newline, or to the end, and no byte more. Bytes of files, sockets and pipes are
/// examined before the read. Other descriptors are read byte by byte.
pub fn one_line(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let kind = FileType::from_raw_mode(fstat(fd).op("stat stdin")?.st_mode);
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let read = match kind {
            FileType::RegularFile => from_file(fd, &mut line),
            FileType::Socket => from_socket(fd, &mut line),
            FileType::Fifo => from_pipe(fd, &mut line),
            _ => from_any(fd, &mut line),
        };
        if read.op("read stdin")? == 0 {
            break;
        }
        if line.len() > MAX_LINE {
            return Err(Error::new("read stdin: the first line is too long for a record"));
        }
    }
    Ok(line)
}

/// The number of bytes that belong to the line.
fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |newline| newline + 1)
}

fn from_file(fd: BorrowedFd<'_>, line: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = vec![0; CHUNK];
    let length = read(fd, &mut chunk)?;
    let count = line_length(&chunk[..length]);
    seek(fd, SeekFrom::Current(count as i64 - length as i64))?;
    line.extend(&chunk[..count]);
    Ok(count)
}

fn from_socket(fd: BorrowedFd<'_>, line: &mut Vec<u8>) -> io::Result<usize> {
    use rustix::net::{RecvFlags, recv};
    let mut chunk = vec![0; CHUNK];
    let (length, _) = recv(fd, &mut chunk[..], RecvFlags::PEEK)?;
    exactly(fd, line_length(&chunk[..length]), line)
}

fn from_pipe(fd: BorrowedFd<'_>, line: &mut Vec<u8>) -> io::Result<usize> {
    match peek(fd, CHUNK)? {
        Some(copy) => exactly(fd, line_length(&copy), line),
        None => from_any(fd, line),
    }
}

/// Reads one byte, or from a terminal up to one line, since a terminal returns no more.
fn from_any(fd: BorrowedFd<'_>, line: &mut Vec<u8>) -> io::Result<usize> {
    let mut byte = [0];
    let length = read(fd, &mut byte)?;
    line.extend(&byte[..length]);
    Ok(length)
}

/// Reads bytes that an earlier look has seen.
fn exactly(fd: BorrowedFd<'_>, count: usize, line: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = vec![0; count];
    let mut done = 0;
    while done < count {
        match read(fd, &mut bytes[done..])? {
            0 => break,
            n => done += n,
        }
    }
    line.extend(&bytes[..done]);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::thread::{sleep, spawn};
    use std::time::Duration;

    const TEXT: &[u8] = b"{\"jc\":1}\na\nb\n";

    fn splits(mut source: impl Read + AsFd) {
        assert_eq!(one_line(source.as_fd()).unwrap(), b"{\"jc\":1}\n");
        let mut rest = Vec::new();
        source.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"a\nb\n");
    }

    #[test]
    fn a_file_is_left_right_after_the_line() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(TEXT).unwrap();
        file.rewind().unwrap();
        splits(file);
    }

    #[test]
    fn a_pipe_is_left_right_after_the_line() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(TEXT).unwrap();
        drop(writer);
        splits(reader);
    }

    #[test]
    fn a_socket_is_left_right_after_the_line() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(TEXT).unwrap();
        drop(writer);
        splits(reader);
    }

    #[test]
    fn a_line_may_come_in_pieces_and_be_larger_than_a_pipe() {
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = spawn(move || {
            writer.write_all(&[b'x'; 200_000]).unwrap();
            sleep(Duration::from_millis(20));
            writer.write_all(b"y\nrest").unwrap();
        });
        let line = one_line(reader.as_fd()).unwrap();
        writing.join().unwrap();
        assert_eq!((line.len(), &line[199_999..]), (200_002, &b"xy\n"[..]));
    }

    #[test]
    fn the_end_ends_a_line_and_an_endless_one_is_an_error() {
        assert_eq!(one_line(File::open("/dev/null").unwrap().as_fd()).unwrap(), b"");
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(MAX_LINE as u64 + 2).unwrap();
        file.rewind().unwrap();
        assert!(one_line(file.as_fd()).is_err());
    }
}
