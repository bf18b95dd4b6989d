//! The system calls that a recorder looks at, and the arguments with their facts.

use std::sync::OnceLock;

use super::super::seccomp::{ABIS, Abi, Call, TABLE, X32_BIT};

const PATHS: &str = include_str!("calls.tbl");
/// The calls that are not notified without `--calls`.
const FREQUENT: &str = include_str!("frequent.tbl");
/// The calls that a learned profile keeps.
const KEPT: &str = include_str!("kept.tbl");

/// The calls that read a path of a symbolic link, which are not notified without `--links`.
pub const LINKS: [&str; 2] = ["readlink", "readlinkat"];

/// All bits of an argument that a profile can compare: the kernel ignores the others.
const WHOLE: u64 = 0xFFFF_FFFF;

/// The first of the arguments of calls that a profile can compare, with its mask.
const VALUES: [(u8, u64, &str); 5] = [
    (
        0,
        WHOLE,
        "arch_prctl bpf clone keyctl personality prctl ptrace seccomp socket socketpair unshare",
    ),
    (0, 0xFFFF, "ipc"),
    (0, 0xFF, "socketcall"),
    (1, WHOLE, "fcntl fcntl64 ioctl setns"),
    (2, WHOLE, "madvise"),
];

/// The calls that may change the root or the mounts of a process.
const MOVES: &str = "chroot fsmount mount move_mount open_tree pivot_root setns umount2 unshare";

fn words(table: &'static str) -> impl Iterator<Item = &'static str> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_ascii_whitespace)
}

/// The calls that are not notified without `--calls`.
pub fn frequent() -> impl Iterator<Item = &'static str> {
    words(FREQUENT)
}

/// The calls that a learned profile keeps, apart from the frequent ones.
pub fn kept() -> impl Iterator<Item = &'static str> {
    words(KEPT)
}

/// The argument of a call that is recorded as its value, with the mask of its bits.
pub fn value_argument(name: &str) -> Option<(u8, u64)> {
    let has = |names| words(names).any(|known| known == name);
    VALUES.iter().find(|(.., names)| has(names)).map(|(argument, mask, _)| (*argument, *mask))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathArgument {
    /// The path at this argument, relative to the working directory.
    Plain(u8),
    /// The path at the second argument, relative to the directory descriptor at the first.
    At(u8, u8),
    /// The file of the descriptor at this argument.
    Descriptor(u8),
}

/// Whether a call follows a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Follows {
    #[default]
    Always,
    Never,
    /// Unless the flags in this argument have AT_SYMLINK_NOFOLLOW.
    ByFlags(u8),
    /// Unless the flags of an open have O_NOFOLLOW.
    ByOpen,
}

/// The meaning of a call for a recorder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Meaning {
    pub name: &'static str,
    /// The use of the paths, as the report names it.
    pub usage: &'static str,
    pub follows: Follows,
    pub paths: Vec<PathArgument>,
    pub value: Option<(u8, u64)>,
    /// The root or the mounts of the caller may change.
    pub moves: bool,
}

/// All ABIs, in the order of the table.
const ALL: [Abi; ABIS] = [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm];

/// The meanings of all calls by ABI and number.
type Meanings = [Vec<Option<Meaning>>; ABIS];

/// The meaning of a call. `None`: a call that the table lacks.
pub fn find_meaning(abi: Abi, number: u32) -> Option<&'static Meaning> {
    static MEANINGS: OnceLock<Meanings> = OnceLock::new();
    let number = if abi == Abi::X32 { number & !X32_BIT } else { number };
    MEANINGS.get_or_init(meanings)[abi as usize].get(number as usize)?.as_ref()
}

fn meanings() -> Meanings {
    let mut meanings = Meanings::default();
    for call in &TABLE {
        let meaning = meaning(call);
        for abi in ALL {
            // ARM's private calls have numbers far behind the others.
            if let Some(number) = call.number(abi).filter(|number| *number < 4096) {
                let of_abi = &mut meanings[abi as usize];
                of_abi.resize(of_abi.len().max(number as usize + 1), None);
                of_abi[number as usize] = Some(meaning.clone());
            }
        }
    }
    meanings
}

fn meaning(call: &Call) -> Meaning {
    let mut meaning = Meaning {
        name: call.name,
        value: value_argument(call.name),
        moves: words(MOVES).any(|name| name == call.name),
        ..Meaning::default()
    };
    let fields = PATHS.lines().find_map(|line| line.strip_prefix(call.name)?.strip_prefix(' '));
    let mut fields = fields.into_iter().flat_map(|line| line.split(' '));
    let number = |word: &str| word.parse().unwrap_or_default();
    meaning.usage = fields.next().unwrap_or_default();
    meaning.follows = match fields.next() {
        None | Some("yes") => Follows::Always,
        Some("no") => Follows::Never,
        Some("open") => Follows::ByOpen,
        Some(argument) => Follows::ByFlags(number(argument)),
    };
    while let (Some(directory), Some(path)) = (fields.next(), fields.next()) {
        meaning.paths.push(match (directory, path) {
            ("-", path) => PathArgument::Plain(number(path)),
            (descriptor, "fd") => PathArgument::Descriptor(number(descriptor)),
            (directory, path) => PathArgument::At(number(directory), number(path)),
        });
    }
    meaning
}

/// The ABI of a call by its architecture and number.
pub fn abi_of(arch: u32, number: u32) -> Option<Abi> {
    let abi = ALL.into_iter().find(|abi| abi.audit_arch() == arch)?;
    Some(if abi == Abi::X86_64 && number & X32_BIT != 0 { Abi::X32 } else { abi })
}

/// The name of an ABI in a report.
pub fn abi_name(abi: Abi) -> &'static str {
    ["x86_64", "x86", "x32", "aarch64", "arm"][abi as usize]
}

#[cfg(test)]
mod tests {
    use super::super::super::seccomp::find;
    use super::*;

    #[test]
    fn each_name_of_the_lists_is_a_system_call() {
        let paths = PATHS.lines().filter(|line| !line.starts_with('#'));
        let paths = paths.filter_map(|line| line.split(' ').next());
        let values = VALUES.iter().flat_map(|(.., names)| words(names));
        for name in
            paths.chain(frequent()).chain(kept()).chain(values).chain(words(MOVES)).chain(LINKS)
        {
            assert!(find(&TABLE, name).is_some(), "{name}");
        }
        let both = frequent().find(|name| kept().any(|kept| kept == *name));
        assert_eq!(both, None);
    }

    #[test]
    fn a_call_has_the_paths_of_its_arguments() {
        let number = |name: &str| find(&TABLE, name).unwrap().number(Abi::native()).unwrap();
        let find = |name: &str| find_meaning(Abi::native(), number(name)).unwrap();
        use PathArgument::{At, Descriptor};
        for (name, usage, follows, paths) in [
            ("openat", "open", Follows::ByOpen, &[At(0, 1)][..]),
            ("renameat2", "rename", Follows::Never, &[At(0, 1), At(2, 3)]),
            ("statx", "stat", Follows::ByFlags(2), &[At(0, 1)]),
            ("getdents64", "list", Follows::Always, &[Descriptor(0)]),
            ("read", "", Follows::Always, &[]),
        ] {
            let found = find(name);
            assert_eq!((found.name, found.usage), (name, usage));
            assert_eq!((found.follows, &found.paths[..]), (follows, paths), "{name}");
        }
        assert_eq!(find("socket").value, Some((0, 0xFFFF_FFFF)));
        assert!(find("chroot").moves);
    }
}
