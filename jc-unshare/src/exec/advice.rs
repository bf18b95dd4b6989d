//! The cause of a failed execve(2) that its errno leaves open: ENOENT stands for a missing interpreter too (execve(2)).

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use crate::interpreter::{of_elf, of_script};

/// The bytes of a file in which the kernel looks for an interpreter (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

/// A hint for an errno of execve(2); `None` if the file shows no cause.
pub fn of(path: &Path, errno: i32) -> Option<String> {
    let Ok(metadata) = path.metadata() else { return of_line(path.as_os_str()) };
    match Errno::from_raw(errno) {
        Errno::EACCES => access(path, &metadata),
        Errno::ENOENT => interpreter(path, &open(path, &metadata)?),
        Errno::ENOEXEC => machine(&head(&open(path, &metadata)?)?),
        _ => None,
    }
}

/// A hint for a name that is a line of words.
fn of_line(name: &OsStr) -> Option<String> {
    let mut words = name.as_bytes().split(|byte| *byte == b' ');
    let first = OsStr::from_bytes(words.next()?).display();
    words.next()?;
    Some(format!("{first} and its arguments are words of their own, without quotes around all"))
}

/// A hint for a name that no directory of PATH has.
pub fn of_absent(name: &OsStr, path: Option<&OsStr>) -> String {
    if let Some(hint) = of_line(name) {
        return hint;
    }
    match path {
        Some(path) => format!("no directory of PATH={} has it", path.display()),
        None => "PATH is not set".to_owned(),
    }
}

fn open(path: &Path, metadata: &Metadata) -> Option<File> {
    // Another process may have put a FIFO in the place of the file.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    (metadata.is_file() && file.metadata().ok()?.is_file()).then_some(file)
}

fn head(file: &File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    let count = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(count);
    Some(bytes)
}

fn access(path: &Path, metadata: &Metadata) -> Option<String> {
    let shown = path.display();
    if metadata.is_dir() {
        return Some(format!("{shown} is a directory"));
    }
    let is_executable = metadata.permissions().mode() & 0o111 != 0;
    (!is_executable).then(|| format!("chmod +x {shown} makes it executable"))
}

fn interpreter(path: &Path, file: &File) -> Option<String> {
    let head = head(file)?;
    let shown = path.display();
    let name = if head.starts_with(b"#!") {
        if head.split(|b| *b == b'\n').next()?.ends_with(b"\r") {
            return Some(format!(
                "the first line ends with a carriage return: sed -i 's/\\r$//' {shown}"
            ));
        }
        of_script(&head)?.to_vec()
    } else {
        of_elf(|bytes, at| file.read_at(bytes, at)).ok()??
    };
    let name = Path::new(OsStr::from_bytes(&name));
    if name.exists() {
        None
    } else {
        Some(format!("{shown} exists, and its interpreter {} does not", name.display()))
    }
}

/// The machines of ELF headers (elf(5)), in the words of OCI images.
const MACHINES: [(u16, &str); 7] = [
    (3, "386"),
    (21, "ppc64le"),
    (22, "s390x"),
    (40, "arm"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
];

fn machine(head: &[u8]) -> Option<String> {
    let number = head.starts_with(b"\x7fELF").then(|| head.get(18..20)).flatten()?;
    let number = u16::from_le_bytes([number[0], number[1]]);
    let (_, name) = MACHINES.iter().find(|(known, _)| *known == number)?;
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    (*name != own).then(|| {
        format!(
            "the program is for {name}, this machine is {own}: jc-pull --platform linux/{own}, or qemu-user-static"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ENOENT: i32 = Errno::ENOENT as i32;

    fn advice(bytes: &[u8], mode: u32, errno: i32) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let hint = of(&path, errno)?;
        Some(hint.replace(path.to_str().unwrap(), "P"))
    }

    /// A file with one program header, for an interpreter.
    fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        for (at, value) in [(32, 64u8), (54, 56), (56, 1), (64, 3), (72, 120)] {
            file[at] = value;
        }
        file[96] = interpreter.len() as u8 + 1;
        file.extend(interpreter.bytes().chain([0]));
        file
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        for (bytes, hint) in [
            (&b"#! /no/such -x\n"[..], Some("P exists, and its interpreter /no/such does not")),
            (
                b"#!/bin/sh\r\n",
                Some("the first line ends with a carriage return: sed -i 's/\\r$//' P"),
            ),
            (b"#!/bin/sh\n", None),
            (&elf(62, "/no/ld.so"), Some("P exists, and its interpreter /no/ld.so does not")),
            (&elf(62, "/bin/sh"), None),
            (&elf(62, "/no/ld.so")[..100], None),
            (b"\x7fELF\x02\x01\xff\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(advice(bytes, 0o755, ENOENT).as_deref(), hint);
        }
    }

    #[test]
    fn offsets_of_a_hostile_file_are_not_followed() {
        for at in [32, 54, 56, 72, 96] {
            let mut file = elf(62, "/no/ld.so");
            file[at..at + 2].fill(0xff);
            advice(&file, 0o755, ENOENT);
            file[32..40].fill(0xff);
            assert_eq!(advice(&file, 0o755, ENOENT), None);
        }
    }

    #[test]
    fn another_machine_a_directory_and_a_mode_are_named() {
        let foreign = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
        let hint = advice(&elf(foreign, ""), 0o755, Errno::ENOEXEC as i32).unwrap();
        assert!(
            hint.contains("amd64") && hint.contains("arm64") && hint.contains("qemu"),
            "{hint}"
        );
        assert_eq!(advice(b"text", 0o755, Errno::ENOEXEC as i32), None);
        let hint = advice(b"", 0o644, Errno::EACCES as i32);
        assert_eq!(hint.as_deref(), Some("chmod +x P makes it executable"));
        assert_eq!(of("/".as_ref(), Errno::EACCES as i32).as_deref(), Some("/ is a directory"));
        assert_eq!(of("/no/such".as_ref(), ENOENT), None);
    }
}
