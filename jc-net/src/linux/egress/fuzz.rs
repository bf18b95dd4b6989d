//! The parsers of what a program sends, for fuzzing.

use super::http::{LONGEST, Origin, Requests};
use super::names::Names;
use super::rule::Rule;
use super::rules::Rules;
use super::tls::{self, Progress};
use super::{dns, name, packets};

/// Reads bytes as a ClientHello, as often as the parser asks for.
pub fn client_hello(bytes: &[u8]) {
    let (mut needed, mut reads) = (1, 0);
    while needed <= bytes.len() {
        reads += 1;
        match tls::read(&bytes[..needed]) {
            Ok(Progress::Needs(more)) => {
                assert!(more > needed && more <= tls::LONGEST + 5);
                needed = more;
            }
            _ => break,
        }
    }
    assert!(reads <= 130);
}

/// Reads bytes as requests of HTTP, at once and in pieces. Both pass the same bytes.
pub fn http(bytes: &[u8]) {
    let origin = Origin { name: "a.example", port: 80 };
    let at_once = Requests::new().pass(bytes, origin);
    let (mut requests, mut passed) = (Requests::new(), 0);
    for end in (0..=bytes.len()).step_by(7).chain([bytes.len()]) {
        if end <= passed {
            continue;
        }
        match requests.pass(&bytes[passed..end], origin) {
            Ok(step) => passed += step,
            Err(_) => return assert!(at_once.is_err()),
        }
    }
    assert!(bytes.len() >= LONGEST || at_once == Ok(passed), "{at_once:?} {passed}");
}

/// Answers bytes as a query.
pub fn query(bytes: &[u8]) {
    let allow = ["a.example:443", "*.b:80"].map(str::parse::<Rule>).into_iter().flatten().collect();
    let Ok(rules) = Rules::new(allow, Vec::new()) else { return };
    let answer = dns::answer(bytes, &rules, &mut Names::default(), true);
    assert!(answer.bytes.is_none_or(|answer| answer.len() <= 12 + bytes.len().max(12) + 64));
}

/// Reads bytes as a rule and as a name.
pub fn rule(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = Rule::from_line(text); // only for panics
        let name = name::from_user(text);
        assert!(name.is_none_or(|name| name.len() <= 253 && name.is_ascii()));
    }
    let wire = name::from_wire(bytes);
    let Some(name) = wire else { return };
    assert_eq!(name::from_wire(name.as_bytes()).as_deref(), Some(&*name));
    // A rule that is learned can be read.
    assert!(Rule::any().names(&name).is_none() || Rule::from_line(&format!("{name}:1")).is_ok());
}

/// Reads bytes as the message of a rejected packet.
pub fn packet(bytes: &[u8]) {
    let packet = packets::read(bytes);
    assert!(packet.is_none_or(|packet| bytes.len() >= 20 && packet.protocol.len() <= 7));
}
