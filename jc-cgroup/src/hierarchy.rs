//! Where cgroups are on this machine: one v2 hierarchy, several of v1, or both (cgroups(7)).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Error, Result};

/// The two interfaces of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One directory for each controller, or pair of them.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hierarchy {
    /// Which interface it has.
    pub version: Version,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The directory of the group that this process is in.
    pub own: PathBuf,
    /// What it can limit.
    pub controllers: Vec<String>,
}

/// All hierarchies that are mounted.
pub fn all() -> Result<Vec<Hierarchy>> {
    let groups = read("/proc/self/cgroup")?;
    let mountinfo = read("/proc/self/mountinfo")?;
    let parse = |line: &str| parse(line, &groups);
    let mut hierarchies: Vec<Hierarchy> = mountinfo.lines().filter_map(parse).collect();
    for unified in hierarchies.iter_mut().filter(|h| h.version == Version::V2) {
        let path = unified.mount.join("cgroup.controllers");
        let names = fs::read_to_string(&path).on("read", &path)?;
        unified.controllers = names.split_whitespace().map(str::to_owned).collect();
    }
    Ok(hierarchies)
}

/// Reads a file of procfs, whose length nobody knows, at one go.
fn read(path: &str) -> Result<String> {
    let mut text = String::with_capacity(1 << 14);
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).on("read", path)?;
    Ok(text)
}

/// The hierarchy that has the controller.
pub fn with<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Result<&'a Hierarchy> {
    let has = |h: &&Hierarchy| h.controllers.iter().any(|name| name == controller);
    hierarchies.iter().find(has).ok_or_else(|| missing(controller))
}

/// Says where a controller is that no mounted hierarchy has.
fn missing(controller: &str) -> Error {
    let error = Error::new(format_args!("cgroup controller {controller}: not available"));
    let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let enabled = known.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.first() == Some(&controller)).then(|| fields.last() == Some(&"1"))
    });
    match enabled {
        Some(true) => error.hint("the kernel has it, but no hierarchy that is mounted here"),
        Some(false) => error.hint("it is switched off by the kernel's command line"),
        None => error.hint("this kernel is built without it"),
    }
}

/// Reads a line of mountinfo (proc_pid_mountinfo(5)), and finds where in that hierarchy this process
/// is. A v2 hierarchy's controllers are not in it.
fn parse(line: &str, groups: &str) -> Option<Hierarchy> {
    let mut fields = line.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    let mut source = fields.skip_while(|field| *field != "-").skip(1);
    let (version, controllers) = match source.next()? {
        "cgroup2" => (Version::V2, Vec::new()),
        "cgroup" => (Version::V1, source.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    let (root, mount) = (unescape(root), unescape(mount));
    let group = own_group(groups, &controllers).unwrap_or(Path::new("/"));
    // A bind mount or a cgroup namespace may show only a part of the hierarchy.
    let own = mount.join(group.strip_prefix(&root).unwrap_or(Path::new("")));
    Some(Hierarchy { version, mount, own, controllers })
}

/// The group of a process in the hierarchy that has one of these controllers, or the unified one if
/// there are none, by its `/proc/PID/cgroup` (cgroups(7)).
fn own_group<'a>(groups: &'a str, controllers: &[String]) -> Option<&'a Path> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, group) = (fields.next()?, fields.next()?, fields.next()?);
        let same = match controllers.is_empty() {
            true => names.is_empty(),
            false => names.split(',').any(|name| controllers.iter().any(|known| known == name)),
        };
        same.then_some(Path::new(group))
    })
}

/// Undoes mountinfo's octal escapes of white space and backslashes.
fn unescape(field: &str) -> PathBuf {
    if !field.contains('\\') {
        return field.into();
    }
    let mut text = field.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, character);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_tells_both_versions() {
        let line = "34 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let groups = "4:cpu,cpuacct:/a/b\n0::/c\n";
        let v1 = parse(line, groups).unwrap();
        assert_eq!(v1.own, Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!((v1.version, v1.mount), (Version::V1, "/sys/fs/cgroup/cpu,cpuacct".into()));
        assert!(v1.controllers.contains(&"cpu".to_owned()));
        let v2 = parse(
            "30 23 0:26 / /sys/fs/c\\040g rw shared:4 - cgroup2 cgroup2 rw,nsdelegate",
            groups,
        );
        let v2 = v2.unwrap();
        assert_eq!(v2.own, Path::new("/sys/fs/c g/c"));
        assert_eq!((v2.version, v2.mount), (Version::V2, "/sys/fs/c g".into()));
        let part = parse("30 23 0:26 /c /mnt rw - cgroup2 cgroup2 rw", groups).unwrap();
        assert_eq!(part.own, Path::new("/mnt"));
        assert_eq!(parse("22 1 8:1 / / rw - ext4 /dev/sda1 rw", groups), None);
    }

    #[test]
    fn a_controller_that_no_kernel_has_is_said_so() {
        let error = with(&[], "nosuch").unwrap_err().report("t");
        assert!(error.ends_with("t: hint: this kernel is built without it\n"), "{error}");
    }
}
