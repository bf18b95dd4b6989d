//! Entry points of the fuzzer: the readers of all untrusted bytes. They end for every input, and their
//! results keep the invariants that are asserted here. `fuzz/` has the targets and the seeds. A test here
//! runs the readers on mutations of the seeds, the same in each run.

use std::io::{self, BufReader, Read};

use jc_unshare::lower::Lower;
use reqwest::Url;

use crate::changes::components;
use crate::compress::Decoder;
use crate::credentials::Credentials;
use crate::manifest::{Config, Document};
use crate::sink::{next_url, received};
use crate::tar::Reader;
use jc_unshare::image::Platform;
use jc_unshare::image::registries::Registries;
use jc_unshare::image::{Name, Reference};

/// The bytes of an unpacked layer that are read.
const MAX_LAYER: u64 = 8 << 20;

/// Parses a name. The text of a reference parses as the same reference.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(Name::Registry(reference)) = Name::parse(text) {
        let again = Reference::parse(&reference.to_string());
        assert!(again.is_ok_and(|again| again == reference), "{text:?}");
    }
}

/// Parses a document of a registry.
pub fn document(bytes: &[u8]) {
    if let Ok(document) = Document::parse(bytes, None) {
        match document {
            Document::Index(index) => drop(index.select(&Platform::host())),
            Document::Manifest(manifest) => drop(manifest.check()),
        }
    }
    drop(Config::parse(bytes, 1));
}

/// Parses a file of logins, and finds the logins of some registries.
pub fn auth(bytes: &[u8]) {
    let Ok(credentials) = Credentials::parse(bytes) else { return };
    for (registry, repository) in [("docker.io", "library/a"), ("r.x:5000", "a/b/c")] {
        // A helper is a program, which a fuzzer does not execute.
        if !credentials.has_helper(registry) {
            drop(credentials.find(registry, repository, false));
        }
    }
}

/// Parses a file of registries. The last location of an image is the registry itself.
pub fn registries(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(all) = Registries::parse(text) else { return };
    for name in ["alpine:3", "r.x:5000/a/b", "sub.r.x/a"] {
        let Ok(reference) = Reference::parse(&all.expand(name)) else { continue };
        if let Ok(places) = all.locate(&reference, false) {
            assert!(places.last().is_some_and(|place| !place.mirror), "{text:?}");
        }
    }
}

/// Parses the file `lower` of an upper directory. Its paths lead to nothing above the directory, and the file is written
/// as it was.
pub fn lower(bytes: &[u8]) {
    let Ok(lower) = Lower::parse(bytes) else { return };
    let overlays = lower.overlays.iter().flat_map(|overlay| [&overlay.at, &overlay.upper]);
    for path in overlays.chain(&lower.mounts) {
        let Ok(names) = components(path) else { continue };
        let is_plain = |name: &&[u8]| !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/');
        assert!(names.iter().all(is_plain), "{path:?}");
    }
    let again = lower.to_json().and_then(|json| Lower::parse(&json));
    assert!(again.is_ok_and(|again| again == lower), "{lower:?}");
}

/// Reads the range and the location in the answer of a registry to an upload, which stays at the registry.
pub fn upload(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (range, location) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(bytes) = received(range) {
        assert!(bytes == 0 || range.ends_with(|c: char| c.is_ascii_digit()), "{range:?}");
    }
    let Ok(from) = Url::parse("https://r.x:5000/v2/a/blobs/uploads/?page=1") else { return };
    if let Ok(next) = next_url(&from, location) {
        assert_eq!((next.scheme(), next.port()), ("https", Some(5000)), "{location:?}");
        assert_eq!(next.host_str(), Some("r.x"), "{location:?}");
    }
}

/// Reads an extended header in front of an entry.
pub fn pax(bytes: &[u8]) {
    // Both outcomes are right.
    let _: io::Result<()> = read_all(&mut Reader::new(with_pax(bytes).as_slice()));
}

fn with_pax(bytes: &[u8]) -> Vec<u8> {
    [member(b'x', bytes), member(b'0', b"content")].concat()
}

/// Reads a map of a file with holes: in front of the data, in the extended header, and in the old header.
pub fn sparse(bytes: &[u8]) {
    for archive in with_maps(bytes) {
        // Both outcomes are right.
        let _: io::Result<()> = read_all(&mut Reader::new(archive.as_slice()));
    }
}

