//! The `jc-run` tool: the reference pipeline. It decides what the other tools are to do and lets
//! them do it: what it runs is what `--print` shows.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::ArgMatches;
use jc_unshare::record::{Record, Root};
use jc_unshare::{Context, Error, Kind, Result, Tool, exec, print};
use rustix::rand::{GetRandomFlags, getrandom};

mod chain;
mod flags;
mod image;
mod input;
mod source;

use chain::Chain;
use flags::{Link, given, option};
use image::Config;

pub use flags::command;

/// The tool's name and contract.
pub const TOOL: Tool = Tool::link("jc-run");

/// Does what the command line says: this process becomes the chain.
pub fn run(matches: ArgMatches) -> Result<ExitCode> {
    if let Some(flag) = flags::absent(&matches) {
        return Err(Error::usage(format_args!("{flag}: not there yet")));
    }
    let record = source::record(&matches)?;
    let chain = compose(&matches, &record, &new_id()?)?.locate()?;
    if matches.get_flag("print") {
        return print(chain.to_shell()).map(|()| ExitCode::SUCCESS);
    }
    let error = exec::exec(&chain.argv());
    // The payload was not even looked for yet.
    Err(Error::with_kind(Kind::Failed, error))
}

/// The chain for a record: what the image says, then what the command line says.
fn compose(matches: &ArgMatches, record: &Record, id: &str) -> Result<Chain> {
    let config = Config::of(record)?;
    let arguments: Vec<OsString> =
        matches.get_many("program").into_iter().flatten().cloned().collect();
    let payload = config.argv(&arguments)?;
    let mut links = Vec::new();
    let limits = given(matches, Link::Cgroup);
    if !limits.is_empty() {
        links.push(link("jc-cgroup", [limits]));
    }
    let network = given(matches, Link::Net);
    let network = if network.is_empty() { words(&["--network", "none"]) } else { network };
    links.push(link("jc-net", [network]));
    links.push(link("jc-unshare", [unshare(matches, id)]));
    let rootfs = [environment(&config, matches, id), defaults(&config, matches), root(record)?];
    links.push(link("jc-rootfs", rootfs));
    Ok(Chain::new(links, payload))
}

fn link<const N: usize>(name: &str, options: [Vec<OsString>; N]) -> Vec<OsString> {
    std::iter::once(name.into()).chain(options.into_iter().flatten()).collect()
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn unshare(matches: &ArgMatches, id: &str) -> Vec<OsString> {
    let mut options = words(&["-p", "-u", "-i", "-C"]);
    if !matches.contains_id("hostname") {
        options.extend(option("--hostname", id.as_ref()));
    }
    options.extend(given(matches, Link::Unshare));
    options
}

/// The environment of a container is the image's and its user's, not the caller's.
fn environment(config: &Config, matches: &ArgMatches, id: &str) -> Vec<OsString> {
    let name = matches.get_one::<OsString>("hostname").map_or(OsStr::new(id), OsString::as_os_str);
    let mut hostname = OsString::from("HOSTNAME=");
    hostname.push(name);
    let mut options = words(&["--clear-env"]);
    if std::io::stdin().is_terminal() {
        options.extend(words(&["-e", "TERM"]));
    }
    options.extend(option("-e", &hostname));
    options.extend(config.env().iter().flat_map(|word| option("-e", word.as_ref())));
    options
}

/// What the image says and the command line does not, then what the command line says.
fn defaults(config: &Config, matches: &ArgMatches) -> Vec<OsString> {
    let mut options = Vec::new();
    if !matches.contains_id("user") {
        options.extend(option("-u", config.user().as_ref()));
    }
    if let Some(dir) = config.working_dir().filter(|_| !matches.contains_id("workdir")) {
        options.extend(option("-w", dir.as_ref()));
    }
    options.extend(given(matches, Link::Rootfs));
    options
}

/// Layers get a fresh upper directory in memory; a directory is used as it is.
fn root(record: &Record) -> Result<Vec<OsString>> {
    Ok(match record.root()? {
        Root::Directory(directory) => vec![directory.into()],
        Root::Layers(layers) => {
            let layers = layers.iter().flat_map(|layer| option("--layer", layer.as_os_str()));
            layers.chain(words(&["--upper", "tmpfs"])).collect()
        }
    })
}

/// A container's ID: 12 hexadecimal digits, as Docker shows them.
fn new_id() -> Result<String> {
    let mut bytes = [0; 6];
    getrandom(&mut bytes, GetRandomFlags::empty()).op("getrandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(args: &[&str], record: &str) -> Result<Vec<OsString>> {
        let matches = command().try_get_matches_from([&["jc-run"], args].concat());
        let record = Record::parse(record.as_bytes())?;
        Ok(compose(&matches.map_err(Error::usage)?, &record, "0123456789ab")?.argv())
    }

    fn has(chain: &[OsString], words: &[&str]) -> bool {
        chain.windows(words.len()).any(|window| window == words)
    }

    #[test]
    fn the_image_speaks_unless_the_command_line_does() {
        let record = r#"{"jc":1,"layers":["/a","/b"],"config":{"Entrypoint":["/e"],"Cmd":["c"],
            "Env":["A=1"],"WorkingDir":"/w","User":"web"}}"#;
        let from_image = chain(&[], record).unwrap();
        assert!(has(&from_image, &["-u", "web", "-w", "/w", "--layer", "/a", "--layer", "/b"]));
        assert!(has(&from_image, &["--upper", "tmpfs", "--", "/e", "c"]));
        let args = ["-u", "5", "-w", "/x", "-e", "A=2", "-m", "64M", "--hostname", "h", "--", "z"];
        let from_user = chain(&args, record).unwrap();
        assert!(has(&from_user, &["-m", "64M", "--"]));
        assert!(has(&from_user, &["--hostname", "h", "--"]));
        assert!(has(&from_user, &["-e", "A=1", "-e", "A=2", "-u", "5", "-w", "/x", "--layer"]));
        assert!(has(&from_user, &["--", "/e", "z"]));
    }

    #[test]
    fn a_value_is_never_taken_for_an_option() {
        let record = r#"{"jc":1,"rootfs":"/r","config":{"User":"-x","Cmd":["-c"]}}"#;
        let chain = chain(&["--hostname=--init"], record).unwrap();
        assert!(has(&chain, &["--hostname=--init"]));
        assert!(has(&chain, &["-u-x", "/r", "--", "-c"]));
    }
}
