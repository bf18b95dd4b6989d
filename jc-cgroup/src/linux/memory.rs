//! The limits of memory in `--resources`, as files of either version. -1 means no limit.

use jc_unshare::{Error, Result};

use super::setting::{ReadBack, Setting};

/// The member `memory` of the OCI's resources.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub limit: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    pub reservation: Option<i64>,
    pub swappiness: Option<i64>,
    pub kernel: Option<i64>,
    pub kernel_tcp: Option<i64>,
    pub disable_oom_killer: Option<bool>,
    /// A limit below the usage is an error.
    pub check_before_update: bool,
}

impl Memory {
    /// Whether a value needs the controller.
    pub fn is_given(&self) -> bool {
        let Self { limit, swap, reservation, swappiness, kernel, kernel_tcp, .. } = *self;
        self.disable_oom_killer == Some(true)
            || [limit, swap, reservation, swappiness, kernel, kernel_tcp]
                .iter()
                .any(Option::is_some)
    }

    /// The settings of version 2. Error: version 2 lacks a value.
    pub fn of_version_2(&self) -> Result<Vec<Setting>> {
        let lacks = [
            (self.swappiness.is_some(), "swappiness"),
            (self.disable_oom_killer == Some(true), "disableOOMKiller"),
            (self.kernel.is_some(), "kernel"),
            (self.kernel_tcp.is_some(), "kernelTCP"),
        ];
        if let Some((_, name)) = lacks.into_iter().find(|(is_given, _)| *is_given) {
            return Err(only_version_1(&format!("memory {name}")));
        }
        let mut settings = Vec::new();
        if let Some(swap) = self.swap {
            settings.push(Setting::swap("memory.swap.max", swap_alone(self.limit, swap)?));
        }
        settings.extend(self.limited("memory.max", "memory.current"));
        settings.extend(self.reservation.map(|low| bytes("memory.low", low)));
        Ok(settings)
    }

    /// The settings of version 1.
    pub fn of_version_1(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        settings.extend(self.limited("memory.limit_in_bytes", "memory.usage_in_bytes"));
        let swap = self.swap.map(|swap| bytes("memory.memsw.limit_in_bytes", swap).of_swap());
        settings.extend(swap);
        for (value, file) in [
            (self.reservation, "memory.soft_limit_in_bytes"),
            (self.kernel, "memory.kmem.limit_in_bytes"),
            (self.kernel_tcp, "memory.kmem.tcp.limit_in_bytes"),
        ] {
            settings.extend(value.map(|value| bytes(file, value)));
        }
        let swappiness = |value| Setting::new("memory.swappiness", value, ReadBack::Same);
        settings.extend(self.swappiness.map(swappiness));
        let oom = |value| Setting::new("memory.oom_control", i32::from(value), ReadBack::Unchecked);
        settings.extend(self.disable_oom_killer.map(oom));
        settings
    }

    fn limited(&self, file: &str, usage: &'static str) -> Option<Setting> {
        let setting = bytes(file, self.limit?);
        Some(if self.check_before_update { setting.not_below(usage) } else { setting })
    }
}

/// The error for a limit that version 2 lacks.
pub fn only_version_1(what: &str) -> Error {
    Error::new(format_args!("resources: {what}: cgroup v2 has no such limit"))
}

/// A number of bytes in whole pages. Version 1 shows no limit as a large number.
fn bytes(file: &str, limit: i64) -> Setting {
    let is_v1 = file.ends_with("_in_bytes");
    match u64::try_from(limit) {
        Ok(limit) => {
            let page = rustix::param::page_size() as u64;
            Setting::new(file, limit - limit % page, ReadBack::Same)
        }
        Err(_) if is_v1 => Setting::new(file, -1, ReadBack::Unchecked),
        Err(_) => Setting::new(file, "max", ReadBack::Same),
    }
}

/// The limit of swap alone, from one of memory and swap together.
fn swap_alone(limit: Option<i64>, swap: i64) -> Result<String> {
    match limit {
        _ if swap < 0 => Ok("max".to_owned()),
        Some(limit) if limit > 0 && swap >= limit => {
            let page = rustix::param::page_size() as i64;
            Ok((swap - limit - (swap - limit) % page).to_string())
        }
        _ => Err(Error::new("resources: memory swap: is not at least a limit of memory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_alone_is_the_difference() {
        assert_eq!(swap_alone(Some(8192), 16384).unwrap(), "8192");
        assert_eq!(swap_alone(None, -1).unwrap(), "max");
        assert!(swap_alone(None, 16384).is_err());
        assert!(swap_alone(Some(16384), 8192).is_err());
    }
}
