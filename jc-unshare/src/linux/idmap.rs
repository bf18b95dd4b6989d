//! The ID maps of a new user namespace (user_namespaces(7)).

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::sys::signal::Signal::SIGKILL;
use nix::unistd::{getegid, geteuid, pause};

use super::child::Child;
use super::hints::capable;
use super::lifeline::Lifeline;
use super::procfs::{self, status};
use super::spawn::NewChild;
use super::sys::clone;
use crate::Tool;
use crate::capability::{SETGID, SETUID};
use crate::error::{Absent, Context, Error, Result};
use crate::on_demand::Group;

/// A line of `/proc/PID/uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// The first ID inside.
    pub inside: u32,
    /// The first ID outside.
    pub outside: u32,
    /// The number of IDs.
    pub count: u32,
}

impl Extent {
    /// Parses a range, `INSIDE:OUTSIDE:COUNT`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        let numbers: Vec<u32> = word.split(':').map_while(|number| number.parse().ok()).collect();
        match numbers[..] {
            [inside, outside, count] if word.split(':').count() == 3 => {
                let fits = |first: u32| first.checked_add(count).is_some();
                if count > 0 && fits(inside) && fits(outside) {
                    return Ok(Self { inside, outside, count });
                }
                Err("the range is empty or too large".to_owned())
            }
            _ => Err("not INSIDE:OUTSIDE:COUNT".to_owned()),
        }
    }

    fn one(inside: u32, outside: u32) -> Self {
        Self { inside, outside, count: 1 }
    }

    /// Ranges that map all IDs to themselves, except two that are exchanged.
    pub fn exchanging(a: u32, b: u32) -> Vec<Self> {
        let (low, high) = (a.min(b), a.max(b));
        // The highest number is no ID (user_namespaces(7)).
        let same = |first: u32, end: u32| Self {
            inside: first,
            outside: first,
            count: end.saturating_sub(first),
        };
        let mut all = vec![same(0, low), Self::one(low, high)];
        if low < high {
            all.extend([same(low + 1, high), Self::one(high, low)]);
        }
        all.push(same(high.saturating_add(1), u32::MAX));
        all.retain(|extent| extent.count > 0);
        all
    }

    fn line(self) -> String {
        format!("{} {} {}\n", self.inside, self.outside, self.count)
    }
}

/// Whether setgroups(2) may be called in the namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Setgroups {
    /// The kernel's default.
    Allow,
    /// Required where an ordinary user maps groups, since dropping a group could give access
    Deny,
}

/// The options for the ID maps of a new user namespace.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct MapOptions {
    /// Map the caller to root (with -U)
    #[arg(short = 'r', long, conflicts_with_all = ["map_current", "map_auto"])]
    map_root: bool,
    /// Map the caller to itself (with -U)
    #[arg(short = 'c', long, conflicts_with = "map_auto")]
    map_current: bool,
    /// Map the caller to root, and its ranges of /etc/subuid and /etc/subgid from 1 on (with -U)
    #[arg(long)]
    map_auto: bool,
    /// Map the caller to itself, and root to the ID that --map-auto gives the caller's number (with -U)
    #[arg(long, conflicts_with_all = ["map_root", "map_current", "map_auto"])]
    map_keep: bool,
    /// Map a range of users: INSIDE:OUTSIDE:COUNT (with -U, repeatable)
    #[arg(long, alias = "uidmap", value_name = "RANGE", value_parser = Extent::parse)]
    map_users: Vec<Extent>,
    /// Map a range of groups: INSIDE:OUTSIDE:COUNT (with -U, repeatable)
    #[arg(long, alias = "gidmap", value_name = "RANGE", value_parser = Extent::parse)]
    map_groups: Vec<Extent>,
    /// Allow or deny setgroups(2) in the user namespace (with -U)
    #[arg(long, value_name = "WHETHER")]
    setgroups: Option<Setgroups>,
}

impl Group for MapOptions {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("map-root", Some('r')),
        ("map-current", Some('c')),
        ("map-auto", None),
        ("map-keep", None),
        ("map-users", None),
        ("uidmap", None),
        ("map-groups", None),
        ("gidmap", None),
        ("setgroups", None),
    ];
}

