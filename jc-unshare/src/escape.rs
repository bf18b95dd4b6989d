//! Escapes for text of images, registries, records and other users, so that the text is harmless on a terminal.

use std::fmt::{self, Display, Write};

/// Whether a character controls a terminal or disguises the text around it: control characters (ESC and C1
/// begin sequences, a newline begins a false row), separators of lines and paragraphs, invisible characters,
/// and characters that change the direction of the text (Unicode Standard Annex 9).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Displays a text with each unsafe character as an escape like `\n` or `\u{1b}`.
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            write!(f, "{}{}", &rest[..at], c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// JSON of the same value without unsafe characters. In JSON, only strings contain unsafe characters.
pub fn json(text: &str) -> String {
    let (mut safe, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
        safe.push_str(&rest[..at]);
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _: fmt::Result = write!(safe, "\\u{unit:04x}");
        }
        rest = &rest[at + c.len_utf8()..];
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_characters_are_shown_as_they_are() {
        for (text, shown) in [
            ("plain, ü, 漢, e\u{301} and \\", "plain, ü, 漢, e\u{301} and \\"),
            ("a\nb\r\t\u{7}", "a\\nb\\r\\t\\u{7}"),
            ("\u{1b}[2J\u{7f}\u{9b}2J", "\\u{1b}[2J\\u{7f}\\u{9b}2J"),
            ("\u{202e}\u{2066}\u{200f}\u{61c}", "\\u{202e}\\u{2066}\\u{200f}\\u{61c}"),
            ("\u{2028}\u{feff}\u{e0041}", "\\u{2028}\\u{feff}\\u{e0041}"),
        ] {
            assert_eq!(Escaped(text).to_string(), shown);
        }
    }

    #[test]
    fn json_keeps_its_value() {
        assert_eq!(
            json("{\"a\":\"\u{9b}\u{202e}ü\u{e0041}\"}"),
            r#"{"a":"\u009b\u202eü\udb40\udc41"}"#
        );
    }
}
