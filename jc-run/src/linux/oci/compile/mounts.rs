//! `mounts`, `linux.devices`, and paths that are hidden or read-only.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context as _, Error, Result, userns};
use rustix::fs::lstat;

use super::namespaces::range;
use crate::link::Opt;
use crate::linux::oci::config::linux::{Device, IdMapping};
use crate::linux::oci::config::{Linux, Mount};

/// The options for all mounts, in order.
pub fn options(mounts: &[Mount], linux: &Linux, bundle: &Path) -> Result<Vec<Opt>> {
    let mut options = Vec::new();
    for mount in mounts {
        options.push(Opt::new("--mount", word(mount, &linux.mount_label, bundle)?));
    }
    // A directory of the host on /dev keeps its own devices.
    if !mounts.iter().any(|mount| clean(&mount.destination) == Path::new("/dev") && is_bind(mount))
    {
        options.push(Opt::new("--dev", "nodes"));
        // The specification has a symbolic link to the container's own devpts there.
        let is_default = |device: &&Device| device.path == Path::new("/dev/ptmx");
        for device in linux.devices.iter().filter(|device| !is_default(device)) {
            options.push(Opt::new("--node", node(device, linux)?));
        }
    }
    options.extend(linux.readonly_paths.iter().map(|path| Opt::new("--ro-path", if_present(path))));
    options.extend(linux.masked_paths.iter().map(|path| Opt::new("--mask", if_present(path))));
    Ok(options)
}

/// A path that may be absent.
fn if_present(path: &Path) -> OsString {
    let mut word = OsString::from("-");
    word.push(path);
    word
}

/// The path without repeated and trailing slashes. Relative paths begin at the root (config.md, "mounts").
fn clean(path: &Path) -> PathBuf {
    Path::new("/").join(path).components().collect()
}

fn is_bind(mount: &Mount) -> bool {
    let is_option = |option: &String| option == "bind" || option == "rbind";
    mount.kind.as_deref() == Some("bind") || mount.options.iter().any(is_option)
}

/// The four fields of a mount.
fn word(mount: &Mount, label: &str, bundle: &Path) -> Result<OsString> {
    let destination = clean(&mount.destination);
    let mut options = mount.options.clone();
    let kind = mount.kind.as_deref().filter(|kind| !kind.is_empty());
    let mut source = mount.source.clone().filter(|source| !source.as_os_str().is_empty());
    if is_bind(mount) {
        // A bind has no data (mount(2)): engines write options of tmpfs(5) beside.
        options.retain(|option| !option.contains('=') || option.contains("idmap="));
        if !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("bind".to_owned());
        }
        let path = source.ok_or_else(|| {
            Error::new(format_args!("mounts: {}: a bind without a source", destination.display()))
        })?;
        source = Some(bundle.join(path));
    } else if options.iter().any(|option| option == "remount") {
        // The file system has its label.
    } else if kind.is_none() {
        return Err(Error::new(format_args!("mounts: {}: no type", destination.display())));
    } else if !label.is_empty()
        && !["proc", "sysfs", "cgroup", "mqueue"].contains(&kind.unwrap_or(""))
    {
        options.push(format!("context=\"{label}\""));
    }
    add_mappings(&mut options, mount)?;
    let options: Vec<Vec<u8>> =
        options.iter().map(|option| escape(option.as_bytes(), b",")).collect();
    let options = if options.is_empty() { b"defaults".to_vec() } else { options.join(&b',') };
    let source = source.unwrap_or_else(|| "none".into());
    let fields = [
        escape(source.as_os_str().as_bytes(), b""),
        escape(destination.as_os_str().as_bytes(), b""),
        escape(kind.unwrap_or("none").as_bytes(), b""),
        options,
    ];
    Ok(OsString::from_vec(fields.join(&b' ')))
}

/// Writes the maps of an ID-mapped mount into its option `idmap` or `ridmap`.
fn add_mappings(options: &mut Vec<String>, mount: &Mount) -> Result<()> {
    let (users, groups) = (&mount.uid_mappings, &mount.gid_mappings);
    if users.is_empty() && groups.is_empty() {
        return Ok(());
    }
    if users.is_empty() || groups.is_empty() {
        return Err(Error::new(format_args!(
            "mounts: {}: uidMappings and gidMappings need each other",
            mount.destination.display()
        )));
    }
    let ranges = |maps: &[IdMapping]| maps.iter().map(range).collect::<Vec<_>>().join(";");
    let maps = format!("{}/{}", ranges(users), ranges(groups));
    match options.iter_mut().find(|option| ["idmap", "ridmap"].contains(&option.as_str())) {
        Some(option) => *option = format!("{option}={maps}"),
        None => options.push(format!("idmap={maps}")),
    }
    Ok(())
}

