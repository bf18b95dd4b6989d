//! Writes to a cgroup's files, with a check that the kernel stores the same value.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use jc_unshare::list::numbers;
use jc_unshare::{Context, Error, Result, size};

use super::device_program;
use super::device_rule::Rule;

/// The content that a file must have after a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReadBack {
    /// The text that was written.
    Same,
    /// The same set of numbers, in any form of ranges (cpuset).
    Set,
    /// A line that begins with the first word and has all others (io.max).
    Line,
    /// The same words, with amounts in any unit.
    Words,
    /// Any text: the kernel shows the value in another form.
    Unchecked,
    /// No content, since the file cannot be read.
    WriteOnly,
}

/// A value for one file of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The controller that the file belongs to.
    pub controller: String,
    /// The name of the file.
    pub file: String,
    /// The text to write.
    pub value: String,
    /// The check of the content.
    pub read_back: ReadBack,
    /// Whether the setting limits swap.
    swap: bool,
    /// Whether a kernel may lack the file.
    may_lack: bool,
    /// Whether the first word of the file stays, in front of the value.
    keeps_first: bool,
    /// The file with the present usage, which the value must not be below.
    usage: Option<&'static str>,
    /// The setting for a group that lacks the file.
    other: Option<Box<Self>>,
    /// Rules for devices, which are a program of the group and no file.
    devices: Option<Vec<Rule>>,
}

impl Setting {
    /// A setting whose controller is the first part of the file's name.
    pub fn new(file: &str, value: impl ToString, read_back: ReadBack) -> Self {
        let controller = file.split('.').next().unwrap_or_default();
        Self {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            read_back,
            swap: false,
            may_lack: false,
            keeps_first: false,
            usage: None,
            other: None,
            devices: None,
        }
    }

    /// The rules for devices of a v2 group.
    pub fn devices(rules: Vec<Rule>) -> Self {
        Self { devices: Some(rules), ..Self::new("", "", ReadBack::Unchecked) }
    }

    /// The bandwidth of a v2 group. A quota that is not given stays.
    pub fn cpu_max(quota: Option<String>, period: Option<i64>) -> Self {
        let keeps_first = quota.is_none();
        let words = quota.into_iter().chain(period.map(|period| period.to_string()));
        let value = words.collect::<Vec<_>>().join(" ");
        Self { keeps_first, ..Self::new("cpu.max", value, ReadBack::Words) }
    }

    /// The same setting as one for swap.
    pub fn of_swap(self) -> Self {
        Self { swap: true, ..self }
    }

    /// The same setting, which has no effect if the kernel lacks the file.
    pub fn if_known(self) -> Self {
        Self { may_lack: true, ..self }
    }

    /// The same limit, which fails if the number in this file is larger.
    pub fn not_below(self, usage: &'static str) -> Self {
        Self { usage: Some(usage), ..self }
    }

    /// The same setting, or another one if the group lacks the file.
    pub fn or(self, other: Self) -> Self {
        Self { other: Some(Box::new(other)), ..self }
    }

    /// A setting for swap. A kernel that does not count swap lacks the file, which is an error only if the machine
    /// has swap.
    pub fn swap(file: &str, value: impl ToString) -> Self {
        Self { swap: true, ..Self::new(file, value, ReadBack::Same) }
    }

    /// Writes the value to the file in the group `directory`, and reads the file back.
    pub fn apply(&self, directory: &Path) -> Result<()> {
        if let Some(rules) = &self.devices {
            return device_program::attach(directory, rules);
        }
        self.check_usage(directory)?;
        let path = directory.join(&self.file);
        let is_readable = self.read_back != ReadBack::WriteOnly;
        let opened = File::options().read(is_readable).write(true).open(&path);
        let is_missing = matches!(&opened, Err(e) if e.kind() == io::ErrorKind::NotFound);
        match &self.other {
            Some(other) if is_missing => return other.apply(directory),
            _ if is_missing && self.swap => return no_swap(),
            _ if is_missing && self.may_lack => return Ok(()),
            _ => {}
        }
        let value = if self.keeps_first {
            let text = fs::read_to_string(&path).on("read", &path)?;
            format!("{} {}", text.split(' ').next().unwrap_or_default(), self.value)
        } else {
            self.value.clone()
        };
        let written = opened.and_then(|mut file| file.write_all(value.as_bytes()).map(|()| file));
        let mut file = written
            .on(&format!("write {value:?} to"), &path)
            .map_err(|e| if is_missing { e.hint(self.no_such_file()) } else { e })?;
        if matches!(self.read_back, ReadBack::Unchecked | ReadBack::WriteOnly) {
            return Ok(());
        }
        let mut stored = String::with_capacity(256);
        file.rewind().and_then(|()| file.read_to_string(&mut stored)).on("read", &path)?;
        let stored = stored.trim_end();
        if self.equals(stored) {
            return Ok(());
        }
        let (path, value) = (path.display(), &self.value);
        Err(Error::new(format_args!(
            "write {path}: asked for {value:?}, the kernel holds {stored:?}"
        )))
    }

