//! Writes to a cgroup's files, with a check that the kernel stores the same value.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use jc_unshare::{Context, Error, Result, size};

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
        }
    }

    /// A setting for swap. A kernel that does not count swap lacks the file, which is an error only if the machine
    /// has swap.
    pub fn swap(file: &str, value: impl ToString) -> Self {
        Self { swap: true, ..Self::new(file, value, ReadBack::Same) }
    }

    /// Writes the value to the file in the group `directory`, and reads the file back.
    pub fn apply(&self, directory: &Path) -> Result<()> {
        let path = directory.join(&self.file);
        let opened = File::options().read(true).write(true).open(&path);
        let is_missing = matches!(&opened, Err(e) if e.kind() == io::ErrorKind::NotFound);
        if is_missing && self.swap {
            return no_swap();
        }
        let written =
            opened.and_then(|mut file| file.write_all(self.value.as_bytes()).map(|()| file));
        let mut file = written
            .on(&format!("write {:?} to", self.value), &path)
            .map_err(|e| if is_missing { e.hint(self.no_such_file()) } else { e })?;
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

    fn no_such_file(&self) -> String {
        format!("this kernel's {} controller has no {}", self.controller, self.file)
    }

    /// Whether the stored text means the value of the setting.
    fn equals(&self, stored: &str) -> bool {
        match self.read_back {
            ReadBack::Same => stored == self.value,
            ReadBack::Set => numbers(stored).is_some() && numbers(stored) == numbers(&self.value),
            ReadBack::Line => {
                let wanted: Vec<&str> = self.value.split(' ').collect();
                let has = |line: &str| {
                    let words: Vec<&str> = line.split(' ').collect();
                    words.first() == wanted.first()
                        && wanted.iter().all(|word| words.contains(word))
                };
                stored.lines().any(has)
            }
            ReadBack::Words => {
                let stored: Vec<String> = stored.split_whitespace().map(plain).collect();
                self.value.split_whitespace().all(|word| stored.contains(&plain(word)))
            }
        }
    }
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

/// The numbers of a list like `0-2,5` (cpuset(7), "List format").
pub fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last < first || last > 1 << 16 {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sets_of_numbers() {
        assert_eq!(numbers("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(numbers("1,0,1\n"), Some(vec![0, 1]));
        assert_eq!(numbers(""), Some(vec![]));
        for list in ["x", "2-1", "1-", "-1", "0-99999999"] {
            assert_eq!(numbers(list), None, "{list}");
        }
    }

    #[test]
    fn what_the_kernel_holds_is_compared_as_it_writes_it() {
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