/// A field as in fstab(5): blanks, control characters, backslashes and the bytes of `also` are octal.
fn escape(bytes: &[u8], also: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        if *byte <= b' ' || *byte == b'\\' || also.contains(byte) {
            let mut octal = String::new();
            // Writing to a String cannot fail.
            let _: std::fmt::Result = write!(octal, "\\{byte:03o}");
            text.extend(octal.into_bytes());
        } else {
            text.push(*byte);
        }
    }
    text
}

/// `TYPE:MAJOR:MINOR:MODE:UID:GID:PATH`. The node of a user namespace is the host's: engines copy the attributes of that
/// one, in the numbers of the host, and then ask for no others.
fn node(device: &Device, linux: &Linux) -> Result<OsString> {
    let path = device.path.display();
    if !["c", "u", "b", "p"].contains(&device.kind.as_str()) {
        return Err(Error::new(format_args!(
            "linux.devices: {path}: unknown type {:?}",
            device.kind
        )));
    }
    if !device.path.is_absolute() {
        return Err(Error::new(format_args!("linux.devices: {path}: not an absolute path")));
    }
    let has_user = linux.namespaces.iter().any(|namespace| namespace.kind == "user");
    let is_copy = (has_user || !userns::is_initial()?) && is_copy_of_host(device)?;
    let mode = device.file_mode.filter(|_| !is_copy).map(|mode| format!("{:o}", mode & 0o7777));
    let owner = [device.uid, device.gid].map(|id| id.filter(|_| !is_copy).map(|id| id.to_string()));
    let [uid, gid] = owner.map(Option::unwrap_or_default);
    let mut word = OsString::from(format!(
        "{}:{}:{}:{}:{uid}:{gid}:",
        device.kind,
        device.major,
        device.minor,
        mode.unwrap_or_default()
    ));
    word.push(&device.path);
    Ok(word)
}

/// Whether mode and owner of a device, where they are given, are those of the host's node of the same path.
fn is_copy_of_host(device: &Device) -> Result<bool> {
    let path = &device.path;
    let Some(stat) = lstat(path).on("stat", path).absent()? else { return Ok(false) };
    let is_mode = device.file_mode.is_none_or(|mode| mode & 0o7777 == stat.st_mode & 0o7777);
    let is_owner = device.uid.is_none_or(|uid| uid == stat.st_uid);
    Ok(is_mode && is_owner && device.gid.is_none_or(|gid| gid == stat.st_gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_becomes_four_fields() {
        for (json, fields) in [
            (r#"{"destination":"/proc","type":"proc"}"#, "none /proc proc defaults"),
            (
                r#"{"destination":"a//b/","type":"bind","source":"s t","options":["mode=755"]}"#,
                "/b/s\\040t /a/b bind bind",
            ),
            (
                r#"{"destination":"/o","type":"overlay","source":"overlay","options":["lowerdir=/a,b","ro"]}"#,
                "overlay /o overlay lowerdir=/a\\054b,ro,context=\"l:m\"",
            ),
            (
                r#"{"destination":"/i","source":"/h","options":["rbind","ridmap"],
                    "uidMappings":[{"containerID":0,"hostID":1,"size":2},{"containerID":2,"hostID":9,"size":1}],
                    "gidMappings":[{"containerID":0,"hostID":3,"size":4}]}"#,
                "/h /i none rbind,ridmap=0:1:2;2:9:1/0:3:4",
            ),
            (r#"{"destination":"/r","options":["remount","ro"]}"#, "none /r none remount,ro"),
        ] {
            let mount: Mount = serde_json::from_str(json).unwrap();
            assert_eq!(word(&mount, "l:m", Path::new("/b")).unwrap(), OsString::from(fields));
        }
        for (json, message) in [
            (r#"{"destination":"/a"}"#, "mounts: /a: no type"),
            (r#"{"destination":"/a","type":"bind"}"#, "mounts: /a: a bind without a source"),
            (
                r#"{"destination":"/a","type":"tmpfs","uidMappings":[{"containerID":0,"hostID":1,"size":2}]}"#,
                "mounts: /a: uidMappings and gidMappings need each other",
            ),
        ] {
            let mount: Mount = serde_json::from_str(json).unwrap();
            assert_eq!(word(&mount, "", Path::new("/b")).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_node_has_the_mode_and_the_owner_of_the_configuration() {
        let device: Device = serde_json::from_str(
            r#"{"type":"c","path":"/dev/x:y","major":1,"minor":3,"fileMode":33206,"uid":4}"#,
        )
        .unwrap();
        let node = node(&device, &Linux::default()).unwrap();
        assert_eq!(node, OsString::from("c:1:3:666:4::/dev/x:y"));
    }
}
