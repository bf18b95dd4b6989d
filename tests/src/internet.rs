//! An Internet for one test, in the network namespace of its sandbox: hosts that rules allow, other hosts, and a
//! record of all bytes that reach them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// The interpreter of programs that attack or connect.
pub const PYTHON: &str = "/usr/bin/python3";

/// The words in front of a program of each caller: root, and a user.
pub const CALLERS: [&str; 2] = ["", "setpriv --reuid 65534 --regid 65534 --clear-groups"];

/// The rules of the tests, as options.
pub const RULES: [&str; 22] = [
    "--allow",
    "good.example:80,443",
    "--allow",
    "*.wild.example:80,443",
    "--allow",
    "203.0.113.20:5432",
    "--allow",
    "tcp.example:22",
    "--allow",
    "private.example:80",
    "--allow",
    "meta.example:80",
    "--allow",
    "loop.example:80",
    "--allow",
    "mapped.example:80",
    "--allow",
    "rebind.example:80",
    "--allow",
    "denied.example:80",
    "--deny",
    "203.0.113.77:*",
];

const ADDRESSES: [&str; 10] = [
    "203.0.113.10/32",
    "203.0.113.20/32",
    "203.0.113.21/32",
    "203.0.113.30/32",
    "203.0.113.66/32",
    "203.0.113.77/32",
    "10.9.9.9/32",
    "169.254.169.254/32",
    "2001:db8::10/128",
    "2001:db8::66/128",
];

const TCP_PORTS: [u16; 8] = [22, 53, 80, 81, 443, 5353, 5432, 9999];
const UDP_PORTS: [u16; 3] = [443, 5353, 9998];

/// The hosts, and the record of their connections.
pub struct Internet {
    events: Arc<Mutex<Vec<String>>>,
}

impl Internet {
    /// Adds the addresses, and starts the servers of all hosts.
    pub fn start(s: &Sandbox) -> Self {
        for address in ADDRESSES {
            s.sh(&format!("ip addr add {address} dev lo nodad")).run().code(0);
        }
        fs::write("/srv/resolv.conf", "nameserver 127.0.0.1\n").unwrap();
        fs::write("/srv/hosts", "127.0.0.1 localhost\n203.0.113.10 listed.example\n").unwrap();
        for file in ["resolv.conf", "hosts"] {
            s.sh(&format!("mount --bind /srv/{file} /etc/{file}")).run().code(0);
        }
        let internet = Self { events: Arc::default() };
        for port in TCP_PORTS {
            let listener = TcpListener::bind(("::", port)).unwrap();
            let events = internet.events.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stream, events) = (stream.unwrap(), events.clone());
                    thread::spawn(move || serve(stream, &events));
                }
            });
        }
        for port in UDP_PORTS {
            let (socket, events) =
                (UdpSocket::bind(("::", port)).unwrap(), internet.events.clone());
            thread::spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 2048]) {
                    events.lock().unwrap().push(format!("evil udp {port}"));
                    socket.send_to(b"EVIL", from).unwrap();
                }
            });
        }
        internet.serve_names();
        internet.serve_sockets();
        internet
    }

    /// The record since the last call.
    pub fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    /// A name server. The address of `rebind.example` changes with each answer.
    fn serve_names(&self) {
        let (socket, events) = (UdpSocket::bind("127.0.0.1:53").unwrap(), self.events.clone());
        thread::spawn(move || {
            let (mut query, mut count) = ([0; 2048], 0);
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let name = question(&query[..length]);
                events.lock().unwrap().push(format!("dns {name}"));
                count += u32::from(name == "rebind.example");
                let kind = query[length - 3];
                let address = address_of(&name, kind, count);
                socket.send_to(&answer(&query[..length], address), from).unwrap();
            }
        });
    }

    /// Sockets of services of the host, which answer each client.
    fn serve_sockets(&self) {
        let abstract_name =
            std::os::unix::net::SocketAddr::from_abstract_name(b"jc-egress-evil").unwrap();
        let mut listeners = vec![UnixListener::bind_addr(&abstract_name).unwrap()];
        for path in [
            "/run/nscd/socket",
            "/run/systemd/resolve/io.systemd.Resolve",
            "/run/dbus/system_bus_socket",
            "/run/service/socket",
        ] {
            fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
            listeners.push(UnixListener::bind(path).unwrap());
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        for listener in listeners {
            thread::spawn(move || {
                for stream in listener.incoming() {
                    // Programs outside connect to nscd(8), and do not wait for its answer.
                    drop(stream.unwrap().write_all(b"EVIL"));
                }
            });
        }
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for command in [
            "umount /etc/hosts /etc/resolv.conf",
            "rm -r /run/nscd /run/systemd /run/dbus /run/service",
        ] {
            std::process::Command::new("sh").args(["-c", command]).status().unwrap();
        }
    }
}

