//! A registry that misbehaves as told: it serves an image layout by the distribution protocol, wants
//! a token, breaks off, sends elsewhere, and remembers what it was asked.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::image::Layout;

/// The token that [`Manners::token`] hands out and wants back.
const TOKEN: &str = "a-token-for-pulling";

/// How the registry behaves. The default is a registry without faults that wants no token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Answers 401 without the bearer token that `/token` gives to anybody.
    pub token: bool,
    /// Sends only so many bytes of each blob, having promised all.
    pub cut_blobs: Option<usize>,
    /// Sends only so many bytes of each blob that has more, and then nothing for a long time.
    pub stall_blobs_at: Option<usize>,
    /// Sends so many bytes more of each blob than it has, and says so.
    pub pad_blobs: usize,
    /// Redirects for blobs to a server of another port, which must not be shown the token.
    pub redirect_blobs: bool,
    /// Answers this status in place of each manifest.
    pub manifest_status: Option<u16>,
    /// Answers with this digest in the header of each manifest.
    pub manifest_digest: Option<&'static str>,
}

/// One request, as far as tests ask about it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method and the path with its query.
    pub line: String,
    /// The port that it came in on.
    pub port: u16,
    /// The value of its `Authorization`.
    pub authorization: Option<String>,
    /// The value of its `Accept`, if several joined.
    pub accept: String,
}

/// A running registry of the repository `a/b`. It serves until the test ends.
pub struct FakeRegistry {
    port: u16,
    blobs_port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stalls: Arc<AtomicUsize>,
}

impl FakeRegistry {
    /// Serves a layout.
    pub fn serve(layout: &Layout, manners: Manners) -> Self {
        let (main, blobs) = (listener(), listener());
        let port = main.local_addr().unwrap().port();
        let blobs_port = blobs.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stalls = Arc::new(AtomicUsize::new(0));
        for listener in [main, blobs] {
            let server = Server {
                layout: layout.clone(),
                manners,
                port: listener.local_addr().unwrap().port(),
                main_port: port,
                blobs_port,
                requests: Arc::clone(&requests),
                stalls: Arc::clone(&stalls),
            };
            thread::spawn(move || {
                for connection in listener.incoming() {
                    let server = server.clone();
                    // A client that hangs up early is one of the things being tested.
                    thread::spawn(move || drop(server.answer(connection.unwrap())));
                }
            });
        }
        Self { port, blobs_port, requests, stalls }
    }

    /// An image of it by tag, or by digest.
    pub fn image(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("127.0.0.1:{}/a/b{separator}{reference}", self.port)
    }

    /// What it has been asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many blobs have been asked for, on either port.
    pub fn blob_requests(&self) -> usize {
        self.requests().iter().filter(|r| r.line.starts_with("GET /v2/a/b/blobs/")).count()
    }

    /// Waits until it has stalled in one blob more than so many.
    pub fn wait_for_a_stall(&self, before: usize) {
        let start = Instant::now();
        while self.stalls.load(Ordering::SeqCst) <= before {
            assert!(start.elapsed() < Duration::from_secs(10), "nobody asks for a blob");
            thread::sleep(Duration::from_millis(5));
        }
        // For what was sent to arrive.
        thread::sleep(Duration::from_millis(50));
    }

    /// How often it has stalled.
    pub fn stalls(&self) -> usize {
        self.stalls.load(Ordering::SeqCst)
    }

