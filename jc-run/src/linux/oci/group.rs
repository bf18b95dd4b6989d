//! The cgroup of a container: its processes and its freezer are read from the file system, and jc-cgroup changes it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use jc_unshare::exec::locate_tool;
use jc_unshare::mountinfo::{MountInfo, unescape};
use jc_unshare::{Absent, Context, Error, Result, cgroupfs};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::state::Record;
use crate::link::Opt;

/// The most levels of groups below that of a container.
const LEVELS: usize = 64;

/// The path of the group for a container, from `linux.cgroupsPath`. A relative path begins at the top.
pub fn path(configured: &str, id: &str) -> Result<String> {
    let path = Path::new(configured);
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Error::new(format_args!("linux.cgroupsPath {configured:?}: has \"..\"")));
    }
    let path = if configured.is_empty() { Path::new(id) } else { path };
    let clean: PathBuf = Path::new("/").join(path).components().collect();
    match clean.to_str() {
        Some("/") => Err(Error::new("linux.cgroupsPath \"/\": holds the processes of the host")),
        Some(path) => Ok(path.to_owned()),
        None => Err(Error::new("linux.cgroupsPath: is not UTF-8")),
    }
}

/// Whether this process may make the directories of a group, in all hierarchies.
pub fn can_make(path: &str) -> Result<bool> {
    let mounts = hierarchies()?;
    for mount in mounts {
        let directory = mount.join(path.trim_start_matches('/'));
        for above in directory.ancestors().skip(1).take_while(|above| above.starts_with(mount)) {
            match accessat(CWD, above, Access::WRITE_OK, AtFlags::EACCESS) {
                Ok(()) => break,
                Err(Errno::NOENT) => {}
                Err(Errno::ACCESS | Errno::ROFS) => return Ok(false),
                Err(error) => return Err(error).on("access", above),
            }
        }
    }
    Ok(!mounts.is_empty())
}

/// The directories of a group, in all hierarchies that have it.
pub fn directories(path: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for mount in hierarchies()? {
        let directory = mount.join(path.trim_start_matches('/'));
        if jc_unshare::exists(&directory)? && !found.contains(&directory) {
            found.push(directory);
        }
    }
    Ok(found)
}

/// The mount points of all hierarchies, which are read once.
fn hierarchies() -> Result<&'static [PathBuf]> {
    static MOUNTS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    if let Some(mounts) = MOUNTS.get() {
        return Ok(mounts);
    }
    let table = "/proc/self/mountinfo";
    // The kernel makes the table anew for each read(2).
    let mut text = String::with_capacity(16 << 10);
    File::open(table).and_then(|mut file| file.read_to_string(&mut text)).on("read", table)?;
    let mounts = text.lines().filter(|line| line.contains(" - cgroup"));
    let mounts = mounts.filter_map(MountInfo::parse);
    let mounts =
        mounts.filter(|mount| mount.root == "/" && ["cgroup", "cgroup2"].contains(&mount.kind));
    Ok(MOUNTS.get_or_init(|| mounts.map(|mount| unescape(mount.point)).collect()))
}

/// Whether a group is there.
pub fn exists(path: &str) -> Result<bool> {
    Ok(!directories(path)?.is_empty())
}

/// Removes a group that has neither processes nor groups below, in all hierarchies. `false`: a directory is left, which
/// jc-cgroup has to empty.
pub fn remove_empty(path: &str) -> Result<bool> {
    // The kernel refuses the removal of a group with processes (EBUSY).
    Ok(directories(path)?.iter().map(fs::remove_dir).all(|removed| removed.is_ok()))
}

/// The PIDs of a group and of the groups below, sorted.
pub fn members(path: &str) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for directory in directories(path)? {
        collect(&directory, &mut pids, LEVELS)?;
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn collect(directory: &Path, pids: &mut Vec<u32>, levels: usize) -> Result<()> {
    let Some(text) = cgroupfs::read(&directory.join("cgroup.procs"))? else { return Ok(()) };
    // Processes of other PID namespaces have the number 0.
    let numbers = text.lines().filter_map(|line| line.parse::<u32>().ok());
    pids.extend(numbers.filter(|pid| *pid != 0));
    let Some(entries) = fs::read_dir(directory).on("read", directory).absent()? else {
        return Ok(());
    };
    for entry in entries.filter(|_| levels > 0) {
        // The group was removed meanwhile.
        let Some(entry) = entry.on("read", directory).absent()? else { break };
        if entry.file_type().on("stat", entry.path())?.is_dir() {
            collect(&entry.path(), pids, levels - 1)?;
        }
    }
    Ok(())
}

/// Whether a group is frozen, or about to be.
pub fn is_frozen(path: &str) -> Result<bool> {
    for directory in directories(path)? {
        for (name, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let text = cgroupfs::read(&directory.join(name))?;
            if text.is_some_and(|text| text.trim() != thawed) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Thaws the group of a container if it is frozen: a frozen process with cgroup v1 ends when it is thawed
/// (freezer-subsystem.rst).
pub fn thaw(record: &Record) -> Result<()> {
    match &record.cgroup {
        Some(path) if is_frozen(path)? => act_if_there(record, "--thaw").map(drop),
        _ => Ok(()),
    }
}

/// Refuses a group that the removal of the container would take from others.
pub fn check_unused(path: &str) -> Result<()> {
    if !exists(path)? {
        return Ok(());
    }
    match members(path)?.len() {
        0 if is_frozen(path)? => {
            Err(Error::new(format_args!("container's cgroup unexpectedly frozen: {path}")))
        }
        0 => Ok(()),
        count => Err(Error::new(format_args!(
            "container's cgroup is not empty: {count} process(es) found in {path}"
        ))),
    }
}

/// Runs an action of jc-cgroup, and gives what it prints.
pub fn act(record: &Record, action: &'static str, more: &[Opt]) -> Result<Vec<u8>> {
    let path = record
        .cgroup
        .as_ref()
        .ok_or_else(|| Error::new(format_args!("container {} has no cgroup", record.id)))?;
    let options = [Opt::new(action, path)].into_iter().chain(more.iter().cloned());
    let mut command = Command::new(locate_tool("jc-cgroup".as_ref())?);
    command.args(options.flat_map(|option| option.words())).stdin(Stdio::null());
    output(&mut command)
}

/// Runs an action of jc-cgroup. `false`: the group is absent, or another command has removed it meanwhile.
pub fn act_if_there(record: &Record, action: &'static str) -> Result<bool> {
    match act(record, action, &[]) {
        Err(_) if !record.cgroup.as_ref().map_or(Ok(false), |path| exists(path))? => Ok(false),
        done => done.map(|_| true),
    }
}

/// The output of a program that must succeed. The error has the words of its first line on stderr.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_owned();
    let ended = command.output().on("run", &program)?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    let text = String::from_utf8_lossy(&ended.stderr);
    let line = text.lines().next().unwrap_or_default();
    Err(Error::new(match line.split_once(": ") {
        Some((name, message)) if name.starts_with("jc-") => message.to_owned(),
        _ => format!("{}: {line} ({})", Path::new(&program).display(), ended.status),
    }))
}
