//! A fake host: the sandbox's network namespace, with an uplink to a fake world, in addresses that are
//! for documentation only.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Cmd, Running, Sandbox};

/// How long an answer may take. The first packet must not be lost: it would be sent again after a
/// second.
pub const PATIENCE: Duration = Duration::from_millis(900);

/// The host's own addresses on the uplink, and those of a server far away.
pub const HOST: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
/// Behind the uplink's other end.
pub const WORLD: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];
/// The uplink's longest packet.
pub const MTU: u32 = 1400;

/// A network namespace.
pub struct Net(File);

/// A transport protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// tcp(7)
    Tcp,
    /// udp(7)
    Udp,
}

impl Net {
    /// The present one.
    pub fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// That of a process.
    pub fn of(process: &Running) -> Self {
        Self::of_pid(process.pid())
    }

    /// That of a process, by its number.
    pub fn of_pid(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).unwrap())
    }

    /// A new one, which lives as long as this, with its loopback up.
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Cmd::new("ip").args(["link", "set", "lo", "up"]).run().code(0);
            Self::here()
        };
        thread::spawn(make).join().unwrap()
    }

    /// Makes a pair of links, one end here and one there, both down.
    pub fn plug(&self, here: &str, there: &str) {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        let own = std::process::id();
        let add =
            format!("ip link add {here} type veth peer name {there} netns /proc/{own}/fd/{fd}");
        Cmd::new("sh").args(["-c", &add]).run().code(0);
    }

    /// Does something there. What it starts stays there.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Runs a line of shell there, which must succeed.
    pub fn sh(&self, script: &str) -> String {
        self.enter(|| Cmd::new("sh").args(["-ec", script]).run().code(0).out())
    }

    /// Serves one question after the other at a port of each address that is there now: each is answered
    /// with the address that it seems to come from.
    pub fn serve(&self, transport: Transport, port: u16) -> Server {
        let list = "ip -o addr show scope global | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1";
        let found = self.sh(list);
        let addresses = found.lines().map(|line| SocketAddr::new(line.parse().unwrap(), port));
        let stop = Arc::new(AtomicBool::new(false));
        // Bound when this returns. A server for any address would answer from whichever it likes.
        let threads = addresses.map(|address| {
            let stop = Arc::clone(&stop);
            match transport {
                Transport::Tcp => {
                    let listener = self.enter(|| TcpListener::bind(address).unwrap());
                    listener.set_nonblocking(true).unwrap();
                    thread::spawn(move || until(&stop, || answer_tcp(&listener)))
                }
                Transport::Udp => {
                    let socket = self.enter(|| UdpSocket::bind(address).unwrap());
                    socket.set_nonblocking(true).unwrap();
                    thread::spawn(move || until(&stop, || answer_udp(&socket)))
                }
            }
        });
        Server { threads: threads.collect(), stop: Arc::clone(&stop) }
    }

    /// Asks a server: the address from which the question came, or that there was no answer.
    pub fn ask(&self, transport: Transport, address: &str, port: u16) -> Option<String> {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        self.enter(|| ask(transport, to).ok())
    }

    /// Whether an echo request is answered.
    pub fn pings(&self, address: &str) -> bool {
        let ping = ["ping", "-c", "1", "-W", "1", address];
        self.enter(|| Cmd::new("busybox").args(ping).run().status().success())
    }
}

/// A server that ends with this.
pub struct Server {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn until(stop: &AtomicBool, mut answer: impl FnMut() -> bool) {
    while !stop.load(Ordering::Relaxed) {
        if !answer() {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn answer_tcp(listener: &TcpListener) -> bool {
    let Ok((mut stream, peer)) = listener.accept() else { return false };
    let answer = peer.ip().to_canonical().to_string();
    // Who asks may have gone.
    stream.write_all(answer.as_bytes()).is_ok()
}

fn answer_udp(socket: &UdpSocket) -> bool {
    let Ok((_, peer)) = socket.recv_from(&mut [0; 2000]) else { return false };
    let answer = peer.ip().to_canonical().to_string();
    socket.send_to(answer.as_bytes(), peer).is_ok()
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

fn ask(transport: Transport, to: SocketAddr) -> std::io::Result<String> {
    let mut answer = vec![0; 2000];
    let length = match transport {
        Transport::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            return Ok(text);
        }
        Transport::Udp => {
            let any = if to.is_ipv4() { IpAddr::from([0u8; 4]) } else { IpAddr::from([0u16; 8]) };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            socket.recv(&mut answer)?
        }
    };
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The host's uplink, and the world.
pub struct Lab {
    /// The sandbox's own namespace.
    pub host: Net,
    /// The namespace at the uplink's other end.
    pub world: Net,
}

impl Lab {
    /// Connects the sandbox.
    pub fn new() -> Self {
        let (host, world) = (Net::here(), Net::new());
        world.plug("up0", "w0");
        host.sh(&format!(
            "ip link set up0 mtu {MTU}
            ip addr add {}/24 dev up0; ip -6 addr add {}/64 dev up0 nodad; ip link set up0 up",
            HOST[0], HOST[1]
        ));
        world.sh(&format!(
            "ip addr add 198.51.100.1/24 dev w0; ip -6 addr add 2001:db8:1::1/64 dev w0 nodad
            ip link set w0 mtu {MTU} up; ip addr add {}/32 dev lo; ip -6 addr add {}/128 dev lo",
            WORLD[0], WORLD[1]
        ));
        host.sh("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:1::1");
        // The kernel takes a moment to.
        for _ in 0..5 {
            if WORLD.iter().all(|to| host.pings(to)) {
                return Self { host, world };
            }
        }
        panic!("the fake world does not answer");
    }

    /// Takes the uplink away.
    pub fn end(self) {
        self.host.sh("ip link del up0");
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until `jc-net --list` lists so many links, and gives the list.
#[track_caller]
pub fn wait_until_listed(s: &Sandbox, count: usize) -> String {
    let start = Instant::now();
    loop {
        let listed = s.jc("jc-net").arg("--list").run().code(0).out();
        let found = listed.lines().count();
        if found == count {
            return listed;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{found} of {count}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the kernel has taken the cables down of those that have ended, which takes it some
/// milliseconds. Panics if it takes more than a moment.
#[track_caller]
pub fn all_end(s: &Sandbox) {
    let start = Instant::now();
    while !s.jc("jc-net").arg("--list").run().code(0).out().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(2), "still plugged in");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that runs behind `jc-net` with these options until it is killed.
pub fn contained(s: &Sandbox, options: &[&str]) -> Running {
    let wait = ["--", "sh", "-c", "echo ready; exec sleep 1000"];
    let mut running = s.jc("jc-net").args(options).args(wait).spawn();
    running.wait_for("ready");
    running
}

/// The addresses of the only link in the namespace of a program, IPv4 first, without prefixes.
pub fn addresses(net: &Net) -> Vec<String> {
    let list = "ip -o addr show dev eth0 scope global | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1";
    net.sh(list).lines().map(str::to_owned).collect()
}
