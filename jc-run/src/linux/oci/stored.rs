//! A configuration with its text as JSON, which a record stores.

use std::ops::Deref;
use std::rc::Rc;

use jc_unshare::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::config::Config;

/// The most levels of lists and objects in a configuration. serde_json has this bound too, but not for members that it
/// ignores.
const LEVELS: usize = 128;

/// A parsed configuration and the text that was parsed.
#[derive(Clone, Debug)]
pub struct StoredConfig {
    text: Rc<RawValue>,
    parsed: Rc<Config>,
}

impl StoredConfig {
    /// Parses and checks the text of a `config.json`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice::<Box<RawValue>>(text).map_err(fault).and_then(Self::of)
    }

    fn of(text: Box<RawValue>) -> Result<Self> {
        if levels(text.get()) > LEVELS {
            return Err(Error::new(format_args!("parse config.json: more than {LEVELS} levels")));
        }
        let parsed: Config = serde_json::from_str(text.get()).map_err(fault)?;
        parsed.check()?;
        Ok(Self { text: text.into(), parsed: Rc::new(parsed) })
    }
}

/// The number of levels of JSON, which is valid.
fn levels(text: &str) -> usize {
    let (mut level, mut most, mut in_string, mut is_escaped) = (0, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                level += 1;
                most = most.max(level);
            }
            b'}' | b']' if !in_string => level -= 1,
            _ => {}
        }
    }
    most
}

fn fault(error: serde_json::Error) -> Error {
    Error::new(format_args!("parse config.json: {error}"))
}

impl Deref for StoredConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.parsed
    }
}

impl Serialize for StoredConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::of(Box::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_outside_of_strings() {
        for (text, count) in
            [("1", 0), ("[]", 1), (r#"{"a":[{}],"b":[]}"#, 3), (r#"["{[\"[\\",{}]"#, 2)]
        {
            assert_eq!(levels(text), count, "{text}");
        }
    }
}
