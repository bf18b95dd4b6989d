//! `events`: the resource usage of a container, in the objects of runc.

use std::thread::sleep;
use std::time::Duration;

use jc_unshare::{Error, Result, print};
use serde_json::{Value, json};

use super::args::Events;
use super::environment::Environment;
use super::group;
use super::state::{Record, Root, Status};

/// Prints the usage once, or until the container has stopped, and each time that memory has run out.
pub fn command(environment: &Environment, options: &Events) -> Result<()> {
    let root = Root::open(environment.root.as_deref(), false)?;
    let record = root.find(&options.container.id)?.read()?;
    let stopped = || Error::new(format_args!("container with id {} is not running", record.id));
    if record.status()? == Status::Stopped {
        return Err(stopped());
    }
    let mut kills = None;
    loop {
        let usage = match usage(&record) {
            // The container has been removed between the two.
            Err(_) if record.status()? == Status::Stopped => return Ok(()),
            // A `create` has not made the group yet.
            Err(_) if record.status()? == Status::Creating => return Err(stopped()),
            usage => usage?,
        };
        let now = usage["oom_kills"].as_u64();
        if kills.is_some() && now > kills {
            print(format!("{}\n", json!({ "type": "oom", "id": record.id })))?;
        }
        kills = now;
        print(format!("{}\n", json!({ "type": "stats", "id": record.id, "data": stats(&usage) })))?;
        if options.stats {
            return Ok(());
        }
        sleep(Duration::from_secs_f64(options.interval));
        if record.status()? == Status::Stopped {
            return Ok(());
        }
    }
}

fn usage(record: &Record) -> Result<Value> {
    let text = group::act(record, "--stat", &[])?;
    serde_json::from_slice(&text).map_err(|e| Error::new(format_args!("jc-cgroup --stat: {e}")))
}

/// The figures of jc-cgroup under the names of runc. Times are nanoseconds.
fn stats(usage: &Value) -> Value {
    let nanoseconds = |name: &str| usage[name].as_u64().unwrap_or(0) * 1000;
    let (user, kernel) = (nanoseconds("cpu_user_usec"), nanoseconds("cpu_system_usec"));
    // The number that runc prints where no limit is set.
    let limit = usage["memory_limit_bytes"].as_u64().unwrap_or(u64::MAX);
    let mut pids = json!({ "current": usage["pids"] });
    if let Some(limit) = usage["pids_limit"].as_u64() {
        pids["limit"] = json!(limit);
    }
    json!({
        "cpu": {
            "usage": { "total": user + kernel, "user": user, "kernel": kernel },
            "throttling": {
                "throttledPeriods": usage["throttled_periods"],
                "throttledTime": nanoseconds("throttled_usec"),
            },
        },
        "memory": {
            "usage": {
                "limit": limit,
                "usage": usage["memory_bytes"],
                "max": usage["memory_peak_bytes"],
            },
            "raw": usage["memory_events"],
        },
        "pids": pids,
        "blkio": usage["io"],
    })
}