fn with_maps(bytes: &[u8]) -> [Vec<u8>; 3] {
    let leading =
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n34 GNU.sparse.realsize=4294967296\n";
    let map = [b"GNU.sparse.map=", bytes, b"\n"].concat();
    let length = (map.len()..).find(|n| n.to_string().len() + 1 + map.len() == *n);
    let length = length.unwrap_or_default().to_string().into_bytes();
    let in_header = [b"27 GNU.sparse.size=1000000\n", length.as_slice(), b" ", &map].concat();
    [
        [member(b'x', leading), member(b'0', bytes)].concat(),
        [member(b'x', &in_header), member(b'0', bytes)].concat(),
        member(b'S', bytes),
    ]
}

/// A member of an archive. The bytes of an old sparse file begin with the map in the header.
fn member(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    let in_header = if kind == b'S' { bytes.len().min(109) } else { 0 };
    let (map, content) = bytes.split_at(in_header);
    if let Some(field) = header.as_mut_bytes().get_mut(386..386 + map.len()) {
        field.copy_from_slice(map);
    }
    // The size does not include a second block of the map, which the header announces.
    let more = if map.get(96).is_some_and(|more| *more != 0) { 512 } else { 0 };
    header.set_size((content.len() as u64).saturating_sub(more));
    header.set_cksum();
    let mut member = [header.as_bytes(), content].concat();
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

/// Reads a layer. The content of an entry does not exceed the entry's size.
pub fn layer(bytes: &[u8]) {
    let Ok(decoder) = Decoder::new(bytes) else { return };
    let mut reader = Reader::new(BufReader::new(decoder.take(MAX_LAYER)));
    // Both outcomes are right.
    let _: io::Result<()> = read_all(&mut reader);
}

fn read_all(reader: &mut Reader<impl io::BufRead>) -> io::Result<()> {
    while let Some(entry) = reader.entry()? {
        loop {
            let n = reader.content()?.len();
            if n == 0 {
                break;
            }
            let end = reader.position().checked_add(n as u64);
            assert!(end.is_some_and(|end| end <= entry.size), "content behind the end");
            reader.consume(n);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jc_unshare::mutate::{self, Random};

    use super::*;

    const SPECIAL: &[u8] = b"\0 /.:@\"{}[],-019\x7f\x80\xff\n=";

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        mutate::seeds(&directory).unwrap()
    }

    /// Corrects the sums of headers, so that the bytes behind them are reached.
    fn fix_sums(bytes: &mut [u8]) {
        for block in bytes.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }

    #[test]
    fn seeds_of_headers_and_maps_are_archives() {
        let is_read = |archive: &Vec<u8>| {
            let mut reader = Reader::new(archive.as_slice());
            let mut entries = 0;
            while let Ok(Some(_)) = reader.entry() {
                entries += 1;
                while let Ok(piece @ [_, ..]) = reader.content() {
                    let n = piece.len();
                    reader.consume(n);
                }
            }
            entries == 1
        };
        assert!(seeds("pax").iter().all(|seed| is_read(&with_pax(seed))));
        for seed in seeds("sparse") {
            assert!(with_maps(&seed).iter().any(is_read), "{}", String::from_utf8_lossy(&seed));
        }
    }

    #[test]
    fn mutations_of_the_seeds_break_nothing() {
        let mut random = Random::default();
        for (target, rounds, run) in [
            ("reference", 3000, reference as fn(&[u8])),
            ("document", 1000, document),
            ("auth", 1000, auth),
            ("registries", 1000, registries),
            ("lower", 1000, lower),
            ("upload", 1000, upload),
            ("layer", 400, layer),
            ("pax", 2000, pax),
            ("sparse", 1000, sparse),
        ] {
            for seed in seeds(target) {
                run(&seed);
                for _ in 0..rounds {
                    let mut bytes = seed.clone();
                    mutate::mutate(&mut bytes, &mut random, SPECIAL);
                    if target == "layer" && random.below(4) > 0 {
                        fix_sums(&mut bytes);
                    }
                    run(&bytes);
                }
            }
        }
    }
}
