//! What a layer's tar is wrapped in.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::digest::invalid;

/// A layer's bytes, unwrapped as they are read.
pub enum Decoder<R> {
    /// A bare tar.
    Plain(R),
    /// gzip, of any number of members (RFC 1952).
    Gzip(Box<MultiGzDecoder<R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes, as media types and content do not always agree; what comes out is
    /// held against the diff-id in any case.
    pub fn new(mut reader: R) -> io::Result<Self> {
        match reader.fill_buf()? {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(reader)))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(invalid("a zstd layer: only gzip and plain tar")),
            [] => Err(invalid("an empty layer blob: not a tar archive")),
            _ => Ok(Self::Plain(reader)),
        }
    }

    /// The reader beneath, at whatever place the decoder needed.
    pub fn into_inner(self) -> R {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        Decoder::new(bytes)?.read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn the_content_says_what_it_is() {
        let two = [gzip("hello "), gzip("world")].concat();
        let whole = gzip("hello");
        for (bytes, text) in [
            (b"hello".as_slice(), Some("hello")),
            (&whole, Some("hello")),
            (&two, Some("hello world")),
            (&whole[..whole.len() - 1], None),
            (b"\x28\xb5\x2f\xfd\0", None),
            (b"", None),
        ] {
            assert_eq!(decode(bytes).ok().as_deref(), text, "{bytes:?}");
        }
    }
}
