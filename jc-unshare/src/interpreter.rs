//! The program that the kernel starts to execute a file: the interpreter of a script, or the loader of an ELF file.

use std::io::Result;

/// The most bytes of program headers that the kernel reads (load_elf_phdrs in Linux' fs/binfmt_elf.c).
const MAX_HEADERS: u64 = 64 << 10;

/// The most bytes of a path, with its NUL byte (PATH_MAX).
const MAX_PATH: u64 = 4096;

/// The path after `#!` at the start of a script.
pub fn of_script(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|b| matches!(b, b'\n' | 0)).next()?;
    line.split(|b| matches!(b, b' ' | b'\t')).find(|word| !word.is_empty())
}

/// The loader that an ELF file names (elf(5), `PT_INTERP`). Other files have none, and neither have malformed ones. Errors
/// are those of `read_at`, which reads bytes at an offset, and fewer at the end of the file.
pub fn of_elf(read_at: impl Fn(&mut [u8], u64) -> Result<usize>) -> Result<Option<Vec<u8>>> {
    const PT_INTERP: u64 = 3;
    let read = |length: u64, at: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let count = if i64::try_from(at).is_ok() { read_at(&mut bytes, at)? } else { 0 };
        bytes.truncate(count);
        Ok(bytes)
    };
    let head = read(64, 0)?;
    if !head.starts_with(b"\x7fELF") || head.len() < 52 {
        return Ok(None);
    }
    let (is_64, is_big_endian) = (head[4] == 2, head[5] == 2);
    let number = |bytes: &[u8], at: usize, length: usize| {
        let field = bytes.get(at..at + length).unwrap_or_default();
        let digit = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if is_big_endian { field.iter().fold(0, digit) } else { field.iter().rev().fold(0, digit) }
    };
    let (size, table, size_at, count_at) =
        if is_64 { (56, number(&head, 32, 8), 54, 56) } else { (32, number(&head, 28, 4), 42, 44) };
    let length = size as u64 * number(&head, count_at, 2);
    if number(&head, size_at, 2) != size as u64 || length > MAX_HEADERS {
        return Ok(None);
    }
    let headers = read(length, table)?;
    let mut headers = headers.chunks_exact(size);
    let Some(header) = headers.find(|header| number(header, 0, 4) == PT_INTERP) else {
        return Ok(None);
    };
    let (offset, length) = if is_64 {
        (number(header, 8, 8), number(header, 32, 8))
    } else {
        (number(header, 4, 4), number(header, 16, 4))
    };
    let path = read(length.min(MAX_PATH), offset)?;
    let path = path.split(|b| *b == 0).next();
    Ok(path.filter(|path| !path.is_empty()).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(file: &[u8]) -> Option<Vec<u8>> {
        let read_at = |bytes: &mut [u8], at: u64| {
            let rest = file.get(usize::try_from(at).unwrap()..).unwrap_or_default();
            let count = rest.len().min(bytes.len());
            bytes[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        of_elf(read_at).unwrap()
    }

    /// A file with one program header, which names `/ld.so`.
    fn elf(is_64: bool, is_big_endian: bool) -> Vec<u8> {
        let mut file = vec![0; if is_64 { 64 + 56 } else { 52 + 32 }];
        let path = file.len() as u64;
        file[..4].copy_from_slice(b"\x7fELF");
        file[4] = 1 + u8::from(is_64);
        file[5] = 1 + u8::from(is_big_endian);
        let fields = if is_64 {
            [(32, 8, 64), (54, 2, 56), (56, 2, 1), (64, 4, 3), (72, 8, path), (96, 8, 7)]
        } else {
            [(28, 4, 52), (42, 2, 32), (44, 2, 1), (52, 4, 3), (56, 4, path), (68, 4, 7)]
        };
        for (at, length, value) in fields {
            let mut bytes = u64::to_le_bytes(value)[..length].to_vec();
            if is_big_endian {
                bytes.reverse();
            }
            file[at..at + length].copy_from_slice(&bytes);
        }
        file.extend_from_slice(b"/ld.so\0");
        file
    }

    #[test]
    fn an_interpreter_is_the_first_word_after_the_shebang() {
        for (head, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /bin/sh -e\n", Some("/bin/sh")),
            ("#!\t./x\ty z", Some("./x")),
            ("#!\n/bin/sh", None),
            ("#! \t", None),
            ("#/bin/sh", None),
            ("", None),
        ] {
            assert_eq!(of_script(head.as_bytes()), expected.map(str::as_bytes), "{head:?}");
        }
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        for (is_64, is_big_endian) in [(true, false), (true, true), (false, false), (false, true)] {
            let file = elf(is_64, is_big_endian);
            assert_eq!(loader(&file).as_deref(), Some(&b"/ld.so"[..]));
            assert_eq!(loader(&file[..file.len() - 7]), None);
        }
    }

    #[test]
    fn a_header_of_any_bytes_is_harmless() {
        for is_64 in [true, false] {
            let file = elf(is_64, false);
            for at in 4..file.len() {
                let mut hostile = file.clone();
                hostile[at..(at + 8).min(file.len())].fill(0xFF);
                loader(&hostile);
                loader(&file[..at]);
            }
        }
    }
}
