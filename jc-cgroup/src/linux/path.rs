//! A group by its path from the top of every hierarchy (`--path`), as container engines name their groups. No process
//! locks the group, and its end is an action of its own.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use jc_unshare::{Context, Error, Result};

use super::group::{Group, Part};
use super::hierarchy::{Hierarchy, Version, is_cgroup};
use super::limits::Limits;
use super::parent::{below, enable, inherit_cpuset};
use super::setting::apply_all;

impl Group {
    /// Opens the group, which is made in every hierarchy that lacks it, and sets the limits.
    pub fn at(hierarchies: &[Hierarchy], path: &Path, limits: &Limits) -> Result<Self> {
        let settings = limits.settings(hierarchies)?;
        let mut group = Self { parts: Vec::new() };
        for hierarchy in hierarchies {
            let own = settings.iter().filter(|(wanted, _)| wanted.mount == hierarchy.mount);
            let controllers: Vec<&str> = own
                .clone()
                .map(|(_, setting)| setting.controller.as_str())
                .filter(|name| !name.is_empty())
                .collect();
            let part = Part::at(hierarchy, path, &controllers)?;
            apply_all(own.map(|(_, setting)| (part.path.as_path(), setting)))?;
            group.parts.push(part);
        }
        Ok(group)
    }
}

impl Part {
    /// Opens the directory of a path, made with its parents. Below each parent of version 2, these controllers and all
    /// others that the parent has are enabled.
    fn at(hierarchy: &Hierarchy, path: &Path, controllers: &[&str]) -> Result<Self> {
        let (version, mount) = (hierarchy.version, &hierarchy.mount);
        let has_cpuset = version == Version::V1 && hierarchy.has("cpuset")?;
        let group = below(mount, path);
        let below_mount: Vec<&Path> =
            group.ancestors().take_while(|directory| directory != mount).collect();
        for directory in below_mount.into_iter().rev() {
            if version == Version::V2
                && let Some(parent) = directory.parent()
            {
                enable_available(parent)?;
                enable(mount, parent, controllers, false)?;
            }
            match DirBuilder::new().mode(0o755).create(directory) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => made
                    .on("mkdir", directory)
                    .map_err(|e| e.hint("making cgroups here needs root, or a delegated path"))?,
            }
            if has_cpuset {
                inherit_cpuset(directory)?;
            }
        }
        let directory = File::open(&group).on("open", &group)?;
        if !is_cgroup(&directory, version) {
            return Err(Error::new(format_args!("--path {}: not a cgroup", group.display())));
        }
        Ok(Self { version, path: group, directory })
    }
}

/// Enables each controller that a v2 group has for the groups below it, as far as the kernel allows that: limits of a
/// program are not concerned.
fn enable_available(group: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = group.join(name);
        fs::read_to_string(&path).on("read", path)
    };
    let (available, enabled) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    for name in available.split_whitespace() {
        if !enabled.split_whitespace().any(|known| known == name) {
            // A group with processes refuses controllers, and figures of the kernel are then missing.
            let _: io::Result<()> =
                fs::write(group.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
    Ok(())
}
