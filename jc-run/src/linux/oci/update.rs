//! `pause`, `resume`, `update`: changes of the cgroup of a container that runs.

use std::fs::File;
use std::io::{Read, stdin};

use jc_unshare::{Context, Error, Result, read_at_most, size};

use serde_json::{Map, Value, json};

use super::args::Update;
use super::create::LONGEST;
use super::environment::Environment;
use super::state::{Root, Status};
use super::{group, list};
use crate::link::Opt;

/// Stops or continues all processes of a container.
pub fn freeze(environment: &Environment, id: &str, stops: bool) -> Result<()> {
    let container = Root::open(environment.root.as_deref(), false)?.lock(id)?;
    let record = container.read()?;
    match (list::status(&record)?, stops) {
        (Status::Running | Status::Created, true) => group::act(&record, "--freeze", &[]).map(drop),
        (Status::Paused, false) => group::act(&record, "--thaw", &[]).map(drop),
        (_, true) => Err(Error::new("container not running")),
        (_, false) => Err(Error::new("container not paused")),
    }
}

/// Changes the limits of a container.
pub fn command(environment: &Environment, options: &Update) -> Result<()> {
    let resources = resources(options)?;
    let container = Root::open(environment.root.as_deref(), false)?.lock(&options.container.id)?;
    let record = container.read()?;
    if record.status()? == Status::Stopped {
        return Err(Error::new("container not running"));
    }
    group::act(&record, "--update", &[Opt::new("--resources", resources)]).map(drop)
}

/// The limits of the file or of the options, as an object of JSON.
fn resources(options: &Update) -> Result<String> {
    if let Some(path) = &options.resources {
        let file: Box<dyn Read> = match path.to_str() {
            Some("-") => Box::new(stdin()),
            _ => Box::new(File::open(path).on("open", path)?),
        };
        let text = read_at_most(file, LONGEST, path)?;
        let parsed: serde_json::Result<Map<String, Value>> = serde_json::from_slice(&text);
        let parsed =
            parsed.map_err(|e| Error::new(format_args!("parse {}: {e}", path.display())))?;
        return Ok(Value::Object(parsed).to_string());
    }
    let mut resources = json!({
        "memory": {
            "limit": bytes(options.memory.as_deref())?,
            "reservation": bytes(options.memory_reservation.as_deref())?,
            "swap": bytes(options.memory_swap.as_deref())?,
            "kernel": bytes(options.kernel_memory.as_deref())?,
            "kernelTCP": bytes(options.kernel_memory_tcp.as_deref())?,
        },
        "cpu": {
            "shares": options.cpu_share,
            "period": options.cpu_period,
            "quota": options.cpu_quota,
            "burst": options.cpu_burst,
            "realtimePeriod": options.cpu_rt_period,
            "realtimeRuntime": options.cpu_rt_runtime,
            "idle": options.cpu_idle,
            "cpus": options.cpuset_cpus,
            "mems": options.cpuset_mems,
        },
        "pids": { "limit": options.pids_limit },
        "blockIO": { "weight": options.blkio_weight },
    });
    for part in resources.as_object_mut().into_iter().flat_map(Map::values_mut) {
        part.as_object_mut().into_iter().for_each(|part| part.retain(|_, value| !value.is_null()));
    }
    Ok(resources.to_string())
}

/// A number of bytes; -1 is no limit.
fn bytes(word: Option<&str>) -> Result<Option<i64>> {
    let parse = |word: &str| match word {
        "-1" => Ok(-1),
        word => size::parse(word)
            .and_then(|bytes| bytes.try_into().map_err(|_| "too large".to_owned()))
            .map_err(|fault| Error::new(format_args!("{word:?}: {fault}"))),
    };
    word.map(parse).transpose()
}
