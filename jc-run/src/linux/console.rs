//! The socket on which jc-rootfs passes the container's terminal (`--console-socket`).

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use jc_unshare::{Absent, Context, Error, Result, rights};
use rustix::net::RecvFlags;

/// The socket, until the terminal has arrived.
#[derive(Debug)]
pub struct Console(UnixListener);

impl Console {
    /// Listens at a path. EADDRINUSE: the path exists.
    pub fn listen(path: &Path) -> Result<Self> {
        UnixListener::bind(path).on("listen", path).map(Self)
    }

    /// Receives the master of the terminal, when the socket can be read, and removes the path. The path may be absent,
    /// since the state directory of a payload that ends at once may have been removed.
    pub fn receive(self, path: &Path) -> Result<OwnedFd> {
        let (connection, _) = self.0.accept().on("accept", path)?;
        fs::remove_file(path).on("remove", path).absent()?;
        let master = rights::receive(&connection, RecvFlags::empty());
        let master = master.map_err(|error| error.context(path.display()))?.pop();
        master.ok_or_else(|| Error::new("recvmsg: jc-rootfs has sent no terminal"))
    }
}

impl AsFd for Console {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
