//! POSIX access control lists. Archives have them as text (`SCHILY.acl.access` and `.default`, by star,
//! GNU tar and bsdtar), and Linux has them as an extended attribute (acl(5), linux/posix_acl_xattr.h).

/// The attribute of a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory for the files that are made in it.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
/// The ID of entries without one.
const NO_ID: u32 = u32::MAX;

/// Tag, ID and permissions. Entries are sorted by tag.
type Entry = (u16, u32, u16);

/// The value of the attribute: empty for a list that the mode expresses. The result is `None` for a
/// malformed list, and for a user or group without a number.
pub fn encode(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let lines = text.split([',', '\n']).map(without_comment).filter(|line| !line.is_empty());
    let mut entries = lines.map(entry).collect::<Option<Vec<Entry>>>()?;
    entries.sort_unstable();
    if entries.iter().all(|(_, id, _)| *id == NO_ID) && entries.len() <= 3 {
        return Some(Vec::new());
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Some(value)
}

/// The entry in front of `#`. The comment has the effective permissions.
fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// `TAG:[QUALIFIER]:PERMISSIONS[:NUMBER]`.
fn entry(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split(':').collect();
    let (tag, qualifier, permissions, number) = match fields[..] {
        [tag, qualifier, permissions] => (tag, qualifier, permissions, None),
        [tag, qualifier, permissions, number] => (tag, qualifier, permissions, Some(number)),
        // "mask:rwx" and "other:rwx" may lack the empty field.
        [tag, permissions] => (tag, "", permissions, None),
        _ => return None,
    };
    let tag = match (tag, qualifier) {
        ("user" | "u", "") => 0x01,
        ("user" | "u", _) => 0x02,
        ("group" | "g", "") => 0x04,
        ("group" | "g", _) => 0x08,
        ("mask" | "m", "") => 0x10,
        ("other" | "o", "") => 0x20,
        _ => return None,
    };
    let id = if qualifier.is_empty() { NO_ID } else { number.unwrap_or(qualifier).parse().ok()? };
    let bits = permissions.chars().try_fold(0, |bits, c| match c {
        'r' => Some(bits | 4),
        'w' => Some(bits | 2),
        'x' => Some(bits | 1),
        '-' => Some(bits),
        _ => None,
    })?;
    Some((tag, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for (tag, bits, id) in entries {
            value.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn lists_are_read_as_archivers_write_them() {
        let lisa = value(&[
            (1, 6, NO_ID),
            (2, 5, 1000),
            (2, 7, 70_000),
            (4, 4, NO_ID),
            (8, 0, 5),
            (16, 5, NO_ID),
            (32, 0, NO_ID),
        ]);
        for text in [
            "user::rw-,user:1000:r-x,user:70000:rwx\t#effective:r-x,group::r--,group:5:---,mask::r-x,\
             other::---\n",
            "other::---\nmask::r-x\nuser:x:rwx:70000\nuser:lisa:r-x:1000\ngroup:tty:---:5\n\
             group::r--\nuser::rw-\n",
            "u::rw,u:1000:rx,u:70000:rwx,g::r,g:5:-,m:rx,o:-",
        ] {
            assert_eq!(encode(text.as_bytes()).as_ref(), Some(&lisa), "{text}");
        }
        assert_eq!(encode(b"user::rw-,group::r--,other::r--\n"), Some(Vec::new()));
        assert_eq!(encode(b""), Some(Vec::new()));
        for text in ["user:lisa:rwx", "user", "user::q", "a:b:c:d:e", "mask:x:r", "user:1:r:x"] {
            assert_eq!(encode(text.as_bytes()), None, "{text}");
        }
    }
}
