//! The words of the command line: binds, tmpfses, the upper directory.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::sys::attr;

/// Where changes to an overlay go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Upper {
    /// Into `upper` in this directory, which also holds overlayfs' own `work`.
    Directory(PathBuf),
    /// Into memory, for as long as the container lives.
    Tmpfs {
        /// As tmpfs(5) takes it: bytes, with a suffix `k`, `m`, `g` or `%`; half the memory without.
        size: Option<String>,
    },
}

impl FromStr for Upper {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            _ if word == "tmpfs" => Ok(Self::Tmpfs { size: None }),
            Some(("tmpfs", size)) => Ok(Self::Tmpfs { size: Some(tmpfs_size(size)?) }),
            _ if word.is_empty() => Err("empty".to_owned()),
            _ => Ok(Self::Directory(word.into())),
        }
    }
}

/// Something to mount inside the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// What is mounted.
    pub source: Source,
    /// Where, as the payload will see it. Absolute.
    pub target: PathBuf,
    /// Flags of [`attr`].
    pub attributes: u64,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// This file or directory of the host, with what is mounted below it.
    Bind(PathBuf),
    /// A new, empty tmpfs.
    Tmpfs {
        /// As for [`Upper::Tmpfs`].
        size: Option<String>,
        /// Octal permissions of its root directory.
        mode: String,
    },
}

/// Parses `SRC:DST[:OPTION,...]`, options `ro`, `rw`, `nosuid`, `noexec`, `dev`.
pub fn bind(word: &str) -> Result<Mount, String> {
    let mut parts = word.splitn(3, ':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return Err("not SRC:DST[:OPTIONS]".to_owned());
    };
    if source.is_empty() {
        return Err("SRC is empty".to_owned());
    }
    let mut attributes = attr::NODEV;
    for option in parts.next().map(|options| options.split(',')).into_iter().flatten() {
        match option {
            "rw" => attributes &= !attr::RDONLY,
            "ro" => attributes |= attr::RDONLY,
            "dev" => attributes &= !attr::NODEV,
            "nosuid" => attributes |= attr::NOSUID,
            "noexec" => attributes |= attr::NOEXEC,
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    Ok(Mount { source: Source::Bind(source.into()), target: absolute(target)?, attributes })
}

/// Parses `DST[:size=SIZE,mode=MODE]`.
pub fn tmpfs(word: &str) -> Result<Mount, String> {
    let (target, options) = word.split_once(':').unwrap_or((word, ""));
    let (mut size, mut mode) = (None, "1777".to_owned());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(tmpfs_size(value)?),
            Some(("mode", value)) => mode = octal(value)?,
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    Ok(Mount {
        source: Source::Tmpfs { size, mode },
        target: absolute(target)?,
        attributes: attr::NOSUID | attr::NODEV,
    })
}

fn absolute(target: &str) -> Result<PathBuf, String> {
    match Path::new(target) {
        path if !path.is_absolute() => Err(format!("DST is not an absolute path: {target:?}")),
        path if path.components().count() < 2 => Err("DST is the root itself".to_owned()),
        path => Ok(path.to_owned()),
    }
}

fn octal(value: &str) -> Result<String, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(value.to_owned()),
        _ => Err(format!("not an octal mode: {value:?}")),
    }
}

/// Checks a size that the kernel would otherwise take for something else or for "no limit".
fn tmpfs_size(value: &str) -> Result<String, String> {
    let suffixes = ['k', 'K', 'm', 'M', 'g', 'G', '%'];
    let number = value.strip_suffix(suffixes).unwrap_or(value);
    match number.parse::<u64>() {
        Ok(n) if n > 0 && !number.starts_with('+') => Ok(value.to_owned()),
        _ => Err(format!("not a size (a number and k, m, g or %): {value:?}")),
    }
}

/// Parses `NAME=VALUE`, or `NAME` for the value that this process has; absent, it stays absent.
pub fn variable(word: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, std::env::var(word).ok()),
    };
    if name.is_empty() { Err("no name".to_owned()) } else { Ok((name.to_owned(), value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds() {
        let parsed = |word| bind(word).map(|m| (m.source, m.target, m.attributes));
        let source = |path: &str| Source::Bind(path.into());
        assert_eq!(parsed("/a:/b"), Ok((source("/a"), "/b".into(), attr::NODEV)));
        assert_eq!(
            parsed(".:/src:ro,noexec"),
            Ok((source("."), "/src".into(), attr::NODEV | attr::RDONLY | attr::NOEXEC))
        );
        assert_eq!(parsed("/a:/b:dev,nosuid"), Ok((source("/a"), "/b".into(), attr::NOSUID)));
        for (word, message) in [
            ("/a", "not SRC:DST[:OPTIONS]"),
            (":/b", "SRC is empty"),
            ("/a:b", "DST is not an absolute path: \"b\""),
            ("/a:/", "DST is the root itself"),
            ("/a:/b:rx", "unknown option \"rx\""),
            ("/a:/b:", "unknown option \"\""),
        ] {
            assert_eq!(bind(word), Err(message.to_owned()), "{word}");
        }
    }

    #[test]
    fn tmpfses() {
        let mount = tmpfs("/tmp:size=64m,mode=0755").unwrap();
        assert_eq!(mount.source, Source::Tmpfs { size: Some("64m".into()), mode: "0755".into() });
        assert_eq!(mount.attributes, attr::NOSUID | attr::NODEV);
        for (word, message) in [
            ("tmp", "DST is not an absolute path: \"tmp\""),
            ("/tmp:size=", "not a size (a number and k, m, g or %): \"\""),
            ("/tmp:size=0", "not a size (a number and k, m, g or %): \"0\""),
            ("/tmp:mode=9", "not an octal mode: \"9\""),
            ("/tmp:exec", "unknown option \"exec\""),
        ] {
            assert_eq!(tmpfs(word), Err(message.to_owned()), "{word}");
        }
    }

    #[test]
    fn uppers() {
        assert_eq!("tmpfs".parse(), Ok(Upper::Tmpfs { size: None }));
        assert_eq!("tmpfs:1g".parse(), Ok(Upper::Tmpfs { size: Some("1g".into()) }));
        assert_eq!("/var/up:per".parse(), Ok(Upper::Directory("/var/up:per".into())));
        assert!("tmpfs:big".parse::<Upper>().is_err());
    }

    #[test]
    fn variables() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(variable("JC_NOT_SET_ANYWHERE"), Ok(("JC_NOT_SET_ANYWHERE".into(), None)));
        assert_eq!(variable("=x"), Err("no name".into()));
    }
}
