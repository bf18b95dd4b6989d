//! The record of an image on the command line, which jc-pull prints.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};

use jc_unshare::exec::locate_tool;
use jc_unshare::private_dir::open_chain;
use jc_unshare::record::Record;
use jc_unshare::{Context, Error, Kind, Result, store};
use rustix::process::geteuid;

use super::anonymous::PURPOSE;
use super::compose::{maps_one_id, store_namespace};
use crate::link::{Chain, Link};
use crate::options::NamespaceOptions;

/// Runs jc-pull with the stderr of this process. For an ordinary user, jc-pull runs in the user namespace of the
/// container.
pub fn pull(image: &str, policy: &str, namespaces: &NamespaceOptions) -> Result<Record> {
    if policy == "missing" {
        // An image that is in the store needs no message.
        let stored = run(&["--quiet", "--policy", "never"], image, namespaces, Stdio::null())?;
        if stored.status.success() {
            return Record::parse(&stored.stdout);
        }
    }
    let pulled = run(&["--policy", policy], image, namespaces, Stdio::inherit())?;
    match pulled.status.success() {
        true => Record::parse(&pulled.stdout),
        false => Err(Error::with_kind(Kind::Quiet, "jc-pull has reported the error")),
    }
}

fn run(
    options: &[&str],
    image: &str,
    namespaces: &NamespaceOptions,
    stderr: Stdio,
) -> Result<Output> {
    let mut links = Vec::new();
    let mut program = vec![locate_tool("jc-pull".as_ref())?.into()];
    if !geteuid().is_root() {
        // Other users have no numbers in the user namespace, where jc-pull cannot tell them from root of the host.
        open_chain(&store::default_path()?, PURPOSE, false)?;
        // The store has the files as the maps of the default namespace give them.
        let user = store_namespace(namespaces)?;
        // A namespace with one ID cannot give files to other IDs.
        program.extend(maps_one_id(&user).then(|| OsString::from("--ignore-chown")));
        links.push(Link::new("jc-unshare", user));
    }
    program.extend(options.iter().chain(&["--", image]).map(OsString::from));
    let argv = Chain::new(links, program).locate()?.argv();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stderr(stderr).output().op("run jc-pull")
}
