//! Users and groups of the payload, by /etc/passwd and /etc/group of the root. NSS is not used, since it would load
//! libraries of the root.

use std::fs::File;
use std::path::Path;

use jc_unshare::{Error, Result, read_at_most};

/// Access to the files of a root.
pub trait Files {
    /// Opens a file with the root as "/". `None`: the file does not exist, which has the same meaning as an empty
    /// file.
    fn open(&self, path: &Path) -> Result<Option<File>>;
}

/// The IDs of the payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The user ID of the process.
    pub uid: u32,
    /// The primary group ID.
    pub gid: u32,
    /// The supplementary group IDs.
    pub groups: Vec<u32>,
}

/// The size limit of /etc/passwd and of /etc/group, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Finds the IDs of `NAME|UID[:GROUP|GID]` (`User` in OCI image-spec config.md). Without a group, the user has the
/// primary group of /etc/passwd and the groups that list the user as a member. A UID that /etc/passwd lacks has
/// group 0. A word of digits is always an ID and never a name, because the image could give UID 0 to a user of that
/// name (CVE-2016-3697). An unknown name is an error.
pub fn find(user: &str, files: &impl Files) -> Result<Identity> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    // With two numbers no file has anything to add, so a hostile one has no effect.
    if let (Some(uid), Some(gid)) = (id(user), group.and_then(id)) {
        return Ok(Identity { uid, gid, groups: Vec::new() });
    }
    let passwd = read(files, "/etc/passwd")?;
    let entry = passwd.lines().filter_map(Passwd::parse).find(|entry| entry.is(user));
    let uid = match (&entry, id(user)) {
        (_, Some(uid)) => uid,
        (Some(entry), None) => entry.uid,
        (None, None) => return Err(unknown("user", user, "/etc/passwd")),
    };
    let groups = read(files, "/etc/group")?;
    let groups: Vec<Group> = groups.lines().filter_map(Group::parse).collect();
    if let Some(group) = group {
        let gid = group_id(group, &groups)?;
        return Ok(Identity { uid, gid, groups: Vec::new() });
    }
    let gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let name = entry.map(|entry| entry.name);
    let has_user = |group: &&Group<'_>| name.is_some_and(|name| group.members.contains(&name));
    let groups = groups.iter().filter(has_user).map(|group| group.gid).collect();
    Ok(Identity { uid, gid, groups })
}

/// Finds the IDs of groups, `NAME|GID` each. An unknown name is an error.
pub fn group_ids(names: &[String], files: &impl Files) -> Result<Vec<u32>> {
    // Numbers need no file.
    if let Some(ids) = names.iter().map(|name| id(name)).collect() {
        return Ok(ids);
    }
    let groups = read(files, "/etc/group")?;
    let groups: Vec<Group> = groups.lines().filter_map(Group::parse).collect();
    names.iter().map(|name| group_id(name, &groups)).collect()
}

fn group_id(name: &str, groups: &[Group<'_>]) -> Result<u32> {
    let gid = groups.iter().find(|entry| entry.is(name)).map(|entry| entry.gid);
    gid.or(id(name)).ok_or_else(|| unknown("group", name, "/etc/group"))
}

/// The home directory of a UID, or "/" if /etc/passwd has none.
pub fn home(uid: u32, files: &impl Files) -> Result<String> {
    let passwd = read(files, "/etc/passwd")?;
    let entry = passwd.lines().filter_map(Passwd::parse).find(|entry| entry.uid == uid);
    let home = entry.map_or("/", |entry| entry.home);
    Ok(if home.is_empty() { "/" } else { home }.to_owned())
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::new(format_args!("{what} {name:?}: not in {file} of this root"))
}

/// A line of passwd(5).
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1).and_then(number)?, fields.next().and_then(number)?);
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }

    fn is(&self, user: &str) -> bool {
        is(user, self.name, self.uid)
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1).and_then(number)?;
        let members = fields.next().unwrap_or_default().split(',');
        Some(Self { name, gid, members: members.filter(|name| !name.is_empty()).collect() })
    }

    fn is(&self, group: &str) -> bool {
        is(group, self.name, self.gid)
    }
}

/// Whether an operand is the ID of an entry, or else the name.
fn is(operand: &str, name: &str, number: u32) -> bool {
    match id(operand) {
        Some(id) => id == number,
        None => !operand.is_empty() && operand == name,
    }
}

/// The ID of an operand in plain decimal digits. Operands with a sign or leading zeros, such as `+0` and `00`, are
/// names.
fn id(operand: &str) -> Option<u32> {
    number(operand).filter(|id| id.to_string() == operand)
}

