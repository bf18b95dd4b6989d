//! Words in the spelling of a shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Quotes a word for the shell where it needs that.
pub fn quote(word: &OsStr) -> Vec<u8> {
    let bytes = word.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.to_vec();
    }
    let inner: Vec<&[u8]> = bytes.split(|b| *b == b'\'').collect();
    [b"'", inner.join(&b"'\\''"[..]).as_slice(), b"'"].concat()
}

/// A command line for a message. Bytes that are not UTF-8 are replaced.
pub fn line(words: &[OsString]) -> String {
    let words: Vec<Vec<u8>> = words.iter().map(|word| quote(word)).collect();
    String::from_utf8_lossy(&words.join(&b' ')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        for (word, quoted) in [
            ("plain-1.0:/a,b=c", "plain-1.0:/a,b=c"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", "'it'\\''s'"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
            ("a\nb", "'a\nb'"),
            ("ü", "'ü'"),
        ] {
            assert_eq!(quote(word.as_ref()), quoted.as_bytes());
        }
        assert_eq!(line(&["sh".into(), "-c".into(), "a b".into()]), "sh -c 'a b'");
    }
}
