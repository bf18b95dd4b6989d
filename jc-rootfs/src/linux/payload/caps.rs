//! The five capability sets of the payload (capabilities(7)).

use std::str::FromStr;

use jc_unshare::capability::{NAMES, name, number};
use jc_unshare::{Context, Error, Result};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities,
};

/// A value of `--cap-add`, `--cap-drop` or `--cap-ambient`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Capability {
    /// `ALL`: every capability that this process has.
    All,
    /// The number of a single capability.
    Number(u32),
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let upper = word.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::All);
        }
        number(&upper).map(Self::Number).ok_or_else(|| "no such capability".to_owned())
    }
}

/// The options of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct CapabilityArgs {
    /// Give PROG capabilities: names, or ALL for those of jc-rootfs (repeatable)
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    cap_add: Vec<Capability>,
    /// Take capabilities from PROG: names, or ALL (repeatable)
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    cap_drop: Vec<Capability>,
    /// Pass capabilities to PROG even if it is not root (repeatable)
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    cap_ambient: Vec<Capability>,
    /// Set one of the five sets exactly, and those that are not named to none: KIND=[CAP,...] (repeatable)
    #[arg(long = "cap-set", value_name = "KIND=CAP,...", value_parser = exact_set, conflicts_with_all = ["cap_add", "cap_drop", "cap_ambient"])]
    cap_sets: Vec<(Kind, u64)>,
}

/// A capability set of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Bounding,
    Effective,
    Permitted,
    Inheritable,
    Ambient,
}

/// Parses `KIND=[CAP,...]`.
fn exact_set(word: &str) -> std::result::Result<(Kind, u64), String> {
    let (kind, names) = word.split_once('=').ok_or("not KIND=CAP,...")?;
    let kind = match kind {
        "bounding" => Kind::Bounding,
        "effective" => Kind::Effective,
        "permitted" => Kind::Permitted,
        "inheritable" => Kind::Inheritable,
        "ambient" => Kind::Ambient,
        _ => return Err(format!("no capability set {kind:?}")),
    };
    let mut set = 0;
    for name in names.split(',').filter(|name| !name.is_empty()) {
        match name.parse()? {
            Capability::All => return Err("ALL: a set has names".to_owned()),
            one => set |= one.bits(),
        }
    }
    Ok((kind, set))
}

/// The sets of the payload, a bit for each capability.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PayloadSets {
    /// The bounding set. For root, this is also the permitted and the effective set.
    pub bounding: u64,
    /// The ambient set. Without [`exact`](Self::exact) this is also the inheritable set, and for users other than root
    /// the permitted and the effective set.
    ambient: u64,
    /// The other sets, if the command line has them.
    exact: Option<ExactSets>,
}

/// Sets that do not follow from the bounding and the ambient set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ExactSets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

impl CapabilityArgs {
    /// Whether the command line has none of the options.
    pub fn is_default(&self) -> bool {
        let lists = [&self.cap_add, &self.cap_drop, &self.cap_ambient];
        lists.iter().all(|list| list.is_empty()) && self.cap_sets.is_empty()
    }

    /// The sets for a payload of this process. `None`: the command line has none of the options. A capability that
    /// this process does not have is an error.
    pub fn sets(&self) -> Result<Option<PayloadSets>> {
        if !self.cap_sets.is_empty() {
            return self.exact_sets(permitted()?.bits()).map(Some);
        }
        if self.cap_add.is_empty() && self.cap_drop.is_empty() && self.cap_ambient.is_empty() {
            return Ok(None);
        }
        self.sets_of(permitted()?.bits()).map(Some)
    }

    fn exact_sets(&self, held: u64) -> Result<PayloadSets> {
        let of = |kind: Kind| {
            let sets = self.cap_sets.iter().filter(|(own, _)| *own == kind);
            sets.fold(0, |all, (_, set)| all | set)
        };
        let (bounding, ambient) = (of(Kind::Bounding), of(Kind::Ambient));
        let (effective, permitted) = (of(Kind::Effective), of(Kind::Permitted));
        let inheritable = of(Kind::Inheritable);
        require_held(bounding | ambient | effective | permitted | inheritable, held)?;
        if effective & !permitted != 0 || ambient & !(permitted & inheritable) != 0 {
            let text = "--cap-set: a capability is effective or ambient, and not permitted";
            return Err(Error::usage(text));
        }
        let exact = Some(ExactSets { effective, permitted, inheritable });
        Ok(PayloadSets { bounding, ambient, exact })
    }

    fn sets_of(&self, permitted: u64) -> Result<PayloadSets> {
        let set_of = |list: &[Capability]| list.iter().fold(0, |set, one| set | one.bits());
        let has_all = |list: &[Capability]| list.contains(&Capability::All);
        require_held(set_of(&self.cap_add), permitted)?;
        let base = if has_all(&self.cap_drop) && !has_all(&self.cap_add) { 0 } else { permitted };
        let bounding = (base | set_of(&self.cap_add)) & !set_of(&self.cap_drop);
        let ambient = if has_all(&self.cap_ambient) { bounding } else { set_of(&self.cap_ambient) };
        match lowest(ambient & !bounding) {
            Some(name) => Err(Error::usage(format_args!(
                "--cap-ambient {name}: not in the bounding set of the payload"
            ))),
            None => Ok(PayloadSets { bounding, ambient, exact: None }),
        }
    }
}

/// The name of the lowest capability of a set.
fn lowest(set: u64) -> Option<String> {
    (0..u64::BITS).find(|n| set & 1 << n != 0).map(name)
}

