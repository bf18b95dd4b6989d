//! Values of `--mount`: words in the form of fstab(5), `SRC DST TYPE OPTIONS`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use jc_unshare::Extent;

use super::values::below_root;
use crate::linux::sys::{Change, attr, propagation};

/// A mount that the command line describes in full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Word {
    /// The file of a bind mount, or the source that mountinfo shows.
    pub source: OsString,
    /// The absolute path in the root.
    pub target: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The meaning of the options.
    pub options: Options,
}

/// The options of a [`Word`], as mount(8) and the OCI's config.md name them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// `bind`, or `rbind` with the mounts below.
    pub bind: Option<Depth>,
    /// Whether the options change the mount that is at the target.
    pub is_remount: bool,
    /// The attributes of the mount.
    pub one: Change,
    /// The attributes of the mount and of all mounts below.
    pub all: Change,
    /// The types of propagation, in order.
    pub propagation: Vec<(u64, Depth)>,
    /// Flags of the file system that every type has.
    pub flags: Vec<&'static str>,
    /// Whether a tmpfs begins with a copy of the directory that it covers.
    pub copies_up: bool,
    /// The maps of an ID-mapped mount, for `idmap` or `ridmap`.
    pub idmap: Option<(IdMap, Depth)>,
    /// Options of the type.
    pub data: Vec<(String, Option<String>)>,
}

/// The mounts that an option concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// The mount itself.
    One,
    /// The mount and all mounts below.
    All,
}

/// The IDs of an ID-mapped mount (mount_setattr(2)).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdMap {
    /// The maps of the user namespace of this process.
    Own,
    /// Ranges of users and of groups.
    Ranges(Vec<Extent>, Vec<Extent>),
}

/// Parses `SRC DST TYPE [OPTIONS]`. Fields are separated by blanks, and `\ooo` stands for a byte, as in fstab(5); in
/// OPTIONS a comma in a value is `\054`.
pub fn word(word: &str) -> Result<Word, String> {
    let fields: Vec<&str> = word.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
    let (source, target, kind, options) = match fields[..] {
        [source, target, kind] => (source, target, kind, "defaults"),
        [source, target, kind, options] => (source, target, kind, options),
        _ => return Err("not SRC DST TYPE [OPTIONS]".to_owned()),
    };
    let target = unescape_text(target)?;
    let target = below_root(&target).map_err(|error| format!("DST is {error}"))?;
    let mut parsed = Options::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        parsed.add(&unescape_text(option)?)?;
    }
    let source = OsString::from_vec(unescape(source)?);
    let word = Word { source, target, kind: unescape_text(kind)?, options: parsed };
    word.check().map(|()| word)
}

