//! Reading tar archives as layers hold them: ustar, GNU and pax (POSIX.1-2001).
//!
//! This is a reader of its own because a layer is hostile and must come out exact: extension
//! headers are bounded here, pax values may hold newlines, and of duplicate pax records the last
//! one counts, as POSIX has it. The `tar` crate is the reference that the tests write with.

pub mod acl;
mod header;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

use rustix::fs::RawMode;

pub use reader::Reader;
pub use writer::Writer;

/// A moment, in seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below 10⁹, counted forwards.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier file: the target's path in the archive.
    HardLink(Vec<u8>),
    /// A symbolic link: its text.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member of an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The name as the archive has it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bit.
    pub mode: RawMode,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// How long a file is, in bytes, holes and all.
    pub size: u64,
    /// When it was modified.
    pub mtime: Time,
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
