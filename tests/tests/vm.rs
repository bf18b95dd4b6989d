//! The programs on other kernels, processors and init systems, in virtual machines, with cgroup v2 and all controllers. The
//! feature `vm` adds the machines that are no part of `make test`.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::{Machine, sandbox_for};

/// The time for the start of the emulator, and for the report.
const MARGIN: Duration = Duration::from_secs(20);

/// Defines a test for each script and machine.
macro_rules! machines {
    ($($(#[$feature:meta])? $name:ident: $machine:ident runs $script:literal;)*) => {
        $(
            $(#[$feature])?
            #[test]
            fn $name() {
                let script = include_str!(concat!("../vm/", $script, ".sh"));
                sandbox_for(Machine::$machine.limit + MARGIN, |s| Machine::$machine.run(s, script));
            }
        )*
    };
}

machines! {
    limits_hold_on_cgroup_v2: STABLE runs "cgroup";
    networks_work_where_their_parts_are_modules: STABLE runs "net";
    roots_work_without_newer_mount_calls: STABLE runs "rootfs";
    containers_live_and_end_on_cgroup_v2: STABLE runs "run";
    #[cfg(feature = "vm")] containers_of_bundles_live_and_end_on_cgroup_v2: STABLE runs "oci";
    #[cfg(feature = "vm")] a_kernel_that_is_too_old_is_named: OLDEST runs "oldest";
    #[cfg(feature = "vm")] limits_hold_on_aarch64: AARCH64 runs "cgroup";
    #[cfg(feature = "vm")] networks_work_on_aarch64: AARCH64 runs "net";
    #[cfg(feature = "vm")] roots_work_on_aarch64: AARCH64 runs "rootfs";
    #[cfg(feature = "vm")] containers_live_and_end_on_aarch64: AARCH64 runs "run";
    #[cfg(feature = "vm")] containers_of_bundles_are_in_scopes_of_systemd: SYSTEMD runs "scopes";
    #[cfg(feature = "vm")] delegation_by_systemd_reaches_users_and_services: SYSTEMD runs "systemd";
}
