//! The words of the command line: sizes, modes, the upper directory, the kernel's own directories.

use std::path::PathBuf;
use std::str::FromStr;

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

/// What is mounted at /proc.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Proc {
    /// A new procfs, or the present one if the kernel refuses that and it shows the same processes
    #[default]
    Auto,
    /// A new procfs, which shows the present PID namespace
    New,
    /// The present one, with what is mounted below it
    Bind,
    /// Nothing
    None,
}

/// What is mounted at /dev.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Dev {
    /// The devices that every container has, and its own terminals
    #[default]
    Minimal,
    /// The host's
    Host,
    /// Nothing
    None,
}

/// What is mounted at /sys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Sys {
    /// Sysfs with the cgroup file systems, read-only
    #[default]
    Ro,
    /// The same, writable
    Rw,
    /// Nothing
    None,
}

/// Checks the octal permissions of a directory.
pub fn octal(value: &str) -> Result<String, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o7777 && !value.starts_with('+') => Ok(value.to_owned()),
        _ => Err(format!("not an octal mode: {value:?}")),
    }
}

/// Checks a size that the kernel would otherwise take for something else or for "no limit".
pub fn tmpfs_size(value: &str) -> Result<String, String> {
    let suffixes = ['k', 'K', 'm', 'M', 'g', 'G', '%'];
    let number = value.strip_suffix(suffixes).unwrap_or(value);
    match number.parse::<u64>() {
        Ok(n) if n > 0 && !number.starts_with('+') => Ok(value.to_owned()),
        _ => Err(format!("not a size (a number and k, m, g or %): {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uppers() {
        assert_eq!("tmpfs".parse(), Ok(Upper::Tmpfs { size: None }));
        assert_eq!("tmpfs:1g".parse(), Ok(Upper::Tmpfs { size: Some("1g".into()) }));
        assert_eq!("/var/up:per".parse(), Ok(Upper::Directory("/var/up:per".into())));
        assert!("tmpfs:big".parse::<Upper>().is_err());
    }
}