/// The maps of a new user namespace. The caller's IDs must be read before the namespace is entered, since all
/// IDs inside are the overflow ID until the maps are written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Maps {
    users: Vec<Extent>,
    groups: Vec<Extent>,
    setgroups: Option<Setgroups>,
    uid: u32,
    gid: u32,
}

impl MapOptions {
    /// Whether any of the options is set.
    pub fn any(&self) -> bool {
        self.map_root
            || self.map_current
            || self.map_auto
            || self.map_keep
            || self.setgroups.is_some()
            || !self.map_users.is_empty()
            || !self.map_groups.is_empty()
    }

    /// The maps that the options ask for, with the caller's IDs, and for `--map-auto` its subordinate IDs.
    pub fn maps(&self) -> Result<Maps> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        if self.map_root || self.map_auto || self.map_keep {
            users.push(Extent::one(0, uid));
            groups.push(Extent::one(0, gid));
        }
        if self.map_current {
            users.push(Extent::one(uid, uid));
            groups.push(Extent::one(gid, gid));
        }
        users.extend(&self.map_users);
        groups.extend(&self.map_groups);
        if self.map_auto || self.map_keep {
            users.extend(subordinate("/etc/subuid", uid)?);
            groups.extend(subordinate("/etc/subgid", uid)?);
        }
        if self.map_keep {
            (users, groups) = (exchanged(&users, uid), exchanged(&groups, gid));
        }
        Ok(Maps { users, groups, setgroups: self.setgroups, uid, gid })
    }
}

/// The ranges with the outer IDs of 0 and `id` exchanged.
fn exchanged(extents: &[Extent], id: u32) -> Vec<Extent> {
    let mut all = Vec::new();
    for Extent { inside, outside, count } in extents.iter().copied() {
        let Some(before) = id.checked_sub(inside).filter(|before| *before < count && id > 0) else {
            // The range of 0 has one ID.
            all.push(Extent { inside: if inside == 0 { id } else { inside }, outside, count });
            continue;
        };
        let after = count - before - 1;
        all.push(Extent { inside, outside, count: before });
        all.push(Extent::one(0, outside + before));
        all.push(Extent {
            inside: id.wrapping_add(1),
            outside: (outside + before).wrapping_add(1),
            count: after,
        });
    }
    all.retain(|extent| extent.count > 0);
    all
}

/// A new user namespace without maps, and the only process in it.
pub struct Unmapped(Child);

impl Unmapped {
    /// Makes the namespace. EPERM: a process whose root is not that of its mount namespace makes none (clone(2)).
    pub fn new(tool: Tool) -> Result<Self> {
        let wait = |_: &Lifeline| loop {
            pause();
        };
        NewChild::of(tool).in_namespaces(clone::NEWUSER).spawn(wait).map(Self)
    }

    /// Writes the maps, and ends the process.
    pub fn map(&self, maps: &Maps) -> Result<OwnedFd> {
        let Self(process) = self;
        let open = || {
            let pid = process.proc_number()?;
            maps.write_for(pid)?;
            let path = format!("/proc/{pid}/ns/user");
            Ok(File::open(&path).on("open", &path)?.into())
        };
        let namespace = open();
        process.send(SIGKILL as i32)?;
        process.reap()?;
        namespace
    }
}

