//! `--landlock`: rules for jc-landlock.

use std::collections::{BTreeMap, BTreeSet};

use jc_unshare::{Error, Result};

use super::super::facts::{AddressFact, Facts, FileFact};

/// The access to a path, a bit each.
type Access = u8;
const READ: Access = 1;
const WRITE: Access = 2;
const EXECUTE: Access = 4;

/// Uses that change the directory of a file.
const OF_DIRECTORY: [&str; 4] = ["bind", "create", "remove", "rename"];

/// The rules, one a line.
pub fn landlock(facts: &Facts) -> Result<Vec<u8>> {
    let mut text = file_rules(&accesses(facts))?;
    for (word, is_bound) in [("bind", true), ("connect", false)] {
        let is_its = |address: &&AddressFact| address.is_bound == is_bound && address.is_stream();
        let ports: BTreeSet<u16> =
            facts.addresses.iter().filter(is_its).map(|address| address.port).collect();
        if ports.is_empty() {
            text.extend(format!("{word} none\n").bytes());
        }
        text.extend(ports.iter().flat_map(|port| format!("{word} {port}\n").into_bytes()));
    }
    Ok(text)
}

/// The access to each path.
fn accesses(facts: &Facts) -> BTreeMap<&[u8], Access> {
    let mut accesses: BTreeMap<&[u8], Access> = BTreeMap::new();
    for (path, file) in &facts.files {
        let path = file.real.as_ref().unwrap_or(path);
        let path = if path.starts_with(b"/proc/") { b"/proc" } else { &path[..] };
        let changes_directory = OF_DIRECTORY.iter().any(|usage| file.is_used(usage))
            || file.has_flag("create") && file.exists != Some(true);
        if changes_directory {
            *accesses.entry(parent(path)).or_default() |= WRITE;
        }
        // A file that the program makes or removes may be absent the next time.
        if file.exists == Some(true) && !file.is_used("remove") && !file.is_used("rename")
            || changes_directory && file.is_used("execute")
            || path == b"/proc"
        {
            *accesses.entry(path).or_default() |= access(file);
        }
    }
    accesses
}

/// The rules for paths that no rule for a directory above allows.
fn file_rules(accesses: &BTreeMap<&[u8], Access>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (path, access) in accesses {
        let word = match (access & WRITE != 0, access & EXECUTE != 0) {
            _ if *access == 0 => continue,
            (false, false) => "ro",
            (false, true) => "rx",
            (true, false) => "rw",
            (true, true) => "rwx",
        };
        let is_covered = ancestors(path).any(|above| {
            // Each rule allows reading.
            accesses.get(above).is_some_and(|above| *above != 0 && access & !(above | READ) == 0)
        });
        if is_covered {
            continue;
        }
        if path.contains(&b'\n') {
            let shown = String::from_utf8_lossy(path);
            return Err(Error::new(format_args!("{shown}: a rule has no newline")));
        }
        text.extend([word.as_bytes(), b" ", path, b"\n"].concat());
    }
    Ok(text)
}

fn access(file: &FileFact) -> Access {
    let reads = file.is_used("list")
        || file.is_used("open") && (file.has_flag("read") || !file.has_flag("write"));
    let writes = file.is_used("change") || file.has_flag("write") || file.has_flag("truncate");
    [(reads, READ), (writes, WRITE), (file.is_used("execute"), EXECUTE)]
        .into_iter()
        .fold(0, |all, (is_set, bit)| if is_set { all | bit } else { all })
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(end) => &path[..end],
    }
}

/// The directories above a path.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| (*path != b"/").then(|| parent(path))).skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_allows_what_was_done_and_no_more() {
        let facts = Facts::of(&[
            r#"{"event":"file","path":"/bin/sh","real":"/usr/bin/dash","uses":["execute"],"exists":true}"#,
            r#"{"event":"file","path":"/etc/passwd","uses":["open"],"flags":["read"],"exists":true}"#,
            r#"{"event":"file","path":"/etc/none","uses":["open"],"flags":["read"],"exists":false}"#,
            r#"{"event":"file","path":"/etc","uses":["stat"],"exists":true}"#,
            r#"{"event":"file","path":"/tmp/x","uses":["open","remove"],"flags":["create","write"],"exists":null}"#,
            r#"{"event":"file","path":"/tmp/y","uses":["open"],"flags":["read"],"exists":true}"#,
            r#"{"event":"file","path":"/var/log/l","uses":["open"],"flags":["create","write"],"exists":true}"#,
            r#"{"event":"connect","family":"inet","address":"192.0.2.1","port":443,"type":"stream"}"#,
        ]);
        let expected =
            "ro /etc/passwd\nrw /tmp\nrx /usr/bin/dash\nrw /var/log/l\nbind none\nconnect 443\n";
        assert_eq!(String::from_utf8(landlock(&facts).unwrap()).unwrap(), expected);
    }

    #[test]
    fn directories_above_a_path_end_at_the_root() {
        assert_eq!(ancestors(b"/a/b").collect::<Vec<_>>(), [&b"/a"[..], b"/"]);
        assert_eq!(ancestors(b"/").count(), 0);
    }
}
