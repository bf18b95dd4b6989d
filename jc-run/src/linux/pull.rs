//! The record of an image on the command line, from the store or from jc-pull.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};

use jc_unshare::exec::locate_tool;
use jc_unshare::image::config_files::{login_files, read_found};
use jc_unshare::image::registries::{Registries, is_read_once};
use jc_unshare::private_dir::open_chain;
use jc_unshare::record::Record;
use jc_unshare::userns::is_initial;
use jc_unshare::{Context, Error, Kind, Result, store};
use rustix::process::geteuid;

use super::anonymous::PURPOSE;
use super::compose::{maps_one_id, store_namespace};
use super::stored;
use crate::link::{Chain, Link, Opt};
use crate::options::{ImageSource, NamespaceOptions};

/// Reads the record of a plain image from the store, or runs jc-pull with the stderr of this process. For an ordinary
/// user, jc-pull runs in the user namespace of the container.
pub fn pull(image: &ImageSource, namespaces: &NamespaceOptions) -> Result<Record> {
    let user = user_namespace(namespaces)?;
    // A namespace with one ID cannot give files to other IDs.
    let is_unowned = user.as_deref().is_some_and(maps_one_id);
    // jc-pull finds and reports the same errors.
    if image.policy != "always"
        && let Ok(Some(record)) = stored::record(image, is_unowned)
    {
        return Ok(record);
    }
    let user = user.as_deref();
    // In the user namespace, jc-pull takes files of other users for those of root.
    if user.is_some() && is_initial()? {
        check_owners()?;
    }
    if image.policy == "missing" && !is_read_once() {
        // An image that is in the store needs no message. jc-pull reads the configuration of registries twice then.
        let stored = run(&["--quiet", "--policy", "never"], image, user, Stdio::null())?;
        if stored.status.success() {
            return Record::parse(&stored.stdout);
        }
    }
    let pulled = run(&["--policy", &image.policy], image, user, Stdio::inherit())?;
    if pulled.status.success() {
        Record::parse(&pulled.stdout)
    } else {
        Err(Error::with_kind(Kind::Quiet, "jc-pull has reported the error"))
    }
}

/// The options of the user namespace in which an ordinary user's jc-pull runs: the store has the files as the maps of
/// the default namespace give them.
fn user_namespace(namespaces: &NamespaceOptions) -> Result<Option<Vec<Opt>>> {
    if geteuid().is_root() {
        return Ok(None);
    }
    // Other users have no numbers in the user namespace, where jc-pull cannot tell them from root of the host.
    open_chain(&store::default_path()?, PURPOSE, false)?;
    store_namespace(namespaces).map(Some)
}

/// Reads the configuration of jc-pull, since files of other users are errors.
fn check_owners() -> Result<()> {
    if !is_read_once() {
        Registries::default().load()?;
    }
    login_files().iter().try_for_each(|path| read_found(path).map(drop))
}

fn run(
    options: &[&str],
    image: &ImageSource,
    user: Option<&[Opt]>,
    stderr: Stdio,
) -> Result<Output> {
    let mut links = Vec::new();
    let mut program = vec![locate_tool("jc-pull".as_ref())?.into()];
    if let Some(user) = user {
        program.extend(maps_one_id(user).then(|| OsString::from("--ignore-chown")));
        links.push(Link::new("jc-unshare", user.to_vec()));
    }
    program.extend(options.iter().map(OsString::from));
    if let Some(platform) = &image.platform {
        program.extend(["--platform", platform].map(OsString::from));
    }
    program.extend(["--", &image.reference].map(OsString::from));
    let argv = Chain::new(links, program).locate()?.argv();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stderr(stderr).output().op("run jc-pull")
}
