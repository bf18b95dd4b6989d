//! Values of single options.

use std::path::PathBuf;
use std::str::FromStr;

use jc_unshare::size;

/// The file system that takes the changes to an overlay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Upper {
    /// A directory of the host, with `upper` and overlayfs' `work` in it.
    Directory(PathBuf),
    /// A tmpfs that the kernel frees with the last process of the container.
    Tmpfs {
        /// The option `size` of tmpfs(5). Without the option the limit is half of the memory.
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

/// The mount at /proc.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Proc {
    /// A new procfs; if the kernel refuses it, the procfs at /proc, which must be of this PID namespace
    #[default]
    Auto,
    /// A new procfs of this PID namespace
    New,
    /// The procfs at /proc, with all mounts below it
    Bind,
    /// Nothing
    None,
}

/// The mount at /dev.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Dev {
    /// The default devices of the OCI, and a new devpts, shm and mqueue
    #[default]
    Minimal,
    /// The host's /dev, with all mounts below it
    Host,
    /// The default devices of the OCI in the root's own /dev, behind all mounts
    Nodes,
    /// Nothing
    None,
}

/// The mount at /sys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Sys {
    /// Sysfs and the cgroup file systems, read-only
    #[default]
    Ro,
    /// Sysfs and the cgroup file systems, writable
    Rw,
    /// Nothing
    None,
}

/// Parses the size of a terminal, `ROWSxCOLUMNS`.
pub fn terminal_size(word: &str) -> Result<(u16, u16), String> {
    let numbers = word.split_once('x').map(|(rows, columns)| (rows.parse(), columns.parse()));
    match numbers {
        Some((Ok(rows), Ok(columns))) => Ok((rows, columns)),
        _ => Err("not ROWSxCOLUMNS".to_owned()),
    }
}

/// Parses an absolute path that is not the root itself.
pub fn below_root(word: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(word);
    if !path.is_absolute() {
        return Err(format!("not an absolute path: {word:?}"));
    }
    if path.components().count() < 2 { Err("the root itself".to_owned()) } else { Ok(path) }
}

/// Checks the octal mode of a directory.
pub fn octal(value: &str) -> Result<String, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o7777 && !value.starts_with('+') => Ok(value.to_owned()),
        _ => Err(format!("not an octal mode: {value:?}")),
    }
}

/// Parses a [size](size::parse), or a whole percentage of the memory, into a value for the option `size` of
/// tmpfs(5). The kernel would take 0 as no limit.
pub fn tmpfs_size(value: &str) -> Result<String, String> {
    let percent =
        value.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    match (percent.map(str::parse::<u64>), size::parse(value)) {
        (Some(Ok(percent)), _) if percent > 0 => Ok(value.to_owned()),
        (None, Ok(bytes)) => Ok(bytes.to_string()),
        _ => Err(format!("not a size like 64m, 1.5G, 4096 or 50%: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_directory_is_a_path_or_a_tmpfs() {
        assert_eq!("tmpfs".parse(), Ok(Upper::Tmpfs { size: None }));
        assert_eq!("tmpfs:1g".parse(), Ok(Upper::Tmpfs { size: Some("1073741824".into()) }));
        assert_eq!("/var/up:per".parse(), Ok(Upper::Directory("/var/up:per".into())));
        assert!("tmpfs:big".parse::<Upper>().is_err());
    }

    #[test]
    fn the_size_of_a_tmpfs_is_a_size_or_a_percentage() {
        for (word, value) in [
            ("64m", Some("67108864")),
            ("64MiB", Some("67108864")),
            ("1.5g", Some("1610612736")),
            (".5k", Some("512")),
            ("4096", Some("4096")),
            ("50%", Some("50%")),
            ("0", None),
            ("0%", None),
            ("+1%", None),
            ("1.5%", None),
            ("%", None),
            ("-1", None),
            ("64x", None),
            ("64m,mode=0", None),
        ] {
            assert_eq!(tmpfs_size(word).ok().as_deref(), value, "{word}");
        }
    }
}
