//! A registry in this process that takes images, with faults on demand.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::http::{Request, read_head};
use crate::image::digest;

/// A fault in the answer to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another status, with a header, in place of any effect.
    Status(u16, String),
    /// Takes this number of bytes of the body, and closes the connection.
    Cut(usize),
    /// Does all that the request asks for, and closes the connection without an answer.
    Silent,
    /// Does all that the request asks for, and adds a header in front of the others.
    Header(String),
    /// Reads nothing behind the headers, and waits until the client hangs up.
    Stall,
    /// Forgets the upload, and answers 404.
    Forget,
}

/// The faults of requests.
struct Rule {
    method: &'static str,
    part: &'static str,
    /// The requests without a fault, and then those with it.
    skipped: usize,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// The repositories that have each blob.
    places: Vec<(String, String)>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    uploads: BTreeMap<usize, Vec<u8>>,
    started: usize,
    rules: Vec<Rule>,
    seen: Vec<Request>,
    /// The `Authorization` without which there is a challenge instead, and that challenge.
    needs: Option<(String, String)>,
}

/// A registry on a port of every address, for the life of the process.
#[derive(Clone)]
pub struct Receiver {
    /// The loopback address and port, which is the first part of image names.
    pub host: String,
    state: Arc<Mutex<State>>,
}

/// The status, the headers and the body of an answer.
type Answer = (u16, Vec<String>, Vec<u8>);

