//! System call ABIs.

/// The number of ABIs.
pub const ABIS: usize = 5;

/// A system call ABI. The discriminant is the column in the table of system calls.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Abi {
    /// 64-bit programs of x86_64.
    X86_64,
    /// 32-bit programs of x86.
    X86,
    /// Programs of x86_64 with 32-bit pointers. The numbers of their calls have [`X32_BIT`].
    X32,
    /// 64-bit programs of ARM.
    Aarch64,
    /// 32-bit programs of ARM.
    Arm,
}

impl Abi {
    /// The ABI of this program.
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The ABI that a constant of libseccomp names. `None` for an ABI of other machines.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return None,
        })
    }

    /// The name of the native ABI in `includes` and `excludes`.
    pub const fn native_name() -> &'static str {
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    }

    /// AUDIT_ARCH of Linux' audit.h, as in `struct seccomp_data`.
    pub const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xC000_003E,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits. The upper half of a 32-bit argument has no meaning.
    pub const fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }
}

/// The bit that numbers of x32 have and numbers of x86_64 lack (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;
