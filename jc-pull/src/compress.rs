//! What a layer's tar is wrapped in.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::digest::invalid;

/// The largest window that a zstd frame may ask for, as a power of two: 128 MiB, what `zstd --long`
/// makes at the most and `zstd -d` takes without being asked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A layer's bytes, unwrapped as they are read. At their end the reader beneath is at its own, so
/// what verifies itself there has done so.
pub enum Decoder<R: BufRead> {
    /// A bare tar.
    Plain(R),
    /// gzip, of any number of members (RFC 1952): eStargz has one for each file.
    Gzip(Box<MultiGzDecoder<R>>),
    /// zstd, of any number of frames (RFC 8878): zstd:chunked has one for each file.
    Zstd(Box<zstd::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes, as media types and content do not always agree; what comes out is
    /// held against the diff-id in any case.
    pub fn new(mut reader: R) -> io::Result<Self> {
        match reader.fill_buf()? {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(reader)))),
            // A frame, or a skippable one in front of it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Ok(Self::Zstd(Box::new(decoder)))
            }
            [] => Err(invalid("an empty layer blob: not a tar archive")),
            _ => Ok(Self::Plain(reader)),
        }
    }

    fn beneath(&mut self) -> &mut R {
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
        if n == 0 && !buffer.is_empty() && !self.beneath().fill_buf()?.is_empty() {
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
