//! Tar archives of layers: ustar, GNU and pax (POSIX.1-2001).
//!
//! The writer uses the `tar` crate. The reader is code of this package, since layers are hostile. Raw
//! entries of `tar` 0.4 take the position of the next entry from the header alone, although a pax `size`
//! decides about it (CVE-2025-62518), and leave out the blocks of old sparse maps. `tar-core` 0.1 has no
//! times before 1970 and no fractions of seconds, ignores a record without a length, and prefers pax
//! paths to GNU's long names.

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

/// A time since the epoch.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, less than 10⁹.
    pub nanoseconds: u32,
}

/// The type of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryKind {
    File,
    /// The path of an earlier entry.
    HardLink(Vec<u8>),
    /// The target of a symbolic link.
    Symlink(Vec<u8>),
    /// Major and minor number.
    Char(u32, u32),
    /// Major and minor number.
    Block(u32, u32),
    Directory,
    Fifo,
}

/// An entry of an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The path in its original form.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// Permissions with the bits for setuid, setgid and sticky.
    pub mode: RawMode,
    pub uid: u32,
    pub gid: u32,
    /// The length of a file with its holes, in bytes.
    pub size: u64,
    pub mtime: Time,
    /// Extended attributes, names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
