//! A chain as data: links with their options, and the payload. No code reads a rendered chain.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use jc_unshare::exec::{display_name, locate_tool};
use jc_unshare::{Error, Result, escape, print};
use serde::{Deserialize, Serialize};

use crate::shell;

/// An option of a program, with its value if it has one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opt {
    name: Cow<'static, str>,
    value: Option<OsString>,
}

impl Opt {
    /// An option without a value.
    pub fn flag(name: &'static str) -> Self {
        Self { name: name.into(), value: None }
    }

    /// An option with a value.
    pub fn new(name: &'static str, value: impl Into<OsString>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// The name with its hyphens.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn value(&self) -> Option<&OsStr> {
        self.value.as_deref()
    }

    /// The same option with another value.
    #[must_use]
    pub fn with_value(self, value: impl Into<OsString>) -> Self {
        Self { value: Some(value.into()), ..self }
    }

    /// The words of the option. A value that begins with a hyphen stands in the word of the name, so that the
    /// program does not parse the value as an option.
    pub fn words(&self) -> Vec<OsString> {
        let name = OsString::from(self.name.as_ref());
        match &self.value {
            None => vec![name],
            Some(value) if !value.as_encoded_bytes().starts_with(b"-") => vec![name, value.clone()],
            Some(value) => {
                let mut word = name;
                if self.name.starts_with("--") {
                    word.push("=");
                }
                word.push(value);
                vec![word]
            }
        }
    }
}

/// An option as it is recorded: its name, and its value or null.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RecordedOpt(String, Option<String>);

impl TryFrom<Opt> for RecordedOpt {
    type Error = Error;

    fn try_from(Opt { name, value }: Opt) -> Result<Self> {
        let text = |value: OsString| {
            let error =
                |value: OsString| Error::new(format_args!("{}: is not UTF-8", value.display()));
            value.into_string().map_err(error)
        };
        Ok(Self(name.into_owned(), value.map(text).transpose()?))
    }
}

impl From<RecordedOpt> for Opt {
    fn from(RecordedOpt(name, value): RecordedOpt) -> Self {
        Self { name: name.into(), value: value.map(OsString::from) }
    }
}

/// A link with its options and operands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// The name of the program, or its path.
    pub program: OsString,
    pub options: Vec<Opt>,
    /// The operands in front of the next program.
    pub operands: Vec<OsString>,
}

impl Link {
    /// A link without operands.
    pub fn new(program: &str, options: Vec<Opt>) -> Self {
        Self { program: program.into(), options, operands: Vec::new() }
    }

    /// The words of the link, with `program` in front.
    fn words_as(&self, program: OsString) -> Vec<OsString> {
        let options = self.options.iter().flat_map(Opt::words);
        [program].into_iter().chain(options).chain(self.operands.iter().cloned()).collect()
    }

    /// The words of the link with the name under which a shell finds the program.
    fn typed(&self) -> Vec<OsString> {
        self.words_as(display_name(self.program.as_ref()))
    }
}

/// Moves options of jc-unshare to jc-cgroup, which starts a child anyway and can make it in new namespaces: each link takes
/// time. Returns the options that only jc-unshare has.
pub fn spare_unshare(group: &mut Link, options: Vec<Opt>) -> Vec<Opt> {
    let has_uts = options.contains(&Opt::flag("-u"));
    let (moved, left): (Vec<_>, _) = options.into_iter().partition(|option| match option.name() {
        "-p" | "-u" | "-i" | "-n" | "-C" | "--loopback" => true,
        // jc-unshare sets the names of a UTS namespace that it joins.
        "--hostname" | "--domainname" => has_uts,
        _ => false,
    });
    group.options.splice(0..0, moved);
    left
}

/// Links in front of a payload.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Link>,
    payload: Vec<OsString>,
}

/// The form of a printed chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Lines for a shell.
    Shell,
    /// An array of argument vectors.
    Json,
}

impl Form {
    /// The form of a value of `--print`, which the command line restricts to `shell` and `json`.
    pub fn parse(word: &str) -> Self {
        if word == "json" { Self::Json } else { Self::Shell }
    }
}

impl Chain {
    /// A chain of links that ends in `payload`.
    pub fn new(links: Vec<Link>, payload: Vec<OsString>) -> Self {
        Self { links, payload }
    }

