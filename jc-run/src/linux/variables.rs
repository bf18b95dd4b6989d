//! Variables of the payload, in the environment of the chain.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use jc_unshare::program::Variable;

use crate::link::{Link, Opt};

/// Moves the values of variables from the options of jc-rootfs, the last link, to its environment. Every user can read
/// the command line of a process, and only the same user can read its environment (proc_pid_cmdline(5),
/// proc_pid_environ(5)). Variables that the links use themselves stay.
pub fn take_values(links: &mut [Link]) -> Vec<Variable> {
    links.last_mut().map_or_else(Vec::new, |rootfs| take_from(&mut rootfs.options))
}

fn take_from(options: &mut [Opt]) -> Vec<Variable> {
    let is_of_links = |name: &[u8]| name == b"PATH" || name.starts_with(b"JC_");
    let mut variables = Vec::new();
    for option in options.iter_mut().filter(|option| option.name() == "-e") {
        let Some(pair) = option.value().map(OsStr::to_owned) else { continue };
        let bytes = pair.as_bytes();
        let (name, value) = match bytes.iter().position(|b| *b == b'=') {
            Some(end) if is_of_links(&bytes[..end]) => continue,
            Some(end) => (&bytes[..end], Some(OsStr::from_bytes(&bytes[end + 1..]).to_owned())),
            None => (bytes, env::var_os(&pair)),
        };
        let name = OsStr::from_bytes(name).to_owned();
        *option = Opt::new("-e", &name);
        variables.push((name, value));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_leave_the_command_line() {
        let options = |pairs: [&str; 5]| pairs.map(|pair| Opt::new("-e", pair)).to_vec();
        let mut rootfs = options(["A=1=2", "PATH=/b", "JC_TESTS_NONE", "JC_X=3", "A="]);
        rootfs.push(Opt::new("-u", "web"));
        let variable = |name: &str, value: Option<&str>| (name.into(), value.map(Into::into));
        let taken =
            [variable("A", Some("1=2")), variable("JC_TESTS_NONE", None), variable("A", Some(""))];
        assert_eq!(take_from(&mut rootfs), taken);
        let mut left = options(["A", "PATH=/b", "JC_TESTS_NONE", "JC_X=3", "A"]);
        left.push(Opt::new("-u", "web"));
        assert_eq!(rootfs, left);
    }
}
