//! The containers that jc-list lists (jc-list(1), jc-state(5)).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jc_unshare::exec::locate_tool;
use jc_unshare::{Context, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;

/// The longest list, in bytes.
const MAX_LIST: usize = 256 << 20;

/// The longest wait for the list. jc-list removes what dead containers left, and waits for locks.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(1);

/// A container in the list.
#[derive(Deserialize)]
pub struct Listed {
    pub id: String,
    pub status: String,
    pub pid: Option<u32>,
    pub bundle: PathBuf,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Listed {
    /// The name that `jc-run --name` gave.
    pub fn name(&self) -> Option<&str> {
        self.annotations.get("jc.name").map(String::as_str)
    }
}

/// Runs jc-list for all containers, stopped ones too. Its reports go to `stderr`.
pub fn list(state_dir: Option<&Path>, stderr: Stdio) -> Result<Vec<Listed>> {
    let mut command = Command::new(locate_tool("jc-list".as_ref())?);
    command.args(["-a", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    if let Some(directory) = state_dir {
        command.arg("--state-dir").arg(directory);
    }
    let (text, status) = output(&mut command)?;
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let containers: Vec<Listed> = lines
        .map(serde_json::from_slice)
        .collect::<serde_json::Result<_>>()
        .map_err(|e| Error::new(format_args!("jc-list: {e}")))?;
    // jc-list lists the other containers, and reports those that it cannot read.
    if containers.is_empty() && !status.success() { Err(Error::quiet()) } else { Ok(containers) }
}

/// A child that is killed with this value, unless it has been waited for.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The child may have ended.
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<ExitStatus> = self.0.wait();
    }
}

/// The output of a program, and its status. More than [`MAX_LIST`] bytes are an error, and so is a program that has not
/// ended within [`PATIENCE`].
fn output(command: &mut Command) -> Result<(Vec<u8>, ExitStatus)> {
    let until = Instant::now() + PATIENCE;
    let mut child = Killed(command.spawn().op("run jc-list")?);
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    if let Some(mut output) = child.0.stdout.take() {
        loop {
            let left = Timespec::try_from(left(until)?).unwrap_or_default();
            let mut readable = [PollFd::new(&output, PollFlags::IN)];
            match poll(&mut readable, Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                polled => polled.op("poll")?,
            };
            match output.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => text.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).op("read the list of jc-list"),
            }
            if text.len() > MAX_LIST {
                return Err(Error::new(format_args!("jc-list: more than {MAX_LIST} bytes")));
            }
        }
    }
    loop {
        if let Some(status) = child.0.try_wait().op("wait for jc-list")? {
            return Ok((text, status));
        }
        left(until)?;
        std::thread::sleep(TICK);
    }
}

/// The time that is left. No time is an error.
fn left(until: Instant) -> Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        let seconds = PATIENCE.as_secs();
        return Err(Error::new(format_args!("jc-list: has not ended within {seconds} seconds")));
    }
    Ok(left)
}
