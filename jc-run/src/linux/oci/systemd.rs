//! Cgroups that systemd makes: a transient scope for the chain, by busctl(1). The property `Delegate` leaves the cgroups
//! below that of the scope to jc-cgroup. The container has one of these: `systemctl daemon-reload` sets the limits of the
//! scope itself anew.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};

use super::group;

/// The longest time from the request to the move of the process.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name of the container's cgroup below that of the scope.
const GROUP: &str = "container";

/// A scope of systemd with its slice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    slice: String,
    pub unit: String,
}

impl Scope {
    /// Parses `SLICE:PREFIX:NAME` of `linux.cgroupsPath`.
    pub fn parse(configured: &str, id: &str) -> Result<Self> {
        let fault =
            || Error::new(format_args!("linux.cgroupsPath {configured:?}: not SLICE:PREFIX:NAME"));
        let (slice, prefix, name) = match configured.split(':').collect::<Vec<_>>().as_slice() {
            [""] => ("", "jc-oci", id),
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => return Err(fault()),
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let fine = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let words = [slice, prefix, name];
        let stem = slice
            .strip_suffix(".slice")
            .filter(|stem| *stem == "-" || !stem.split('-').any(str::is_empty));
        if name.is_empty() || stem.is_none() || !words.iter().all(|word| word.bytes().all(fine)) {
            return Err(fault());
        }
        let unit = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        Ok(Self { slice: slice.to_owned(), unit: format!("{unit}.scope") })
    }

    /// The path of the container's cgroup.
    pub fn path(&self) -> String {
        format!("{}/{GROUP}", self.own_path())
    }

    /// The path of the scope's cgroup: each dash of the name of a slice is a level (systemd.slice(5)).
    fn own_path(&self) -> String {
        let mut path = String::new();
        let stem = self.slice.trim_end_matches(".slice");
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        for end in ends.filter(|_| stem != "-") {
            path += &format!("/{}.slice", &stem[..end]);
        }
        format!("{path}/{}", self.unit)
    }

    /// Asks systemd for the scope with one process.
    pub fn start(&self, pid: u32) -> Result<()> {
        let pid_word = pid.to_string();
        let description = format!("jc-oci container {}", self.unit);
        let properties = [
            &["Description", "s", &description][..],
            &["Slice", "s", &self.slice],
            &["PIDs", "au", "1", &pid_word],
            &["Delegate", "b", "true"],
            &["DefaultDependencies", "b", "false"],
        ];
        let count = properties.len().to_string();
        let signature = ["StartTransientUnit", "ssa(sv)a(sa(sv))", &self.unit, "replace", &count];
        call(&[&signature[..], &properties.concat(), &["0"]].concat())
    }

    /// Waits until a process is in the scope, and moves it to the container's group in version 2, where a group with
    /// processes gives no controllers to groups below (cgroup-v2.rst, "No Internal Process Constraint").
    pub fn enter(&self, pid: u32) -> Result<()> {
        self.wait(pid)?;
        for scope in group::directories(&self.own_path())? {
            if jc_unshare::exists(scope.join("cgroup.controllers"))? {
                let directory = scope.join(GROUP);
                fs::create_dir(&directory).on("mkdir", &directory)?;
                let file = directory.join("cgroup.procs");
                fs::write(&file, pid.to_string()).on("write", &file)?;
            }
        }
        Ok(())
    }

    fn wait(&self, pid: u32) -> Result<()> {
        let (path, deadline) = (format!("/proc/{pid}/cgroup"), Instant::now() + PATIENCE);
        loop {
            let text = fs::read_to_string(&path).on("read", &path)?;
            if text.lines().any(|line| line.ends_with(&self.own_path())) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (unit, seconds) = (&self.unit, PATIENCE.as_secs());
                return Err(Error::new(format_args!("{unit}: no process after {seconds} seconds")));
            }
            sleep(Duration::from_millis(2));
        }
    }
}

/// Stops a scope. systemd removes one without processes, so that its absence is no error.
pub fn stop(unit: &str) -> Result<()> {
    match call(&["StopUnit", "ss", unit, "replace"]) {
        Err(error) if error.to_string().contains("not loaded") => Ok(()),
        stopped => stopped,
    }
}

fn call(words: &[&str]) -> Result<()> {
    let mut command = Command::new("busctl");
    command.args(["--system", "--quiet", "call", "org.freedesktop.systemd1"]);
    command.args(["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]);
    command.args(words).stdin(Stdio::null());
    let hint = "without systemd, leave --systemd-cgroup out";
    group::output(&mut command).map(drop).map_err(|error| error.hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_the_path_of_its_slice() {
        for (configured, path) in [
            ("", "/system.slice/jc-oci-c1.scope"),
            (":docker:x", "/system.slice/docker-x.scope"),
            ("-.slice::x", "/x.scope"),
            (
                "kubepods-burstable-pod1.slice:cri-containerd:x",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-x.scope",
            ),
        ] {
            let path = format!("{path}/container");
            assert_eq!(Scope::parse(configured, "c1").unwrap().path(), path);
        }
        for configured in
            ["/a/b", "a:b:c", "a.slice:b", "a.slice:b:", "a--b.slice:c:d", "a.slice:b:c/d"]
        {
            assert!(Scope::parse(configured, "c1").is_err(), "{configured}");
        }
    }
}