impl Word {
    /// Refuses options that would have no effect.
    fn check(&self) -> Result<(), String> {
        let options = &self.options;
        let is_old = options.bind.is_some() || options.is_remount;
        let first = options.data.first().map(|(key, _)| key.as_str());
        match first.or(options.flags.first().copied()) {
            Some(option) if is_old => Err(format!("option {option:?} is one of a new file system")),
            _ if options.copies_up && (is_old || self.kind != "tmpfs") => {
                Err("tmpcopyup is an option of a new tmpfs".to_owned())
            }
            _ if options.is_remount && options.idmap.is_some() => {
                Err("idmap is an option of a new mount".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Options {
    fn add(&mut self, option: &str) -> Result<(), String> {
        if let Some((types, depth)) = propagation_of(option) {
            self.propagation.push((types, depth));
            return Ok(());
        }
        if let Some((change, depth)) = recursive(option) {
            match depth {
                Depth::One => self.one.add(change),
                Depth::All => self.all.add(change),
            }
            return Ok(());
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        match (key, value) {
            ("bind", None) => self.bind = Some(Depth::One),
            ("rbind", None) => self.bind = Some(Depth::All),
            ("remount", None) => self.is_remount = true,
            ("tmpcopyup", None) => self.copies_up = true,
            ("idmap", value) => self.idmap = Some((id_map(value)?, Depth::One)),
            ("ridmap", value) => self.idmap = Some((id_map(value)?, Depth::All)),
            // The state of a new mount, and messages of the kernel.
            ("defaults" | "async" | "nolazytime" | "nomand" | "noiversion", None) => {}
            ("silent" | "loud", None) => {}
            ("sync", None) => self.flags.push("sync"),
            ("dirsync", None) => self.flags.push("dirsync"),
            ("lazytime", None) => self.flags.push("lazytime"),
            ("mand", None) => self.flags.push("mand"),
            ("", _) => return Err(format!("option {option:?} has no name")),
            (key, value) => self.data.push((key.to_owned(), value.map(str::to_owned))),
        }
        Ok(())
    }
}

/// Parses the propagation of the root.
pub fn root_propagation(word: &str) -> Result<(u64, Depth), String> {
    propagation_of(word).ok_or_else(|| format!("no propagation {word:?}"))
}

fn propagation_of(option: &str) -> Option<(u64, Depth)> {
    let (types, depth) = match option.strip_prefix('r') {
        Some(types) => (types, Depth::All),
        None => (option, Depth::One),
    };
    Some((propagation::parse(types)?, depth))
}

/// The change of attributes that an option means; with an `r` in front, of all mounts below too. The options `ro`,
/// `rw` and `relatime` begin with that letter themselves.
fn recursive(option: &str) -> Option<(Change, Depth)> {
    match (attribute(option), option.strip_prefix('r').and_then(attribute)) {
        (Some(change), _) => Some((change, Depth::One)),
        (None, Some(change)) => Some((change, Depth::All)),
        (None, None) => None,
    }
}

fn attribute(option: &str) -> Option<Change> {
    let set = |set| Change { set, clear: 0 };
    let clear = |clear| Change { set: 0, clear };
    let times = |set| Change { set, clear: attr::ATIME };
    Some(match option {
        "ro" => set(attr::RDONLY),
        "rw" => clear(attr::RDONLY),
        "nosuid" => set(attr::NOSUID),
        "suid" => clear(attr::NOSUID),
        "nodev" => set(attr::NODEV),
        "dev" => clear(attr::NODEV),
        "noexec" => set(attr::NOEXEC),
        "exec" => clear(attr::NOEXEC),
        "nosymfollow" => set(attr::NOSYMFOLLOW),
        "symfollow" => clear(attr::NOSYMFOLLOW),
        "nodiratime" => set(attr::NODIRATIME),
        "diratime" => clear(attr::NODIRATIME),
        "noatime" => times(attr::NOATIME),
        "strictatime" => times(attr::STRICTATIME),
        // The kernel's default is relatime.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => times(0),
        _ => return None,
    })
}

/// Parses `RANGES/RANGES`, of users and groups, each `INSIDE:OUTSIDE:COUNT[;...]`.
fn id_map(value: Option<&str>) -> Result<IdMap, String> {
    let Some(value) = value else { return Ok(IdMap::Own) };
    let (users, groups) = value.split_once('/').ok_or("idmap: not USERS/GROUPS")?;
    Ok(IdMap::Ranges(id_ranges(users)?, id_ranges(groups)?))
}

/// Parses ranges of IDs, `INSIDE:OUTSIDE:COUNT`, with a semicolon between two.
pub fn id_ranges(list: &str) -> Result<Vec<Extent>, String> {
    list.split(';').map(Extent::parse).collect()
}

fn unescape_text(field: &str) -> Result<String, String> {
    String::from_utf8(unescape(field)?).map_err(|_| format!("not UTF-8: {field:?}"))
}

/// Replaces `\ooo` by the byte with this octal number, as getmntent(3) does.
fn unescape(field: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|number| u8::from_str_radix(number, 8).ok()) {
            Some(0) | None => return Err(format!("not an escape \\ooo in {field:?}")),
            Some(byte) => bytes.push(byte),
        }
        rest = &after[3..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &str) -> Options {
        word(&format!("none /d tmpfs {options}")).unwrap().options
    }

    #[test]
    fn a_word_has_fields_with_the_escapes_of_fstab() {
        let found = word("/a\\040b /c\\011d none rbind,rro").unwrap();
        assert_eq!((found.source, found.target), ("/a b".into(), "/c\td".into()));
        assert_eq!(found.options.bind, Some(Depth::All));
        assert_eq!(found.options.all, Change { set: attr::RDONLY, clear: 0 });
        assert_eq!(word("proc /proc proc").unwrap().kind, "proc");
        let data = parsed("mode=755,x=a\\054b,flag").data;
        let pair = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        let all = [pair("mode", Some("755")), pair("x", Some("a,b")), pair("flag", None)];
        assert_eq!(data, all);
        for (wrong, message) in [
            ("/a /b", "not SRC DST TYPE [OPTIONS]"),
            ("/a /b c d e", "not SRC DST TYPE [OPTIONS]"),
            ("/a b none bind", "DST is not an absolute path: \"b\""),
            ("/a / none bind", "DST is the root itself"),
            ("/a\\04 /b none bind", "not an escape \\ooo in \"/a\\\\04\""),
            ("/a\\000 /b none bind", "not an escape \\ooo in \"/a\\\\000\""),
            ("/a /b none bind,size=1", "option \"size\" is one of a new file system"),
            ("/a /b none bind,sync", "option \"sync\" is one of a new file system"),
            ("p /b proc tmpcopyup", "tmpcopyup is an option of a new tmpfs"),
            ("p /b proc =x", "option \"=x\" has no name"),
            ("/a /b none bind,idmap=1", "idmap: not USERS/GROUPS"),
        ] {
            assert_eq!(word(wrong), Err(message.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn the_last_of_two_attributes_counts_and_times_exclude_each_other() {
        let change = |set, clear| Change { set, clear };
        for (options, one, all) in [
            ("ro,rw", change(0, attr::RDONLY), Change::default()),
            ("rw,ro", change(attr::RDONLY, 0), Change::default()),
            ("rro", Change::default(), change(attr::RDONLY, 0)),
            ("rrw,nodev", change(attr::NODEV, 0), change(0, attr::RDONLY)),
            ("relatime", change(0, attr::ATIME), Change::default()),
            ("rrelatime", Change::default(), change(0, attr::ATIME)),
            ("noatime,strictatime", change(attr::STRICTATIME, attr::ATIME), Change::default()),
            ("rnosuid,rsuid", Change::default(), change(0, attr::NOSUID)),
        ] {
            let found = parsed(options);
            assert_eq!((found.one, found.all), (one, all), "{options}");
        }
        let types = [(propagation::SLAVE, Depth::All), (propagation::SHARED, Depth::One)];
        assert_eq!(parsed("rslave,shared").propagation, types);
    }
}
