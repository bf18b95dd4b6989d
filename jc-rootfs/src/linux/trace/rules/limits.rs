//! `--limits`: options for jc-cgroup.

use jc_unshare::{Error, Result};

use super::super::facts::Facts;

const MIB: u64 = 1 << 20;

/// The options in one line: the largest use of all reports, and a margin in percent.
pub fn limits(facts: &Facts, margin: u32) -> Result<String> {
    let most = |value: &dyn Fn(&serde_json::Value) -> Option<u64>| {
        let largest = facts.usages.iter().filter_map(value).max()?;
        Some((u128::from(largest) * (100 + u128::from(margin))).div_ceil(100) as u64)
    };
    let memory = most(&|usage| usage["memory_peak_bytes"].as_u64());
    let pids = most(&|usage| usage["pids_peak"].as_u64());
    // Tenths of a CPU.
    let cpus = most(&|usage| {
        let used =
            usage["cpu_user_usec"].as_u64()?.checked_add(usage["cpu_system_usec"].as_u64()?)?;
        used.checked_mul(10)?.checked_div(usage["wall_usec"].as_u64()?)
    });
    let options = [
        memory.map(|bytes| format!("-m {}M", bytes.div_ceil(MIB).max(1))),
        pids.map(|pids| format!("--pids-limit {}", pids.max(1))),
        cpus.map(|tenths| format!("--cpus {}.{}", (tenths + 1) / 10, (tenths + 1) % 10)),
    ];
    let options: Vec<String> = options.into_iter().flatten().collect();
    if options.is_empty() {
        Err(Error::new("no usage of jc-cgroup in the reports")
            .hint("jc-run --trace FILE --report USAGE has it, and jc-trace --usage FILE adds it"))
    } else {
        Ok(options.join(" ") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_use_gets_a_margin() {
        let facts = Facts::of(&[
            r#"{"event":"usage","memory_peak_bytes":1048576,"pids_peak":3,"cpu_user_usec":900000,
                "cpu_system_usec":100000,"wall_usec":1000000}"#,
            r#"{"event":"usage","memory_peak_bytes":3145728,"pids_peak":null}"#,
        ]);
        assert_eq!(limits(&facts, 50).unwrap(), "-m 5M --pids-limit 5 --cpus 1.6\n");
        assert_eq!(limits(&facts, 0).unwrap(), "-m 3M --pids-limit 3 --cpus 1.1\n");
        assert!(limits(&Facts::default(), 50).is_err());
    }
}
