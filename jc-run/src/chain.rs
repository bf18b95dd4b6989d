//! A chain: one command line, link after link, and its spelling for a shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use jc_unshare::escape::{self, is_unsafe};
use jc_unshare::exec::{called, tool};

use jc_unshare::{Error, Result, print};

/// Links in front of a payload.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Vec<OsString>>,
    payload: Vec<OsString>,
}

impl Chain {
    /// A chain of links, each a program with its options, that ends in `payload`.
    pub fn new(links: Vec<Vec<OsString>>, payload: Vec<OsString>) -> Self {
        Self { links, payload }
    }

    /// Says of each link which program it is, so that one that is missing is known beforehand.
    pub fn locate(mut self) -> Result<Self> {
        for name in self.links.iter_mut().filter_map(|link| link.first_mut()) {
            *name = tool(name)?.into();
        }
        Ok(self)
    }

    /// The whole command line.
    pub fn argv(&self) -> Vec<OsString> {
        let links = self.links.iter().flat_map(|link| link.iter().cloned().chain(["--".into()]));
        links.chain(self.payload.iter().cloned()).collect()
    }

    /// Prints it as `--print` asks: as JSON, or as shell, which is what `shell` gives.
    pub fn print(&self, form: &str, shell: impl FnOnce() -> Vec<u8>) -> Result<ExitCode> {
        let text = match form {
            "json" => (escape::json(&to_json(&self.vectors())?) + "\n").into_bytes(),
            _ => with_newline(shell()),
        };
        print(text).map(|()| ExitCode::SUCCESS)
    }

    /// The same as argument vectors, one a link, and the payload's.
    fn vectors(&self) -> Vec<Vec<OsString>> {
        let links = self.typed().map(|link| [link.as_slice(), &["--".into()]].concat());
        links.chain([self.payload.clone()]).collect()
    }

    /// The same for a shell to paste, one link a line.
    pub fn to_shell(&self) -> Vec<u8> {
        let mut shell = Vec::new();
        for link in self.typed() {
            shell.extend(to_script(&link));
            shell.extend(b" -- \\\n");
        }
        shell.extend(to_script(&self.payload));
        shell.push(b'\n');
        shell
    }

    /// The links as one would type them.
    fn typed(&self) -> impl Iterator<Item = Vec<OsString>> {
        self.links.iter().map(|link| {
            let name = link.iter().take(1).map(|tool| called(tool.as_ref()));
            name.chain(link.iter().skip(1).cloned()).collect()
        })
    }
}

/// The variable that holds a newline in a printed script: a command substitution drops those at its end.
const NEWLINE: &[u8] = b"$jc_nl";

/// A script, behind the assignment of [`NEWLINE`] if the script uses it.
fn with_newline(script: Vec<u8>) -> Vec<u8> {
    let uses = script.windows(NEWLINE.len()).any(|window| window == NEWLINE);
    let assignment: &[u8] = if uses { b"jc_nl=$(printf '\\n.'); jc_nl=${jc_nl%.}\n" } else { b"" };
    [assignment, &script].concat()
}

/// Words for a shell to paste: a terminal shows them, and does nothing else with them.
fn to_script(words: &[OsString]) -> Vec<u8> {
    words.iter().map(|word| spell(word)).collect::<Vec<_>>().join(&b' ')
}

/// Quotes a word like [`quote`], but where a terminal would act on a character of it, printf(1) prints the
/// word.
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
                // A hyphen in front begins an option.
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

/// Argument vectors as JSON.
pub fn to_json(links: &[Vec<OsString>]) -> Result<String> {
    let text = |word: &OsString| match word.to_str() {
        Some(word) => Ok(word.to_owned()),
        None => Err(Error::new(format_args!("{}: is not UTF-8", word.display()))),
    };
    let links: Result<Vec<Vec<String>>> =
        links.iter().map(|link| link.iter().map(text).collect()).collect();
    serde_json::to_string(&links?).map_err(|e| Error::new(format_args!("write JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

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
    }

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

    #[test]
    fn a_chain_reads_one_link_a_line() {
        let chain = Chain::new(vec![words("jc-a|-x"), words("jc-b")], words("sh|-c|echo $0"));
        assert_eq!(chain.argv(), words("jc-a|-x|--|jc-b|--|sh|-c|echo $0"));
        assert_eq!(chain.to_shell(), b"jc-a -x -- \\\njc-b -- \\\nsh -c 'echo $0'\n");
    }
}
