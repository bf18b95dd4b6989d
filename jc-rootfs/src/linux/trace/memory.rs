//! The memory of a thread that waits for its recorder. Other threads can change the memory at any time.

use super::super::sys::notify::read_memory;

/// The size of a page. Where pages are larger, a read ends before the page does.
pub const PAGE: usize = 4096;

/// The longest path, with its NUL byte (PATH_MAX).
const LONGEST_PATH: usize = 4096;

/// The memory of a thread, with the page that was read last.
pub struct Memory<'a> {
    thread: u32,
    page: Option<u64>,
    bytes: &'a mut [u8; PAGE],
}

impl<'a> Memory<'a> {
    /// The memory of a thread. No memory is read yet.
    pub fn new(thread: u32, bytes: &'a mut [u8; PAGE]) -> Self {
        Self { thread, page: None, bytes }
    }

    /// The rest of the page at an address. `None`: the memory cannot be read.
    fn rest(&mut self, address: u64) -> Option<&[u8]> {
        let start = address & !(PAGE as u64 - 1);
        if self.page != Some(start) {
            self.page = None;
            let count = read_memory(self.thread, start, self.bytes).ok()?;
            self.page = (count == PAGE).then_some(start);
        }
        self.page.map(|page| &self.bytes[(address - page) as usize..])
    }

    /// The bytes up to a NUL byte, and whether the NUL byte was found within `most` bytes.
    pub fn string(&mut self, address: u64, most: usize) -> Option<(Vec<u8>, bool)> {
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < most {
            let rest = self.rest(at)?;
            let rest = &rest[..rest.len().min(most - text.len())];
            match rest.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&rest[..end]);
                    return Some((text, true));
                }
                None => text.extend_from_slice(rest),
            }
            at = at.checked_add(rest.len() as u64)?;
        }
        Some((text, false))
    }

    /// A path. `None`: the kernel would answer EFAULT or ENAMETOOLONG.
    pub fn path(&mut self, address: u64) -> Option<Vec<u8>> {
        self.string(address, LONGEST_PATH).filter(|(_, is_whole)| *is_whole).map(|(path, _)| path)
    }

    /// Some bytes at an address.
    pub fn bytes(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let rest = self.rest(address.checked_add(bytes.len() as u64)?)?;
            bytes.extend_from_slice(&rest[..rest.len().min(length - bytes.len())]);
        }
        Some(bytes)
    }

    /// A number with a width in bytes, at most eight.
    pub fn number(&mut self, address: u64, width: usize) -> Option<u64> {
        let bytes = self.bytes(address, width.min(8))?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The strings of an array of pointers that ends in a null pointer, as far as they have at most `most` bytes
    /// together, and whether those are all.
    pub fn strings(
        &mut self,
        address: u64,
        width: usize,
        most: usize,
    ) -> Option<(Vec<Vec<u8>>, bool)> {
        // The pointers are read first, since the strings are in other pages.
        let (mut pointers, mut at) = (Vec::new(), address);
        let ends = loop {
            if pointers.len() * width >= most {
                break false;
            }
            match self.number(at, width)? {
                0 => break true,
                pointer => pointers.push(pointer),
            }
            at = at.checked_add(width as u64)?;
        };
        let (mut strings, mut left) = (Vec::new(), most);
        for pointer in pointers {
            // An empty string takes the space of its pointer.
            let (string, is_whole) = self.string(pointer, left)?;
            let size = string.len() + width;
            strings.push(string);
            if !is_whole || size >= left {
                return Some((strings, false));
            }
            left -= size;
        }
        Some((strings, ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Memory<'static> {
        Memory::new(std::process::id(), Box::leak(Box::new([0; PAGE])))
    }

    #[test]
    fn strings_are_read_across_pages_and_up_to_a_bound() {
        let long = [vec![b'x'; 5000], vec![0]].concat();
        let address = long.as_ptr() as u64;
        assert_eq!(own().string(address, 9000).unwrap(), (vec![b'x'; 5000], true));
        assert_eq!(own().string(address, 4500).unwrap(), (vec![b'x'; 4500], false));
        assert_eq!(own().path(address), None);
        assert_eq!(own().path(address + 5000 - 3), Some(b"xxx".to_vec()));
        assert_eq!(own().path(8), None);
        assert_eq!(own().bytes(address, 4999).unwrap().len(), 4999);
        assert_eq!(own().path(u64::MAX), None);
    }

    #[test]
    fn arrays_end_in_a_null_pointer_or_at_a_bound() {
        let words = [c"a".as_ptr() as u64, c"bc".as_ptr() as u64, 0];
        let address = words.as_ptr() as u64;
        let expected = vec![b"a".to_vec(), b"bc".to_vec()];
        assert_eq!(own().strings(address, 8, 100), Some((expected.clone(), true)));
        assert_eq!(own().strings(address, 8, 15), Some((expected, false)));
        assert_eq!(own().number(address + 16, 8), Some(0));
    }
}