    /// The port that redirects lead to.
    pub fn blobs_port(&self) -> u16 {
        self.blobs_port
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("0.0.0.0:0").unwrap()
}

#[derive(Clone)]
struct Server {
    layout: Layout,
    manners: Manners,
    port: u16,
    main_port: u16,
    blobs_port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stalls: Arc<AtomicUsize>,
}

/// Status, headers, body, and how many bytes of the body to send.
type Answer = (u16, Vec<String>, Vec<u8>, usize);

impl Server {
    fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let request = self.read(&connection)?;
        let (method, path) = request.line.split_once(' ').unwrap_or(("", ""));
        let (status, headers, body, sent) = self.respond(path, &request);
        self.requests.lock().unwrap().push(request.clone());
        write!(connection, "HTTP/1.1 {status} so\r\nConnection: close\r\n")?;
        write!(connection, "Content-Length: {}\r\n", body.len())?;
        for header in headers {
            write!(connection, "{header}\r\n")?;
        }
        connection.write_all(b"\r\n")?;
        if method != "HEAD" {
            connection.write_all(&body[..sent.min(body.len())])?;
            if path.contains("/blobs/") && self.manners.stall_blobs_at == Some(sent) {
                self.stalls.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_secs(1000));
            }
        }
        Ok(())
    }

    fn read(&self, connection: &TcpStream) -> std::io::Result<Request> {
        let mut lines = BufReader::new(connection).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut request = Request {
            line: first.rsplit_once(' ').map_or(String::new(), |(line, _)| line.to_owned()),
            port: self.port,
            authorization: None,
            accept: String::new(),
        };
        for line in lines {
            let line = line?;
            match line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value)) {
                Some((name, value)) if name == "authorization" => {
                    request.authorization = Some(value.to_owned());
                }
                Some((name, value)) if name == "accept" => request.accept += value,
                None if line.is_empty() => break,
                _ => {}
            }
        }
        Ok(request)
    }

    fn respond(&self, path: &str, request: &Request) -> Answer {
        let is_main = self.port == self.main_port;
        if is_main && path.starts_with("/token") {
            return whole(200, vec![], json!({"token": TOKEN}).to_string().into());
        }
        let bearer = format!("Bearer {TOKEN}");
        if is_main && self.manners.token && request.authorization.as_ref() != Some(&bearer) {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/token\",\
                 service=\"fake, but real\",scope=\"repository:a/b:pull\"",
                self.port
            );
            return whole(401, vec![challenge], vec![]);
        }
        if let Some(reference) = path.strip_prefix("/v2/a/b/manifests/") {
            return self.manifest(reference);
        }
        match path.strip_prefix("/v2/a/b/blobs/") {
            Some(_) if is_main && self.manners.redirect_blobs => {
                let location = format!("Location: http://127.0.0.1:{}{path}", self.blobs_port);
                whole(307, vec![location], vec![])
            }
            Some(digest) => self.blob(digest),
            None if path == "/v2/" => whole(200, vec![], vec![]),
            None => whole(404, vec![], vec![]),
        }
    }

    fn manifest(&self, reference: &str) -> Answer {
        if let Some(status) = self.manners.manifest_status {
            return whole(status, vec![], vec![]);
        }
        let index = fs::read(self.layout.dir().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let tagged = index["manifests"].as_array().unwrap().iter().find(|descriptor| {
            descriptor["annotations"]["org.opencontainers.image.ref.name"] == reference
        });
        let descriptor = tagged.cloned().unwrap_or_else(|| json!({"digest": reference}));
        let Ok(body) = fs::read(self.layout.blob_path(&descriptor)) else {
            return whole(404, vec![], vec![]);
        };
        let media = serde_json::from_slice::<Value>(&body).unwrap()["mediaType"].clone();
        let digest = self.manners.manifest_digest.or(descriptor["digest"].as_str());
        let headers = vec![
            format!("Content-Type: {}", media.as_str().unwrap()),
            format!("Docker-Content-Digest: {}", digest.unwrap()),
        ];
        whole(200, headers, body)
    }

    fn blob(&self, digest: &str) -> Answer {
        let Ok(mut body) = fs::read(self.layout.blob_path(&json!({"digest": digest}))) else {
            return whole(404, vec![], vec![]);
        };
        body.resize(body.len() + self.manners.pad_blobs, 0);
        let sent = match (self.manners.cut_blobs, self.manners.stall_blobs_at) {
            (Some(n), _) => n,
            (None, Some(n)) if n < body.len() => n,
            _ => body.len(),
        };
        (200, vec!["Content-Type: application/octet-stream".to_owned()], body, sent)
    }
}

fn whole(status: u16, headers: Vec<String>, body: Vec<u8>) -> Answer {
    let sent = body.len();
    (status, headers, body, sent)
}
