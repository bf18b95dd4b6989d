//! `--files`: the paths that a program used and that existed.

use std::collections::BTreeSet;

use super::super::facts::Facts;

/// Directories whose files the kernel makes.
const KERNEL: [&[u8]; 3] = [b"/dev", b"/proc", b"/sys"];

/// The paths, one a line, or each with a NUL behind it if a path has a newline.
pub fn files(facts: &Facts) -> Vec<u8> {
    let mut paths: BTreeSet<&[u8]> = facts.directories.iter().map(Vec::as_slice).collect();
    for (path, file) in facts.files.iter().filter(|(_, file)| file.exists != Some(false)) {
        paths.insert(path);
        paths.extend(file.real.as_deref());
        // The kernel looks a directory up before it goes up again.
        paths.extend(before_parents(path));
    }
    let of_kernel = |path: &[u8]| {
        KERNEL
            .iter()
            .any(|top| path.strip_prefix(*top).is_some_and(|rest| matches!(rest, [] | [b'/', ..])))
    };
    paths.retain(|path| {
        path.starts_with(b"/") && !of_kernel(path) && !path.ends_with(b" (deleted)")
    });
    let end = if paths.iter().any(|path| path.contains(&b'\n')) { 0 } else { b'\n' };
    paths.into_iter().flat_map(|path| path.iter().copied().chain([end])).collect()
}

/// The beginnings of a path that end in front of "..".
fn before_parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = (1..path.len()).filter(|end| {
        path[*end..].strip_prefix(b"/..").is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    });
    ends.map(|end| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_existed_are_listed_with_what_leads_to_them() {
        let facts = Facts::of(&[
            r#"{"event":"trace","version":1,"cwd":"/app"}"#,
            r#"{"event":"file","path":"/lib/x","real":"/usr/lib/x.1","uses":["open"],"exists":true}"#,
            r#"{"event":"file","path":"/none","uses":["stat"],"exists":false}"#,
            r#"{"event":"file","path":"/a/b/../../c","real":"/c","uses":["open"],"exists":true}"#,
            r#"{"event":"file","path":"/proc/self/exe","uses":["open"],"exists":null}"#,
            r#"{"event":"file","path":"/process","uses":["open"],"exists":null}"#,
        ]);
        let expected = "/a/b\n/a/b/..\n/a/b/../../c\n/app\n/c\n/lib/x\n/process\n/usr/lib/x.1\n";
        assert_eq!(String::from_utf8(files(&facts)).unwrap(), expected);
    }

    #[test]
    fn a_newline_in_a_path_changes_the_form() {
        let facts =
            Facts::of(&[r#"{"event":"file","path":"/a\nb","uses":["open"],"exists":true}"#]);
        assert_eq!(files(&facts), b"/a\nb\0");
    }
}
