//! The cgroups of a process as the kernel shows them, on v1, v2 and hybrid hosts.

use std::fs;
use std::path::{Path, PathBuf};

/// A controller of a process: the directory of the group, and the version of its files.
pub struct Controller {
    /// The directory of the group.
    pub dir: PathBuf,
    /// Whether the group is one of cgroup v2.
    pub v2: bool,
}

impl Controller {
    /// The group of a process for this controller, by `/proc/PID/cgroup` (cgroups(7)). `None`: no hierarchy of this
    /// host has the controller.
    pub fn of(pid: u32, controller: &str) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = |kind: &str, option: &str| {
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find_map(|fields| {
                let fits = fields[2] == kind && fields[3].split(',').any(|o| o == option);
                fits.then(|| PathBuf::from(fields[1]))
            })
        };
        for line in groups.lines() {
            let fields: Vec<&str> = line.splitn(3, ':').collect();
            let group = fields[2].trim_start_matches('/');
            if fields[1].split(',').any(|name| name == controller) {
                let dir = mount("cgroup", controller)?.join(group);
                return Some(Self { dir, v2: false });
            }
            if fields[0] == "0" {
                let root = mount("cgroup2", "rw");
                let all = |dir: &Path| fs::read_to_string(dir.join("cgroup.controllers"));
                if let Some(root) = root
                    && all(&root).is_ok_and(|list| list.split_whitespace().any(|c| c == controller))
                {
                    return Some(Self { dir: root.join(group), v2: true });
                }
            }
        }
        None
    }

    /// The content of a file of the group, without the newline.
    pub fn read(&self, v1: &str, v2: &str) -> String {
        let path = self.dir.join(if self.v2 { v2 } else { v1 });
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }
}

/// Whether this host has the controller.
pub fn can_limit(controller: &str) -> bool {
    Controller::of(std::process::id(), controller).is_some()
}

/// A group in every hierarchy, for groups of a single test below it.
pub struct ParentGroup(&'static str);

impl ParentGroup {
    /// Makes the group in every hierarchy.
    pub fn make(name: &'static str) -> Self {
        let place = Self(name);
        place.directories().iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
        place
    }

    /// The name, which is also the path in each hierarchy.
    pub fn name(&self) -> &'static str {
        self.0
    }

    /// The directories of the group.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let cgroups = fields.filter(|fields| fields[2].starts_with("cgroup"));
        cgroups.map(|fields| PathBuf::from(fields[1]).join(self.0)).collect()
    }

    /// The groups directly below the group.
    pub fn groups(&self) -> Vec<PathBuf> {
        let entries = self.directories().into_iter().flat_map(|path| fs::read_dir(path).unwrap());
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// Removes the group. The removal fails if the group has content.
    pub fn remove(self) {
        self.directories().iter().for_each(|directory| fs::remove_dir(directory).unwrap());
    }
}
