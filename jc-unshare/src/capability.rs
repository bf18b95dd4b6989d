//! Names and numbers of capabilities (capabilities(7)).

/// Declares each capability as a constant with its number. The first one has number 0.
macro_rules! capabilities {
    ($($name:ident)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the kernel's names")]
        enum Number { $($name),* }

        $(
            #[doc = concat!("CAP_", stringify!($name))]
            pub const $name: u32 = Number::$name as u32;
        )*

        /// The names without `CAP_`. The index of a name is the number of the capability.
        pub const NAMES: [&str; CHECKPOINT_RESTORE as usize + 1] = [$(stringify!($name)),*];
    };
}

capabilities! {
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
}

/// The number of a capability, by its name in capitals with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == name).map(|position| position as u32)
}

/// The name of a capability without `CAP_`, or the number where this program knows no name.
pub fn name(number: u32) -> String {
    NAMES.get(number as usize).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}
