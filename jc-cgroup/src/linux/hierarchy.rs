//! The mounted cgroup hierarchies: one of v2, several of v1, or both (cgroups(7)).

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jc_unshare::mountinfo::{MountInfo, unescape};
use jc_unshare::{Context, Error, Result};
use rustix::fs::{StatFs, fstatfs, statfs};

/// The version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// A hierarchy for each controller, or pair of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A cgroup hierarchy that is mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hierarchy {
    /// The version of the interface.
    pub version: Version,
    /// The path of the mount point.
    pub mount: PathBuf,
    /// The directory of the group that this process is in.
    pub own: PathBuf,
    /// The controllers. The controllers of v2 are read at the first use.
    controllers: OnceCell<Vec<String>>,
}

impl Hierarchy {
    /// Whether the hierarchy has the controller.
    pub fn has(&self, controller: &str) -> Result<bool> {
        let controllers = match self.controllers.get() {
            Some(known) => known,
            // The hierarchy is that of v2, whose controllers matter only for limits.
            None => {
                let path = self.mount.join("cgroup.controllers");
                let names = fs::read_to_string(&path).on("read", &path)?;
                let names = names.split_whitespace().map(str::to_owned);
                self.controllers.get_or_init(|| names.collect())
            }
        };
        Ok(controllers.iter().any(|name| name == controller))
    }
}

/// The hierarchies for groups. If groups need only v2 (`uses_version_1` is false), nothing checks that the hierarchies of
/// version 1 are mounted: a removal of dead groups finds none in a hierarchy that is not mounted.
pub fn all(uses_version_1: bool) -> Result<Vec<Hierarchy>> {
    let groups = read("/proc/self/cgroup")?;
    if let Some(hierarchies) = from_fixed_layout(&groups, uses_version_1) {
        return Ok(hierarchies);
    }
    in_table(&groups)
}

/// All mounted hierarchies, by mountinfo.
pub fn listed() -> Result<Vec<Hierarchy>> {
    in_table(&read("/proc/self/cgroup")?)
}

fn in_table(groups: &str) -> Result<Vec<Hierarchy>> {
    let mountinfo = read("/proc/self/mountinfo")?;
    let all = mountinfo.lines().filter_map(|line| parse(line, groups));
    let (seen, covered): (Vec<Hierarchy>, Vec<Hierarchy>) =
        all.partition(|hierarchy| is_mounted(&hierarchy.mount, hierarchy.version));
    match covered.first() {
        Some(first) if seen.is_empty() => Err(Error::new(format_args!(
            "cgroup hierarchy {}: another mount covers it",
            first.mount.display()
        ))),
        _ => Ok(seen),
    }
}

/// The hierarchies of `/proc/self/cgroup` (cgroups(7)), if each is mounted as a whole at its usual mount point.
/// mountinfo is not read for that, since a machine with containers may have thousands of mounts.
fn from_fixed_layout(groups: &str, uses_version_1: bool) -> Option<Vec<Hierarchy>> {
    let top = Path::new("/sys/fs/cgroup");
    let mounts = [top.to_owned(), top.join("unified")];
    let unified = mounts.into_iter().find(|mount| is_whole(mount, Version::V2));
    // If v2 is mounted at the top, no other hierarchy is below. The kernel may have others, which are not mounted.
    let is_only = unified.as_deref() == Some(top);
    let hierarchy = |line: &str| {
        let (names, group) = names_and_group(line)?;
        let group = group.strip_prefix('/')?;
        let (version, mount) = match names {
            "" => (Version::V2, unified.clone()?),
            names => (Version::V1, top.join(names.trim_start_matches("name="))),
        };
        // A group above the root of the cgroup namespace.
        let is_above = group.split('/').any(|part| part == "..");
        let is_sure = version == Version::V2 || !uses_version_1 || is_whole(&mount, version);
        (!is_above && is_sure).then(|| Hierarchy {
            version,
            own: mount.join(group),
            mount,
            controllers: controllers(names),
        })
    };
    // If hierarchies of version 1 are in use, the unified hierarchy need not be mounted.
    let is_needed = |line: &&str| {
        if line.starts_with("0::") {
            unified.is_some() || !uses_version_1
        } else {
            uses_version_1 || !is_only
        }
    };
    let all: Option<Vec<Hierarchy>> = groups.lines().filter(is_needed).map(hierarchy).collect();
    // Without hierarchies of version 1, the unified hierarchy must be mounted.
    let is_enough = |one: &Hierarchy| uses_version_1 || one.version == Version::V2;
    all.filter(|all| all.iter().any(is_enough))
}

/// Whether a hierarchy is mounted there as a whole, by the type of the file system and the inode number of kernfs'
/// root.
fn is_whole(mount: &Path, version: Version) -> bool {
    is_mounted(mount, version) && fs::metadata(mount).is_ok_and(|meta| meta.ino() == 1)
}

fn is_mounted(mount: &Path, version: Version) -> bool {
    statfs(mount).is_ok_and(|found| is_type(&found, version))
}

/// Whether an open directory is a cgroup.
pub fn is_cgroup(directory: impl AsFd, version: Version) -> bool {
    fstatfs(directory).is_ok_and(|found| is_type(&found, version))
}

