//! A configuration with its text as JSON, which a record stores.

use std::ops::Deref;

use jc_unshare::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::Config;

/// A parsed configuration and the value that was parsed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct StoredConfig {
    value: Value,
    parsed: Config,
}

impl StoredConfig {
    /// Parses and checks the text of a `config.json`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|e| Error::new(format_args!("parse config.json: {e}")))?;
        Self::try_from(value)
    }
}

impl Deref for StoredConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.parsed
    }
}

impl TryFrom<Value> for StoredConfig {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        let parsed = Config::deserialize(&value)
            .map_err(|e| Error::new(format_args!("parse config.json: {e}")))?;
        parsed.check()?;
        Ok(Self { value, parsed })
    }
}

impl From<StoredConfig> for Value {
    fn from(stored: StoredConfig) -> Self {
        stored.value
    }
}
