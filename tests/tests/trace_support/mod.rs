//! Reports of jc-trace.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;

use jc_tests::internet::lines;
use jc_tests::{Ran, Sandbox};
use serde_json::{Value, json};

/// The events of one kind.
pub fn events(report: &[Value], kind: &str) -> Vec<Value> {
    report.iter().filter(|event| event["event"] == kind).cloned().collect()
}

/// The event of a path.
#[track_caller]
pub fn file<'a>(report: &'a [Value], path: &str) -> &'a Value {
    let found = report.iter().find(|event| event["event"] == "file" && event["path"] == path);
    found.unwrap_or_else(|| panic!("{path} is not in {report:#?}"))
}

/// Whether the report has a call of this name, with this value if one is given.
pub fn has_call(report: &[Value], name: &str, value: Option<u64>) -> bool {
    report.iter().any(|event| {
        event["event"] == "call"
            && event["name"] == name
            && (value.is_none() || event["value"].as_u64() == value)
    })
}

/// The reasons of the gaps.
pub fn gaps(report: &[Value]) -> Vec<String> {
    events(report, "gap").iter().map(|gap| gap["reason"].as_str().unwrap().to_owned()).collect()
}

/// Runs a recorder with a program, and returns the report.
#[track_caller]
pub fn traced(s: &Sandbox, line: &str) -> (Ran, Vec<Value>) {
    let ran = s.sh(&format!("rm -f t; exec {line}")).run();
    assert!(fs::exists("/srv/t").unwrap(), "{ran}");
    let report = lines("/srv/t");
    assert_eq!(report.first().map(|first| &first["event"]), Some(&json!("trace")), "{ran}");
    assert_eq!(report.last().map(|last| &last["event"]), Some(&json!("end")), "{ran}");
    (ran, report)
}
