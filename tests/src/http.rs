//! A registry in this process, with faults on demand. The registry serves images by the distribution protocol, and
//! keeps a list of the requests.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::image::{Built, Layout};
use crate::wait::wait_until;

/// The registry's answer to one path.
#[derive(Clone)]
pub struct Answer {
    /// The status code of the answer.
    pub status: u16,
    /// Headers besides the length.
    pub headers: Vec<(String, String)>,
    /// The bytes behind the headers.
    pub body: Vec<u8>,
    /// The faults of the next requests, one each.
    pub faults: VecDeque<Fault>,
    /// The fault of every other request.
    pub fault: Option<Fault>,
    /// The `Authorization` without which there is a challenge instead, and that challenge.
    pub needs: Option<(String, String)>,
}

/// A fault in the answer to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Closes the connection after this number of bytes of the body.
    Cut(usize),
    /// Sends this number of bytes of the body, and then waits.
    Stall(usize),
    /// Sends the body a byte at a time, with this number of milliseconds between them.
    Drip(u64),
    /// Sends this number of bytes of the body at once, and the rest like [`Self::Drip`].
    Slow(usize, u64),
    /// Sends bytes as the body until the client hangs up.
    Endless,
    /// Sends headers until the client hangs up.
    Headers,
    /// Another status, with a header.
    Status(u16, &'static str),
    /// Answers a range request with the whole body.
    NoRange,
    /// Answers a range request with another range.
    WrongRange,
    /// Declares a body that is longer by this number of bytes, and closes the connection.
    Longer(usize),
    /// Declares a body that is shorter by this number of bytes.
    Shorter(usize),
    /// Sends bytes that are not HTTP.
    Garbage,
}

impl Answer {
    /// An answer with a body, status 200.
    pub fn ok(body: &[u8], media_type: &str) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self { headers, body: body.to_vec(), ..Self::status(200) }
    }

    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        let (headers, body) = (vec![], vec![]);
        Self { status, headers, body, faults: VecDeque::new(), fault: None, needs: None }
    }

    /// A redirect by status 307.
    pub fn redirect(location: &str) -> Self {
        let headers = vec![("Location".to_owned(), location.to_owned())];
        Self { headers, ..Self::status(307) }
    }
}

/// A request to the registry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Request {
    /// The method, such as HEAD.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// The value of the `Range` header.
    pub range: Option<String>,
    /// The value of the `Accept` header, or several values joined.
    pub accept: String,
    /// The value of the `Content-Range` header.
    pub content_range: Option<String>,
    /// The value of the `Content-Type` header.
    pub content_type: String,
    /// The bytes behind the headers, as text. Bytes that are not UTF-8 are replaced.
    pub body: String,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    seen: Vec<Request>,
    connections: usize,
    stalls: usize,
}

/// A registry on a port of every address, for the life of the process.
#[derive(Clone)]
pub struct Registry {
    /// The loopback address and port, which is the first part of image names.
    pub host: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    /// Starts an empty registry.
    pub fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State::default()));
        let registry = Self { host, state: Arc::clone(&state) };
        registry.set("/v2/", Answer::status(200));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                state.lock().unwrap().connections += 1;
                // Some tests check a client that hangs up.
                thread::spawn(move || drop(serve(stream.unwrap(), &state)));
            }
        });
        registry
    }

    /// Sets the answer to a path. An answer without a query serves all queries without an answer of their own.
    pub fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// Changes the answer to a path.
    #[track_caller]
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Answer)) {
        change(self.state.lock().unwrap().answers.get_mut(path).unwrap());
    }

    /// Sets the faults of the next requests for a path.
    #[track_caller]
    pub fn faults(&self, path: &str, faults: &[Fault]) {
        self.change(path, |answer| answer.faults = faults.iter().cloned().collect());
    }

    /// Serves the image as `repository:tag`.
    pub fn push(&self, repository: &str, tag: &str, image: &Built) {
        for (digest, bytes) in &image.blobs {
            let blob = Answer::ok(bytes, "application/octet-stream");
            self.set(&format!("/v2/{repository}/blobs/{digest}"), blob);
            let Some(media) = media_type(bytes) else { continue };
            let mut manifest = Answer::ok(bytes, &media);
            manifest.headers.push(("Docker-Content-Digest".to_owned(), digest.clone()));
            if digest == image.digest() {
                self.set(&format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
            }
            self.set(&format!("/v2/{repository}/manifests/{digest}"), manifest);
        }
    }

    /// The paths with answers that contain `part`.
    pub fn paths(&self, part: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.answers.keys().filter(|path| path.contains(part)).cloned().collect()
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// The number of stalls so far.
    pub fn stalls(&self) -> usize {
        self.state.lock().unwrap().stalls
    }

    /// The requests since the last [`Self::take_seen`].
    pub fn seen(&self) -> Vec<Request> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The requests since the last call.
    pub fn take_seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

/// The media type that a manifest or an index gives itself. Other blobs have none.
fn media_type(bytes: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    Some(document["mediaType"].as_str()?.to_owned())
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read(&mut reader)? {
        let (answer, fault) = {
            let mut state = state.lock().unwrap();
            state.seen.push(request.clone());
            let bare = request.path.split('?').next().unwrap_or_default();
            let path = if state.answers.contains_key(&request.path) { &request.path } else { bare };
            let answer = state.answers.get_mut(path);
            let fault = answer.and_then(|a| a.faults.pop_front().or(a.fault.clone()));
            if matches!(fault, Some(Fault::Stall(_))) && request.method != "HEAD" {
                state.stalls += 1;
            }
            (state.answers.get(path).cloned(), fault)
        };
        if !respond(&mut stream, answer, &request, fault)? {
            break;
        }
    }
    Ok(())
}

/// The next request of a connection, if the client does not hang up.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let Some((mut request, length)) = read_head(reader)? else { return Ok(None) };
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(request))
}

