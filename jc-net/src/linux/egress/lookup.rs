//! The addresses of names outside, by getaddrinfo(3) in a few threads: it blocks, and knows resolv.conf(5)
//! with all its options.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jc_unshare::{Absent, Context, Result, read_at_most};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// The most names that are looked up at a time.
const MOST_THREADS: usize = 8;
/// getaddrinfo(3) of musl needs some 20 KiB.
const STACK: usize = 256 << 10;
/// The most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 16;
/// The time that an answer is used again, so that many connections to a host ask once.
const FRESH: Duration = Duration::from_secs(10);
/// The most answers that are kept.
const MOST_ANSWERS: usize = 1024;
/// The longest /etc/hosts, in bytes.
const LONGEST_HOSTS: u64 = 1 << 20;

/// The addresses of a name; none if there is no such name, or no answer.
pub type Addresses = Arc<[IpAddr]>;

/// Threads that look names up, and their answers.
pub struct Lookups {
    asked: Sender<String>,
    questions: Arc<Mutex<Receiver<String>>>,
    answers: Receiver<(String, Addresses)>,
    answered: Sender<(String, Addresses)>,
    /// Can be read when there are answers.
    bell: Arc<OwnedFd>,
    threads: usize,
    /// The keys of those that wait for a name.
    waiting: HashMap<String, Vec<u64>>,
    fresh: HashMap<String, (Instant, Addresses)>,
}

impl Lookups {
    /// Lookups without a thread yet: the first name starts one.
    pub fn new() -> Result<Self> {
        let (asked, questions) = channel();
        let (answered, answers) = channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            asked,
            questions: Arc::new(Mutex::new(questions)),
            answers,
            answered,
            bell: Arc::new(eventfd(0, flags).op("eventfd")?),
            threads: 0,
            waiting: HashMap::new(),
            fresh: HashMap::new(),
        })
    }

    /// A descriptor that can be read when there are answers.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The addresses, if they are known; else `key` gets them from [`answers`](Self::answers).
    pub fn ask(&mut self, name: &str, key: u64) -> Option<Addresses> {
        if let Some((when, addresses)) = self.fresh.get(name)
            && when.elapsed() < FRESH
        {
            return Some(addresses.clone());
        }
        let waiting = self.waiting.entry(name.to_owned()).or_default();
        waiting.push(key);
        if waiting.len() == 1 {
            if self.threads < MOST_THREADS && self.threads < self.waiting.len() {
                self.threads += usize::from(self.start().is_ok());
            }
            // This side has both ends, so that it cannot fail.
            drop(self.asked.send(name.to_owned()));
        }
        None
    }

    /// A kernel that has no room for another thread leaves the work to those that there are; without any,
    /// time-outs end the connections.
    fn start(&self) -> std::io::Result<()> {
        let (questions, answered) = (self.questions.clone(), self.answered.clone());
        let bell = self.bell.clone();
        let work = move || {
            loop {
                let question = questions.lock().map(|queue| queue.recv());
                let Ok(Ok(name)) = question else { return };
                let addresses = resolve(&name).into();
                if answered.send((name, addresses)).is_err() {
                    return;
                }
                // A counter that is full can be read already.
                let _ = write(&*bell, &1u64.to_ne_bytes());
            }
        };
        thread::Builder::new().stack_size(STACK).spawn(work).map(drop)
    }

    /// The answers that have come, for each who waits.
    pub fn answers(&mut self) -> Vec<(u64, Addresses)> {
        // A counter of zero means that another call has taken the answers.
        let _ = read(&*self.bell, &mut [0; 8]);
        let mut all = Vec::new();
        while let Ok((name, addresses)) = self.answers.try_recv() {
            let waiting = self.waiting.remove(&name).unwrap_or_default();
            all.extend(waiting.into_iter().map(|key| (key, addresses.clone())));
            if self.fresh.len() >= MOST_ANSWERS {
                self.fresh.clear();
            }
            if !addresses.is_empty() {
                self.fresh.insert(name, (Instant::now(), addresses));
            }
        }
        all
    }
}

fn resolve(name: &str) -> Vec<IpAddr> {
    match in_hosts(Path::new("/etc/hosts"), name) {
        // A name server may have another answer than a file that cannot be read.
        Err(_) => return Vec::new(),
        Ok(listed) if !listed.is_empty() => return listed,
        Ok(_) => {}
    }
    // With a dot at its end, a name has no search domain added.
    let found = (format!("{name}."), 0).to_socket_addrs();
    let mut all: Vec<IpAddr> = Vec::new();
    for address in found.into_iter().flatten().map(|address| address.ip()) {
        if all.len() < MOST_ADDRESSES && !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// The addresses that hosts(5) has for a name, which getaddrinfo(3) does not find by a name with a dot.
fn in_hosts(path: &Path, name: &str) -> Result<Vec<IpAddr>> {
    let Some(file) = File::open(path).on("open", path).absent()? else { return Ok(Vec::new()) };
    let bytes = read_at_most(file, LONGEST_HOSTS, path)?;
    let text = String::from_utf8_lossy(&bytes);
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    Ok(text.lines().filter_map(address).take(MOST_ADDRESSES).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_names_in_any_case() {
        let path = std::env::temp_dir().join(format!("jc-egress-hosts-{}", std::process::id()));
        let text = "# x\n192.0.2.1 a.example b\n2001:db8::1\tA.EXAMPLE # a\nnonsense a.example\n192.0.2.9 c#b\n";
        std::fs::write(&path, text).unwrap();
        let found = |name| in_hosts(&path, name).unwrap();
        assert_eq!(
            found("a.example"),
            ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(found("b"), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found("d"), [] as [IpAddr; 0]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found("a.example"), [] as [IpAddr; 0]);
    }
}
