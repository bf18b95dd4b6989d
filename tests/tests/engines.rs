//! Engines of Debian that call an OCI runtime. A script of `tests/engines` runs each engine with jc-oci, and with
//! runc for comparison. The feature `engines` (`make test-engines`) adds the engines that are no part of `make test`.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::{Sandbox, require, sandbox_for, workspace_dir};

/// The time limit of a script.
const END: Duration = Duration::from_secs(1000);

/// Runs the script of an engine with a runtime. Each of its checks holds, and it leaves no process and no group.
fn drive(s: &Sandbox, engine: &str, program: &str, runtime: &str) {
    require(s, program, "the packages of `tests/packages.sh engines`");
    require(s, runtime, "runc");
    let script = workspace_dir().join("tests/engines/run.sh");
    let ran = s.cmd(script).args([engine, runtime]).timeout(END).run();
    let failed: Vec<String> =
        ran.out().lines().filter(|line| line.starts_with("not ok: ")).map(str::to_owned).collect();
    assert!(failed.is_empty(), "{engine} with {runtime}:\n{}\n{ran}", failed.join("\n"));
    ran.code(0);
}

/// Defines a test for each engine and runtime.
macro_rules! engines {
    ($($(#[$feature:meta])? $name:ident: $program:literal by $script:literal with $runtime:literal;)*) => {
        $(
            $(#[$feature])?
            #[test]
            fn $name() {
                sandbox_for(END, |s| drive(s, $script, $program, $runtime));
            }
        )*
    };
}

engines! {
    podman_runs_containers_by_jc_oci: "podman" by "podman" with "jc-oci";
    #[cfg(feature = "engines")] podman_runs_containers_by_runc: "podman" by "podman" with "runc";
    podman_and_buildah_of_an_ordinary_user_run_containers_by_jc_oci: "buildah" by "rootless" with "jc-oci";
    #[cfg(feature = "engines")] podman_and_buildah_of_an_ordinary_user_run_containers_by_runc: "buildah" by "rootless" with "runc";
    #[cfg(feature = "engines")] buildah_builds_images_by_jc_oci: "buildah" by "buildah" with "jc-oci";
    #[cfg(feature = "engines")] buildah_builds_images_by_runc: "buildah" by "buildah" with "runc";
    #[cfg(feature = "engines")] containerd_runs_containers_by_jc_oci: "containerd" by "containerd" with "jc-oci";
    #[cfg(feature = "engines")] containerd_runs_containers_by_runc: "containerd" by "containerd" with "runc";
    #[cfg(feature = "engines")] containerd_runs_pods_by_jc_oci: "containerd" by "cri" with "jc-oci";
    #[cfg(feature = "engines")] containerd_runs_pods_by_runc: "containerd" by "cri" with "runc";
    #[cfg(feature = "engines")] docker_runs_containers_by_jc_oci: "dockerd" by "docker" with "jc-oci";
    #[cfg(feature = "engines")] docker_runs_containers_by_runc: "dockerd" by "docker" with "runc";
    #[cfg(feature = "engines")] slurm_runs_jobs_by_jc_oci: "slurmctld" by "slurm" with "jc-oci";
    #[cfg(feature = "engines")] slurm_runs_jobs_by_runc: "slurmctld" by "slurm" with "runc";
}