/// The headers of the next request, and the length of its body.
pub(crate) fn read_head(
    reader: &mut BufReader<TcpStream>,
) -> std::io::Result<Option<(Request, usize)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
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
            "accept" => request.accept += value,
            "content-range" => request.content_range = Some(value.to_owned()),
            "content-type" => request.content_type = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    Ok(Some((request, length)))
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
        Some(Fault::Headers) => {
            write!(s, "HTTP/1.1 200 X\r\n")?;
            loop {
                write!(s, "X: {}\r\n", "x".repeat(1000))?;
            }
        }
        Some(Fault::Endless) => {
            write!(s, "HTTP/1.1 {} X\r\nTransfer-Encoding: chunked\r\n\r\n", answer.status)?;
            loop {
                write!(s, "10000\r\n{}\r\n", " ".repeat(0x10000))?;
            }
        }
        _ => {}
    }
    cut_range(&mut answer, request, fault.as_ref());
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
    if is_head { Ok(true) } else { send(s, &answer.body, fault) }
}

/// Reduces the body to the range of the request.
fn cut_range(answer: &mut Answer, request: &Request, fault: Option<&Fault>) {
    let range = request.range.as_ref().map(|r| r.strip_prefix("bytes=").unwrap());
    let start = range.and_then(|r| r.strip_suffix('-')?.parse::<usize>().ok());
    let Some(start) = start.filter(|_| !matches!(fault, Some(Fault::NoRange))) else { return };
    let told = if matches!(fault, Some(Fault::WrongRange)) { start + 1 } else { start };
    let all = answer.body.len();
    let range = format!("bytes {told}-{}/{all}", all - 1);
    answer.status = 206;
    answer.headers.push(("Content-Range".to_owned(), range));
    answer.body.drain(..start);
}

/// Sends the body. Returns whether the connection stays open.
fn send(s: &mut TcpStream, body: &[u8], fault: Option<Fault>) -> std::io::Result<bool> {
    let drip = |s: &mut TcpStream, at_once: usize, pause: u64| {
        s.write_all(&body[..at_once])?;
        for byte in &body[at_once..] {
            s.write_all(&[*byte])?;
            thread::sleep(Duration::from_millis(pause));
        }
        Ok(false)
    };
    match fault {
        Some(Fault::Cut(n)) => s.write_all(&body[..n.min(body.len())]).map(|()| false),
        Some(Fault::Stall(n)) => {
            s.write_all(&body[..n])?;
            // The read waits until the client hangs up.
            s.read(&mut [0]).map(|_| false)
        }
        Some(Fault::Drip(pause)) => drip(s, 0, pause),
        Some(Fault::Slow(at_once, pause)) => drip(s, at_once, pause),
        Some(Fault::Longer(_) | Fault::Shorter(_)) => s.write_all(body).map(|()| false),
        _ => s.write_all(body).map(|()| true),
    }
}

/// The token that `/token` returns, and that requests need if [`Manners::token`] is set.
const TOKEN: &str = "a-token-for-pulling";