    /// Finds the program of each link, so that a missing program is an error before the start.
    pub fn locate(mut self) -> Result<Self> {
        for link in &mut self.links {
            link.program = locate_tool(&link.program)?.into();
        }
        Ok(self)
    }

    /// The whole command line.
    pub fn argv(&self) -> Vec<OsString> {
        let links = self.links.iter().map(|link| link.words_as(link.program.clone()));
        let links = links.flat_map(|words| words.into_iter().chain(["--".into()]));
        links.chain(self.payload.iter().cloned()).collect()
    }

    /// Prints the chain as JSON, or the script that `shell` gives.
    pub fn print(&self, form: Form, shell: impl FnOnce() -> Vec<u8>) -> Result<ExitCode> {
        let text = match form {
            Form::Json => (escape::json(&self.to_json()?) + "\n").into_bytes(),
            Form::Shell => shell::with_newline(shell()),
        };
        print(text).map(|()| ExitCode::SUCCESS)
    }

    /// The argument vectors of the links and of the payload, as JSON. Error: a word is not UTF-8.
    fn to_json(&self) -> Result<String> {
        let links = self.links.iter().map(|link| [link.typed(), vec!["--".into()]].concat());
        let text = |word: OsString| {
            let error =
                |word: OsString| Error::new(format_args!("{}: is not UTF-8", word.display()));
            word.into_string().map_err(error)
        };
        let vectors = links.chain([self.payload.clone()]);
        let vectors: Result<Vec<Vec<String>>> =
            vectors.map(|words| words.into_iter().map(text).collect()).collect();
        serde_json::to_string(&vectors?).map_err(|e| Error::new(format_args!("write JSON: {e}")))
    }

    /// A script for a shell, one link on a line.
    pub fn to_shell(&self) -> Vec<u8> {
        let mut script = Vec::new();
        for link in &self.links {
            script.extend(shell::script(&link.typed()));
            script.extend(b" -- \\\n");
        }
        script.extend(shell::script(&self.payload));
        script.push(b'\n');
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    #[test]
    fn a_chain_reads_one_link_a_line() {
        let links = vec![Link::new("jc-a", vec![Opt::flag("-x")]), Link::new("jc-b", Vec::new())];
        let chain = Chain::new(links, words("sh|-c|echo $0"));
        assert_eq!(chain.argv(), words("jc-a|-x|--|jc-b|--|sh|-c|echo $0"));
        assert_eq!(chain.to_shell(), b"jc-a -x -- \\\njc-b -- \\\nsh -c 'echo $0'\n");
    }

    #[test]
    fn a_value_is_never_parsed_as_an_option() {
        for (option, line) in [
            (Opt::new("--hostname", "box"), "--hostname|box"),
            (Opt::new("--hostname", "--init"), "--hostname=--init"),
            (Opt::new("-u", "-x"), "-u-x"),
            (Opt::new("-e", ""), "-e|"),
            (Opt::flag("--read-only"), "--read-only"),
        ] {
            assert_eq!(option.words(), words(line));
        }
    }

    #[test]
    fn jc_cgroup_makes_the_namespaces_that_it_can() {
        let spared = |line: &'static str| {
            let options = line.split(' ').map(Opt::flag).collect();
            let mut group = Link::new("jc-cgroup", Vec::new());
            let left = spare_unshare(&mut group, options);
            let names = |options: &[Opt]| {
                options.iter().map(|option| option.name().to_owned()).collect::<Vec<_>>().join(" ")
            };
            (names(&group.options), names(&left))
        };
        let both = "-C -u -i -n -p --hostname --domainname --loopback";
        assert_eq!(spared(both), (both.to_owned(), String::new()));
        let (moved, left) = spared("-C --join -p --hostname -T");
        assert_eq!((moved.as_str(), left.as_str()), ("-C -p", "--join --hostname -T"));
    }

    #[test]
    fn a_recorded_option_has_a_name_and_a_value() {
        let options = vec![Opt::new("-e", "A=1"), Opt::flag("--no-new-privs")];
        let recorded: Result<Vec<RecordedOpt>> =
            options.iter().cloned().map(TryInto::try_into).collect();
        let json = serde_json::to_string(&recorded.unwrap()).unwrap();
        assert_eq!(json, r#"[["-e","A=1"],["--no-new-privs",null]]"#);
        let read: Vec<RecordedOpt> = serde_json::from_str(&json).unwrap();
        assert_eq!(read.into_iter().map(Opt::from).collect::<Vec<_>>(), options);
    }
}
