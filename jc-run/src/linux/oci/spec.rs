//! `spec`: a configuration to start from.

use std::fs::File;
use std::io::Write;

use jc_unshare::{Context, Error, Result};
use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};

use super::args::Spec;

/// Writes `config.json`. An error if the file exists.
pub fn write(options: &Spec) -> Result<()> {
    let json = |e: serde_json::Error| Error::new(format_args!("config.json: {e}"));
    let mut spec: Value = serde_json::from_str(include_str!("spec.json")).map_err(json)?;
    if options.is_rootless {
        make_rootless(&mut spec);
    }
    let text = serde_json::to_string_pretty(&spec).map_err(json)? + "\n";
    let path = options.bundle.join("config.json");
    let mut file = File::create_new(&path).on("create", &path)?;
    file.write_all(text.as_bytes()).on("write", &path)
}

/// Gives the container a user namespace in which the caller is root, the network of the caller and no cgroup limits.
fn make_rootless(spec: &mut Value) {
    let mapping = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    spec["linux"]["uidMappings"] = mapping(geteuid().as_raw());
    spec["linux"]["gidMappings"] = mapping(getegid().as_raw());
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "user"];
    spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        // Group 5 is not mapped, and a new sysfs takes a new network namespace.
        if mount["destination"] == "/dev/pts" {
            mount["options"].as_array_mut().map(Vec::pop);
        }
        if mount["destination"] == "/sys" {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::oci::stored::StoredConfig;

    #[test]
    fn the_written_configuration_is_one_that_this_runtime_reads() {
        for is_rootless in [false, true] {
            let bundle = tempfile::tempdir().unwrap();
            let options = Spec { bundle: bundle.path().to_owned(), is_rootless };
            write(&options).unwrap();
            let config =
                StoredConfig::parse(&std::fs::read(bundle.path().join("config.json")).unwrap());
            let config = config.unwrap();
            let linux = config.linux();
            assert_eq!(linux.uid_mappings.len(), usize::from(is_rootless));
            assert!(write(&options).unwrap_err().to_string().ends_with("File exists"));
        }
    }
}