/// Whether the type of a file system (statfs(2)) is that of cgroups.
fn is_type(found: &StatFs, version: Version) -> bool {
    const CGROUP_SUPER_MAGIC: u64 = 0x0027_E0EB;
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let magic = match version {
        Version::V1 => CGROUP_SUPER_MAGIC,
        Version::V2 => CGROUP2_SUPER_MAGIC,
    };
    found.f_type as u64 == magic
}

/// Reads a file of procfs. Its length is unknown, and the capacity spares further read(2) calls.
fn read(path: &str) -> Result<String> {
    let mut text = String::with_capacity(1 << 13);
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).on("read", path)?;
    Ok(text)
}

/// The hierarchy that has the controller. Its absence is an error.
pub fn with<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Result<&'a Hierarchy> {
    find(hierarchies, controller)?.ok_or_else(|| missing(controller))
}

/// The hierarchy that has the controller, if there is one.
pub fn find<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Result<Option<&'a Hierarchy>> {
    for hierarchy in hierarchies {
        if hierarchy.has(controller)? {
            return Ok(Some(hierarchy));
        }
    }
    Ok(None)
}

/// The error for a controller that no mounted hierarchy has, with the reason in /proc/cgroups.
fn missing(controller: &str) -> Error {
    let error = Error::new(format_args!("cgroup controller {controller}: not available"));
    let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let enabled = known.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.first() == Some(&controller)).then(|| fields.last() == Some(&"1"))
    });
    match enabled {
        Some(true) => {
            error.hint("the kernel has the controller, but no hierarchy with it is mounted here")
        }
        Some(false) => error.hint("the kernel's command line disables the controller"),
        None => error.hint("this kernel is built without the controller"),
    }
}

/// The hierarchy of a line of mountinfo (proc_pid_mountinfo(5)). mountinfo has no controllers of a v2 hierarchy.
fn parse(line: &str, groups: &str) -> Option<Hierarchy> {
    let line = MountInfo::parse(line)?;
    let (version, names) = match line.kind {
        "cgroup2" => (Version::V2, ""),
        "cgroup" => (Version::V1, line.options),
        _ => return None,
    };
    let (root, mount) = (unescape(line.root), unescape(line.point));
    let group = own_group(groups, names).unwrap_or(Path::new("/"));
    // A bind mount or a cgroup namespace may show only a part of the hierarchy.
    let own = mount.join(group.strip_prefix(&root).unwrap_or(Path::new("")));
    Some(Hierarchy { version, mount, own, controllers: controllers(names) })
}

/// The controllers of a hierarchy of version 1, separated by commas. The unified hierarchy has no names.
fn controllers(names: &str) -> OnceCell<Vec<String>> {
    match names {
        "" => OnceCell::new(),
        _ => names.split(',').map(str::to_owned).collect::<Vec<_>>().into(),
    }
}

/// The second and third field of a line of `/proc/PID/cgroup`, which is `NUMBER:NAMES:GROUP`.
fn names_and_group(line: &str) -> Option<(&str, &str)> {
    line.split_once(':')?.1.split_once(':')
}

/// The group of a process in the hierarchy with one of these controllers, by its `/proc/PID/cgroup` (cgroups(7)).
/// Without controllers the hierarchy is the unified one.
fn own_group<'a>(groups: &'a str, controllers: &str) -> Option<&'a Path> {
    groups.lines().find_map(|line| {
        let (names, group) = names_and_group(line)?;
        let same = match controllers {
            "" => names.is_empty(),
            _ => names.split(',').any(|name| controllers.split(',').any(|known| known == name)),
        };
        same.then_some(Path::new(group))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_has_both_versions() {
        let line = "34 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let groups = "4:cpu,cpuacct:/a/b\n0::/c\n";
        let v1 = parse(line, groups).unwrap();
        assert_eq!(v1.own, Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert!(v1.has("cpu").unwrap());
        assert_eq!((v1.version, v1.mount), (Version::V1, "/sys/fs/cgroup/cpu,cpuacct".into()));
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
    fn the_usual_layout_needs_no_table_of_mounts() {
        let groups = read("/proc/self/cgroup").unwrap();
        let mut listed = in_table(&groups).unwrap();
        listed.sort_by_key(|hierarchy| hierarchy.mount.clone());
        if let Some(mut usual) = from_fixed_layout(&groups, true) {
            usual.sort_by_key(|hierarchy| hierarchy.mount.clone());
            // The table has other options of theirs among the controllers.
            let controllers = listed.iter_mut().filter_map(|h| h.controllers.get_mut());
            controllers.for_each(|names| names.retain(|name| name != "rw"));
            assert_eq!(usual, listed);
        }
        for elsewhere in ["", "0::/../x\n", "1:nosuch:/\n", "2:memory:/a/../..\n0::/\n", "garbage"]
        {
            let found = from_fixed_layout(elsewhere, true);
            assert_eq!(found, None, "{elsewhere:?}");
            assert_eq!(from_fixed_layout(elsewhere, false), None, "{elsewhere:?}");
        }
    }

    #[test]
    fn a_controller_that_no_kernel_has_is_said_so() {
        let error = with(&[], "nosuch").unwrap_err().report("t");
        assert!(
            error.ends_with("t: hint: this kernel is built without the controller\n"),
            "{error}"
        );
    }
}
