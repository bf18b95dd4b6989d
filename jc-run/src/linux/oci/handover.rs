//! The process of a container, given to the caller: the PID file and the socket for a descriptor.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use jc_unshare::process::Process;
use jc_unshare::{Context, Error, Result, rights, temporary};

use super::args::Handover;

/// Writes the PID file by a rename, and sends a descriptor of the process.
pub fn give(options: &Handover, process: Process) -> Result<()> {
    if let Some(path) = &options.pid_file {
        let mut name = OsString::from(path);
        name.push(format!(".{:016x}", temporary::random()));
        let mut file = File::create_new(&name).on("create", &name)?;
        file.write_all(process.pid.to_string().as_bytes()).on("write", &name)?;
        fs::rename(&name, path).on("rename", path)?;
    }
    if let Some(path) = &options.pidfd_socket {
        let ended = || Error::new("the process has ended");
        let pidfd = process.open()?.ok_or_else(ended)?;
        let socket = UnixStream::connect(path).on("connect", path)?;
        let sent = rights::send(&socket, &[pidfd.as_fd()], b"pidfd");
        sent.map_err(|error| error.context(path.display()))?;
    }
    Ok(())
}

/// The number of descriptors from 3 on that are sockets of a service manager (sd_listen_fds(3)).
pub fn listened() -> Result<Option<u32>> {
    let Some(word) = std::env::var_os("LISTEN_FDS") else { return Ok(None) };
    let count = word.to_str().and_then(|word| word.parse().ok()).filter(|count| *count <= 1 << 20);
    let fault = || Error::new(format_args!("LISTEN_FDS {}: not a number", word.display()));
    count.map(Some).ok_or_else(fault)
}
