//! What an overlay of layers shows, walked without mounting one.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use jc_unshare::{Error, Result, strerror};
use rustix::fs::{FileType, Stat};

use crate::sys;

/// Takes what is shown, parents before what is in them.
pub trait Visitor {
    /// A directory, before all in it; `""` is the root.
    fn directory(&mut self, path: &[u8], directory: &OwnedFd, stat: &Stat) -> Result<()>;

    /// Anything else, in its directory of its layer. `first` is the path under which it was seen
    /// before, if it has several names.
    fn other(&mut self, entry: &Other<'_>) -> Result<()>;

    /// All in the directory has been shown.
    fn leave(&mut self, path: &[u8], stat: &Stat) -> Result<()>;
}

/// What is no directory.
pub struct Other<'a> {
    /// Its path from the root.
    pub path: &'a [u8],
    /// Its directory, in the layer that shows it.
    pub parent: &'a OwnedFd,
    /// Its name there.
    pub name: &'a [u8],
    /// What stat(2) says of it.
    pub stat: &'a Stat,
    /// Where the same file was before.
    pub first: Option<&'a [u8]>,
}

/// Shows the merged `layers`, the uppermost first.
pub fn walk(layers: &[OwnedFd], visitor: &mut dyn Visitor) -> Result<()> {
    let mut roots = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let root = sys::open_dir(layer, b".").map_err(|e| fault(b"", e))?;
        let opaque = sys::is_opaque(&root);
        roots.push((number, root));
        if opaque {
            break;
        }
    }
    Walk { visitor, links: BTreeMap::new() }.directory(b"", &roots)
}

fn fault(path: &[u8], e: rustix::io::Errno) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::new(format_args!("read /{path}: {}", strerror(&e.into())))
}

struct Walk<'a> {
    visitor: &'a mut dyn Visitor,
    /// Files with several names, by layer and inode: where they were first.
    links: BTreeMap<(usize, u64), Vec<u8>>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &[u8], merged: &[(usize, OwnedFd)]) -> Result<()> {
        let Some((_, top)) = merged.first() else { return Ok(()) };
        let stat = rustix::fs::fstat(top).map_err(|e| fault(path, e))?;
        self.visitor.directory(path, top, &stat)?;
        // Each name, and the uppermost place that has it.
        let mut names = BTreeMap::<Vec<u8>, usize>::new();
        for (place, (_, directory)) in merged.iter().enumerate() {
            sys::for_each_name(directory, |name| {
                names.entry(name.to_vec()).or_insert(place);
                Ok(())
            })
            .map_err(|e| fault(path, e))?;
        }
        for (name, place) in names {
            let rest = merged.get(place..).unwrap_or_default();
            let below = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            self.entry(&below, &name, rest)?;
        }
        self.visitor.leave(path, &stat)
    }

    fn entry(&mut self, path: &[u8], name: &[u8], places: &[(usize, OwnedFd)]) -> Result<()> {
        let Some((layer, parent)) = places.first() else { return Ok(()) };
        let stat = sys::stat(parent, name).map_err(|e| fault(path, e))?;
        if sys::is_whiteout(&stat) {
            return Ok(());
        }
        if sys::file_type(&stat) == FileType::Directory {
            return self.directory(path, &merge(path, name, places)?);
        }
        let key = (*layer, stat.st_ino);
        let first = self.links.get(&key).cloned();
        if stat.st_nlink > 1 && first.is_none() {
            self.links.insert(key, path.to_vec());
        }
        self.visitor.other(&Other { path, parent, name, stat: &stat, first: first.as_deref() })
    }
}

/// The directories of that name which are shown as one: down to an opaque one, or to where there is
/// something else.
fn merge(path: &[u8], name: &[u8], places: &[(usize, OwnedFd)]) -> Result<Vec<(usize, OwnedFd)>> {
    use rustix::io::Errno;
    let mut merged = Vec::new();
    for (layer, parent) in places {
        match sys::open_dir(parent, name) {
            Ok(directory) => {
                let opaque = sys::is_opaque(&directory);
                merged.push((*layer, directory));
                if opaque {
                    break;
                }
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(e) => return Err(fault(path, e)),
        }
    }
    Ok(merged)
}
