//! A fake host: the network namespace of the sandbox, with an uplink to a fake world, in addresses that are reserved
//! for documentation.

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

/// The longest wait for an answer. TCP would send a lost first packet again after a second, so a lost packet fails
/// the test.
pub const PATIENCE: Duration = Duration::from_millis(900);

/// The addresses of the host on the uplink.
pub const HOST: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
/// The addresses of a server behind the other end of the uplink.
pub const WORLD: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];
/// The MTU of the uplink.
pub const MTU: u32 = 1400;

/// An open network namespace.
pub struct Net(File);

/// A transport protocol with a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// tcp(7)
    Tcp,
    /// udp(7)
    Udp,
}

impl Net {
    /// The network namespace of this thread.
    pub fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// The network namespace of a running command.
    pub fn of(process: &Running) -> Self {
        Self::of_pid(process.pid())
    }

    /// The network namespace of a process.
    pub fn of_pid(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).unwrap())
    }

    /// A new network namespace with its loopback interface up. The namespace ends with this value.
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Cmd::new("ip").args(["link", "set", "lo", "up"]).run().code(0);
            Self::here()
        };
        thread::spawn(make).join().unwrap()
    }

    /// Makes a veth pair with one end in this namespace and the other in the network namespace of the caller. Both
    /// ends are down.
    pub fn plug(&self, here: &str, there: &str) {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        let own = std::process::id();
        let add =
            format!("ip link add {here} type veth peer name {there} netns /proc/{own}/fd/{fd}");
        Cmd::new("sh").args(["-c", &add]).run().code(0);
    }

    /// Calls a function in a thread that has entered the namespace.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Runs a shell command in the namespace, which must succeed.
    pub fn sh(&self, script: &str) -> String {
        self.enter(|| Cmd::new("sh").args(["-ec", script]).run().code(0).out())
    }

    /// Starts a server on a port of each address in the namespace. The answer to each question is the source address
    /// of the question.
    pub fn serve(&self, transport: Transport, port: u16) -> Server {
        let list = "ip -o addr show scope global | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1";
        let found = self.sh(list);
        let addresses = found.lines().map(|line| SocketAddr::new(line.parse().unwrap(), port));
        let stop = Arc::new(AtomicBool::new(false));
        // The sockets are bound when this function returns. A server on the unspecified address could answer from
        // another address.
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

    /// Asks a server. Returns the source address of the question, or `None` without an answer.
    pub fn ask(&self, transport: Transport, address: &str, port: u16) -> Option<String> {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        self.enter(|| ask(transport, to).ok())
    }

    /// Whether the address answers an echo request.
    pub fn pings(&self, address: &str) -> bool {
        let ping = ["ping", "-c", "1", "-W", "1", address];
        self.enter(|| Cmd::new("busybox").args(ping).run().status().success())
    }
}

/// A server, which ends with this value.
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
    // The client may have ended.
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

/// The uplink of the host, and the world behind it.
pub struct Lab {
    /// The network namespace of the sandbox.
    pub host: Net,
    /// The network namespace at the other end of the uplink.
    pub world: Net,
}

impl Lab {
    /// Connects the sandbox to the world.
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
        // The kernel sets up the addresses after a moment.
        for _ in 0..5 {
            if WORLD.iter().all(|to| host.pings(to)) {
                return Self { host, world };
            }
        }
        panic!("the fake world does not answer");
    }

    /// Removes the uplink and the world.
    pub fn end(self) {
        self.host.sh("ip link del up0");
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until `jc-net --list` lists `count` links. Returns the list.
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

/// Waits until the kernel has removed the links of ended containers, which takes some milliseconds. Panics after a
/// longer time.
#[track_caller]
pub fn all_end(s: &Sandbox) {
    let start = Instant::now();
    while !s.jc("jc-net").arg("--list").run().code(0).out().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(2), "a link of an ended container remains");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a program behind `jc-net` with these options, which runs until it is killed.
pub fn contained(s: &Sandbox, options: &[&str]) -> Running {
    let wait = ["--", "sh", "-c", "echo ready; exec sleep 1000"];
    let mut running = s.jc("jc-net").args(options).args(wait).spawn();
    running.wait_for("ready");
    running
}

/// The addresses of the only link in a namespace, IPv4 first, without prefix lengths.
pub fn addresses(net: &Net) -> Vec<String> {
    let list = "ip -o addr show dev eth0 scope global | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1";
    net.sh(list).lines().map(str::to_owned).collect()
}
