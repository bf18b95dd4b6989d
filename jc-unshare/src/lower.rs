//! The file `lower` beside an upper directory: the lower directories of its overlays, which an upper directory itself
//! does not name (jc-rootfs(1), "Upper directories").

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The name of the file.
pub const FILE: &str = "lower";

/// The directories that jc-rootfs makes beside the file: the upper and the work directory of the root's overlay, and
/// those of further overlays.
pub const DIRECTORIES: [&str; 3] = [UPPER, WORK, MOUNTS];
/// The upper directory of the root's overlay.
pub const UPPER: &str = "upper";
/// The work directory of the root's overlay.
pub const WORK: &str = "work";
/// A directory for each further overlay.
pub const MOUNTS: &str = "mounts";

/// The longest file, in bytes.
pub const MAX_SIZE: u64 = 4 << 20;

/// The version of the format that this code writes and reads.
pub const VERSION: u64 = 1;

/// The content of the file. A reader ignores unknown keys.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lower {
    /// The format's version, [`VERSION`].
    pub jc: u64,
    /// The user who mounted the overlays, with the number in the user namespace of the mounts. Files of root in a user
    /// namespace have other owners outside.
    pub uid: u32,
    /// The overlays, each at another path.
    pub overlays: Vec<Overlay>,
    /// Paths where something else is mounted over an overlay. The mount points may be new.
    #[serde(default)]
    pub mounts: Vec<PathText>,
    /// Directories and files of the host that overlayfs cannot have as lower directories. They are read-only.
    #[serde(default)]
    pub read_only: Vec<PathText>,
}

/// An overlay of one upper directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Overlay {
    /// The absolute path at which the payload finds the overlay.
    pub at: PathText,
    /// The upper directory, relative to the directory of the file.
    pub upper: PathText,
    /// The lower directories, the lowest first.
    pub layers: Vec<PathText>,
    /// Whether the overlay uses attributes `user.overlay`.
    pub userxattr: bool,
}

impl Lower {
    /// A file for overlays that a user mounts.
    pub fn new(uid: u32, overlays: Vec<Overlay>) -> Self {
        Self { jc: VERSION, uid, overlays, mounts: Vec::new(), read_only: Vec::new() }
    }

    /// Parses the content. Another version is an error.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let lower: Self = serde_json::from_slice(content).map_err(Error::new)?;
        match lower.jc {
            VERSION => Ok(lower),
            other => Err(Error::new(format_args!("unknown version {other}"))),
        }
    }

    /// The content of the file.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec(self).map_err(Error::new)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Adds the overlays and mounts of an earlier file, except those at the same paths, since changes at their paths stay
    /// in the upper directories.
    pub fn keep(&mut self, earlier: Self) {
        let is_new = |overlay: &Overlay| self.overlays.iter().all(|known| known.at != overlay.at);
        let kept: Vec<Overlay> = earlier.overlays.into_iter().filter(is_new).collect();
        self.overlays.extend(kept);
        let mounts: Vec<PathText> =
            earlier.mounts.into_iter().filter(|path| !self.mounts.contains(path)).collect();
        self.mounts.extend(mounts);
    }
}

/// A path in JSON: a string, or the array of the bytes of a path that is not UTF-8.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PathText(pub PathBuf);

impl<P: Into<PathBuf>> From<P> for PathText {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.as_os_str().as_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(match Form::deserialize(from)? {
            Form::Text(text) => Self(text.into()),
            Form::Bytes(bytes) => Self(OsString::from_vec(bytes).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(at: &str, layer: &str) -> Overlay {
        Overlay {
            at: at.into(),
            upper: "upper".into(),
            layers: vec![layer.into()],
            userxattr: false,
        }
    }

    #[test]
    fn a_written_file_is_read_back_whatever_bytes_its_paths_have() {
        let odd = PathBuf::from(OsString::from_vec(b"/a\xff\n".to_vec()));
        let mut lower = Lower::new(0, vec![overlay("/", "/l")]);
        lower.mounts = vec![PathText(odd), "/proc".into()];
        let json = lower.to_json().unwrap();
        assert_eq!(Lower::parse(&json).unwrap(), lower);
        let text = String::from_utf8(json).unwrap();
        assert!(text.starts_with(
            r#"{"jc":1,"uid":0,"overlays":[{"at":"/","upper":"upper","layers":["/l"],"#
        ));
        assert!(text.contains(r#""mounts":[[47,97,255,10],"/proc"]"#), "{text}");
        for broken in
            ["", "{}", r#"{"jc":2,"uid":0,"overlays":[]}"#, r#"{"jc":1,"uid":0,"overlays":[{}]}"#]
        {
            assert!(Lower::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_earlier_file_is_kept_where_no_overlay_replaces_it() {
        let mut lower = Lower::new(0, vec![overlay("/", "/new")]);
        let mut earlier = Lower::new(0, vec![overlay("/", "/old"), overlay("/home", "/home")]);
        earlier.mounts = vec!["/proc".into()];
        lower.keep(earlier);
        assert_eq!(lower.overlays, [overlay("/", "/new"), overlay("/home", "/home")]);
        assert_eq!(lower.mounts, ["/proc".into()]);
    }
}
