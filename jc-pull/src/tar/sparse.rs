//! Files with holes, in the four forms of GNU tar (GNU tar manual, "Storing Sparse Files"): the old
//! header, and pax versions 0.0, 0.1 and 1.0.

use std::io;

use super::header::BLOCK;
use super::number::{decimal, number};
use crate::digest::invalid;

/// The most pieces of one file. Each piece costs memory before the first is written.
const MAX_PIECES: usize = 1 << 17;

/// A piece of data between holes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The length in bytes.
    pub length: u64,
}

/// Adds the pieces of an array of `struct sparse`. An empty field ends the array. The byte after the
/// array says whether another block follows. A malformed number and too many pieces are errors.
pub fn read_array(array: &[u8], pieces: &mut Vec<Piece>) -> io::Result<()> {
    for field in array.chunks_exact(24) {
        let (offset, length) = field.split_at(12);
        if length.first() == Some(&0) {
            break;
        }
        let read = |field| number(field).and_then(|n| u64::try_from(n).ok());
        match (read(offset), read(length)) {
            (Some(offset), Some(length)) => push(pieces, Piece { offset, length })?,
            _ => return Err(invalid("a malformed sparse map")),
        }
    }
    Ok(())
}

/// Adds a piece. More than [`MAX_PIECES`] are an error.
pub fn push(pieces: &mut Vec<Piece>, piece: Piece) -> io::Result<()> {
    if pieces.len() == MAX_PIECES {
        return Err(invalid("a sparse map with too many pieces"));
    }
    pieces.push(piece);
    Ok(())
}

/// Parses a map of offsets and lengths, split at `separator`.
pub fn read_pairs(text: &[u8], separator: u8) -> Option<Vec<Piece>> {
    let numbers: Vec<u64> = text
        .split(|b| *b == separator)
        .map(decimal)
        .collect::<Option<_>>()
        .filter(|n: &Vec<u64>| n.len().is_multiple_of(2) && n.len() / 2 <= MAX_PIECES)?;
    let pair = |pair: &[u64]| match pair {
        [offset, length] => Some(Piece { offset: *offset, length: *length }),
        _ => None,
    };
    numbers.chunks(2).map(pair).collect()
}

/// Reads the map in front of the data of a file (version 1.0): a count, and then offsets and lengths, a
/// line each, padded to a whole block. `next_block` returns the next block of the data. A malformed
/// number and too many pieces are errors.
pub fn read_leading(
    mut next_block: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<Vec<Piece>> {
    /// The digits of the largest number, and a newline.
    const MAX_LINE: usize = 21;
    let malformed = || invalid("a malformed sparse map");
    let (mut count, mut offset, mut pieces) = (None, None, Vec::new());
    let mut line = Vec::new();
    loop {
        for byte in next_block()? {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > MAX_LINE {
                    return Err(malformed());
                }
                continue;
            }
            let number = decimal(&line).ok_or_else(malformed)?;
            line.clear();
            match (count, offset.take()) {
                (None, _) => count = Some(number),
                (_, None) => offset = Some(number),
                (_, Some(offset)) => push(&mut pieces, Piece { offset, length: number })?,
            }
            if count == Some(pieces.len() as u64) {
                return Ok(pieces);
            }
        }
        if count.is_none_or(|count| count > MAX_PIECES as u64) {
            return Err(malformed());
        }
    }
}

/// An error if a map does not fit its file: pieces out of order or behind the end, or of another sum than
/// the data.
pub fn check(pieces: &[Piece], size: u64, stored: u64) -> io::Result<()> {
    let mut end = 0;
    let mut sum = 0;
    for piece in pieces {
        let next = piece.offset.checked_add(piece.length).filter(|next| *next <= size);
        match next {
            Some(next) if piece.offset >= end => end = next,
            _ => return Err(invalid("a sparse map that does not fit its file")),
        }
        sum += piece.length;
    }
    if sum == stored { Ok(()) } else { Err(invalid("a sparse map that does not fit its data")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pairs: &[(u64, u64)]) -> Vec<Piece> {
        pairs.iter().map(|(offset, length)| Piece { offset: *offset, length: *length }).collect()
    }

    #[test]
    fn maps_as_text_are_pairs() {
        for (text, map) in [
            (b"0,5,10,3".as_slice(), Some(vec![(0, 5), (10, 3)])),
            (b"0,0", Some(vec![(0, 0)])),
            (b"", None),
            (b"1", None),
            (b"1,2,3", None),
            (b"1,-2", None),
            (b"1,,2,3", None),
        ] {
            assert_eq!(read_pairs(text, b','), map.map(|m| pieces(&m)), "{text:?}");
        }
    }

    #[test]
    fn maps_in_front_of_the_data_end_with_their_block() {
        let read = |text: &str| {
            let mut blocks = text.as_bytes().chunks(BLOCK).map(|chunk| {
                let mut block = [0; BLOCK];
                block[..chunk.len()].copy_from_slice(chunk);
                block
            });
            read_leading(|| blocks.next().ok_or_else(|| invalid("end")))
        };
        assert_eq!(read("2\n0\n5\n512\n1\n").unwrap(), pieces(&[(0, 5), (512, 1)]));
        assert_eq!(read("0\n").unwrap(), []);
        let many: Vec<(u64, u64)> = (0..300).map(|n| (n * 1000, 7)).collect();
        let lines: String = many.iter().map(|(o, l)| format!("{o}\n{l}\n")).collect();
        assert_eq!(read(&format!("300\n{lines}")).unwrap(), pieces(&many));
        for text in ["x\n", "1\n0\n", "999999999\n", "1\n\n\n", "\n"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(read(&"1".repeat(600)).is_err());
    }

    #[test]
    fn a_map_must_fit() {
        for (map, size, stored, fits) in [
            (vec![], 0, 0, true),
            (vec![], 100, 0, true),
            (vec![(0, 5), (5, 5), (20, 0)], 20, 10, true),
            (vec![(5, 5), (0, 5)], 20, 10, false),
            (vec![(0, 5), (4, 5)], 20, 10, false),
            (vec![(0, 5)], 4, 5, false),
            (vec![(0, 5)], 9, 4, false),
            (vec![(u64::MAX, 2)], u64::MAX, 2, false),
        ] {
            assert_eq!(check(&pieces(&map), size, stored).is_ok(), fits, "{map:?}");
        }
    }
}
