//! A registry in this process that does what it is told, faults included.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::Image;

/// What the registry answers to one path.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What goes wrong with the next requests, one after the other.
    pub faults: VecDeque<Fault>,
    /// The `Authorization` without which there is a challenge instead.
    pub needs: Option<(String, String)>,
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Closes the connection after so many bytes of the body.
    Cut(usize),
    /// Sends no more after so many bytes of the body, and waits.
    Stall(usize),
    /// Sends the body a byte at a time, with so many milliseconds between them.
    Drip(u64),
    /// Sends so many bytes of the body at once, and goes on as [`Self::Drip`].
    Slow(usize, u64),
    /// Sends bytes as the body until the client hangs up.
    Endless,
    /// Sends headers until the client hangs up.
    Headers,
    /// Another status, with a header.
    Status(u16, &'static str),
    /// Answers a range with all of it.
    NoRange,
    /// Answers a range with another one.
    WrongRange,
    /// Says that the body is longer than it is, by so many bytes, and closes.
    Longer(usize),
    /// Says that the body is so many bytes shorter than it is.
    Shorter(usize),
    /// Speaks something else than HTTP.
    Garbage,
}

impl Answer {
    pub fn ok(body: &[u8], media_type: &str) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self { headers, body: body.to_vec(), ..Self::status(200) }
    }

    pub fn status(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![], faults: VecDeque::new(), needs: None }
    }

    pub fn redirect(location: &str) -> Self {
        let headers = vec![("Location".to_owned(), location.to_owned())];
        Self { headers, ..Self::status(307) }
    }
}

/// A request that came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub body: String,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    seen: Vec<Request>,
    connections: usize,
}

/// A registry on a loopback port, for the life of the process.
#[derive(Clone)]
pub struct Registry {
    pub host: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let registry = Self { host, state: state.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = state.clone();
                state.lock().unwrap().connections += 1;
                // A client that hangs up is one of the things being tested.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &state)));
            }
        });
        registry
    }

    pub fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Answer)) {
        change(self.state.lock().unwrap().answers.get_mut(path).unwrap());
    }

    /// Makes the next requests for a path go wrong.
    pub fn faults(&self, path: &str, faults: &[Fault]) {
        self.change(path, |answer| answer.faults = faults.iter().cloned().collect());
    }

    /// Serves the image as `repository:tag`.
    pub fn push(&self, repository: &str, tag: &str, image: &Image, media_type: &str) {
        for (digest, bytes) in &image.blobs {
            let blob = Answer::ok(bytes, "application/octet-stream");
            self.set(&format!("/v2/{repository}/blobs/{digest}"), blob);
        }
        let mut manifest = Answer::ok(&image.blobs[&image.manifest], media_type);
        manifest.headers.push(("Docker-Content-Digest".to_owned(), image.manifest.clone()));
        self.set(&format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
        self.set(&format!("/v2/{repository}/manifests/{}", image.manifest), manifest);
    }

    /// The paths that there are answers for, of those with this in them.
    pub fn paths(&self, part: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.answers.keys().filter(|path| path.contains(part)).cloned().collect()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// What was asked for since the last call.
    pub fn take_seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Request { method, path, ..Request::default() };
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            let Some((key, value)) = header.trim().split_once(": ") else { continue };
            match key.to_lowercase().as_str() {
                "authorization" => request.authorization = Some(value.to_owned()),
                "range" => request.range = Some(value.to_owned()),
                "content-length" => length = value.parse().unwrap(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut body)?;
        request.body = String::from_utf8(body).unwrap();
        let (answer, fault) = {
            let mut state = state.lock().unwrap();
            state.seen.push(request.clone());
            let answer = state.answers.get_mut(&request.path);
            let fault = answer.and_then(|answer| answer.faults.pop_front());
            (state.answers.get(&request.path).cloned(), fault)
        };
        if !respond(&mut stream, answer, &request, fault)? {
            return Ok(());
        }
    }
}

/// Whether the connection stays open.
fn respond(
    s: &mut TcpStream,
    answer: Option<Answer>,
    request: &Request,
    fault: Option<Fault>,
) -> std::io::Result<bool> {
    let is_head = request.method == "HEAD";
    let Some(mut answer) = answer else {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        write!(s, "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n", body.len())?;
        if !is_head {
            s.write_all(body.as_bytes())?;
        }
        return Ok(true);
    };
    if let Some((wanted, challenge)) = answer.needs.take()
        && request.authorization.as_ref() != Some(&wanted)
    {
        let text = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate:";
        return write!(s, "{text} {challenge}\r\n\r\n").map(|()| true);
    }
    match fault {
        Some(Fault::Status(status, header)) => {
            write!(s, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{header}\r\n\r\n")?;
            return Ok(true);
        }
        Some(Fault::Garbage) => return s.write_all(b"\x16\x03\x01garbage\r\n\r\n").map(|()| false),
        _ => {}
    }
    if matches!(fault, Some(Fault::Headers)) {
        write!(s, "HTTP/1.1 200 X\r\n")?;
        loop {
            write!(s, "X: {}\r\n", "x".repeat(1000))?;
        }
    }
    if matches!(fault, Some(Fault::Endless)) {
        write!(s, "HTTP/1.1 {} X\r\nTransfer-Encoding: chunked\r\n\r\n", answer.status)?;
        loop {
            write!(s, "10000\r\n{}\r\n", " ".repeat(0x10000))?;
        }
    }
    let all = answer.body.len();
    let start = request.range.as_ref().map(|r| r.strip_prefix("bytes=").unwrap().to_owned());
    let start = start.and_then(|r| r.strip_suffix('-')?.parse::<usize>().ok());
    if let Some(start) = start.filter(|_| !matches!(fault, Some(Fault::NoRange))) {
        let told = if matches!(fault, Some(Fault::WrongRange)) { start + 1 } else { start };
        answer.status = 206;
        answer
            .headers
            .push(("Content-Range".to_owned(), format!("bytes {told}-{}/{all}", all - 1)));
        answer.body.drain(..start);
    }
    let length = match fault {
        Some(Fault::Longer(n)) => answer.body.len() + n,
        Some(Fault::Shorter(n)) => answer.body.len() - n,
        _ => answer.body.len(),
    };
    write!(s, "HTTP/1.1 {} X\r\nContent-Length: {length}\r\n", answer.status)?;
    for (key, value) in &answer.headers {
        write!(s, "{key}: {value}\r\n")?;
    }
    s.write_all(b"\r\n")?;
    if is_head {
        return Ok(true);
    }
    match fault {
        Some(Fault::Cut(n)) => s.write_all(&answer.body[..n]).map(|()| false),
        Some(Fault::Stall(n)) => {
            s.write_all(&answer.body[..n])?;
            // Until the client hangs up.
            std::io::Read::read(s, &mut [0]).map(|_| false)
        }
        Some(Fault::Drip(_) | Fault::Slow(..)) => {
            let (at_once, pause) = match fault {
                Some(Fault::Slow(at_once, pause)) => (at_once, pause),
                Some(Fault::Drip(pause)) => (0, pause),
                _ => (0, 0),
            };
            s.write_all(&answer.body[..at_once])?;
            for byte in &answer.body[at_once..] {
                s.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(pause));
            }
            Ok(false)
        }
        Some(Fault::Longer(_) | Fault::Shorter(_)) => s.write_all(&answer.body).map(|()| false),
        _ => s.write_all(&answer.body).map(|()| true),
    }
}
