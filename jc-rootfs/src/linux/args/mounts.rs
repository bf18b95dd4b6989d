//! Values of `--bind`, `--tmpfs` and `--device`.

use std::path::{Path, PathBuf};

use jc_unshare::Extent;
use jc_unshare::habits::mount_option;

use super::values::{below_root, octal, tmpfs_size};
use super::words::id_ranges;
use crate::linux::sys::{attr, propagation};

/// A mount inside the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The file system or file.
    pub source: Source,
    /// The absolute path in the root.
    pub target: PathBuf,
    /// Flags of [`attr`] to set.
    pub attributes: u64,
}

/// The source of a [`Mount`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A file or directory of the host.
    Bind(Bind),
    /// A device of the host.
    Device(PathBuf),
    /// A new, empty tmpfs.
    Tmpfs {
        /// The option `size` of tmpfs(5).
        size: Option<String>,
        /// The octal mode of the root directory.
        mode: String,
    },
}

/// A bind mount of a file or directory of the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bind {
    /// The path on the host.
    pub path: PathBuf,
    /// Whether mounts below the path are bound too.
    pub recursive: bool,
    /// Whether a missing directory is made on the host.
    pub create: bool,
    /// The propagation type, a constant of [`propagation`].
    pub propagation: u64,
    /// Flags of [`attr`] that an option forbids, such as NODEV for `dev`.
    pub without: u64,
    /// The directory that the changes go to.
    pub upper: Option<PathBuf>,
    /// The owners that the payload sees, if they are not those of the host.
    pub owners: Option<Owners>,
}

impl Mount {
    /// The source and the place of the changes of a bind mount whose changes go elsewhere.
    pub fn upper(&self) -> Option<(&Path, &Path)> {
        match &self.source {
            Source::Bind(bind) => Some((&bind.path, bind.upper.as_deref()?)),
            _ => None,
        }
    }
}

/// The option `idmap` of a bind mount (mount_setattr(2), "ID-mapped mounts").
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Owners {
    /// The owner of the path and the user of the payload are exchanged.
    Exchanged,
    /// Ranges of users and of groups.
    Ranges(Vec<Extent>, Vec<Extent>),
}

