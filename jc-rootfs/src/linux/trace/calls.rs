//! The system calls that a recorder looks at, and the arguments with their facts.

use std::sync::Arc;

use super::super::seccomp::{ABIS, Abi, Call, TABLE, X32_BIT};

/// The calls with paths.
const PATHS: &str = include_str!("calls.tbl");
/// The calls that are not notified without `--calls`.
const FREQUENT: &str = include_str!("frequent.tbl");
/// The calls that a learned profile keeps.
const KEPT: &str = include_str!("kept.tbl");

/// The calls that read a path of a symbolic link, which are not notified without `--links`.
pub const LINKS: [&str; 2] = ["readlink", "readlinkat"];

/// The first of these arguments of a call that a profile can compare, with its mask.
const VALUES: [(&str, u8, u64); 18] = [
    ("arch_prctl", 0, 0xFFFF_FFFF),
    ("bpf", 0, 0xFFFF_FFFF),
    ("clone", 0, 0xFFFF_FFFF),
    ("fcntl", 1, 0xFFFF_FFFF),
    ("fcntl64", 1, 0xFFFF_FFFF),
    ("ioctl", 1, 0xFFFF_FFFF),
    ("ipc", 0, 0xFFFF),
    ("keyctl", 0, 0xFFFF_FFFF),
    ("madvise", 2, 0xFFFF_FFFF),
    ("personality", 0, 0xFFFF_FFFF),
    ("prctl", 0, 0xFFFF_FFFF),
    ("ptrace", 0, 0xFFFF_FFFF),
    ("seccomp", 0, 0xFFFF_FFFF),
    ("setns", 1, 0xFFFF_FFFF),
    ("socket", 0, 0xFFFF_FFFF),
    ("socketcall", 0, 0xFF),
    ("socketpair", 0, 0xFFFF_FFFF),
    ("unshare", 0, 0xFFFF_FFFF),
];

/// The calls that may change the root or the mounts of a process.
const MOVES: [&str; 9] = [
    "chroot",
    "fsmount",
    "mount",
    "move_mount",
    "open_tree",
    "pivot_root",
    "setns",
    "umount2",
    "unshare",
];

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
    VALUES.iter().find(|(known, ..)| *known == name).map(|(_, argument, mask)| (*argument, *mask))
}

/// An argument with a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathArgument {
    /// The path at this argument, relative to the working directory.
    Plain(u8),
    /// The path at the second argument, relative to the directory descriptor at the first.
    At(u8, u8),
    /// The file of the descriptor at this argument.
    Descriptor(u8),
}

/// The meaning of a call for a recorder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Meaning {
    pub name: &'static str,
    /// The use of the paths, as the report names it.
    pub usage: &'static str,
    pub paths: Vec<PathArgument>,
    pub value: Option<(u8, u64)>,
    /// The root or the mounts of the caller may change.
    pub moves: bool,
}

/// The meanings by ABI and number.
pub struct Meanings {
    by_abi: [Vec<Option<Arc<Meaning>>>; ABIS],
}

/// All ABIs, in the order of the table.
const ALL: [Abi; ABIS] = [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm];

impl Meanings {
    /// The meanings of all calls of this machine's ABIs.
    pub fn new() -> Self {
        let of_native = match Abi::native() {
            Abi::Aarch64 => [Abi::Aarch64, Abi::Arm].as_slice(),
            _ => &[Abi::X86_64, Abi::X86, Abi::X32],
        };
        let mut by_abi: [Vec<Option<Arc<Meaning>>>; ABIS] = Default::default();
        for call in &TABLE {
            let meaning = Arc::new(meaning(call));
            for abi in of_native {
                // ARM's private calls have numbers far behind the others.
                let Some(number) = call.number(*abi).filter(|number| *number < 4096) else {
                    continue;
                };
                let meanings = &mut by_abi[*abi as usize];
                if meanings.len() <= number as usize {
                    meanings.resize(number as usize + 1, None);
                }
                meanings[number as usize] = Some(Arc::clone(&meaning));
            }
        }
        Self { by_abi }
    }

    /// The meaning of a call. `None`: a call that the table lacks.
    pub fn find(&self, abi: Abi, number: u32) -> Option<&Arc<Meaning>> {
        let number = if abi == Abi::X32 { number & !X32_BIT } else { number };
        self.by_abi[abi as usize].get(number as usize)?.as_ref()
    }
}

fn meaning(call: &Call) -> Meaning {
    let mut lines = PATHS.lines().filter(|line| !line.starts_with('#'));
    let mut fields = lines
        .find_map(|line| line.strip_prefix(call.name)?.strip_prefix(' '))
        .unwrap_or_default()
        .split(' ');
    let usage = fields.next().unwrap_or_default();
    let mut paths = Vec::new();
    while let (Some(directory), Some(path)) = (fields.next(), fields.next()) {
        let argument = |word: &str| word.parse().unwrap_or_default();
        paths.push(match (directory, path) {
            ("-", path) => PathArgument::Plain(argument(path)),
            (descriptor, "fd") => PathArgument::Descriptor(argument(descriptor)),
            (directory, path) => PathArgument::At(argument(directory), argument(path)),
        });
    }
    let (value, moves) = (value_argument(call.name), MOVES.contains(&call.name));
    Meaning { name: call.name, usage, paths, value, moves }
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

/// The ABI with a name, and the name of libseccomp.
pub fn abi_by_name(name: &str) -> Option<(Abi, &'static str)> {
    const NAMES: [&str; ABIS] = [
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
    ];
    let abi = ALL.into_iter().find(|abi| abi_name(*abi) == name)?;
    Some((abi, NAMES[abi as usize]))
}

#[cfg(test)]
mod tests {
    use super::super::super::seccomp::find;
    use super::*;

    #[test]
    fn each_name_of_the_lists_is_a_system_call() {
        let paths = PATHS.lines().filter(|line| !line.starts_with('#'));
        let paths = paths.filter_map(|line| line.split(' ').next());
        let values = VALUES.iter().map(|(name, ..)| *name);
        for name in paths.chain(frequent()).chain(kept()).chain(values).chain(MOVES).chain(LINKS) {
            assert!(find(&TABLE, name).is_some(), "{name}");
        }
        let both = frequent().find(|name| kept().any(|kept| kept == *name));
        assert_eq!(both, None);
    }

    #[test]
    fn a_call_has_the_paths_of_its_arguments() {
        let meanings = Meanings::new();
        let number = |name: &str| find(&TABLE, name).unwrap().number(Abi::native()).unwrap();
        let find = |name: &str| meanings.find(Abi::native(), number(name)).unwrap();
        use PathArgument::{At, Descriptor};
        for (name, usage, paths) in [
            ("openat", "open", &[At(0, 1)][..]),
            ("renameat2", "rename", &[At(0, 1), At(2, 3)]),
            ("getdents64", "list", &[Descriptor(0)]),
            ("read", "", &[]),
        ] {
            let found = find(name);
            assert_eq!((found.name, found.usage, &found.paths[..]), (name, usage, paths));
        }
        assert_eq!(find("socket").value, Some((0, 0xFFFF_FFFF)));
        assert!(find("chroot").moves);
    }
}
