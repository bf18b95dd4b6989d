//! The operand UPPER|ID of a command line, and the user namespace that its files need.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use jc_unshare::exec::{self, locate_tool};
use jc_unshare::store::is_root;
use jc_unshare::{Context, Error, Kind, Result, exists};

use super::container::Container;
use super::freeze::Frozen;
use super::upper::Upper;
use crate::in_use::OverlayDirs;
use crate::sys;

/// The directory of an operand that this program has looked up before it entered a user namespace.
const FOUND: &str = "JC_CHANGES_DIR";

/// The outcome of [`open`].
pub enum Opened {
    /// The upper directory, which nobody changes while the value lives.
    Here(Operand),
    /// A process in a user namespace has done the work of this program.
    Done(ExitCode),
}

/// An upper directory that an operand names.
pub struct Operand {
    /// The directory with the changes.
    pub upper: Upper,
    /// Whether the operand is a container.
    pub is_container: bool,
    /// Whether that container runs.
    pub is_running: bool,
    /// The container that the operand names, stopped until the drop of this value.
    pub frozen: Option<Frozen>,
}

/// Where an operand leads.
struct Found {
    directory: PathBuf,
    container: Option<Container>,
}

/// Opens the upper directory of an operand: a word with a slash is a directory, and another one a container of
/// `jc-run --keep`, or else a directory. A container that runs is stopped meanwhile.
///
/// An ordinary user's files may belong to subordinate IDs. This program then runs again as root of a user namespace:
/// in place of this process, or as its child while a container is stopped. With `always` an ordinary user's program does
/// so for every operand. The child gets [`Frozen`], so it decides when the container resumes.
pub fn open(word: &OsStr, state_dir: Option<&Path>, always: bool) -> Result<Opened> {
    if let Some(directory) = found_before()? {
        let upper = Upper::open(Path::new(&directory))?;
        let kind = env::var_os(KIND).unwrap_or_default();
        let (is_container, is_running) = (!kind.is_empty(), kind == RUNS);
        let frozen = Frozen::inherited()?;
        return Ok(Opened::Here(Operand { upper, is_container, is_running, frozen }));
    }
    let Found { directory, container } = find(word, state_dir)?;
    let is_container = container.is_some();
    let is_running = container.as_ref().is_some_and(|container| container.pid.is_some());
    let frozen = container.map_or(Ok(None), |container| container.freeze())?;
    if !rustix::process::geteuid().is_root()
        && (always || is_container || Upper::open(&directory)?.is_of_root())
        && let Some(map) = sys::id_map(true)?
    {
        let kind = if is_running { RUNS } else { "kept" };
        let kind = if is_container { kind } else { "" };
        return enter(map, &directory, kind, frozen).map(Opened::Done);
    }
    let upper = Upper::open(&directory)?;
    Ok(Opened::Here(Operand { upper, is_container, is_running, frozen }))
}

impl Operand {
    /// A process that has one of the upper directories mounted.
    pub fn user(&self) -> Result<Option<u32>> {
        let mounted = OverlayDirs::read()?;
        let users = self.upper.parts().iter().map(|part| mounted.user_of_upper(&part.root));
        users.collect::<Result<Vec<_>>>().map(|users| users.into_iter().flatten().next())
    }
}

/// The directory of [`FOUND`], which counts only for root of a user namespace.
fn found_before() -> Result<Option<OsString>> {
    let Some(directory) = env::var_os(FOUND) else { return Ok(None) };
    let is_inside = rustix::process::geteuid().is_root() && !is_root()?;
    Ok(Some(directory).filter(|_| is_inside))
}

/// The kind of container that [`FOUND`] belongs to: empty for none.
const KIND: &str = "JC_CHANGES_KIND";
const RUNS: &str = "running";

fn find(word: &OsStr, state_dir: Option<&Path>) -> Result<Found> {
    let path = Path::new(word);
    let directory = || Ok(Found { directory: path.to_owned(), container: None });
    let is_path = word.as_bytes().contains(&b'/') || word == "." || word == "..";
    let Some(name) = word.to_str().filter(|_| !is_path) else { return directory() };
    match Container::find(name, state_dir)? {
        Some(container) => {
            Ok(Found { directory: container.directory.clone(), container: Some(container) })
        }
        None if exists(path)? => directory(),
        None => Err(Error::new(format_args!("{name}: no such container and no such directory"))
            .hint("jc-list -a shows all containers")),
    }
}

/// Runs this program as root of a user namespace.
fn enter(map: &str, directory: &Path, kind: &str, frozen: Option<Frozen>) -> Result<ExitCode> {
    let directory = std::path::absolute(directory).on("find", directory)?;
    let mut argv = vec![locate_tool("jc-unshare".as_ref())?.into_os_string()];
    argv.extend(["-U", map, "--"].map(OsString::from));
    argv.push(env::current_exe().op("find this program")?.into());
    argv.extend(env::args_os().skip(1));
    let (program, args) = argv.split_first().ok_or_else(|| Error::new("no program"))?;
    let mut command = Command::new(program);
    command.args(args).env(FOUND, directory).env(KIND, kind);
    let Some(frozen) = frozen else {
        return Err(Error::with_kind(Kind::Failed, exec::replace(&mut command)));
    };
    let child = frozen.spawn(&mut command);
    let status = child.and_then(|mut child| child.wait()).op("run jc-unshare")?;
    // A signal ends the child, which has reported no error then.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map(ExitCode::from).ok_or_else(|| Error::new(format_args!("jc-unshare: {status}")))
}
