//! `sums/LAYER.sent`: the blobs that jc-push has made of layers, so that a destination with the blob does not get the
//! layer again.

use std::fmt::Write as _;

use jc_unshare::{Context, Result};

use super::{SUMS, Store, read};
use crate::digest::Digest;

/// The end of the file's name, behind that of the layer.
pub const SUFFIX: &str = ".sent";

/// The longest file, in bytes.
const MAX_SENT: u64 = 64 << 10;

impl Store {
    /// The digest and the size of the blob that a push has made of a layer, in a form of [`crate::encode::Compression`].
    /// A file that is malformed has none.
    pub fn sent(&self, layer: &str, form: &str) -> Result<Option<(Digest, u64)>> {
        Ok(self.all_sent(layer)?.lines().find_map(|line| {
            let (digest, size) = line.strip_prefix(form)?.strip_prefix(' ')?.split_once(' ')?;
            Some((Digest::parse(digest).ok()?, size.parse().ok()?))
        }))
    }

    fn all_sent(&self, layer: &str) -> Result<String> {
        let name = format!("{layer}{SUFFIX}");
        let bytes = read(&self.sums, &name, MAX_SENT, &self.path.join(SUMS).join(&name))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }

    /// Keeps the digest and the size of a blob that a push has made of a layer.
    pub fn add_sent(&self, layer: &str, form: &str, digest: &Digest, size: u64) -> Result<()> {
        let others = self.all_sent(layer)?;
        let is_other = |line: &&str| line.split(' ').next() != Some(form);
        let mut lines = others.lines().filter(is_other).fold(String::new(), |mut lines, line| {
            lines.push_str(line);
            lines.push('\n');
            lines
        });
        // A string takes all that is written.
        let _: std::fmt::Result = writeln!(lines, "{form} {digest} {size}");
        let (work, name) = (self.work()?, format!("{layer}{SUFFIX}"));
        work.write(&name, lines.as_bytes())?;
        work.sync_file(&name)?;
        rustix::fs::renameat(work.fd(), &name, &self.sums, &name)
            .on("rename", self.path.join(SUMS).join(&name))
    }
}
