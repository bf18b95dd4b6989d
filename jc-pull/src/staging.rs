//! The work directory of a pull, made with the first layer or document that the pull writes.

use std::os::fd::OwnedFd;

use jc_unshare::{Context, Error, Result};

use crate::manifest::Descriptor;
use crate::store::{Store, Work};
use crate::sums::Sums;
use crate::sys;
use crate::writeback::Writeback;

/// The work directory, after its creation.
pub struct Staging<'a> {
    store: &'a Store,
    no_sync: bool,
    work: Option<Work<'a>>,
    /// Absent if data is not synced.
    writeback: Option<Writeback>,
    layers: usize,
}

/// The empty directory and the empty sums of one layer.
pub struct StagedLayer {
    /// The number in the work directory.
    pub number: usize,
    pub root: OwnedFd,
    pub sums: Sums,
}

impl<'a> Staging<'a> {
    pub const fn new(store: &'a Store, no_sync: bool) -> Self {
        Self { store, no_sync, work: None, writeback: None, layers: 0 }
    }

    /// The work directory, which is made if it is absent. A read-only store is an error.
    pub fn work(&mut self) -> Result<&Work<'a>> {
        if self.work.is_none() {
            let work = self.store.work()?;
            if !self.no_sync {
                let own = sys::open_dir_to_read(work.fd(), ".").op("open work directory")?;
                self.writeback = Some(Writeback::new(own));
            }
            self.work = Some(work);
        }
        self.work.as_ref().ok_or_else(|| Error::new("no work directory"))
    }

    pub fn writeback(&self) -> Option<Writeback> {
        self.writeback.clone()
    }

    /// An error if this process cannot unpack layers: an ordinary user can neither give files away nor write where the
    /// modes of an image forbid it.
    pub fn check_user() -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(Error::new("cannot unpack layers as an ordinary user").hint(sys::OWNERS_HINT))
    }

    /// Makes the directory and the sums of a layer that comes as `blob`.
    pub fn make_layer(&mut self, blob: &Descriptor) -> Result<StagedLayer> {
        Self::check_user()?;
        let number = self.layers;
        self.layers += 1;
        let work = self.work()?;
        Ok(StagedLayer {
            number,
            root: work.make_layer(number)?,
            sums: work.make_sums(number, blob)?,
        })
    }
}