fn serve(mut stream: TcpStream, events: &Mutex<Vec<String>>) {
    let to = unmapped(stream.local_addr().unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let note = |text: String| events.lock().unwrap().push(text);
    let is_good = ["203.0.113.10", "2001:db8::10"].contains(&to.ip().to_string().as_str());
    match (to.ip().to_string().as_str(), to.port()) {
        (_, 80) if is_good => serve_http(&mut stream, &note),
        (_, 443) if is_good => {
            let mut bytes = [0; 32768];
            let length = stream.read(&mut bytes).unwrap_or(0);
            note(format!("tls {}", bytes[..length].escape_ascii()));
            drop(stream.write_all(b"T"));
        }
        ("203.0.113.20", 5432) | ("203.0.113.30", 22) => {
            drop(stream.write_all(b"SSH-2.0-good\r\n"))
        }
        _ => {
            note(format!("evil tcp {to}"));
            drop(stream.write_all(b"EVIL\n"));
            // A request that is not read would make the close a reset, which can overtake the answer.
            let _ = stream.read(&mut [0; 4096]);
        }
    }
}

/// Answers after each empty line, like a server that reads lines leniently.
fn serve_http(stream: &mut TcpStream, note: &dyn Fn(String)) {
    let mut all = Vec::new();
    let mut answered = 0;
    let mut bytes = [0; 32768];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        all.extend_from_slice(&bytes[..length]);
        let heads = all.windows(4).filter(|w| *w == b"\r\n\r\n").count();
        for _ in answered..heads {
            let text = if all.windows(4).any(|w| w == b"evil") { "evil" } else { "good" };
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{text}");
            drop(stream.write_all(reply.as_bytes()));
        }
        answered = heads;
    }
    note(format!("http {}", all.escape_ascii()));
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => SocketAddr::new(ip.to_canonical(), address.port()),
        IpAddr::V4(_) => address,
    }
}

fn question(query: &[u8]) -> String {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
        at = end;
    }
    labels.join(".")
}

fn address_of(name: &str, kind: u8, count: u32) -> Option<IpAddr> {
    let v4 = |text: &str| (kind == 1).then(|| IpAddr::V4(text.parse::<Ipv4Addr>().unwrap()));
    match name {
        "good.example" if kind == 28 => Some("2001:db8::10".parse().unwrap()),
        "mapped.example" if kind == 28 => Some("::ffff:10.9.9.9".parse().unwrap()),
        "good.example" => v4("203.0.113.10"),
        "tcp.example" => v4("203.0.113.30"),
        "private.example" => v4("10.9.9.9"),
        "meta.example" => v4("169.254.169.254"),
        "loop.example" => v4("127.0.0.1"),
        "denied.example" => v4("203.0.113.77"),
        "evil.example" => v4("203.0.113.66"),
        "rebind.example" => v4(if count <= 2 { "203.0.113.10" } else { "127.0.0.1" }),
        name if name.ends_with(".wild.example") => v4("203.0.113.10"),
        _ => None,
    }
}

fn answer(query: &[u8], address: Option<IpAddr>) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[7] = u8::from(address.is_some());
    bytes[10..12].fill(0);
    let Some(address) = address else { return bytes };
    let data = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend([0xc0, 12, 0, if address.is_ipv4() { 1 } else { 28 }, 0, 1, 0, 0, 0, 1, 0]);
    bytes.push(data.len() as u8);
    bytes.extend(data);
    bytes
}

/// The rules of the tests, as words of shell.
pub fn rules() -> String {
    RULES.map(|word| format!("'{word}'")).join(" ")
}

/// The lines of a log of `jc-egress`.
pub fn lines(log: &str) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a log, by the attempt to which they belong.
pub fn by_attempt(log: &str) -> BTreeMap<String, Vec<String>> {
    let (mut all, mut attempt) = (BTreeMap::<String, Vec<String>>::new(), String::new());
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        match value["name"].as_str().and_then(|name| name.strip_prefix("attempt.")) {
            Some(name) => name.clone_into(&mut attempt),
            None => all.entry(attempt.clone()).or_default().push(line.to_owned()),
        }
    }
    all
}
