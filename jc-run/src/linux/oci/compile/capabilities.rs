//! `process.capabilities`: the five sets, without what cannot be granted. The specification asks for a warning
//! about capabilities that are unknown or cannot be granted (config.md, "capabilities").

use jc_unshare::capability::{NAMES, number};

use crate::link::Opt;
use crate::linux::oci::config::process::Capabilities;

/// The options for all five sets. `held` has the capabilities that can be granted.
pub fn options(asked: Option<&Capabilities>, held: u64, warnings: &mut Vec<String>) -> Vec<Opt> {
    let none = Capabilities::default();
    let sets = asked.unwrap_or(&none).sets();
    let mut refused = Vec::new();
    let mut masks = sets.map(|(_, names)| {
        let numbers = names.iter().filter_map(|name| {
            let found = number(name).filter(|number| held & 1 << number != 0);
            if found.is_none() && !refused.contains(name) {
                refused.push(name.clone());
            }
            found
        });
        numbers.fold(0, |mask, number| mask | 1 << number)
    });
    warnings.extend(
        refused.iter().map(|name| format!("capability {name}: cannot be granted, and is left out")),
    );
    let [bounding, effective, inheritable, permitted, ambient] = &mut masks;
    // capset(2), and PR_CAP_AMBIENT(2const). Each set is a part of sets that are final before it.
    restrict(inheritable, "inheritable", *bounding, warnings);
    restrict(effective, "effective", *permitted, warnings);
    // Configurations of engines list ambient capabilities that are not inheritable, and mean none.
    *ambient &= *permitted & *inheritable;
    let named = sets.iter().zip(masks);
    named
        .map(|((kind, _), mask)| Opt::new("--cap-set", format!("{kind}={}", names(mask))))
        .collect()
}

/// Leaves capabilities out of a set that the kernel would refuse there.
fn restrict(mask: &mut u64, name: &str, within: u64, warnings: &mut Vec<String>) {
    if *mask & !within != 0 {
        let names = names(*mask & !within);
        warnings.push(format!("capabilities {names}: left out of the {name} set"));
    }
    *mask &= within;
}

fn names(mask: u64) -> String {
    let numbers = (0..NAMES.len()).filter(|number| mask & 1 << number != 0);
    numbers.map(|number| NAMES[number]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_those_that_the_kernel_grants() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let asked = Capabilities {
            bounding: set(&["CAP_KILL", "CAP_CHOWN", "CAP_MOON"]),
            effective: set(&["CAP_KILL", "CAP_SETUID"]),
            permitted: set(&["CAP_KILL"]),
            inheritable: set(&["CAP_KILL"]),
            ambient: set(&["CAP_KILL", "CAP_SETUID"]),
        };
        let held = [5, 7].iter().fold(0, |mask, number| mask | 1 << number);
        let mut warnings = Vec::new();
        let options = options(Some(&asked), held, &mut warnings);
        let words: Vec<String> = options
            .iter()
            .filter_map(|option| option.value()?.to_str().map(str::to_owned))
            .collect();
        assert_eq!(
            words,
            [
                "bounding=KILL",
                "effective=KILL",
                "inheritable=KILL",
                "permitted=KILL",
                "ambient=KILL"
            ]
        );
        assert_eq!(
            warnings,
            [
                "capability CAP_CHOWN: cannot be granted, and is left out",
                "capability CAP_MOON: cannot be granted, and is left out",
                "capabilities SETUID: left out of the effective set",
            ]
        );
        assert_eq!(super::options(None, u64::MAX, &mut Vec::new()).len(), 5);
    }
}
