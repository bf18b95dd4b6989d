//! Domain names, in the one form in which they are compared: lower case, A-labels, no dot at the end.

use std::net::Ipv4Addr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// The longest name, in characters (RFC 1035, 2.3.4), and the longest label.
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A name as a user writes it. U-labels become A-labels (UTS 46).
pub fn from_user(word: &str) -> Option<String> {
    let ascii = Uts46::new().to_ascii(
        word.as_bytes(),
        AsciiDenyList::EMPTY,
        Hyphens::Allow,
        DnsLength::Ignore,
    );
    from_wire(ascii.ok()?.as_bytes())
}

/// A name as a client sends it: ASCII only, in any case, with or without a dot at the end. `None`: no host
/// can have the name. A last label that is a number makes an IPv4 address of it (URL Standard, 3.5).
pub fn from_wire(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
    let is_label =
        |label: &[u8]| (1..=LONGEST_LABEL).contains(&label.len()) && label.iter().all(is_plain);
    if bytes.len() > LONGEST || !bytes.split(|b| *b == b'.').all(is_label) {
        return None;
    }
    let name = str::from_utf8(bytes).ok()?.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or(&name);
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| is_all(digits, 16));
    (!hexadecimal && !is_all(last, 10) && name.parse::<Ipv4Addr>().is_err()).then_some(name)
}

fn is_all(digits: &str, radix: u32) -> bool {
    digits.chars().all(|digit| digit.is_digit(radix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (word, name) in [
            ("GitHub.com", "github.com"),
            ("github.com.", "github.com"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("\u{430}pple.com", "xn--pple-43d.com"),
            ("git\u{ff0e}example", "git.example"),
            ("a_b.example", "a_b.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(from_user(word).as_deref(), Some(name), "{word}");
        }
    }

    #[test]
    fn what_no_host_is_called_is_no_name() {
        let long = "a".repeat(64);
        let longer = "a.".repeat(127) + "b";
        for word in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "a.0x7F",
            "a.1",
            "a b",
            "a\0.b",
            "a/b",
            "*.a",
            "a:1",
            "[::1]",
            "a\u{3002}\u{3002}b",
            &long,
            &longer,
        ] {
            assert_eq!(from_user(word), None, "{word:?}");
        }
        assert_eq!(from_wire("b\u{fc}cher.example".as_bytes()), None);
        assert_eq!(from_wire(b"\xff.example"), None);
        assert!(from_wire("a.".repeat(126).as_bytes()).is_some());
    }
}
