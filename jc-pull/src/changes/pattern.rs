//! Patterns of paths: `*`, `?` and `[a-z]` in a component, `**` over several. A pattern without a slash matches
//! a component of any path. A pattern that matches a directory matches all below it, too.

/// Patterns, of which one has to match. No patterns match every path.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

/// The longest pattern, in bytes. The time for a path is the product of both lengths.
const MAX_PATTERN: usize = 4096;

#[derive(Clone, Debug)]
struct Pattern {
    tokens: Vec<Token>,
    /// Whether the pattern begins at the root. Otherwise the pattern is for one component.
    is_anchored: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Byte(u8),
    /// Any byte but a slash.
    Any,
    /// Any bytes but a slash.
    Star,
    /// Any bytes.
    Stars,
    /// Any number of components with their slashes: the entry of the state, which may be passed over.
    Components,
    /// The inside of [`Components`](Self::Components).
    Inside,
    /// A byte in one of these ranges, or in none of them.
    Class(Vec<(u8, u8)>, bool),
}

impl Patterns {
    /// Parses words. An empty or malformed word is an error.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, String> {
        words.into_iter().map(Pattern::parse).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path, or a directory on the way to it, matches.
    pub fn match_path(&self, path: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(path))
    }
}

impl Pattern {
    fn parse(word: &[u8]) -> Result<Self, String> {
        let shown = || String::from_utf8_lossy(word).into_owned();
        let inner = word.strip_prefix(b"./").unwrap_or(word);
        let is_anchored = inner.strip_suffix(b"/").unwrap_or(inner).contains(&b'/');
        let inner = inner.strip_prefix(b"/").unwrap_or(inner);
        let mut rest = inner.strip_suffix(b"/").unwrap_or(inner);
        if rest.is_empty() || word.len() > MAX_PATTERN {
            return Err(format!("{:?}: empty or longer than {MAX_PATTERN} bytes", shown()));
        }
        let mut tokens = Vec::new();
        while let Some((first, after)) = rest.split_first() {
            let at_start = matches!(tokens.last(), None | Some(Token::Byte(b'/') | Token::Inside));
            rest = after;
            match (first, after) {
                (b'*', [b'*', b'/', left @ ..]) if at_start => {
                    tokens.extend([Token::Components, Token::Inside]);
                    rest = left;
                }
                (b'*', [b'*', left @ ..]) => {
                    tokens.push(Token::Stars);
                    rest = left;
                }
                (b'*', _) => tokens.push(Token::Star),
                (b'?', _) => tokens.push(Token::Any),
                (b'[', _) => {
                    let (class, left) =
                        class(after).ok_or_else(|| format!("{:?}: [ without ]", shown()))?;
                    tokens.push(class);
                    rest = left;
                }
                (b'\\', [escaped, left @ ..]) => {
                    tokens.push(Token::Byte(*escaped));
                    rest = left;
                }
                (byte, _) => tokens.push(Token::Byte(*byte)),
            }
        }
        Ok(Self { tokens, is_anchored })
    }

    fn matches(&self, path: &[u8]) -> bool {
        if self.is_anchored {
            return self.match_from_start(path);
        }
        path.split(|b| *b == b'/').any(|component| self.match_from_start(component))
    }

    /// Runs the pattern as a nondeterministic automaton, whose time has a bound. The end of a component is the end of a
    /// match.
    fn match_from_start(&self, text: &[u8]) -> bool {
        let mut states = vec![false; self.tokens.len() + 1];
        self.add(&mut states, 0);
        for byte in text {
            if *byte == b'/' && states.last() == Some(&true) {
                return true;
            }
            let mut next = vec![false; states.len()];
            for (number, token) in self.tokens.iter().enumerate() {
                if states.get(number) == Some(&true) {
                    self.step(&mut next, number, token, *byte);
                }
            }
            states = next;
        }
        states.last() == Some(&true)
    }

