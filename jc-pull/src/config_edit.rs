//! Changes to an image configuration (OCI image-spec config.md).

use jc_unshare::{Error, Result};
use serde_json::{Map, Value, json};

use jc_unshare::image::Platform;

/// The changes of a command line.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// Pairs of a name and a value.
    pub env: Vec<(String, String)>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub labels: Vec<(String, String)>,
    /// Ports with their protocols.
    pub exposed: Vec<String>,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub author: Option<String>,
    pub platform: Option<Platform>,
}

/// Parses a command: an array of JSON, or else a line for a shell. The error is text for a usage error.
pub fn parse_command(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|e| format!("not an array of strings: {e}"));
    }
    match text {
        "" => Ok(Vec::new()),
        line => Ok(["/bin/sh", "-c", line].map(str::to_owned).to_vec()),
    }
}

/// Parses `NAME=VALUE`. The error is text for a usage error.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not NAME=VALUE".to_owned()),
    }
}

/// Parses `PORT[/PROTOCOL]`. The error is text for a usage error.
pub fn parse_port(text: &str) -> Result<String, String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    if is_port && matches!(protocol, "tcp" | "udp" | "sctp") {
        return Ok(format!("{port}/{protocol}"));
    }
    Err("not PORT[/tcp], PORT/udp or PORT/sctp".to_owned())
}

/// Parses an absolute path. The error is text for a usage error.
pub fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("not an absolute path".to_owned()) }
}

impl Edits {
    /// Changes a configuration. A configuration whose parts have other types is an error.
    pub fn apply(&self, document: &mut Value) -> Result<()> {
        let bad = || Error::new("the configuration of the image is malformed");
        let whole = document.as_object_mut().ok_or_else(bad)?;
        if let Some(author) = &self.author {
            whole.insert("author".to_owned(), json!(author));
        }
        if let Some(Platform { os, architecture, variant }) = &self.platform {
            whole.insert("os".to_owned(), json!(os));
            whole.insert("architecture".to_owned(), json!(architecture));
            whole.remove("variant");
            whole.extend(variant.iter().map(|variant| ("variant".to_owned(), json!(variant))));
        }
        let config = object(whole, "config").ok_or_else(bad)?;
        if let Some(entrypoint) = &self.entrypoint {
            set(config, "Entrypoint", entrypoint);
            // The old Cmd is the arguments of another program.
            config.remove("Cmd");
        }
        if let Some(cmd) = &self.cmd {
            set(config, "Cmd", cmd);
        }
        for (key, value) in
            [("WorkingDir", &self.workdir), ("User", &self.user), ("StopSignal", &self.stop_signal)]
        {
            if let Some(value) = value {
                config.insert(key.to_owned(), json!(value));
            }
        }
        if !self.env.is_empty() {
            let env = config.entry("Env").or_insert(Value::Null);
            let mut all = env.as_array().cloned().unwrap_or_default();
            for (name, value) in &self.env {
                let is_same = |known: &Value| {
                    known.as_str().and_then(|known| known.split('=').next()) == Some(name)
                };
                let new = json!(format!("{name}={value}"));
                match all.iter_mut().find(|known| is_same(known)) {
                    Some(known) => *known = new,
                    None => all.push(new),
                }
            }
            *env = Value::Array(all);
        }
        let labels = self.labels.iter().map(|(key, value)| (key, json!(value)));
        extend(config, "Labels", labels).ok_or_else(bad)?;
        extend(config, "ExposedPorts", self.exposed.iter().map(|p| (p, json!({}))))
            .ok_or_else(bad)?;
        extend(config, "Volumes", self.volumes.iter().map(|v| (v, json!({})))).ok_or_else(bad)
    }
}

/// Sets a list, or removes it if the new one is empty.
fn set(config: &mut Map<String, Value>, key: &str, words: &[String]) {
    match words {
        [] => drop(config.remove(key)),
        words => drop(config.insert(key.to_owned(), json!(words))),
    }
}

/// The object under a key, which is made if it is absent or null.
fn object<'m>(map: &'m mut Map<String, Value>, key: &str) -> Option<&'m mut Map<String, Value>> {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

fn extend<'a>(
    config: &mut Map<String, Value>,
    key: &str,
    entries: impl Iterator<Item = (&'a String, Value)>,
) -> Option<()> {
    let entries: Vec<_> = entries.collect();
    if !entries.is_empty() {
        let known = object(config, key)?;
        known.extend(entries.into_iter().map(|(key, value)| (key.clone(), value)));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_their_own_parts_only() {
        let mut document = json!({
            "architecture": "arm", "variant": "v7", "os": "linux", "x": 1,
            "config": {"Cmd": ["old"], "Env": ["A=1", "B=2"], "Labels": null, "Y": 2},
        });
        let edits = Edits {
            entrypoint: Some(vec!["e".to_owned()]),
            env: vec![parse_pair("B=3=4").unwrap(), parse_pair("C=").unwrap()],
            labels: vec![parse_pair("l=m").unwrap()],
            exposed: vec![parse_port("80").unwrap(), parse_port("53/udp").unwrap()],
            volumes: vec!["/v".to_owned()],
            user: Some("u".to_owned()),
            author: Some("a".to_owned()),
            platform: Some(Platform::parse("linux/amd64").unwrap()),
            ..Edits::default()
        };
        edits.apply(&mut document).unwrap();
        let expected = json!({
            "architecture": "amd64", "os": "linux", "x": 1, "author": "a",
            "config": {
                "Entrypoint": ["e"], "Env": ["A=1", "B=3=4", "C="], "Labels": {"l": "m"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/v": {}},
                "User": "u", "Y": 2,
            },
        });
        assert_eq!(document, expected);
        let cmd = Edits { cmd: Some(Vec::new()), ..Edits::default() };
        cmd.apply(&mut document).unwrap();
        assert_eq!(document, expected);
        assert!(cmd.apply(&mut json!([])).is_err());
        assert!(edits.apply(&mut json!({"config": {"Volumes": 3}})).is_err());
    }

    #[test]
    fn a_command_is_an_array_or_a_line_of_a_shell() {
        assert_eq!(parse_command(r#"["a","b c"]"#).unwrap(), ["a", "b c"]);
        assert_eq!(parse_command("a b").unwrap(), ["/bin/sh", "-c", "a b"]);
        assert!(parse_command("").unwrap().is_empty());
        assert!(parse_command("[]").unwrap().is_empty());
        assert!(parse_command("[1]").is_err());
    }

    #[test]
    fn malformed_words_are_refused() {
        for text in ["", "0", "80/xyz", "+80", "70000", "a"] {
            assert!(parse_port(text).is_err(), "{text}");
        }
        assert!(parse_pair("a").is_err() && parse_pair("=a").is_err());
        assert!(parse_path("a").is_err());
    }
}
