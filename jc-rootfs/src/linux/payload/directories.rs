//! The root and the working directory of the payload.

use std::env;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context, Error, Result};
use rustix::process::{fchdir, getcwd};

use crate::linux::args::Args;
use crate::linux::mount::resolve::{Missing, open_file, resolve};
use crate::user::Files;

pub struct ContainerRoot(pub OwnedFd);

impl Files for ContainerRoot {
    fn open(&self, path: &Path) -> Result<Option<File>> {
        Ok(open_file(self.0.as_fd(), path)?.map(File::from))
    }
}

/// The directories in which the payload starts, as descriptors.
pub struct Directories {
    pub root: ContainerRoot,
    /// The working directory, which was resolved in the root.
    workdir: OwnedFd,
    /// The path of the working directory.
    path: PathBuf,
}

impl Directories {
    /// Opens the working directory in `root`. The default is "/", or the caller's directory in the caller's own root.
    pub fn open(args: &Args, root: OwnedFd, missing: Missing) -> Result<Self> {
        if args.workdir.is_none() && args.shows_own_root() {
            // A directory that has been removed, or that a mount hides, is no place to start in.
            let path = env::current_dir().op("getcwd").absent()?.unwrap_or_else(|| "/".into());
            if let Some(workdir) = resolve(root.as_fd(), &path, Missing::Fail).absent()? {
                return Ok(Self { root: ContainerRoot(root), workdir, path });
            }
        }
        let path = args.workdir.as_deref().unwrap_or(Path::new("/"));
        let workdir = resolve(root.as_fd(), path, missing)?;
        Ok(Self { root: ContainerRoot(root), workdir, path: path.to_owned() })
    }

    /// Enters the working directory, after the change of the root. Any directory outside of the root is an error:
    /// getcwd(2) shows such a directory as "(unreachable)" (CVE-2024-21626).
    pub fn enter(&self) -> Result<()> {
        fchdir(&self.workdir).on("chdir", &self.path)?;
        if getcwd(Vec::new()).op("getcwd")?.as_bytes().starts_with(b"/") {
            return Ok(());
        }
        Err(Error::new("chdir: the working directory is outside of the root"))
    }
}
