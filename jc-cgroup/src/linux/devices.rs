//! Rules for devices of the OCI (config-linux.md, "Allowed Device list"): files of version 1, or a program of version 2.

use jc_unshare::{Error, Result};
use serde_json::Value;

use super::device_rule::Rule;
use super::hierarchy::{Hierarchy, Version, find};
use super::setting::{ReadBack, Setting};

/// Adds the settings for a list of rules, in the hierarchy of version 1 with the controller, else in the unified one.
pub fn add<'a>(
    rules: &[Value],
    all: &'a [Hierarchy],
    settings: &mut Vec<(&'a Hierarchy, Setting)>,
) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let rules = rules.iter().map(Rule::parse).collect::<Result<Vec<_>>>()?;
    if let Some(devices) = find(all, "devices")? {
        let files = rules.iter().flat_map(writes);
        settings.extend(files.map(|setting| (devices, setting)));
        return Ok(());
    }
    let unified = all.iter().find(|hierarchy| hierarchy.version == Version::V2);
    let unified = unified.ok_or_else(|| Error::new("resources: no hierarchy limits devices"))?;
    settings.push((unified, Setting::devices(rules)));
    Ok(())
}

/// The writes to files of version 1. The kernel takes no part of the type `a`, which means all accesses to all
/// devices (devices.rst).
fn writes(rule: &Rule) -> Vec<Setting> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let setting = |line: String| Setting::new(file, line, ReadBack::WriteOnly);
    let is_whole = ['r', 'w', 'm'].iter().all(|letter| rule.access.contains(*letter));
    if rule.kind.is_none() && is_whole && rule.major.is_none() && rule.minor.is_none() {
        return vec![setting("a *:* rwm".to_owned())];
    }
    let word = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let kinds = rule.kind.map_or_else(|| vec!['b', 'c'], |kind| vec![kind]);
    let line = |kind| format!("{kind} {}:{} {}", word(rule.major), word(rule.minor), rule.access);
    kinds.into_iter().map(|kind| setting(line(kind))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_version_1_get_no_wider_rule_than_asked_for() {
        let lines = |rule: Value| {
            let rule = Rule::parse(&rule).unwrap();
            writes(&rule).into_iter().map(|s| format!("{} {}", s.file, s.value)).collect::<Vec<_>>()
        };
        for (rule, expected) in [
            (json!({"allow": false}), vec!["devices.deny a *:* rwm"]),
            (
                json!({"allow": true, "access": "r"}),
                vec!["devices.allow b *:* r", "devices.allow c *:* r"],
            ),
            (
                json!({"allow": true, "type": "c", "major": 5, "minor": -1, "access": "rw"}),
                vec!["devices.allow c 5:* rw"],
            ),
        ] {
            assert_eq!(lines(rule), expected);
        }
        for rule in [
            json!({}),
            json!({"allow": true}),
            json!({"allow": true, "access": "x"}),
            json!({"allow": true, "access": "r", "type": "x"}),
            json!({"allow": true, "access": "r", "major": "1"}),
        ] {
            assert!(Rule::parse(&rule).is_err(), "{rule}");
        }
    }
}
