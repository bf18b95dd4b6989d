//! Changes as lines.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jc_unshare::escape::{self, Escaped};
use jc_unshare::{Error, Result};
use rustix::fs::{FileType, Stat};
use serde::Serialize;

use super::list::{Change, Kind};
use crate::sys;

/// The form of a list.
#[derive(Clone, Copy)]
pub enum Format {
    /// A line for each path, with escapes for characters that control a terminal.
    Lines,
    /// The bytes of each path, and a NUL.
    Zero,
    /// An object for each path.
    Json,
}

#[derive(Serialize)]
struct Object<'a> {
    kind: char,
    path: &'a str,
    /// The bytes of a path that is not UTF-8, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(flatten)]
    file: Option<File>,
}

/// The metadata of a new file.
#[derive(Serialize)]
struct File {
    r#type: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
}

impl File {
    fn of(stat: &Stat) -> Self {
        let r#type = match sys::file_type(stat) {
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::CharacterDevice => "char",
            FileType::BlockDevice => "block",
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
            _ => "file",
        };
        let mode = format!("{:04o}", stat.st_mode & 0o7777);
        // A size is not negative.
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Self { r#type, mode, uid: stat.st_uid, gid: stat.st_gid, size }
    }
}

const fn letter(kind: Kind) -> char {
    match kind {
        Kind::Added => 'A',
        Kind::Modified => 'M',
        Kind::Deleted => 'D',
    }
}

/// A list of changes.
pub fn lines(changes: &[Change], format: Format) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for change in changes {
        let file = change.stat.as_ref().map(File::of);
        text.extend(line(letter(change.kind), &change.path, file, format)?);
    }
    Ok(text)
}

/// A list of paths in conflict, with the letter C.
pub fn conflict_lines(paths: &[Vec<u8>], format: Format) -> Result<Vec<u8>> {
    let lines: Result<Vec<Vec<u8>>> =
        paths.iter().map(|path| line('C', path, None, format)).collect();
    lines.map(|lines| lines.concat())
}

fn line(kind: char, path: &[u8], file: Option<File>, format: Format) -> Result<Vec<u8>> {
    let text = String::from_utf8_lossy(path);
    Ok(match format {
        Format::Zero => [format!("{kind} ").as_bytes(), path, b"\0"].concat(),
        Format::Lines => {
            let mut line = String::new();
            // Writing to a String cannot fail.
            let _: std::fmt::Result = writeln!(line, "{kind} {}", Escaped(&text));
            line.into_bytes()
        }
        Format::Json => {
            let path_bytes = std::str::from_utf8(path).err().map(|_| STANDARD.encode(path));
            let object = Object { kind, path: &text, path_bytes, file };
            let line = serde_json::to_string(&object).map_err(Error::new)?;
            (escape::json(&line) + "\n").into_bytes()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_any_bytes_has_one_line() {
        let deleted = |path: &[u8]| Change { path: path.to_vec(), kind: Kind::Deleted, stat: None };
        let changes = [deleted(b"a\nb"), deleted(b"\xff")];
        let text = |format| String::from_utf8_lossy(&lines(&changes, format).unwrap()).into_owned();
        assert_eq!(text(Format::Lines), "D a\\nb\nD \u{fffd}\n");
        assert_eq!(lines(&changes, Format::Zero).unwrap(), b"D a\nb\0D \xff\0");
        assert_eq!(
            text(Format::Json),
            "{\"kind\":\"D\",\"path\":\"a\\nb\"}\n\
             {\"kind\":\"D\",\"path\":\"\u{fffd}\",\"path_bytes\":\"/w==\"}\n"
        );
    }
}
