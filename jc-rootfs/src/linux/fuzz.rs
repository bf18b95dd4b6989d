//! Fuzz targets: the parsers of options and files from other sources than the caller. `fuzz/` has the binaries and
//! the seeds. A unit test runs each seed with changes of one byte.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use jc_unshare::record::{Record, Root};
use jc_unshare::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use super::args::mounts::{self, Mount, Source};
use super::seccomp;
use crate::user::{self, Files};

/// Parses a seccomp profile. The result is an error or a filter.
pub fn profile(bytes: &[u8]) {
    for capabilities in [0, u64::MAX] {
        // Both results are correct.
        drop(seccomp::parse(bytes, capabilities, (6, 1)));
    }
}

/// Parses a mount, which has a source, and a target below the root.
pub fn mount(bytes: &[u8]) {
    let Ok(word) = std::str::from_utf8(bytes) else { return };
    for parse in [mounts::bind, mounts::tmpfs, mounts::device] as [fn(&str) -> _; 3] {
        let Ok(Mount { source, target, .. }) = parse(word) else { continue };
        assert!(target.is_absolute() && target.components().count() > 1, "{word:?}");
        match source {
            Source::Bind(bind) => assert!(!bind.path.as_os_str().is_empty(), "{word:?}"),
            Source::Device(path) => assert!(path.is_absolute(), "{word:?}"),
            Source::Tmpfs { size, mode } => {
                let plain =
                    |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%');
                assert!(size.is_none_or(|size| plain(&size)) && plain(&mode), "{word:?}");
            }
        }
    }
}

/// Parses a record, which has a root of absolute paths or a digest, and whose line gives the same record.
pub fn record(bytes: &[u8]) {
    let Ok(record) = Record::parse(bytes) else { return };
    let paths = match record.root() {
        Ok(Root::Layers(layers)) => layers,
        Ok(Root::Directory(directory)) => vec![directory],
        Err(_) => Vec::new(),
    };
    assert!(!paths.is_empty() || record.digest.is_some());
    assert!(paths.iter().all(|path| path.is_absolute()), "{paths:?}");
    let line = record.to_line().unwrap_or_default();
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert_eq!(Record::parse(line.as_bytes()).ok().as_ref(), Some(&record), "{line:?}");
}

/// Finds a user. Only `0` and `root` have UID 0, whatever names the files of the root give to UID 0.
pub fn user(bytes: &[u8]) {
    let Ok(word) = std::str::from_utf8(bytes) else { return };
    let Ok(found) = user::find(word, &Hostile) else { return };
    let (user, group) = word.split_once(':').unwrap_or((word, "0"));
    assert!(found.uid != 0 || ["0", "root"].contains(&user), "{word:?}");
    assert!(found.gid != 0 || ["0", "root"].contains(&group), "{word:?}");
}

struct Hostile;

impl Files for Hostile {
    fn open(&self, path: &Path) -> Result<Option<File>> {
        let text = if path.ends_with("passwd") {
            "root:x:0:0::/:\nweb:x:33:34::/:\n:x:0:0::/:\n1000:x:0:0::/:\n"
        } else {
            "root:x:0:\nweb:x:34:web\n:x:0:\n1000:x:0:\n"
        };
        let mut file: File =
            memfd_create("hostile", MemfdFlags::CLOEXEC).op("memfd_create")?.into();
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).op("write")?;
        Ok(Some(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_of_a_byte_in_a_seed_breaks_a_promise() {
        for (target, run) in [
            ("profile", profile as fn(&[u8])),
            ("mount", mount),
            ("user", user),
            ("record", record),
        ] {
            let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
            for seed in std::fs::read_dir(directory).unwrap() {
                let seed = std::fs::read(seed.unwrap().path()).unwrap();
                run(&seed);
                for at in 0..seed.len() {
                    run(&seed[..at]);
                    for byte in *b"\0 0+-:,=/\\.\n\"{}[]9z\xff" {
                        let changed =
                            |length: usize| [&seed[..at], &[byte], &seed[at + length..]].concat();
                        run(&changed(0));
                        run(&changed(1));
                    }
                }
            }
        }
    }
}
