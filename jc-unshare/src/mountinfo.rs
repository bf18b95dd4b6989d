//! Lines of mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The fields of a line. Paths have the escapes of the kernel, which [`unescape`] decodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MountInfo<'a> {
    /// The ID of the mount.
    pub id: &'a str,
    /// The ID of the mount that this one is in.
    pub parent: &'a str,
    /// The directory of the file system that is mounted.
    pub root: &'a str,
    /// The path of the mount point.
    pub point: &'a str,
    /// The optional fields, separated by spaces: the peer groups.
    pub optional: &'a str,
    /// The type of the file system.
    pub kind: &'a str,
    /// The options of the file system.
    pub options: &'a str,
}

impl<'a> MountInfo<'a> {
    /// Parses a line. `None`: the line lacks a field.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.splitn(7, ' ');
        let (id, parent, root) = (fields.next()?, fields.next()?, fields.nth(1)?);
        let (point, _, optional) = (fields.next()?, fields.next()?, fields.next());
        let mut fields = file_system.splitn(3, ' ');
        let (kind, _, options) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            id,
            parent,
            root,
            point,
            optional: optional.unwrap_or_default(),
            kind,
            options,
        })
    }
}

/// Decodes an octal escape like `\040`. A backslash in front of another character stands for that character, as in
/// options of overlayfs.
pub fn unescape(field: &str) -> PathBuf {
    let mut decoded = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        rest = match (first, octal) {
            (b'\\', Some(byte)) => {
                decoded.push(byte);
                after.get(3..).unwrap_or_default()
            }
            (b'\\', None) => {
                decoded.extend(after.first());
                after.get(1..).unwrap_or_default()
            }
            (byte, _) => {
                decoded.push(*byte);
                after
            }
        };
    }
    OsString::from_vec(decoded).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_into_its_fields() {
        let line = "36 35 98:0 /r /m\\040p rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue";
        let mount = MountInfo::parse(line).unwrap();
        assert_eq!((mount.id, mount.parent), ("36", "35"));
        assert_eq!((mount.root, mount.point), ("/r", "/m\\040p"));
        assert_eq!(mount.optional, "shared:1 master:2");
        assert_eq!((mount.kind, mount.options), ("ext3", "rw,errors=continue"));
        let private = MountInfo::parse("30 1 0:26 / / rw - overlay jc rw").unwrap();
        assert_eq!((private.point, private.optional, private.kind), ("/", "", "overlay"));
        for broken in ["", "30 1 0:26 / / rw", "30 1 - x y z", "30 1 0:26 / / rw - ext4 x"] {
            assert_eq!(MountInfo::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn escapes_are_decoded() {
        for (field, path) in
            [("/a\\040b\\134", "/a b\\"), ("/d\\:e", "/d:e"), ("/x\\", "/x"), ("/\\777", "/777")]
        {
            assert_eq!(unescape(field), PathBuf::from(path), "{field}");
        }
    }
}
