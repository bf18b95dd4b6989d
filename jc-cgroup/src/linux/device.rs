//! Limits on block devices: `DEV:rbps=SIZE,wbps=SIZE,riops=N,wiops=N`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use jc_unshare::{Context, Error, Result, exists, size};
use rustix::fs::{major, minor};

use super::hierarchy::Version;
use super::setting::{ReadBack, Setting};

/// Limits for one device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IoMax {
    /// `MAJOR:MINOR`, a device file, or a file on a device.
    device: String,
    /// Names as in io.max, with bytes or operations a second.
    limits: Vec<(&'static str, u64)>,
}

/// The names of io.max, and the files of version 1 for the same limits (blkio-controller.rst).
const NAMES: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];

impl IoMax {
    /// Parses a limit of a device, `DEV:NAME=VALUE,...`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        let form = || "not DEV:rbps=SIZE,wbps=SIZE,riops=N,wiops=N".to_owned();
        let (device, limits) = word.rsplit_once(':').ok_or_else(form)?;
        let mut parsed = Vec::new();
        for limit in limits.split(',') {
            let (name, value) = limit.split_once('=').ok_or_else(form)?;
            let (name, _) = NAMES.into_iter().find(|(known, _)| *known == name).ok_or_else(form)?;
            let value = if name.ends_with("bps") { size::parse(value)? } else { count(value)? };
            if parsed.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name} twice"));
            }
            parsed.push((name, value));
        }
        if device.is_empty() {
            return Err(form());
        }
        Ok(Self { device: device.to_owned(), limits: parsed })
    }

    /// The files to write.
    pub fn settings(&self, version: Version) -> Result<Vec<Setting>> {
        let (major, minor) = disk(&self.device)?;
        let limits = self.limits.iter();
        Ok(match version {
            Version::V2 => {
                let words: Vec<String> =
                    limits.map(|(name, value)| format!("{name}={value}")).collect();
                let value = format!("{major}:{minor} {}", words.join(" "));
                vec![Setting::new("io.max", value, ReadBack::Line)]
            }
            Version::V1 => limits
                .filter_map(|(name, value)| {
                    let (_, file) = NAMES.into_iter().find(|(known, _)| known == name)?;
                    Some(Setting::new(file, format!("{major}:{minor} {value}"), ReadBack::Line))
                })
                .collect(),
        })
    }
}

fn count(value: &str) -> std::result::Result<u64, String> {
    value.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("not a number: {value:?}"))
}

/// The whole disk of a device or file, since the kernel throttles no partitions.
fn disk(device: &str) -> Result<(u32, u32)> {
    let (major, minor) = match numbers(device) {
        Some(numbers) => numbers,
        None => {
            let meta = fs::metadata(device).on("stat", device)?;
            let number = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
            (major(number), minor(number))
        }
    };
    let sys = format!("/sys/dev/block/{major}:{minor}");
    let path = Path::new(&sys);
    if !exists(path)? {
        return Err(Error::new(format_args!("limit {device}: {major}:{minor} is no block device")));
    }
    if !exists(path.join("partition"))? {
        return Ok((major, minor));
    }
    let parent = path.join("../dev"); // the link's target lies in the disk's directory
    let text = fs::read_to_string(&parent).on("read", &parent)?;
    numbers(text.trim())
        .ok_or_else(|| Error::new(format_args!("read {}: {text}", parent.display())))
}

fn numbers(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_as_in_io_max() {
        let parsed = IoMax::parse("8:0:rbps=1M,wiops=100").unwrap();
        assert_eq!(parsed.device, "8:0");
        assert_eq!(parsed.limits, [("rbps", 1 << 20), ("wiops", 100)]);
        assert_eq!(IoMax::parse("/dev/sda:wbps=5").unwrap().device, "/dev/sda");
        for word in [
            "",
            "8:0",
            "/dev/sda",
            "/dev/sda:",
            "/dev/sda:x=1",
            "/dev/sda:rbps=",
            "8:0:riops=1M",
            "8:0:rbps=0",
            "8:0:rbps=1,rbps=2",
            ":rbps=1",
        ] {
            assert!(IoMax::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_device_that_is_no_disk_is_an_error() {
        let error = disk("/proc").unwrap_err().to_string();
        assert!(error.ends_with("is no block device"), "{error}");
        assert_eq!(
            disk("/nonexistent").unwrap_err().to_string(),
            "stat /nonexistent: No such file or directory"
        );
    }
}
