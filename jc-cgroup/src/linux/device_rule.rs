//! Rules for devices (config-linux.md, "Allowed Device list").

use jc_unshare::{Error, Result};
use serde_json::Value;

/// A rule. A later rule counts more than an earlier one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub allow: bool,
    /// `b` or `c`; `None` is both.
    pub kind: Option<char>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// The letters of `rwm`.
    pub access: String,
}

impl Rule {
    /// Parses a rule of the OCI.
    pub fn parse(value: &Value) -> Result<Self> {
        let wrong = |what: &str| {
            Error::usage(format_args!("resources: /devices: {what} of {value} has another form"))
        };
        let number = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(number) if number.as_i64() == Some(-1) => Ok(None),
            Some(number) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                number.map(Some).ok_or_else(|| wrong(key))
            }
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let allow = value.get("allow").and_then(Value::as_bool).ok_or_else(|| wrong("allow"))?;
        let kind = match text("type") {
            "" | "a" => None,
            "b" => Some('b'),
            "c" | "u" => Some('c'),
            _ => return Err(wrong("type")),
        };
        let access = match text("access") {
            // All accesses can be denied without their names, and none is allowed.
            "" if !allow => "rwm",
            "" => return Err(wrong("access")),
            access if access.chars().all(|letter| "rwm".contains(letter)) => access,
            _ => return Err(wrong("access")),
        };
        Ok(Self {
            allow,
            kind,
            major: number("major")?,
            minor: number("minor")?,
            access: access.into(),
        })
    }
}
