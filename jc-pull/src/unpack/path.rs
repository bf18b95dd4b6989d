//! The names of entries.

use jc_unshare::{Error, Result};

pub const WHITEOUT: &[u8] = b".wh.";
pub const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Files of AUFS in old layers. Hard links may lead to files in the last one.
pub const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// Whether a path is a file of AUFS, or below one.
pub fn is_aufs(components: &[&[u8]]) -> bool {
    components.first().is_some_and(|first| AUFS.contains(first))
}

/// The components of a path. A path with `..` is an error, since readers differ about its meaning.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let parts = path.split(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b"."));
    let parts: Vec<&[u8]> = parts.collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(Error::new("the name leads upwards"));
    }
    Ok(parts)
}
