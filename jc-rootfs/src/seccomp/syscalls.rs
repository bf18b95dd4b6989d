//! The numbers of system calls, by name.

use super::abi::{ABIS, Abi};

/// Read when this is compiled, so that nothing of it is done at a start.
const TEXT: &[u8] = include_bytes!("syscalls.tbl");

/// How many there are.
pub const COUNT: usize = count();

static TABLE: [Call; COUNT] = parse();

/// A system call.
#[derive(Clone, Copy)]
struct Call {
    name: &'static [u8],
    /// By [`Abi`]; `NONE` where there is none.
    numbers: [u32; ABIS],
}

const NONE: u32 = u32::MAX;

/// Where ARM's own numbers begin (`__ARM_NR_BASE`).
pub const ARM_BASE: u32 = 0xF_0000;

/// How many numbers there may be below [`ARM_BASE`], and from there on.
pub const NUMBERS: (usize, usize) = numbers();

/// A system call's place in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Index(u16);

impl Index {
    /// Finds a system call that some ABI has.
    pub fn find(name: &str) -> Option<Self> {
        let found = TABLE.binary_search_by(|call| call.name.cmp(name.as_bytes()));
        found.ok().map(|index| Self(index as u16))
    }

    /// Where it is in the table.
    pub const fn place(self) -> usize {
        self.0 as usize
    }

    /// Its number, without the bit of x32.
    pub fn number(self, abi: Abi) -> Option<u32> {
        let number = TABLE.get(self.place())?.numbers[abi as usize];
        if number == NONE { None } else { Some(number) }
    }
}

/// The system calls of a list, words between white space, found when this is compiled. One that is
/// not in the table stops that. Lines that begin with "#" are comments.
macro_rules! calls {
    ($words:expr) => {{
        const WORDS: &[u8] = $words.as_bytes();
        const FOUND: [$crate::seccomp::syscalls::Index; $crate::seccomp::syscalls::words(WORDS)] =
            $crate::seccomp::syscalls::indices(WORDS);
        &FOUND
    }};
}
pub(super) use calls;

/// How many words there are.
pub const fn words(text: &[u8]) -> usize {
    let (mut count, mut rest) = (0, text);
    loop {
        let word;
        (word, rest) = next(rest);
        if word.is_empty() {
            return count;
        }
        count += 1;
    }
}

/// Finds so many words of the text.
pub const fn indices<const N: usize>(text: &[u8]) -> [Index; N] {
    let table = parse();
    let mut found = [Index(0); N];
    let (mut rest, mut n) = (text, 0);
    while n < N {
        let name;
        (name, rest) = next(rest);
        found[n] = Index(search(&table, name));
        n += 1;
    }
    found
}

/// Splits off the next word, which is empty at the end.
const fn next(text: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = text;
    loop {
        match rest {
            [b' ' | b'\n', after @ ..] => rest = after,
            [b'#', ..] => (_, rest) = word(rest, b'\n'),
            _ => break,
        }
    }
    let mut length = 0;
    while length < rest.len() && rest[length] != b' ' && rest[length] != b'\n' {
        length += 1;
    }
    rest.split_at(length)
}

const fn search(table: &[Call; COUNT], name: &[u8]) -> u16 {
    let (mut low, mut high) = (0, COUNT);
    while low < high {
        let middle = low.midpoint(high);
        match compare(table[middle].name, name) {
            0 => return middle as u16,
            1 => high = middle,
            _ => low = middle + 1,
        }
    }
    // Only ever evaluated by the compiler, whose error this is.
    assert!(name.is_empty(), "a system call that is not in the table");
    0
}

/// 0 for equal, 1 if the first is greater, 2 if the second is.
const fn compare(a: &[u8], b: &[u8]) -> u8 {
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return if a[i] > b[i] { 1 } else { 2 };
        }
        i += 1;
    }
    if a.len() == b.len() {
        0
    } else if a.len() > b.len() {
        1
    } else {
        2
    }
}

const fn count() -> usize {
    let (mut count, mut at) = (0, 0);
    while at < TEXT.len() {
        if TEXT[at] != b'#' {
            count += 1;
        }
        while TEXT[at] != b'\n' {
            at += 1;
        }
        at += 1;
    }
    count
}

const fn numbers() -> (usize, usize) {
    let table = parse();
    let (mut common, mut own, mut n) = (0, 0, 0);
    while n < COUNT * ABIS {
        let number = table[n / ABIS].numbers[n % ABIS];
        if number < ARM_BASE {
            common = if number < common { common } else { number + 1 };
        } else if number != NONE {
            own = if number - ARM_BASE < own { own } else { number - ARM_BASE + 1 };
        }
        n += 1;
    }
    (common as usize, own as usize)
}

const fn parse() -> [Call; COUNT] {
    let mut table = [Call { name: b"", numbers: [NONE; ABIS] }; COUNT];
    let (mut rest, mut n) = (TEXT, 0);
    while n < COUNT {
        if rest[0] == b'#' {
            (_, rest) = word(rest, b'\n');
            continue;
        }
        (table[n].name, rest) = word(rest, b' ');
        let mut abi = 0;
        while abi < ABIS {
            let digits;
            (digits, rest) = word(rest, if abi + 1 < ABIS { b' ' } else { b'\n' });
            if digits[0] != b'-' {
                table[n].numbers[abi] = number(digits);
            }
            abi += 1;
        }
        n += 1;
    }
    table
}

/// Splits at the first `end`, which is dropped.
const fn word(text: &[u8], end: u8) -> (&[u8], &[u8]) {
    let mut length = 0;
    while text[length] != end {
        length += 1;
    }
    let (word, rest) = text.split_at(length);
    (word, rest.split_at(1).1)
}

const fn number(digits: &[u8]) -> u32 {
    let (mut number, mut i) = (0, 0);
    while i < digits.len() {
        number = number * 10 + (digits[i] - b'0') as u32;
        i += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_right_for_this_machine() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        let number = |name: &str, abi| Index::find(name).unwrap().number(abi);
        assert_eq!(number("read", Abi::X86_64), Some(0));
        assert_eq!(number("execve", Abi::X86), Some(11));
        assert_eq!(number("execve", Abi::X32), Some(520));
        assert_eq!(number("execve", Abi::Aarch64), Some(221));
        assert_eq!(number("cacheflush", Abi::Arm), Some(983_042));
        assert_eq!(number("open", Abi::Aarch64), None);
        assert!(Index::find("opens").is_none());
        let native = Abi::native();
        for (name, expected) in [
            ("close", nix::libc::SYS_close),
            ("openat2", nix::libc::SYS_openat2),
            ("seccomp", nix::libc::SYS_seccomp),
            ("clone3", nix::libc::SYS_clone3),
            ("mount_setattr", nix::libc::SYS_mount_setattr),
        ] {
            assert_eq!(number(name, native).map(i64::from), Some(expected), "{name}");
        }
        let found = calls!("# comment\nwrite  _llseek\n");
        assert_eq!(found, &["write", "_llseek"].map(|name| Index::find(name).unwrap()));
    }
}
