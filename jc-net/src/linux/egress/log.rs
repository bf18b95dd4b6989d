//! The log: one line of JSON for each decision.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jc_unshare::time::since_epoch;
use jc_unshare::{Context, Result, info};
use serde_json::{Map, Value};

/// The most refusals that are written in a second. A program could fill a disk with refusals.
const MOST_A_SECOND: u32 = 1000;

/// A decision, with all that is known of it.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    /// The reason of a refusal; `None` if the connection was allowed.
    pub refused: Option<&'a str>,
    /// The failure of an allowed connection.
    pub error: Option<&'a str>,
    /// The protocol: `dns`, or that of the packets.
    pub protocol: &'a str,
    /// The name of the host.
    pub name: Option<&'a str>,
    /// The address outside; for what was refused, the address that the program has used.
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub port: Option<u16>,
    /// The SNI of TLS.
    pub sni: Option<&'a str>,
    /// Bytes to the host, bytes from it, and the time that the connection took.
    pub moved: Option<(u64, u64, Duration)>,
    /// The text of the rule.
    pub rule: Option<&'a str>,
}

/// The file that lines are written to, and their rate.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    /// The second that is counted, and the refusals in it.
    second: Option<Instant>,
    count: u32,
    unwritten: u64,
}

impl Log {
    /// A log in a file, at its end, or of a descriptor that the caller has opened.
    pub fn open(word: Option<&str>) -> Result<Self> {
        let file = match word.map(|word| (word, word.parse())) {
            None => None,
            Some((_, Ok(number))) => Some(info::inherit_fd(number, "--log")?.into()),
            Some((path, Err(_))) => {
                Some(File::options().append(true).create(true).open(path).on("open", path)?)
            }
        };
        Ok(Self { file, ..Self::default() })
    }

    /// The descriptor of the file.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Counts refusals that have no line.
    pub fn skip(&mut self, refusals: u64) {
        self.unwritten += refusals;
    }

    /// Writes the number of refusals after the last line that have none.
    pub fn finish(&mut self) -> Result<()> {
        let refused = Some("refusals without a line");
        if self.unwritten == 0 {
            return Ok(());
        }
        self.count = 0;
        self.write(&Entry { refused, protocol: "any", ..Entry::default() })
    }

    /// Writes a line. Error: the line could not be written, so that the run has no log.
    pub fn write(&mut self, entry: &Entry<'_>) -> Result<()> {
        if self.file.is_none() || entry.refused.is_some() && self.is_full() {
            return Ok(());
        }
        let mut line = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                line.insert(key.to_owned(), value);
            }
        };
        put("time", Some((since_epoch().as_millis() as f64 / 1000.0).into()));
        put("verdict", Some(if entry.refused.is_some() { "deny" } else { "allow" }.into()));
        put("reason", entry.refused.map(Into::into));
        put("error", entry.error.map(Into::into));
        put("protocol", Some(entry.protocol.into()));
        put("name", entry.name.map(Into::into));
        put("address", entry.address.map(|address| address.to_string().into()));
        put("port", entry.port.map(Into::into));
        put("sni", entry.sni.map(Into::into));
        if let Some((sent, received, time)) = entry.moved {
            put("sent", Some(sent.into()));
            put("received", Some(received.into()));
            put("duration", Some((time.as_millis() as f64 / 1000.0).into()));
        }
        put("rule", entry.rule.map(Into::into));
        let unwritten = std::mem::take(&mut self.unwritten);
        put("unwritten", (unwritten > 0).then(|| unwritten.into()));
        let text = format!("{}\n", Value::Object(line));
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()).op("write --log"))
    }

    /// Whether this second has its refusals. The next line says how many were not written.
    fn is_full(&mut self) -> bool {
        let now = Instant::now();
        if self.second.is_none_or(|second| now - second >= Duration::from_secs(1)) {
            (self.second, self.count) = (Some(now), 0);
        }
        self.count += 1;
        let is_full = self.count > MOST_A_SECOND;
        self.unwritten += u64::from(is_full);
        is_full
    }
}
