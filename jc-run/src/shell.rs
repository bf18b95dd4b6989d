//! Words in the spelling of a shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use jc_unshare::escape::is_unsafe;
use jc_unshare::shell::quote;

/// The variable for a newline in a printed script, since a command substitution drops newlines at its end.
const NEWLINE: &[u8] = b"$jc_nl";

/// A script, behind the assignment of [`NEWLINE`] if the script uses it.
pub fn with_newline(script: Vec<u8>) -> Vec<u8> {
    let uses = script.windows(NEWLINE.len()).any(|window| window == NEWLINE);
    let assignment: &[u8] = if uses { b"jc_nl=$(printf '\\n.'); jc_nl=${jc_nl%.}\n" } else { b"" };
    [assignment, &script].concat()
}

/// Words as a line for a shell. No character of the line controls a terminal.
pub fn script(words: &[OsString]) -> Vec<u8> {
    words.iter().map(|word| spell(word)).collect::<Vec<_>>().join(&b' ')
}

/// Quotes a word like [`quote`]. A word with a character that controls a terminal becomes a call of printf(1).
pub fn spell(word: &OsStr) -> Vec<u8> {
    if is_safe(word.as_bytes()) {
        return quote(word);
    }
    let end = word.as_bytes().iter().rposition(|b| *b != b'\n').map_or(0, |last| last + 1);
    let (head, newlines) = word.as_bytes().split_at(end);
    let mut spelled = match head {
        [] => Vec::new(),
        head if is_safe(head) => quote(OsStr::from_bytes(head)),
        head => format!("\"$(printf {})\"", printf_format(head)).into_bytes(),
    };
    if !newlines.is_empty() {
        spelled.extend([b"\"", NEWLINE.repeat(newlines.len()).as_slice(), b"\""].concat());
    }
    spelled
}

fn is_safe(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| !text.contains(is_unsafe))
}

/// The quoted format with which printf(1) prints these bytes.
pub fn printf_format(bytes: &[u8]) -> String {
    let mut format = "'".to_owned();
    let octal = |bytes: &[u8]| bytes.iter().map(|b| format!("\\{b:03o}")).collect::<String>();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => format.push_str("\\n"),
                '\t' => format.push_str("\\t"),
                '\\' => format.push_str("\\\\"),
                '%' => format.push_str("%%"),
                // A hyphen at the start would begin an option.
                '-' if format.len() == 1 => format.push_str(&octal(b"-")),
                c if c == '\'' || is_unsafe(c) => {
                    format.push_str(&octal(c.encode_utf8(&mut [0; 4]).as_bytes()));
                }
                c => format.push(c),
            }
        }
        format.push_str(&octal(chunk.invalid()));
    }
    format.push('\'');
    format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_act_on_a_terminal_are_spelled() {
        for (word, spelled) in [
            (&b"two words"[..], "'two words'"),
            (b"a\nb", r#""$(printf 'a\nb')""#),
            (b"\x1b[2J%\\", r#""$(printf '\033[2J%%\\')""#),
            (b"-'\x9b\xff\t", r#""$(printf '\055\047\233\377\t')""#),
            ("\u{202e}ü".as_bytes(), r#""$(printf '\342\200\256ü')""#),
            (b"a b\n\n", r#"'a b'"$jc_nl$jc_nl""#),
            (b"\n", r#""$jc_nl""#),
        ] {
            assert_eq!(String::from_utf8_lossy(&spell(OsStr::from_bytes(word))), spelled);
        }
    }
}
