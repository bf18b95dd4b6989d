//! Directories, files and all other entries but hard links.

use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::sync::Once;

use jc_unshare::{Error, Result, strerror, userns};
use rustix::fs::{Dev, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::metadata::{chown, set_xattrs};
use super::path::WHITEOUT;
use super::state::{State, unsaved};
use crate::cli::TOOL;
use crate::sys;
use crate::tar::{Entry, Reader};

impl State {
    pub fn root(&mut self, entry: &Entry) -> Result<()> {
        self.set_directory_metadata(b".", entry, true)
    }

    pub fn directory(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let plain = Mode::from_raw_mode(entry.mode & 0o1777);
        let inherits = self.tree.is_setgid();
        let (fd, existed, replaced) = match rustix::fs::mkdirat(self.tree.fd(), name, plain) {
            Ok(()) => (sys::open_dir_to_read(self.tree.fd(), name), false, false),
            Err(Errno::EXIST) => match sys::open_dir_to_read(self.tree.fd(), name) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.remove(name)?;
                    (Ok(self.tree.make_directory(name, plain)?), false, true)
                }
                other => (other, true, false),
            },
            Err(e) => return Err(self.tree.fault("mkdir", name, e)),
        };
        let fd = fd.map_err(|e| self.tree.fault("open", name, e))?;
        if replaced {
            // The file under this name hid the lower layers, and so does the directory in its place.
            sys::set_opaque(&fd).map_err(|e| self.tree.fault("setxattr", name, e))?;
        }
        self.tree.push_existing(name, fd)?;
        self.set_directory_metadata(b".", entry, existed || inherits)
    }

    pub fn file<R: BufRead>(
        &mut self,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode);
        let fd = self.create("create", name, |fd| rustix::fs::openat(fd, name, flags, mode))?;
        let file = std::fs::File::from(fd);
        let crc = write_content(&file, entry.size, reader)?;
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        if self.needs_chown(entry) {
            chown(&file, entry).map_err(|e| fault("chown", e))?;
        }
        // Writes and chown(2) may clear these bits. A chmod(2) after security.capability would clear
        // that.
        if entry.mode & 0o6000 != 0 {
            rustix::fs::fchmod(&file, mode).map_err(|e| fault("chmod", e))?;
        }
        set_xattrs(&file, &entry.xattrs).map_err(|e| fault("setxattr", e))?;
        rustix::fs::futimens(&file, &sys::timestamps(entry.mtime))
            .map_err(|e| fault("utimens", e))?;
        self.sums.file(&self.tree.path_of(name), entry, crc).map_err(unsaved)
    }

    pub fn symlink(&mut self, name: &[u8], text: &[u8], entry: &Entry) -> Result<()> {
        self.create("symlink", name, |fd| rustix::fs::symlinkat(text, fd, name))?;
        self.set_metadata(name, entry)
    }

    pub fn node(&mut self, name: &[u8], kind: FileType, device: Dev, entry: &Entry) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        let is_device = [FileType::CharacterDevice, FileType::BlockDevice].contains(&kind);
        match self.create("mknod", name, |fd| sys::mknod(fd, name, kind, mode, device)) {
            Err(error)
                if is_device
                    && error.errno() == Some(Errno::PERM.raw_os_error())
                    && !userns::is_initial()? =>
            {
                leave_out(&self.tree.path_of(name));
                self.whiteout(name)
            }
            made => made.and_then(|_| self.set_metadata(name, entry)),
        }
    }

    /// Makes a whiteout. The order of entries does not matter: a file of this layer under the same name
    /// stays. A whiteout of no name is an error.
    pub fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        if matches!(name, b"" | b"." | b"..") || name.starts_with(WHITEOUT) {
            return Err(Error::new("a whiteout that hides nothing"));
        }
        let fault = |operation: &str, e| self.tree.fault(operation, name, e);
        let fd = self.tree.fd();
        match sys::make_whiteout(fd, name) {
            Ok(()) => sys::set_origin(fd).map_err(|e| fault("setxattr", e)),
            Err(Errno::EXIST) => match sys::open_dir_to_read(fd, name) {
                Ok(directory) => sys::set_opaque(directory).map_err(|e| fault("setxattr", e)),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(()),
                Err(e) => Err(fault("open", e)),
            },
            Err(e) => Err(fault("mknod", e)),
        }
    }
}

/// Reports the first device node that is left out: mknod(2) makes none in a user namespace, where no process could
/// open one (user_namespaces(7)).
fn leave_out(path: &[u8]) {
    static REPORT: Once = Once::new();
    let path = String::from_utf8_lossy(path);
    REPORT.call_once(|| {
        TOOL.report(&Error::new(format_args!(
            "{path}: device nodes are left out, since a user namespace cannot use them"
        )));
    });
}

/// Writes a file of `size` bytes with its holes. Returns the CRC-32 of a file without holes.
fn write_content<R: BufRead>(
    mut file: &File,
    size: u64,
    reader: &mut Reader<R>,
) -> Result<Option<u32>> {
    let mut crc = flate2::Crc::new();
    let mut whole = true;
    let broken = |e| Error::new(format_args!("write: {}", strerror(&e)));
    let mut end = 0;
    loop {
        let piece = reader.content().map_err(|e| Error::new(strerror(&e)))?;
        let n = piece.len();
        if n == 0 {
            break;
        }
        let position = reader.position();
        let piece = reader.content().map_err(|e| Error::new(strerror(&e)))?;
        if position != end {
            whole = false;
            file.seek(SeekFrom::Start(position)).map_err(broken)?;
        }
        file.write_all(piece).map_err(broken)?;
        crc.update(piece);
        reader.consume(n);
        end = position + n as u64;
    }
    if end < size {
        whole = false;
        file.set_len(size).map_err(broken)?;
    }
    Ok(whole.then(|| crc.sum()))
}