impl Maps {
    /// Maps of these ranges.
    pub fn of(users: &[Extent], groups: &[Extent]) -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Self { users: users.to_vec(), groups: groups.to_vec(), setgroups: None, uid, gid }
    }

    /// Makes a user namespace with the maps, in which no process is.
    pub fn namespace(&self, tool: Tool) -> Result<OwnedFd> {
        Unmapped::new(tool)?.map(self)
    }

    /// Maps that change no ID. The maps have all IDs of the present user namespace, or only the IDs of this
    /// process if the process has no permission to map others.
    pub fn identity() -> Result<Self> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let (users, groups) = if capable(SETUID) && capable(SETGID) {
            (present("/proc/self/uid_map")?, present("/proc/self/gid_map")?)
        } else {
            (vec![Extent::one(uid, uid)], vec![Extent::one(gid, gid)])
        };
        Ok(Self { users, groups, setgroups: None, uid, gid })
    }

    /// Whether a process inside the namespace has the permission to write the maps: each map has only the
    /// caller's own ID, and setgroups(2) is denied (user_namespaces(7)).
    pub fn is_self_writable(&self) -> bool {
        let own = |extents: &[Extent], id: u32| match extents {
            [] => true,
            [extent] => extent.count == 1 && extent.outside == id,
            _ => false,
        };
        own(&self.users, self.uid)
            && own(&self.groups, self.gid)
            && (self.groups.is_empty() || self.setgroups != Some(Setgroups::Allow))
    }

    /// Writes the maps of the new namespace of this process.
    pub fn write_own(&self) -> Result<()> {
        if !self.groups.is_empty() || self.setgroups == Some(Setgroups::Deny) {
            procfs::write("self/setgroups", "deny")?;
        }
        write_map("self/uid_map", &self.users)?;
        write_map("self/gid_map", &self.groups)
    }

    /// Writes the maps of another process's new namespace. `pid` is its number in /proc. A process without the
    /// permission for that executes newuidmap(1) and newgidmap(1).
    pub fn write_for(&self, pid: u32) -> Result<()> {
        if self.setgroups == Some(Setgroups::Deny) {
            procfs::write(&format!("{pid}/setgroups"), "deny")?;
        }
        if capable(SETUID) && capable(SETGID) {
            write_map(&format!("{pid}/uid_map"), &self.users)?;
            return write_map(&format!("{pid}/gid_map"), &self.groups);
        }
        run_mapper("newuidmap", pid, &self.users)?;
        run_mapper("newgidmap", pid, &self.groups)
    }

    /// Whether the maps lack the caller's own IDs, and have a root that the caller can become.
    pub fn needs_root(&self) -> bool {
        let has = |extents: &[Extent], id: u32| {
            extents.iter().any(|e| id >= e.outside && id - e.outside < e.count)
        };
        let root = |extents: &[Extent]| extents.iter().any(|extent| extent.inside == 0);
        let lost = !has(&self.users, self.uid) && !has(&self.groups, self.gid);
        lost && root(&self.users) && root(&self.groups)
    }
}

fn write_map(path: &str, extents: &[Extent]) -> Result<()> {
    if extents.is_empty() {
        return Ok(());
    }
    let lines: String = extents.iter().map(|extent| extent.line()).collect();
    procfs::write(path, &lines)
}

/// A map of each ID of the present user namespace to itself, from one of its own maps.
fn present(path: &str) -> Result<Vec<Extent>> {
    let map = fs::read_to_string(path).on("read", path)?;
    let extent = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        let (inside, count) = (numbers.next()?, numbers.nth(1)?);
        Some(Extent { inside, outside: inside, count })
    };
    Ok(map.lines().filter_map(extent).collect())
}

/// Executes newuidmap(1) or newgidmap(1).
fn run_mapper(program: &str, pid: u32, extents: &[Extent]) -> Result<()> {
    if extents.is_empty() {
        return Ok(());
    }
    let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.count]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .on("run", program)
        .map_err(|e| {
            e.hint("to map IDs other than the caller's needs root, or the package uidmap")
        })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.lines().next().unwrap_or_default();
    let message = message.strip_prefix(&format!("{program}: ")).unwrap_or(message);
    let error = Error::new(format_args!("{program}: {message}"));
    Err(if status("NoNewPrivs")?.as_deref() == Some("1") {
        error.hint(format_args!(
            "no_new_privs is set here, as in bwrap(1), and takes the privileges of {program}: jc-unshare --map-root, \
             or jc-run --userns map-root, maps the caller alone"
        ))
    } else {
        error.hint("the ranges must be this user's in /etc/subuid and /etc/subgid")
    })
}

/// Whether the caller has ranges of both kinds for `--map-auto`.
pub fn has_ranges() -> Result<bool> {
    let (uid, name) = (geteuid().as_raw(), user_name(geteuid().as_raw())?);
    let has = |path| Ok(!ranges(&read(path)?, name.as_deref(), uid).is_empty());
    Ok(has("/etc/subuid")? && has("/etc/subgid")?)
}

