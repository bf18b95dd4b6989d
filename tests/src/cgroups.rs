//! The cgroups of a process as the kernel tells them, on v1, v2 and hybrid hosts.

use std::fs;
use std::path::{Path, PathBuf};

/// A controller of a process: the directory of its group, and which version's files are in it.
pub struct Controller {
    /// The group's directory.
    pub dir: PathBuf,
    /// Whether it is cgroup v2.
    pub v2: bool,
}

impl Controller {
    /// Where a process is as to this controller, by `/proc/PID/cgroup` (cgroups(7)). None if nothing
    /// on this host controls that.
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

    /// What a file of the group says, without the newline.
    pub fn read(&self, v1: &str, v2: &str) -> String {
        let path = self.dir.join(if self.v2 { v2 } else { v1 });
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }
}

/// Whether this host can limit that at all.
pub fn can_limit(controller: &str) -> bool {
    Controller::of(std::process::id(), controller).is_some()
}

/// A group in every hierarchy, for others below it that only one test has.
pub struct Place(&'static str);

impl Place {
    /// Makes it.
    pub fn make(name: &'static str) -> Self {
        let place = Self(name);
        place.directories().iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
        place
    }

    /// Its name, which is also its path in each hierarchy.
    pub fn name(&self) -> &'static str {
        self.0
    }

    /// Its directories.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let cgroups = fields.filter(|fields| fields[2].starts_with("cgroup"));
        cgroups.map(|fields| PathBuf::from(fields[1]).join(self.0)).collect()
    }

    /// The groups that are right below it.
    pub fn groups(&self) -> Vec<PathBuf> {
        let entries = self.directories().into_iter().flat_map(|path| fs::read_dir(path).unwrap());
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// Removes it, which fails if anything is left in it.
    pub fn remove(self) {
        self.directories().iter().for_each(|directory| fs::remove_dir(directory).unwrap());
    }
}
