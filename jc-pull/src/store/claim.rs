//! `tmp/claim-LAYER`: a file that the pull of a layer holds a lock on, so that other pulls wait for the layer.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Result, lock};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::{Store, TMP};
use crate::cancel::{Cancel, TICK};
use crate::sys;

/// The longest wait for other pulls, which may have been stopped.
const PATIENCE: Duration = Duration::from_secs(600);

/// The layers that a pull has claimed. The drop of this value ends the claims.
pub struct Claims<'a> {
    store: &'a Store,
    own: BTreeMap<String, OwnedFd>,
    /// The layers that other pulls have claimed before.
    others: BTreeMap<String, OwnedFd>,
}

impl Store {
    /// Claims layers for this pull in one step, so that pulls wait for earlier ones only, and never for each other.
    pub fn claim(&self, layers: impl IntoIterator<Item = String>) -> Result<Claims<'_>> {
        let tmp = self.path.join(TMP);
        let step = sys::open_dir_to_read(&self.tmp, ".").on("open", &tmp)?;
        lock::exclude(&step, &tmp)?;
        let mut claims = Claims { store: self, own: BTreeMap::new(), others: BTreeMap::new() };
        for layer in layers {
            let (file, is_own) = self.try_claim(&layer).on("claim", tmp.join(claim(&layer)))?;
            if is_own { &mut claims.own } else { &mut claims.others }.insert(layer, file);
        }
        Ok(claims)
    }

    /// Opens the file of a layer, and tries to lock it.
    fn try_claim(&self, layer: &str) -> rustix::io::Result<(OwnedFd, bool)> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let mode = Mode::RUSR | Mode::WUSR;
            let file = rustix::fs::openat(&self.tmp, claim(layer), flags, mode)?;
            let is_own = lock::try_exclude(&file)?;
            // A pull that ends removes the file first. The pulls that wait for its lock must not wait for this one.
            if !is_own || rustix::fs::fstat(&file)?.st_nlink > 0 {
                return Ok((file, is_own));
            }
        }
    }
}

impl Claims<'_> {
    /// The layers that other pulls have claimed before.
    pub const fn others(&self) -> &BTreeMap<String, OwnedFd> {
        &self.others
    }

    /// Waits for the other pulls, at most [`PATIENCE`]: each publishes its layers, or ends. Returns the layers of the
    /// others.
    pub fn wait(&mut self, cancel: &Cancel) -> Vec<String> {
        let start = Instant::now();
        let wait = |(layer, file): (String, OwnedFd)| {
            // An error of flock(2) ends the wait, and the layer is fetched twice. The lock ends with `file`, since this
            // pull may wait for a pull that waits for the same lock.
            while let Ok(false) = lock::try_exclude(&file) {
                if start.elapsed() > PATIENCE || cancel.sleep(TICK).is_err() {
                    break;
                }
            }
            layer
        };
        std::mem::take(&mut self.others).into_iter().map(wait).collect()
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        for layer in self.own.keys() {
            // The sweep of the next pull removes a file that stays.
            let _: rustix::io::Result<()> =
                rustix::fs::unlinkat(&self.store.tmp, claim(layer), AtFlags::empty());
        }
    }
}

fn claim(layer: &str) -> String {
    format!("claim-{layer}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::scope;

    /// Each thread is like a pull: locks belong to descriptors.
    #[test]
    fn a_claim_has_its_file_until_it_ends() {
        let dir = std::env::temp_dir().join(format!("jc-claims-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let store = Store::open(&dir).unwrap();
        let claim_often = || {
            for _ in 0..3000 {
                let claims = store.claim(["a", "b"].map(str::to_owned)).unwrap();
                let has_name = |file| rustix::fs::fstat(file).unwrap().st_nlink > 0;
                assert!(claims.own.values().all(has_name));
                store.sweep().unwrap();
                assert!(claims.own.values().all(has_name));
            }
        };
        scope(|scope| (0..4).for_each(|_| drop(scope.spawn(claim_often))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