    /// Compares a limit with the present usage of the group.
    fn check_usage(&self, directory: &Path) -> Result<()> {
        let (Some(file), Ok(limit)) = (self.usage, self.value.parse::<u64>()) else {
            return Ok(());
        };
        let path = directory.join(file);
        let text = fs::read_to_string(&path).on("read", &path)?;
        match text.trim().parse::<u64>() {
            Ok(usage) if usage <= limit => Ok(()),
            _ => {
                let (name, usage) = (&self.file, text.trim());
                Err(Error::new(format_args!("{name}: {limit} is below the usage of {usage} bytes")))
            }
        }
    }

    fn no_such_file(&self) -> String {
        format!("this kernel's {} controller has no {}", self.controller, self.file)
    }

    /// Whether the stored text means the value of the setting.
    fn equals(&self, stored: &str) -> bool {
        match self.read_back {
            ReadBack::Same => stored == self.value,
            ReadBack::Set => numbers(stored).is_some() && numbers(stored) == numbers(&self.value),
            ReadBack::Line => {
                let written: Vec<&str> = self.value.split(' ').collect();
                let has = |line: &str| {
                    let words: Vec<&str> = line.split(' ').collect();
                    words.first() == written.first()
                        && written.iter().all(|word| words.contains(word))
                };
                stored.lines().any(has)
            }
            ReadBack::Words => {
                let stored: Vec<String> = stored.split_whitespace().map(plain).collect();
                self.value.split_whitespace().all(|word| stored.contains(&plain(word)))
            }
            ReadBack::Unchecked | ReadBack::WriteOnly => true,
        }
    }
}

/// Applies settings, each to its group. The kernel accepts some only after others, such as a limit of memory above that
/// of memory and swap, so a setting that fails is tried once more. Of the rules for devices the last one counts, so these
/// keep their order.
pub fn apply_all<'a>(settings: impl IntoIterator<Item = (&'a Path, &'a Setting)>) -> Result<()> {
    let mut failed = Vec::new();
    for (directory, setting) in settings {
        match setting.apply(directory) {
            Ok(()) => {}
            Err(error) if setting.controller == "devices" => return Err(error),
            Err(_) => failed.push((directory, setting)),
        }
    }
    failed.into_iter().try_for_each(|(directory, setting)| setting.apply(directory))
}

fn no_swap() -> Result<()> {
    let swaps = fs::read_to_string("/proc/swaps").on("read", "/proc/swaps")?;
    match swaps.lines().count() {
        0 | 1 => Ok(()),
        _ => Err(Error::new("limit memory: this kernel does not count swap, and there is swap")
            .hint("boot with swapaccount=1, or swapoff -a")),
    }
}

/// A word in the form of the kernel: a size like `64M` becomes a number of bytes.
fn plain(word: &str) -> String {
    size::parse(word).map_or_else(|_| word.to_owned(), |bytes| bytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_value_is_compared_in_the_form_of_the_kernel() {
        for (value, read_back, found, holds) in [
            ("5", ReadBack::Same, "5", true),
            ("5", ReadBack::Same, "4", false),
            ("0,1", ReadBack::Set, "0-1", true),
            ("0,1", ReadBack::Set, "0", false),
            ("8:0 rbps=5", ReadBack::Line, "7:0 rbps=5\n8:0 rbps=5 wbps=max", true),
            ("8:0 rbps=5", ReadBack::Line, "8:0 rbps=6 wbps=max", false),
            ("64M", ReadBack::Words, "67108864", true),
            ("max 100000", ReadBack::Words, "max 100000", true),
            ("64M", ReadBack::Words, "max", false),
        ] {
            let setting = Setting::new("memory.x", value, read_back);
            assert_eq!(setting.equals(found), holds, "{value} {found}");
        }
    }

    #[test]
    fn a_value_that_the_kernel_changes_is_an_error() {
        // A write to /dev/null succeeds and changes nothing.
        let error = Setting::new("null", 5, ReadBack::Same).apply(Path::new("/dev")).unwrap_err();
        let expected = "write /dev/null: asked for \"5\", the kernel holds \"\"";
        assert_eq!(error.to_string(), expected);
    }
}
