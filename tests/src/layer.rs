//! Layers made to order, header by header, so that they can have any hostile form.

use std::collections::BTreeMap;

use tar::{Builder, EntryType, Header};

/// The default mtime, a second in 2001.
pub const MTIME: u64 = 1_000_000_000;

/// An entry of a layer under construction, with the fields of its header.
#[derive(Clone)]
pub struct Entry {
    path: String,
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: Option<(u32, u32)>,
    link: String,
    content: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    fn new(path: &str, kind: EntryType, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            mode,
            owner: (0, 0),
            mtime: MTIME,
            device: None,
            link: String::new(),
            content: Vec::new(),
            xattrs: BTreeMap::new(),
        }
    }

    /// A directory, mode 755.
    pub fn dir(path: &str) -> Self {
        Self::new(path, EntryType::Directory, 0o755)
    }

    /// A regular file, mode 644.
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), ..Self::new(path, EntryType::Regular, 0o644) }
    }

    /// A symbolic link to a target.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::new(path, EntryType::Symlink, 0o777) }
    }

    /// A hard link to an earlier file of the layer.
    pub fn hardlink(path: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::new(path, EntryType::Link, 0o644) }
    }

    /// A character device, mode 600.
    pub fn device(path: &str, major: u32, minor: u32) -> Self {
        Self { device: Some((major, minor)), ..Self::new(path, EntryType::Char, 0o600) }
    }

    /// A block device, mode 600.
    pub fn block_device(path: &str, major: u32, minor: u32) -> Self {
        Self { device: Some((major, minor)), ..Self::new(path, EntryType::Block, 0o600) }
    }

    /// A named pipe, mode 600.
    pub fn fifo(path: &str) -> Self {
        Self::new(path, EntryType::Fifo, 0o600)
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the owner and the group.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Sets the mtime, in seconds.
    #[must_use]
    pub fn mtime(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }

    /// Adds an extended attribute, in the pax form of GNU tar and Docker.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.insert(name.to_owned(), value.to_vec());
        self
    }
}

/// A layer as a tar archive.
pub struct Layer {
    builder: Builder<Vec<u8>>,
    raw: Option<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { builder: Builder::new(Vec::new()), raw: None }
    }
}

impl Layer {
    /// A layer without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry with any name. A name that is too long for the header, or contains bytes that a header cannot
    /// have, is in a pax record in front of the entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        let mut header = Header::new_ustar();
        let mut pax: Vec<(String, Vec<u8>)> =
            entry.xattrs.iter().map(|(k, v)| (format!("SCHILY.xattr.{k}"), v.clone())).collect();
        let ustar = header.as_ustar_mut().unwrap();
        if !fits(&mut ustar.name, &entry.path) {
            pax.push(("path".to_owned(), entry.path.clone().into()));
        }
        if !fits(&mut ustar.linkname, &entry.link) {
            pax.push(("linkpath".to_owned(), entry.link.clone().into()));
        }
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(entry.mtime);
        header.set_size(entry.content.len() as u64);
        if let Some((major, minor)) = entry.device {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        header.set_cksum();
        let pax = pax.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        self.builder.append_pax_extensions(pax).unwrap();
        self.builder.append(&header, entry.content.as_slice()).unwrap();
        self
    }

    /// Adds a regular file, mode 644.
    #[must_use]
    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(Entry::file(path, content))
    }

    /// Adds a directory with this mode.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(Entry::dir(path).mode(mode))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::symlink(path, target))
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(Entry::hardlink(path, target))
    }

    /// Adds pax records for the next entry.
    #[must_use]
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.builder.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// Adds several entries in order.
    #[must_use]
    pub fn extend(self, entries: impl IntoIterator<Item = Entry>) -> Self {
        entries.into_iter().fold(self, Self::entry)
    }

    /// A layer of these bytes, which need not be an archive.
    pub fn raw(bytes: Vec<u8>) -> Self {
        Self { raw: Some(bytes), ..Self::default() }
    }

    /// The finished tar archive.
    pub fn into_tar(self) -> Vec<u8> {
        self.raw.unwrap_or_else(|| self.builder.into_inner().unwrap())
    }
}

/// Writes the start of a name into a field of a header. Returns whether the whole name fits.
fn fits(field: &mut [u8; 100], name: &str) -> bool {
    let n = name.len().min(field.len());
    field[..n].copy_from_slice(&name.as_bytes()[..n]);
    name.len() <= field.len()
}
