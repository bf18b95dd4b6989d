//! Entry points for fuzzing: the parsers of netlink answers, and of data that a program behind jc-egress sends. No bytes
//! make a parser panic, and each parser takes at most as many steps as there are bytes. `fuzz/` has the targets and the
//! seeds, which are answers of a kernel. A test here runs the parsers on the same mutations of the seeds each time.

use crate::linux::conntrack::Entry;
pub use crate::linux::egress::fuzz::{client_hello, http, packet, query, rule};
use crate::linux::link::Link;
use crate::linux::message::{Attributes, HEADER, address, text};
use crate::linux::netlink::{acknowledged, parts, parts_flags};
use crate::linux::{nft, route, rules};

/// Reads a datagram as an answer of each kind.
pub fn netlink(datagram: &[u8]) {
    assert!(parts_flags(datagram).count() <= datagram.len() / HEADER);
    for (_, _, body) in parts(datagram) {
        if let Err(error) = acknowledged(body, 0) {
            drop(error.during("fuzz"));
        }
        let _ = (Link::read(body), nft::read_chain(body), Entry::read(body)); // only for panics
        let _ = (route::read_route(body), route::read_address(body, 1)); // only for panics
        let elements = nft::read_elements(body).unwrap_or_default();
        assert!(elements.iter().filter_map(rules::forward).count() <= body.len());
        attributes(Attributes(body));
    }
}

fn attributes(all: Attributes<'_>) {
    assert!(all.all().count() <= all.0.len() / 4);
    for (kind, value) in all.all() {
        let _ = (all.number(kind), all.big(kind), text(value), address(value)); // only for panics
        // The attribute of a kind that is found is the first one.
        assert!(all.nested(kind).all().count() <= all.0.len() / 4);
    }
}

#[cfg(test)]
mod tests {
    use jc_unshare::mutate::{self, Random};

    use super::*;

    /// Bytes that are lengths of attributes.
    const LENGTHS: [u8; 8] = [0, 1, 3, 4, 8, 16, 0x80, 0xff];

    /// Runs a reader on the seeds of a target, and on mutations of them.
    fn run(target: &str, count: usize, read: fn(&[u8])) {
        let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let seeds = mutate::seeds(&directory).unwrap();
        assert_eq!(seeds.len(), count, "{target}");
        let volume = std::env::var("JC_TEST_VOLUME").map_or(1, |volume| volume.parse().unwrap());
        let mut random = Random::default();
        for seed in seeds {
            read(&seed);
            for _ in 0..1000 * volume {
                let mut bytes = seed.clone();
                mutate::mutate(&mut bytes, &mut random, &LENGTHS);
                read(&bytes);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_of_answers_panic() {
        run("netlink", 11, netlink);
    }

    #[test]
    fn no_bytes_make_a_parser_of_jc_egress_panic() {
        run("client_hello", 4, client_hello);
        run("http", 5, http);
        run("packet", 2, packet);
        run("query", 4, query);
        run("rule", 6, rule);
    }
}