/// The behaviour of a registry for all its images. The default is a registry without faults and tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Whether requests need the bearer token that `/token` returns to everyone.
    pub token: bool,
    /// The number of bytes after which each blob is cut.
    pub cut_blobs: Option<usize>,
    /// The number of bytes after which each longer blob stalls.
    pub stall_blobs_at: Option<usize>,
    /// The number of bytes by which each blob is longer than declared.
    pub pad_blobs: usize,
    /// Whether blobs are redirected to a server on another port, which must not receive the token.
    pub redirect_blobs: bool,
    /// A status in place of each manifest.
    pub manifest_status: Option<u16>,
    /// A digest in the header of each manifest.
    pub manifest_digest: Option<&'static str>,
}

/// A registry with the images of a layout, in the repository `a/b`. [`Self::reload`] serves later changes of the
/// layout.
pub struct FakeRegistry {
    layout: Layout,
    manners: Manners,
    main: Registry,
    blobs: Registry,
}

impl FakeRegistry {
    /// Serves the images of a layout.
    pub fn serve(layout: &Layout, manners: Manners) -> Self {
        let (main, blobs) = (Registry::start(), Registry::start());
        let registry = Self { layout: layout.clone(), manners, main, blobs };
        registry.reload();
        registry
    }

    /// Reads the layout again.
    pub fn reload(&self) {
        self.main.set("/v2/", self.guard(Answer::status(200)));
        if self.manners.token {
            let body = json!({"token": TOKEN}).to_string();
            self.main.set("/token", Answer::ok(body.as_bytes(), "application/json"));
        }
        for entry in fs::read_dir(self.layout.dir().join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let hex = path.file_name().unwrap().to_string_lossy().into_owned();
            self.set_object(&format!("sha256:{hex}"), &fs::read(path).unwrap());
        }
        let index = fs::read(self.layout.dir().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        for descriptor in index["manifests"].as_array().unwrap() {
            let tag = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str();
            let bytes = fs::read(self.layout.blob_path(descriptor)).unwrap();
            self.set_manifest(tag.unwrap(), descriptor["digest"].as_str().unwrap(), &bytes);
        }
    }

    fn guard(&self, mut answer: Answer) -> Answer {
        let challenge = format!(
            "Bearer realm=\"http://{}/token\",service=\"fake, but real\",scope=\"repository:a/b:pull\"",
            self.main.host
        );
        answer.needs = self.manners.token.then(|| (format!("Bearer {TOKEN}"), challenge));
        answer
    }

    fn set_manifest(&self, reference: &str, digest: &str, bytes: &[u8]) {
        let mut answer = Answer::ok(bytes, &media_type(bytes).unwrap());
        let digest = self.manners.manifest_digest.unwrap_or(digest);
        answer.headers.push(("Docker-Content-Digest".to_owned(), digest.to_owned()));
        if let Some(status) = self.manners.manifest_status {
            answer = Answer::status(status);
        }
        self.main.set(&format!("/v2/a/b/manifests/{reference}"), self.guard(answer));
    }

    fn set_object(&self, digest: &str, bytes: &[u8]) {
        if media_type(bytes).is_some() {
            self.set_manifest(digest, digest, bytes);
        }
        let path = format!("/v2/a/b/blobs/{digest}");
        let mut answer = Answer::ok(bytes, "application/octet-stream");
        answer.body.resize(bytes.len() + self.manners.pad_blobs, 0);
        answer.fault = match (self.manners.cut_blobs, self.manners.stall_blobs_at) {
            (Some(n), _) => Some(Fault::Cut(n)),
            (None, Some(n)) if n < bytes.len() => Some(Fault::Stall(n)),
            _ => None,
        };
        if self.manners.redirect_blobs {
            self.blobs.set(&path, answer);
            answer = Answer::redirect(&format!("http://{}{path}", self.blobs.host));
        }
        self.main.set(&path, self.guard(answer));
    }

    /// The name of an image in the registry, by tag or digest.
    pub fn image(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/a/b{separator}{reference}", self.main.host)
    }

    /// All requests to the registry.
    pub fn requests(&self) -> Vec<Request> {
        self.main.seen()
    }

    /// All requests to the target of redirects.
    pub fn redirected(&self) -> Vec<Request> {
        self.blobs.seen()
    }

    /// The number of stalls so far.
    pub fn stalls(&self) -> usize {
        self.main.stalls()
    }

    /// Waits until the number of stalls is larger than `before`.
    pub fn wait_for_a_stall(&self, before: usize) {
        wait_until("a request for a blob", || self.stalls() > before);
    }
}
