//! Capabilities (capabilities(7)): which ones the payload may have, in all five sets.

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

/// What `--cap-add`, `--cap-drop` and `--cap-ambient` name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// `ALL`: every capability that this process has.
    All,
    /// One, by its number.
    One(u32),
}

impl FromStr for Word {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let upper = word.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::All);
        }
        number(&upper).map(Self::One).ok_or_else(|| "no such capability".to_owned())
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CapabilityArgs {
    /// Give PROG capabilities: names, or ALL for those of jc-rootfs (repeatable)
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    cap_add: Vec<Word>,
    /// Take capabilities from PROG: names, or ALL (repeatable)
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    cap_drop: Vec<Word>,
    /// Pass capabilities to PROG even if it is not root (repeatable)
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    cap_ambient: Vec<Word>,
}

/// The capabilities that the payload may have, a bit each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The bounding set; also the permitted and effective one of root.
    pub bounding: u64,
    /// The ambient set; also the inheritable, permitted and effective one of other users.
    ambient: u64,
}

impl CapabilityArgs {
    /// What is to be, of what this process has; nothing if nothing is asked for.
    pub fn wanted(&self) -> Result<Option<Wanted>> {
        if self.cap_add.is_empty() && self.cap_drop.is_empty() && self.cap_ambient.is_empty() {
            return Ok(None);
        }
        self.of(held()?.bits()).map(Some)
    }

    fn of(&self, held: u64) -> Result<Wanted> {
        let named = |words: &[Word]| words.iter().fold(0, |set, word| set | word.bits());
        let all = |words: &[Word]| words.contains(&Word::All);
        let missing = |set: u64| match (0..u64::BITS).find(|n| set & !held & 1 << n != 0) {
            Some(n) => {
                Err(Error::new(format_args!("capability {}: not held by this process", name(n)))
                    .hint("run as root, or drop the option"))
            }
            None => Ok(()),
        };
        missing(named(&self.cap_add))?;
        let base = if all(&self.cap_drop) && !all(&self.cap_add) { 0 } else { held };
        let bounding = (base | named(&self.cap_add)) & !named(&self.cap_drop);
        let ambient = if all(&self.cap_ambient) { bounding } else { named(&self.cap_ambient) };
        if let Some(n) = (0..u64::BITS).find(|n| ambient & !bounding & 1 << n != 0) {
            let name = name(n);
            return Err(Error::usage(format_args!(
                "--cap-ambient {name}: is not to be had at all"
            )));
        }
        Ok(Wanted { bounding, ambient })
    }
}

impl Word {
    fn bits(self) -> u64 {
        match self {
            Self::All => 0,
            Self::One(number) => 1 << number,
        }
    }
}

/// The permitted set of this process.
pub fn held() -> Result<CapabilitySet> {
    Ok(capabilities(None).op("capget")?.permitted)
}

impl Wanted {
    /// Before the user changes: what no program shall get back, and what the change shall not take.
    pub fn limit(&self) -> Result<()> {
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding & one.bits() != 0 {
                continue;
            }
            match remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // Past the last capability of this kernel: every supported kernel has all that
                // NAMES lists.
                Err(Errno::INVAL) if number as usize >= NAMES.len() => break,
                Err(_) if capability_is_in_bounding_set(one) == Ok(false) => {}
                failed => failed
                    .on("PR_CAPBSET_DROP", name(number))
                    .map_err(|e| e.hint("dropping capabilities needs CAP_SETPCAP"))?,
            }
        }
        if self.ambient != 0 {
            set_keep_capabilities(true).op("PR_SET_KEEPCAPS")?;
        }
        Ok(())
    }

    /// After the user has changed: the sets of the process. Root gets its own by executing a program,
    /// as much as the bounding set lets it; others get the ambient ones.
    pub fn assume(&self) -> Result<()> {
        let ambient = CapabilitySet::from_bits_retain(self.ambient);
        let own = match geteuid().is_root() {
            true => CapabilitySet::from_bits_retain(self.bounding),
            false => ambient,
        };
        let sets = CapabilitySets { effective: own, permitted: own, inheritable: ambient };
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
    fn names() {
        for (word, expected) in [
            ("ALL", Ok(Word::All)),
            ("all", Ok(Word::All)),
            ("CHOWN", Ok(Word::One(0))),
            ("CAP_CHOWN", Ok(Word::One(0))),
            ("cap_sys_admin", Ok(Word::One(21))),
            ("CHECKPOINT_RESTORE", Ok(Word::One(40))),
            ("CAP_ALL", Err("no such capability".to_owned())),
            ("", Err("no such capability".to_owned())),
        ] {
            assert_eq!(word.parse(), expected, "{word}");
        }
    }

    #[test]
    fn what_is_added_and_dropped() {
        let held = 0b1111;
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
            };
            let expected = Wanted { bounding, ambient: ambient_set };
            assert_eq!(options.of(held).unwrap(), expected, "+{add} -{drop} ^{ambient}");
        }
        let missing = CapabilityArgs { cap_add: words("SYS_ADMIN"), ..CapabilityArgs::default() };
        let error = missing.of(held).unwrap_err().to_string();
        assert_eq!(error, "capability SYS_ADMIN: not held by this process");
        let outside =
            CapabilityArgs { cap_drop: words("ALL"), cap_ambient: words("CHOWN"), cap_add: vec![] };
        let error = outside.of(held).unwrap_err().to_string();
        assert_eq!(error, "--cap-ambient CHOWN: is not to be had at all");
    }
}
