//! The compression of layers.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::digest::invalid;

/// The largest window of a zstd frame, as a power of two: 128 MiB, the most that `zstd --long` uses and
/// that `zstd -d` accepts.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The decompressed bytes of a layer. At their end the inner reader is at its end, too, and has verified
/// its bytes.
pub enum Decoder<R: BufRead> {
    /// An uncompressed tar.
    Plain(R),
    /// gzip, of any number of members (RFC 1952): eStargz has one for each file.
    Gzip(Box<MultiGzDecoder<R>>),
    /// zstd, of any number of frames (RFC 8878): zstd:chunked has one for each file.
    Zstd(Box<zstd::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Selects by the first bytes, since media types are not reliable. The diff-id verifies the result.
    /// An empty blob is an error.
    pub fn new(mut reader: R) -> io::Result<Self> {
        match reader.fill_buf()? {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(reader)))),
            // A zstd frame, or a skippable frame in front of it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Ok(Self::Zstd(Box::new(decoder)))
            }
            [] => Err(invalid("an empty layer blob: not a tar archive")),
            _ => Ok(Self::Plain(reader)),
        }
    }

    fn inner(&mut self) -> &mut R {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }?;
        if n == 0 && !buffer.is_empty() && !self.inner().fill_buf()?.is_empty() {
            return Err(invalid("bytes behind the end of the compressed data"));
        }
        Ok(n)
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
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let frames = [zstd("hello "), zstd("world"), skippable.clone()].concat();
        let frame = zstd("hello");
        for (bytes, text) in [
            (b"hello".as_slice(), Some("hello")),
            (&whole, Some("hello")),
            (&two, Some("hello world")),
            (&whole[..whole.len() - 1], None),
            (&[whole.clone(), b"junk".to_vec()].concat(), None),
            (&frame, Some("hello")),
            (&frames, Some("hello world")),
            (&[skippable, frame.clone()].concat(), Some("hello")),
            (&frame[..frame.len() - 1], None),
            (&[frame.clone(), b"junk".to_vec()].concat(), None),
            (b"\x28\xb5\x2f\xfd\0", None),
            (b"", None),
        ] {
            assert_eq!(decode(bytes).ok().as_deref(), text, "{bytes:?}");
        }
    }
}
