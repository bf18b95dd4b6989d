//! A tar archive with blobs whose sizes are not known before. The header of a blob is written behind its content, so
//! a destination that is no regular file gets a copy of a finished archive.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Kind, Result};
use rustix::io::Errno;

use super::{Outgoing, Written, blobs};
use crate::source::unnamed_file;
use crate::target::{self, Target};

/// The size of a block of a tar, in bytes.
const BLOCK: u64 = 512;

/// An archive that is being written.
pub struct Archive {
    path: PathBuf,
    target: Target,
    file: File,
    /// The length of the archive so far, in bytes.
    end: u64,
}

impl Archive {
    /// Starts an archive that becomes `path`, or goes to stdout for `-`. The copy for a path that is no regular file
    /// is in `scratch`.
    pub fn create(path: &Path, scratch: &Path) -> Result<Self> {
        let target = target::open(path)?;
        let file = match &target {
            Target::File(output) => File::from(output.fd.try_clone().op("dup")?),
            Target::Stream(_) => unnamed_file(scratch)?,
        };
        Ok(Self { path: path.to_owned(), target, file, end: 0 })
    }

    /// Adds a blob under the name that `name` gives it.
    pub fn blob(
        &mut self,
        blob: &Outgoing<'_>,
        name: impl FnOnce(&Written) -> String,
    ) -> Result<Written> {
        self.file.seek(SeekFrom::Start(self.end + BLOCK)).on("seek", &self.path)?;
        let written = blobs::copy(blob, &mut self.file, &self.path)?;
        self.close_entry(&name(&written), written.size)?;
        Ok(written)
    }

    /// Adds a small file.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.end + BLOCK)).on("seek", &self.path)?;
        self.file.write_all(bytes).on("write", &self.path)?;
        self.close_entry(name, bytes.len() as u64)
    }

    /// Writes the header of the entry whose content stands at the end of the file.
    fn close_entry(&mut self, name: &str, size: u64) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).on("write", &self.path)?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        let padding = size.next_multiple_of(BLOCK) - size;
        let zeros = vec![0; usize::try_from(padding).unwrap_or_default()];
        self.file.write_all(&zeros).on("write", &self.path)?;
        self.file.write_all_at(header.as_bytes(), self.end).on("write", &self.path)?;
        self.end += BLOCK + size + padding;
        Ok(())
    }

    /// Writes the end of the archive, and lets it appear.
    pub fn finish(mut self, no_sync: bool) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.end)).on("seek", &self.path)?;
        self.file.write_all(&[0; 2 * BLOCK as usize]).on("write", &self.path)?;
        match self.target {
            Target::File(output) => {
                if !no_sync {
                    self.file.sync_all().on("sync", &self.path)?;
                }
                output.publish()
            }
            Target::Stream(mut to) => {
                self.file.seek(SeekFrom::Start(0)).on("seek", &self.path)?;
                let copied = io::copy(&mut self.file, &mut to).map(drop);
                // The reader of the archive has what it needs.
                let is_closed = |e: &Error| e.errno() == Some(Errno::PIPE.raw_os_error());
                copied.on("write", &self.path).map_err(|error| {
                    if is_closed(&error) { error.of_kind(Kind::Quiet) } else { error }
                })
            }
        }
    }
}