/// Parses `SRC:DST[:OPTION,...]` with options of mount(8).
pub fn bind(word: &str) -> Result<Mount, String> {
    let mut parts = word.splitn(3, ':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return Err("not SRC:DST[:OPTIONS]".to_owned());
    };
    let mut bind = Bind {
        path: source.into(),
        recursive: true,
        create: false,
        propagation: propagation::PRIVATE,
        without: 0,
        upper: None,
        owners: None,
    };
    if source.is_empty() {
        return Err("SRC is empty".to_owned());
    }
    let mut attributes = attr::NODEV;
    for option in parts.next().map(|options| options.split(',')).into_iter().flatten() {
        if let Some((flag, set)) = flag(option) {
            (attributes, bind.without) = if set {
                (attributes | flag, bind.without & !flag)
            } else {
                (attributes & !flag, bind.without | flag)
            };
            continue;
        }
        if let Some(directory) = option.strip_prefix("upper=") {
            bind.upper = Some(directory.into());
            continue;
        }
        if let Some(owners) = owners(option)? {
            bind.owners = Some(owners);
            continue;
        }
        match own_option(option)? {
            "" => {}
            "rec" => bind.recursive = true,
            "norec" => bind.recursive = false,
            "create" => bind.create = true,
            "private" => bind.propagation = propagation::PRIVATE,
            "slave" => bind.propagation = propagation::SLAVE,
            "shared" => bind.propagation = propagation::SHARED,
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    check_upper(&bind, attributes)?;
    Ok(Mount { source: Source::Bind(bind), target: destination(target)?, attributes })
}

/// Refuses options that an overlay cannot have.
fn check_upper(bind: &Bind, attributes: u64) -> Result<(), String> {
    let Some(upper) = &bind.upper else { return Ok(()) };
    if upper.as_os_str().is_empty() {
        return Err("upper=DIR: DIR is empty".to_owned());
    }
    let is_plain = bind.recursive
        && bind.propagation == propagation::PRIVATE
        && bind.without == 0
        && bind.owners.is_none();
    if is_plain && attributes & attr::RDONLY == 0 {
        return Ok(());
    }
    Err("upper=DIR: only create, nosuid and noexec can be given beside it".to_owned())
}

/// Parses `idmap` or `idmap=RANGES[/RANGES]`, of users and groups. `None`: another option.
fn owners(option: &str) -> Result<Option<Owners>, String> {
    let Some(value) = option.strip_prefix("idmap") else { return Ok(None) };
    let Some(ranges) = value.strip_prefix('=') else {
        return Ok(value.is_empty().then_some(Owners::Exchanged));
    };
    let (users, groups) = ranges.split_once('/').unwrap_or((ranges, ranges));
    Ok(Some(Owners::Ranges(id_ranges(users)?, id_ranges(groups)?)))
}

/// An option of `--bind`, or the one that means the same; empty if it changes nothing here.
fn own_option(option: &str) -> Result<&str, String> {
    const OWN: [&str; 6] = ["rec", "norec", "create", "private", "slave", "shared"];
    if OWN.contains(&option) {
        Ok(option)
    } else {
        mount_option(option).map(Option::unwrap_or_default)
    }
}

/// The flag of [`attr`] for an option, and whether the option sets the flag.
fn flag(option: &str) -> Option<(u64, bool)> {
    Some(match option {
        "ro" => (attr::RDONLY, true),
        "rw" => (attr::RDONLY, false),
        "nosuid" => (attr::NOSUID, true),
        "suid" => (attr::NOSUID, false),
        "nodev" => (attr::NODEV, true),
        "dev" => (attr::NODEV, false),
        "noexec" => (attr::NOEXEC, true),
        "exec" => (attr::NOEXEC, false),
        _ => return None,
    })
}

/// Parses `PATH[:DST][:rwm]` with two absolute paths. Other permissions than `rw` and `rwm` are errors: the permissions
/// of the file decide, and making device nodes needs a capability.
pub fn device(word: &str) -> Result<Mount, String> {
    let mut parts: Vec<&str> = word.split(':').collect();
    if let Some(last) = parts.last().filter(|last| parts.len() > 1 && !last.starts_with('/')) {
        if !["rw", "rwm"].contains(last) {
            return Err(format!(
                "{last:?}: not PATH[:DST][:rwm], where only rw and rwm can be given"
            ));
        }
        parts.pop();
    }
    let (source, target) = match parts[..] {
        [path] => (path, path),
        [source, target] => (source, target),
        _ => return Err("not PATH[:DST][:rwm]".to_owned()),
    };
    if !source.starts_with('/') {
        return Err(format!("PATH is not an absolute path: {source:?}"));
    }
    let attributes = attr::NOSUID | attr::NOEXEC;
    Ok(Mount { source: Source::Device(source.into()), target: destination(target)?, attributes })
}

/// Parses `DST[:OPTION,...]` with the options `size=`, `mode=` and those of [`flag`].
pub fn tmpfs(word: &str) -> Result<Mount, String> {
    let (target, options) = word.split_once(':').unwrap_or((word, ""));
    let (mut size, mut mode) = (None, "1777".to_owned());
    let mut attributes = attr::NOSUID | attr::NODEV;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match (option.split_once('='), flag(option)) {
            (Some(("size", value)), _) => size = Some(tmpfs_size(value)?),
            (Some(("mode", value)), _) => mode = octal(value)?,
            (_, Some((flag, true))) => attributes |= flag,
            (_, Some((flag, false))) => attributes &= !flag,
            _ => match mount_option(option)? {
                None => {}
                Some(_) => return Err(format!("unknown option {option:?}")),
            },
        }
    }
    Ok(Mount { source: Source::Tmpfs { size, mode }, target: destination(target)?, attributes })
}

fn destination(target: &str) -> Result<PathBuf, String> {
    below_root(target).map_err(|error| format!("DST is {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(path: &str) -> Bind {
        let propagation = propagation::PRIVATE;
        let (recursive, create, without) = (true, false, 0);
        let (path, upper, owners) = (path.into(), None, None);
        Bind { path, recursive, create, propagation, without, upper, owners }
    }

    #[test]
    fn a_bind_has_the_attributes_that_its_options_name() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        let mapped = Owners::Ranges(vec![extent(0, 5, 2), extent(9, 0, 1)], vec![extent(7, 0, 1)]);
        let [ro, nosuid, nodev, noexec] = [attr::RDONLY, attr::NOSUID, attr::NODEV, attr::NOEXEC];
        for (word, source, target, attributes) in [
            ("/a:/b", plain("/a"), "/b", nodev),
            (".:/src:ro,noexec", plain("."), "/src", nodev | ro | noexec),
            ("/a:/b:dev,nosuid", Bind { without: nodev, ..plain("/a") }, "/b", nosuid),
            ("/a:/b:rw,ro,suid,nosuid,dev,nodev,rec", plain("/a"), "/b", ro | nosuid | nodev),
            (
                "/a:/b:ro,rw,nosuid,suid,noexec,exec",
                Bind { without: ro | nosuid | noexec, ..plain("/a") },
                "/b",
                nodev,
            ),
            ("/a:/b:idmap", Bind { owners: Some(Owners::Exchanged), ..plain("/a") }, "/b", nodev),
            (
                "/a:/b:idmap=0:5:2;9:0:1/7:0:1",
                Bind { owners: Some(mapped), ..plain("/a") },
                "/b",
                nodev,
            ),
            ("/a:/b:norec", Bind { recursive: false, ..plain("/a") }, "/b", nodev),
            (
                "/a:/b:upper=/u,noexec",
                Bind { upper: Some("/u".into()), ..plain("/a") },
                "/b",
                nodev | noexec,
            ),
            ("/a:/b:create", Bind { create: true, ..plain("/a") }, "/b", nodev),
            ("/a:/b:slave", Bind { propagation: propagation::SLAVE, ..plain("/a") }, "/b", nodev),
            ("/a:/b:shared", Bind { propagation: propagation::SHARED, ..plain("/a") }, "/b", nodev),
        ] {
            let expected =
                Mount { source: Source::Bind(source), target: target.into(), attributes };
            assert_eq!(bind(word), Ok(expected), "{word}");
        }
        for (word, message) in [
            ("/a", "not SRC:DST[:OPTIONS]"),
            (":/b", "SRC is empty"),
            ("/a:b", "DST is not an absolute path: \"b\""),
            ("/a:/", "DST is the root itself"),
            ("/a:/b:rx", "unknown option \"rx\""),
            ("/a:/b:idmap=", "not INSIDE:OUTSIDE:COUNT"),
            ("/a:/b:idmaps", "unknown option \"idmaps\""),
            ("/a:/b:", "unknown option \"\""),
            ("/a:/b:upper=", "upper=DIR: DIR is empty"),
            (
                "/a:/b:upper=/u,ro",
                "upper=DIR: only create, nosuid and noexec can be given beside it",
            ),
            (
                "/a:/b:norec,upper=/u",
                "upper=DIR: only create, nosuid and noexec can be given beside it",
            ),
        ] {
            assert_eq!(bind(word), Err(message.to_owned()), "{word}");
        }
    }

    #[test]
    fn a_device_is_an_absolute_path_of_the_host() {
        let attributes = attr::NOSUID | attr::NOEXEC;
        for (word, source, target) in [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse"),
            ("/dev/sda:/dev/disk", "/dev/sda", "/dev/disk"),
        ] {
            let source = Source::Device(source.into());
            assert_eq!(device(word), Ok(Mount { source, target: target.into(), attributes }));
        }
        assert_eq!(device("fuse"), Err("PATH is not an absolute path: \"fuse\"".to_owned()));
        let error = "\"b\": not PATH[:DST][:rwm], where only rw and rwm can be given";
        assert_eq!(device("/dev/a:b"), Err(error.to_owned()));
    }

    #[test]
    fn a_tmpfs_has_a_size_a_mode_and_attributes() {
        let mount = tmpfs("/tmp:size=64m,mode=0755,noexec,ro").unwrap();
        assert_eq!(
            mount.source,
            Source::Tmpfs { size: Some("67108864".into()), mode: "0755".into() }
        );
        assert_eq!(mount.attributes, attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::RDONLY);
        for (word, message) in [
            ("tmp", "DST is not an absolute path: \"tmp\""),
            ("/tmp:size=", "not a size like 64m, 1.5G, 4096 or 50%: \"\""),
            ("/tmp:size=0", "not a size like 64m, 1.5G, 4096 or 50%: \"0\""),
            ("/tmp:mode=9", "not an octal mode: \"9\""),
            ("/tmp:mode=+755", "not an octal mode: \"+755\""),
            ("/tmp:huge", "unknown option \"huge\""),
        ] {
            assert_eq!(tmpfs(word), Err(message.to_owned()), "{word}");
        }
    }
}