/// The ranges of a user in a file like subuid(5), mapped to the IDs from 1 on.
fn subordinate(path: &str, uid: u32) -> Result<Vec<Extent>> {
    let name = user_name(uid)?;
    let extents = ranges(&read(path)?, name.as_deref(), uid);
    if extents.is_empty() {
        let name = name.unwrap_or_else(|| uid.to_string());
        return Err(Error::new(format_args!("{path}: no range for {name}"))
            .hint("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 gives one"));
    }
    Ok(extents)
}

fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<Extent> {
    let mut inside = 1;
    let mut extents = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [owner, first, count] = fields[..] else { continue };
        let is_owner = Some(owner) == name || owner.parse() == Ok(uid);
        let (Ok(outside), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else {
            continue;
        };
        let fits = outside.checked_add(count).is_some() && count > 0;
        if let (true, true, Some(next)) = (is_owner, fits, u32::checked_add(inside, count)) {
            extents.push(Extent { inside, outside, count });
            inside = next;
        }
    }
    extents
}

/// The name of a user in /etc/passwd, without NSS.
fn user_name(uid: u32) -> Result<Option<String>> {
    let passwd = read("/etc/passwd")?;
    Ok(passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    }))
}

/// A file of /etc. A file that does not exist is empty.
fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path).on("read", path).absent()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(inside: u32, outside: u32, count: u32) -> Extent {
        Extent { inside, outside, count }
    }

    #[test]
    fn the_names_are_those_of_all_options_of_the_group() {
        crate::on_demand::assert_names::<MapOptions>();
    }

    #[test]
    fn two_ids_are_exchanged_and_all_others_stay() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        let last = u32::MAX;
        for (a, b, extents) in [
            (
                0,
                1000,
                vec![
                    extent(0, 1000, 1),
                    extent(1, 1, 999),
                    extent(1000, 0, 1),
                    extent(1001, 1001, last - 1001),
                ],
            ),
            (
                5,
                3,
                vec![
                    extent(0, 0, 3),
                    extent(3, 5, 1),
                    extent(4, 4, 1),
                    extent(5, 3, 1),
                    extent(6, 6, last - 6),
                ],
            ),
            (0, 0, vec![extent(0, 0, 1), extent(1, 1, last - 1)]),
            (
                last - 1,
                0,
                vec![extent(0, last - 1, 1), extent(1, 1, last - 2), extent(last - 1, 0, 1)],
            ),
        ] {
            assert_eq!(Extent::exchanging(a, b), extents, "{a} {b}");
        }
    }

    #[test]
    fn keep_exchanges_root_and_the_caller() {
        let auto = [Extent::one(0, 1000), Extent { inside: 1, outside: 100_000, count: 65_536 }];
        let expected = [
            Extent::one(1000, 1000),
            Extent { inside: 1, outside: 100_000, count: 999 },
            Extent::one(0, 100_999),
            Extent { inside: 1001, outside: 101_000, count: 64_536 },
        ];
        assert_eq!(exchanged(&auto, 1000), expected);
        assert_eq!(exchanged(&auto, 0), auto);
        // A caller beyond the range: no ID is left for root.
        assert_eq!(exchanged(&auto, 70_000), [Extent::one(70_000, 1000), auto[1]]);
        let first = [
            Extent::one(1, 1000),
            Extent::one(0, 100_000),
            Extent { inside: 2, outside: 100_001, count: 65_535 },
        ];
        assert_eq!(exchanged(&auto, 1), first);
    }

    #[test]
    fn ranges_are_three_numbers() {
        assert_eq!(Extent::parse("0:100000:65536"), Ok(extent(0, 100_000, 65536)));
        for word in
            ["", "0", "0:1", "0:1:2:3", "a:b:c", "0:1:0", "0:4294967295:2", "-1:0:1", "0:1:2x"]
        {
            assert!(Extent::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn subordinate_ranges_follow_each_other_inside() {
        let text = "root:1:2\nann:100000:65536\n# x\nbroken:1\n1000:300000:10\nbob:5:5\nann:7:0\n";
        let expected = [extent(1, 100_000, 65536), extent(65537, 300_000, 10)];
        assert_eq!(ranges(text, Some("ann"), 1000), expected);
        assert_eq!(ranges(text, None, 1000), [extent(1, 300_000, 10)]);
        assert_eq!(ranges(text, Some("eve"), 1001), []);
    }
}