/// The ID in a field of passwd(5) or group(5), where leading zeros have no effect. The largest number is no ID: to
/// setresuid(2) it means "no change".
fn number(field: &str) -> Option<u32> {
    let is_number = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    field.parse().ok().filter(|number| is_number && *number != u32::MAX)
}

fn read(files: &impl Files, path: &str) -> Result<String> {
    let Some(file) = files.open(path.as_ref())? else { return Ok(String::new()) };
    let bytes = read_at_most(file, MAX_FILE, path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    struct Root;

    impl Files for Root {
        fn open(&self, path: &Path) -> Result<Option<File>> {
            let text = match path.to_str() {
                Some("/etc/passwd") => {
                    "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:,,,:/var/www:/bin/sh\n\
                     1000:x:0:0::/odd:/bin/sh\nbare:x:5:6::\nmax:x:4294967295:0::/:\n\
                     :x:0:0::/:\n00:x:8:8::/:\nzero:x:012:013::/:\n"
                }
                Some("/etc/group") => {
                    "root:x:0:\nweb:x:34:\nssl:x:40:bare,web\nadm:x:4:web\nnot:x:9:webb\n\
                     1001:x:0:\n:x:0:\n"
                }
                _ => return Ok(None),
            };
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            Ok(Some(file))
        }
    }

    struct Empty;

    impl Files for Empty {
        fn open(&self, _: &Path) -> Result<Option<File>> {
            Ok(None)
        }
    }

    #[test]
    fn a_user_has_the_groups_that_the_files_of_the_root_give() {
        for (user, uid, gid, groups) in [
            ("root", 0, 0, vec![]),
            ("0", 0, 0, vec![]),
            ("web", 33, 34, vec![40, 4]),
            ("33", 33, 34, vec![40, 4]),
            ("web:ssl", 33, 40, vec![]),
            ("web:1234", 33, 1234, vec![]),
            ("4321", 4321, 0, vec![]),
            ("4321:34", 4321, 34, vec![]),
            ("1000", 1000, 0, vec![]),
            ("web:1001", 33, 1001, vec![]),
            ("00", 8, 8, vec![]),
            ("zero", 12, 13, vec![]),
            ("12", 12, 13, vec![]),
        ] {
            assert_eq!(find(user, &Root).unwrap(), Identity { uid, gid, groups }, "{user}");
        }
        let bare = Identity { uid: 7, gid: 8, groups: vec![] };
        assert_eq!(find("7:8", &Empty).unwrap(), bare);
    }

    #[test]
    fn an_unknown_user_or_group_is_an_error() {
        for (user, message) in [
            ("nobody", "user \"nobody\": not in /etc/passwd of this root"),
            ("", "user \"\": not in /etc/passwd of this root"),
            ("max", "user \"max\": not in /etc/passwd of this root"),
            ("-1", "user \"-1\": not in /etc/passwd of this root"),
            ("4294967295", "user \"4294967295\": not in /etc/passwd of this root"),
            ("+1", "user \"+1\": not in /etc/passwd of this root"),
            ("+0", "user \"+0\": not in /etc/passwd of this root"),
            ("000", "user \"000\": not in /etc/passwd of this root"),
            ("01", "user \"01\": not in /etc/passwd of this root"),
            (" 1", "user \" 1\": not in /etc/passwd of this root"),
            ("1 ", "user \"1 \": not in /etc/passwd of this root"),
            ("0x0", "user \"0x0\": not in /etc/passwd of this root"),
            ("4294967296", "user \"4294967296\": not in /etc/passwd of this root"),
            (":1", "user \"\": not in /etc/passwd of this root"),
            ("1:", "group \"\": not in /etc/group of this root"),
            ("1:+1", "group \"+1\": not in /etc/group of this root"),
            ("1:00", "group \"00\": not in /etc/group of this root"),
            ("1:1:1", "group \"1:1\": not in /etc/group of this root"),
            ("web:none", "group \"none\": not in /etc/group of this root"),
            ("web:", "group \"\": not in /etc/group of this root"),
        ] {
            assert_eq!(find(user, &Root).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            group_ids(&names, &Root).map_err(|e| e.to_string())
        };
        assert_eq!(ids(&["ssl", "adm", "34", "999"]), Ok(vec![40, 4, 34, 999]));
        assert_eq!(ids(&["x"]), Err("group \"x\": not in /etc/group of this root".to_owned()));
    }

    #[test]
    fn the_home_directory_is_that_of_the_first_entry_with_the_uid() {
        for (uid, expected) in [(33, "/var/www"), (0, "/root"), (5, "/"), (99, "/")] {
            assert_eq!(home(uid, &Root).unwrap(), expected);
        }
    }
}