    fn step(&self, next: &mut Vec<bool>, number: usize, token: &Token, byte: u8) {
        match token {
            Token::Byte(own) if *own == byte => self.add(next, number + 1),
            Token::Any if byte != b'/' => self.add(next, number + 1),
            Token::Star if byte != b'/' => self.add(next, number),
            Token::Stars => self.add(next, number),
            Token::Inside => {
                if let Some(state) = next.get_mut(number) {
                    *state = true;
                }
                if byte == b'/' {
                    self.add(next, number + 1);
                }
            }
            Token::Class(ranges, is_inverted) if byte != b'/' => {
                let is_inside = ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte));
                if is_inside != *is_inverted {
                    self.add(next, number + 1);
                }
            }
            _ => {}
        }
    }

    /// Adds a state, and the states that follow without a byte.
    fn add(&self, states: &mut Vec<bool>, number: usize) {
        let Some(state) = states.get_mut(number).filter(|state| !**state) else { return };
        *state = true;
        match self.tokens.get(number) {
            Some(Token::Star | Token::Stars) => self.add(states, number + 1),
            Some(Token::Components) => {
                self.add(states, number + 1);
                self.add(states, number + 2);
            }
            _ => {}
        }
    }
}

/// The class behind `[`, and the text after its `]`. A `]` at the beginning stands for itself.
fn class(text: &[u8]) -> Option<(Token, &[u8])> {
    let inner = text.strip_prefix(b"!").or(text.strip_prefix(b"^"));
    let (inner, is_inverted) = (inner.unwrap_or(text), inner.is_some());
    let end = inner.iter().skip(1).position(|b| *b == b']')? + 1;
    let (mut members, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
    let mut ranges = Vec::new();
    while let Some((first, after)) = members.split_first() {
        match after {
            [b'-', last, left @ ..] => {
                ranges.push((*first, *last));
                members = left;
            }
            _ => {
                ranges.push((*first, *first));
                members = after;
            }
        }
    }
    Some((Token::Class(ranges, is_inverted), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_components_and_all_below_a_directory() {
        for (pattern, matching, other) in [
            (
                "usr/bin",
                &["usr/bin", "usr/bin/a", "usr/bin/a/b"][..],
                &["usr", "usr/binary", "x/usr/bin"][..],
            ),
            ("/usr/bin/", &["usr/bin/a"], &["usr"]),
            ("/usr", &["usr", "usr/x"], &["x/usr"]),
            ("*.py", &["a.py", "x/y/a.py", "x.py/z"], &["a.pyc", "py"]),
            ("usr/*/x", &["usr/a/x", "usr/a/x/y"], &["usr/a/b/x", "usr/x"]),
            ("usr/**/x", &["usr/x", "usr/a/x", "usr/a/b/x"], &["usr/ax", "x", "usr"]),
            ("**/x", &["x", "a/b/x"], &["ax", "a/bx"]),
            ("usr/**", &["usr/a", "usr/a/b"], &["usr", "usrx"]),
            ("a**c/d", &["ac/d", "abc/d", "a/b/c/d"], &["a/d"]),
            ("[a-c]?[!x]/y", &["azz/y", "b1\n/y"], &["azx/y", "dzz/y", "az/y"]),
            ("[]]x", &["]x"], &["x"]),
            ("\\*x", &["*x"], &["ax"]),
            ("./x/y", &["x/y"], &["z/x/y"]),
        ] {
            let patterns = Patterns::parse([pattern.as_bytes()]).unwrap();
            for path in matching {
                assert!(patterns.match_path(path.as_bytes()), "{pattern} {path}");
            }
            for path in other {
                assert!(!patterns.match_path(path.as_bytes()), "{pattern} {path}");
            }
        }
        assert!(Patterns::default().match_path(b"any"));
        for word in ["", "/", "[a", "[]"] {
            assert!(Patterns::parse([word.as_bytes()]).is_err(), "{word}");
        }
    }

    #[test]
    fn the_time_of_a_match_is_the_product_of_the_lengths() {
        let stars = "*a".repeat(2000);
        let patterns = Patterns::parse([stars.as_bytes()]).unwrap();
        assert!(!patterns.match_path("a".repeat(1999).as_bytes()));
    }
}