impl Receiver {
    /// Starts an empty registry.
    pub fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State::default()));
        let registry = Self { host, state: Arc::clone(&state) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                // Some tests check a client that hangs up.
                thread::spawn(move || drop(serve(stream.unwrap(), &state)));
            }
        });
        registry
    }

    /// Sets the fault of requests with a method whose path has a part: of `times` requests, after `skipped` ones.
    pub fn fault(
        &self,
        method: &'static str,
        part: &'static str,
        (skipped, times): (usize, usize),
        fault: Fault,
    ) {
        self.state.lock().unwrap().rules.push(Rule { method, part, skipped, times, fault });
    }

    /// Requires this `Authorization`, and sends the challenge to requests without it.
    pub fn require(&self, authorization: &str, challenge: &str) {
        self.state.lock().unwrap().needs = Some((authorization.to_owned(), challenge.to_owned()));
    }

    /// The manifest of `repository:tag`.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Value> {
        let state = self.state.lock().unwrap();
        let (_, bytes) = state.manifests.get(&format!("{repository}/{tag}"))?;
        Some(serde_json::from_slice(bytes).unwrap())
    }

    /// The bytes of a blob.
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().blobs.get(digest).cloned()
    }

    /// The requests since the last call.
    pub fn take_seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((request, length)) = read_head(&mut reader)? {
        let fault = {
            let mut state = state.lock().unwrap();
            state.seen.push(request.clone());
            state.fault_of(&request)
        };
        if matches!(fault, Some(Fault::Stall)) {
            // The read waits until the client hangs up.
            return std::io::copy(&mut reader, &mut std::io::sink()).map(drop);
        }
        let taken = match fault {
            Some(Fault::Cut(n)) => n.min(length),
            _ => length,
        };
        let mut body = vec![0; taken];
        reader.read_exact(&mut body)?;
        let (status, mut headers, content) = match &fault {
            Some(Fault::Status(status, header)) => (*status, vec![header.clone()], Vec::new()),
            _ => state.lock().unwrap().answer(&request, body, matches!(fault, Some(Fault::Forget))),
        };
        match fault {
            Some(Fault::Cut(_) | Fault::Silent) => return Ok(()),
            Some(Fault::Header(header)) => {
                let name = header.split(':').next().unwrap().to_owned();
                headers.retain(|old| !old.starts_with(&name));
                headers.push(header);
            }
            _ => {}
        }
        let is_head = request.method == "HEAD";
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", content.len())?;
        for header in headers.iter().filter(|header| !header.is_empty()) {
            write!(stream, "{header}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        stream.write_all(if is_head { &[] } else { &content })?;
    }
    Ok(())
}

impl State {
    fn fault_of(&mut self, request: &Request) -> Option<Fault> {
        for rule in &mut self.rules {
            if rule.method != request.method || !request.path.contains(rule.part) {
                continue;
            }
            if rule.skipped > 0 {
                rule.skipped -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                return Some(rule.fault.clone());
            }
        }
        None
    }

    fn answer(&mut self, request: &Request, body: Vec<u8>, forgets: bool) -> Answer {
        let plain = |status: u16| (status, Vec::new(), Vec::new());
        if let Some((wanted, challenge)) = &self.needs
            && request.authorization.as_ref() != Some(wanted)
        {
            return (401, vec![format!("WWW-Authenticate: {challenge}")], Vec::new());
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let path = path.trim_start_matches("/v2/");
        if let Some((repository, rest)) = path.split_once("/blobs/uploads/") {
            if forgets {
                self.uploads.clear();
            }
            return self.upload(request, repository, rest, query, body);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            let place = (repository.to_owned(), digest.to_owned());
            return match self.blobs.get(digest).filter(|_| self.places.contains(&place)) {
                Some(bytes) => (200, Vec::new(), bytes.clone()),
                None => plain(404),
            };
        }
        let Some((repository, target)) = path.split_once("/manifests/") else { return plain(404) };
        let key = format!("{repository}/{target}");
        if request.method != "PUT" {
            return match self.manifests.get(&key) {
                Some((media, bytes)) => {
                    let media = format!("Content-Type: {media}");
                    let name = format!("Docker-Content-Digest: {}", digest(bytes));
                    (200, vec![media, name], bytes.clone())
                }
                None => plain(404),
            };
        }
        let name = digest(&body);
        let entry = (request.content_type.clone(), body);
        self.manifests.insert(format!("{repository}/{name}"), entry.clone());
        self.manifests.insert(key, entry);
        (201, vec![format!("Docker-Content-Digest: {name}")], Vec::new())
    }

    fn upload(
        &mut self,
        request: &Request,
        repository: &str,
        rest: &str,
        query: &str,
        body: Vec<u8>,
    ) -> Answer {
        let plain = |status: u16| (status, Vec::new(), Vec::new());
        let value = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut found = pairs.filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| value.replace("%3A", ":"))
        };
        if request.method == "POST" {
            if let (Some(digest), Some(from)) = (value("mount"), value("from"))
                && self.places.contains(&(from, digest.clone()))
            {
                self.places.push((repository.to_owned(), digest));
                return plain(201);
            }
            self.started += 1;
            self.uploads.insert(self.started, Vec::new());
            let location = format!("Location: /v2/{repository}/blobs/uploads/{}?s=a", self.started);
            return (202, vec![location], Vec::new());
        }
        let Some(number) = rest.parse().ok().filter(|n| self.uploads.contains_key(n)) else {
            return plain(404);
        };
        let upload = self.uploads.get_mut(&number).unwrap();
        if let Some(range) = &request.content_range
            && range.split('-').next() != Some(&upload.len().to_string())
        {
            return plain(416);
        }
        upload.extend(&body);
        let end = upload.len().saturating_sub(1);
        let headers = vec![
            format!("Location: /v2/{repository}/blobs/uploads/{number}?s={end}"),
            format!("Range: 0-{end}"),
        ];
        if request.method != "PUT" {
            return (if request.method == "GET" { 204 } else { 202 }, headers, Vec::new());
        }
        let name = value("digest").unwrap();
        if digest(upload) != name {
            return plain(400);
        }
        let bytes = self.uploads.remove(&number).unwrap();
        self.blobs.insert(name.clone(), bytes);
        self.places.push((repository.to_owned(), name.clone()));
        (201, vec![format!("Docker-Content-Digest: {name}")], Vec::new())
    }
}