fn require_held(set: u64, held: u64) -> Result<()> {
    match lowest(set & !held) {
        Some(name) => Err(Error::new(format_args!("capability {name}: not held by this process"))
            .hint("run as root, or drop the option")),
        None => Ok(()),
    }
}

impl Capability {
    /// The bit of the capability in a set. `ALL` has no bit.
    fn bits(self) -> u64 {
        match self {
            Self::All => 0,
            Self::Number(number) => 1 << number,
        }
    }
}

/// The permitted set of this process.
pub fn permitted() -> Result<CapabilitySet> {
    Ok(capabilities(None).op("capget")?.permitted)
}

impl PayloadSets {
    /// Drops capabilities from the bounding set, and keeps the permitted set through a change of the user
    /// (PR_SET_KEEPCAPS). This step comes before the change. EPERM: this process has no CAP_SETPCAP.
    pub fn drop_bounding(&self) -> Result<()> {
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding & one.bits() != 0 {
                continue;
            }
            match remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // The number is past the last capability of this kernel, which has all of NAMES.
                Err(Errno::INVAL) if number as usize >= NAMES.len() => break,
                Err(_) if capability_is_in_bounding_set(one) == Ok(false) => {}
                failed => failed
                    .on("PR_CAPBSET_DROP", name(number))
                    .map_err(|e| e.hint("dropping capabilities needs CAP_SETPCAP"))?,
            }
        }
        if self.ambient != 0
            || self.exact.is_some_and(|exact| exact.permitted | exact.inheritable != 0)
        {
            // A capability becomes inheritable from the permitted set (capset(2)).
            set_keep_capabilities(true).op("PR_SET_KEEPCAPS")?;
        }
        Ok(())
    }

    /// Sets the other sets of this process, after the change of the user. At execve(2) the kernel gives root all
    /// capabilities of the bounding set, and other users those of the ambient set.
    pub fn set_others(&self) -> Result<()> {
        let ambient = CapabilitySet::from_bits_retain(self.ambient);
        let permitted = if geteuid().is_root() {
            CapabilitySet::from_bits_retain(self.bounding)
        } else {
            ambient
        };
        let bits = CapabilitySet::from_bits_retain;
        let sets = match self.exact {
            Some(ExactSets { effective, permitted, inheritable }) => CapabilitySets {
                effective: bits(effective),
                permitted: bits(permitted),
                inheritable: bits(inheritable),
            },
            None => CapabilitySets { effective: permitted, permitted, inheritable: ambient },
        };
        set_capabilities(None, sets).op("capset")?;
        for number in (0..u64::BITS).filter(|n| self.ambient & 1 << n != 0) {
            let one = CapabilitySet::from_bits_retain(1 << number);
            configure_capability_in_ambient_set(one, true)
                .on("PR_CAP_AMBIENT_RAISE", name(number))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_a_name_in_either_case_with_or_without_a_prefix() {
        for (word, expected) in [
            ("ALL", Ok(Capability::All)),
            ("all", Ok(Capability::All)),
            ("CHOWN", Ok(Capability::Number(0))),
            ("CAP_CHOWN", Ok(Capability::Number(0))),
            ("cap_sys_admin", Ok(Capability::Number(21))),
            ("CHECKPOINT_RESTORE", Ok(Capability::Number(40))),
            ("CAP_ALL", Err("no such capability".to_owned())),
            ("", Err("no such capability".to_owned())),
        ] {
            assert_eq!(word.parse(), expected, "{word}");
        }
    }

    #[test]
    fn the_bounding_set_is_what_this_process_has_plus_added_minus_dropped_capabilities() {
        let permitted = 0b1111;
        let words = |words: &str| {
            words.split(' ').filter(|w| !w.is_empty()).map(|w| w.parse().unwrap()).collect()
        };
        for (add, drop, ambient, bounding, ambient_set) in [
            ("", "CHOWN", "", 0b1110, 0),
            ("", "ALL", "", 0, 0),
            ("CHOWN FOWNER", "ALL", "", 0b1001, 0),
            ("CHOWN", "ALL CHOWN", "", 0, 0),
            ("ALL", "CHOWN", "", 0b1110, 0),
            ("ALL", "ALL", "", 0b1111, 0),
            ("CHOWN", "", "", 0b1111, 0),
            ("CHOWN FOWNER", "ALL", "CHOWN", 0b1001, 1),
            ("CHOWN FOWNER", "ALL", "ALL", 0b1001, 0b1001),
            ("", "", "CHOWN", 0b1111, 1),
        ] {
            let options = CapabilityArgs {
                cap_add: words(add),
                cap_drop: words(drop),
                cap_ambient: words(ambient),
                cap_sets: vec![],
            };
            let expected = PayloadSets { bounding, ambient: ambient_set, exact: None };
            assert_eq!(options.sets_of(permitted).unwrap(), expected, "+{add} -{drop} ^{ambient}");
        }
        let missing = CapabilityArgs { cap_add: words("SYS_ADMIN"), ..CapabilityArgs::default() };
        let error = missing.sets_of(permitted).unwrap_err().to_string();
        assert_eq!(error, "capability SYS_ADMIN: not held by this process");
        let outside = CapabilityArgs {
            cap_drop: words("ALL"),
            cap_ambient: words("CHOWN"),
            ..CapabilityArgs::default()
        };
        let error = outside.sets_of(permitted).unwrap_err().to_string();
        assert_eq!(error, "--cap-ambient CHOWN: not in the bounding set of the payload");
    }
}
