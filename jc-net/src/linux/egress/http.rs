//! The requests of an HTTP/1 connection (RFC 9112), read as strictly as the strictest server does: what two
//! servers could take for different requests is refused.

use super::name;

/// The longest head of a request, in bytes; also the longest trailer.
pub const LONGEST: usize = 16 << 10;
/// The longest line that begins a chunk, in bytes.
const LONGEST_CHUNK_LINE: usize = 1024;

/// The host that each request must be for.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The name of the host.
    pub name: &'a str,
    /// The port of the connection.
    pub port: u16,
}

/// The position of the connection in a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// In a head.
    Head,
    /// In a body, of which this number of bytes is left.
    Body(u64),
    /// In the line before a chunk.
    ChunkLine,
    /// In a chunk, of which this number of bytes is left, with the CRLF at its end.
    Chunk(u64),
    /// In the trailer, of which this number of bytes has passed.
    Trailer(usize),
    /// After a request to switch to WebSocket: the server has not answered yet.
    Switching,
}

/// The requests of one connection.
#[derive(Debug)]
pub struct Requests {
    state: State,
    /// The number of bytes of an incomplete line or head that have been searched for its end.
    searched: usize,
    /// The number of heads so far.
    count: u64,
}

/// The end of a body.
enum Framing {
    Length(u64),
    Chunked,
    Switch,
}

impl Requests {
    /// A connection on which nothing has been sent.
    pub fn new() -> Self {
        Self { state: State::Head, searched: 0, count: 0 }
    }

    /// Returns the number of these bytes that may be sent to the server. The rest waits for more bytes, or for the server.
    /// Error: the reason for which the connection is refused.
    pub fn pass(&mut self, bytes: &[u8], origin: Origin<'_>) -> Result<usize, &'static str> {
        let mut passed = 0;
        while passed < bytes.len() {
            let step = self.step(&bytes[passed..], origin)?;
            if step == 0 {
                break;
            }
            passed += step;
        }
        Ok(passed)
    }

    fn step(&mut self, bytes: &[u8], origin: Origin<'_>) -> Result<usize, &'static str> {
        let most = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match self.state {
            State::Head => self.pass_head(bytes, origin),
            State::Body(left) => {
                let length = most(left);
                let left = left - length as u64;
                self.state = if left == 0 { State::Head } else { State::Body(left) };
                Ok(length)
            }
            State::ChunkLine => self.pass_chunk_line(bytes),
            State::Chunk(left) => {
                let length = most(left);
                check_chunk_end(&bytes[..length], left)?;
                let left = left - length as u64;
                self.state = if left == 0 { State::ChunkLine } else { State::Chunk(left) };
                Ok(length)
            }
            State::Trailer(so_far) => self.pass_trailer_line(bytes, so_far),
            State::Switching => Ok(0),
        }
    }

    /// Passes the head of a request. 0: its end is not there yet.
    fn pass_head(&mut self, bytes: &[u8], origin: Origin<'_>) -> Result<usize, &'static str> {
        let long = "a head that is too long";
        let Some(end) = self.find(bytes, b"\r\n\r\n", LONGEST, long)? else { return Ok(0) };
        let framing = head(&bytes[..end - 2], origin)?;
        self.count += 1;
        self.state = match framing {
            Framing::Length(0) => State::Head,
            Framing::Length(length) => State::Body(length),
            Framing::Chunked => State::ChunkLine,
            Framing::Switch if self.count > 1 => return Err("Upgrade on a connection in use"),
            Framing::Switch => State::Switching,
        };
        Ok(end)
    }

    /// Passes the line with the size of a chunk. 0: its end is not there yet.
    fn pass_chunk_line(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let long = "a line before a chunk that is too long";
        let end = self.find(bytes, b"\r\n", LONGEST_CHUNK_LINE, long)?;
        let Some(end) = end else { return Ok(0) };
        self.state = match chunk_size(&bytes[..end - 2])? {
            0 => State::Trailer(0),
            size => State::Chunk(size + 2),
        };
        Ok(end)
    }

    /// Passes a line of a trailer, of which `so_far` bytes have passed. 0: its end is not there yet.
    fn pass_trailer_line(&mut self, bytes: &[u8], so_far: usize) -> Result<usize, &'static str> {
        let long = "a trailer that is too long";
        let end = self.find(bytes, b"\r\n", LONGEST - so_far.min(LONGEST), long)?;
        let Some(end) = end else { return Ok(0) };
        self.state = match &bytes[..end - 2] {
            [] => State::Head,
            line => {
                field(line)?;
                State::Trailer(so_far + end)
            }
        };
        Ok(end)
    }

    /// The end of the first match of the pattern within `most` bytes.
    fn find(
        &mut self,
        bytes: &[u8],
        pattern: &[u8],
        most: usize,
        otherwise: &'static str,
    ) -> Result<Option<usize>, &'static str> {
        let from = self.searched.saturating_sub(pattern.len() - 1);
        let window = &bytes[..bytes.len().min(most)];
        let found =
            window[from.min(window.len())..].windows(pattern.len()).position(|w| w == pattern);
        if let Some(at) = found {
            self.searched = 0;
            return Ok(Some(from + at + pattern.len()));
        }
        self.searched = window.len();
        if bytes.len() >= most { Err(otherwise) } else { Ok(None) }
    }

    /// Whether the client waits for the server to switch protocols.
    pub fn is_switching(&self) -> bool {
        self.state == State::Switching
    }

    /// Reads the first bytes of the server's answer to a request to switch. Returns whether the server has switched: the
    /// later bytes are no requests. Otherwise further requests follow.
    pub fn take_answer(&mut self, answer: &[u8]) -> bool {
        self.state = State::Head;
        let rest = answer.strip_prefix(b"HTTP/1.1 101").and_then(|rest| rest.first());
        matches!(rest, Some(b' ' | b'\r'))
    }
}

/// Reads a head, without the empty line at its end.
fn head(bytes: &[u8], origin: Origin<'_>) -> Result<Framing, &'static str> {
    let mut lines = Lines(bytes);
    let line = lines.next().ok_or("an empty head")?;
    let is_1_1 = request_line(line, origin)?;
    let (mut hosts, mut length, mut is_chunked, mut upgrade) = (0, None, false, None);
    for line in lines {
        let (field_name, value) = field(line)?;
        match field_name.to_ascii_lowercase().as_slice() {
            b"host" => {
                hosts += 1;
                check_authority(value, origin)?;
            }
            b"content-length" => {
                let once = length.replace(number(value, 10)?).is_none();
                once.then_some(()).ok_or("two Content-Length fields")?;
            }
            b"transfer-encoding" => {
                let once = !std::mem::replace(&mut is_chunked, true) && is_1_1;
                let only = value.eq_ignore_ascii_case(b"chunked");
                (once && only).then_some(()).ok_or("a Transfer-Encoding other than chunked")?;
            }
            b"upgrade" => {
                let once = upgrade.replace(value).is_none();
                once.then_some(()).ok_or("two Upgrade fields")?;
            }
            b"http2-settings" => return Err("an Upgrade to h2c"),
            _ => {}
        }
    }
    if hosts != 1 {
        return Err("not exactly one Host field");
    }
    match (length, is_chunked, upgrade) {
        (Some(_), true, _) => Err("both Content-Length and Transfer-Encoding"),
        (length, false, Some(value)) => {
            let is_websocket = value.eq_ignore_ascii_case(b"websocket") && is_1_1;
            if is_websocket && length.unwrap_or(0) == 0 && line.starts_with(b"GET ") {
                Ok(Framing::Switch)
            } else {
                Err("an Upgrade to another protocol than websocket")
            }
        }
        (None, true, Some(_)) => Err("an Upgrade with a body"),
        (None, true, None) => Ok(Framing::Chunked),
        (length, false, None) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Lines that each end in CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.windows(2).position(|w| w == b"\r\n")?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 2..];
        Some(line)
    }
}

/// Checks the first line. Returns whether the version is 1.1.
fn request_line(line: &[u8], origin: Origin<'_>) -> Result<bool, &'static str> {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("not HTTP/1");
    };
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err("not HTTP/1"),
    };
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Err("not HTTP/1");
    }
    if method.eq_ignore_ascii_case(b"CONNECT") {
        return Err("CONNECT");
    }
    if target.is_empty() || !target.iter().all(|b| b.is_ascii_graphic()) {
        return Err("a request target with bytes that no URI has");
    }
    match target {
        [b'/', ..] => {}
        b"*" if method == b"OPTIONS" => {}
        _ => {
            let scheme = target.get(..7).filter(|word| word.eq_ignore_ascii_case(b"http://"));
            let rest =
                scheme.map(|word| &target[word.len()..]).ok_or("a request for another scheme")?;
            let end = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
            check_authority(&rest[..end], origin)?;
        }
    }
    Ok(is_1_1)
}

/// Checks `HOST[:PORT]`. Without a port, it is 80 for clients, but a server takes that of the connection.
fn check_authority(value: &[u8], origin: Origin<'_>) -> Result<(), &'static str> {
    const OTHER: &str = "a request for another host";
    let colon = value.iter().position(|b| *b == b':');
    let (host, port) = match colon {
        Some(at) => (&value[..at], Some(&value[at + 1..])),
        None => (value, None),
    };
    if name::from_wire(host).as_deref() != Some(origin.name) {
        return Err(OTHER);
    }
    match port {
        Some(port) if number(port, 10) != Ok(origin.port.into()) => Err(OTHER),
        _ => Ok(()),
    }
}

/// A field line: its name and its value without white space around.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let colon = line.iter().position(|b| *b == b':').ok_or("a field without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err("a field name with bytes that no name has");
    }
    if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err("a field value with a control character");
    }
    Ok((name, value.trim_ascii()))
}

/// tchar of RFC 9110, 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A number of digits only.
fn number(digits: &[u8], radix: u32) -> Result<u64, &'static str> {
    const WRONG: &str = "a number that is none";
    if digits.is_empty() || !digits.iter().all(|b| char::from(*b).is_digit(radix)) {
        return Err(WRONG);
    }
    let text = str::from_utf8(digits).map_err(|_| WRONG)?;
    let number = u64::from_str_radix(text, radix).map_err(|_| WRONG)?;
    if number > u64::MAX / 2 { Err(WRONG) } else { Ok(number) }
}

/// The size of a chunk. Extensions of chunks are refused: servers differ in how they read them.
fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    number(line, 16).map_err(|_| "a chunk whose size is no number")
}

/// Checks the CRLF after a chunk, where these bytes have it. `left` counts bytes and the CRLF.
fn check_chunk_end(bytes: &[u8], left: u64) -> Result<(), &'static str> {
    let at = |place: u64| usize::try_from(left - place).ok().and_then(|i| bytes.get(i));
    let cr = left < 2 || at(2).is_none_or(|b| *b == b'\r');
    let lf = at(1).is_none_or(|b| *b == b'\n');
    if cr && lf { Ok(()) } else { Err("a chunk that is longer than its size") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> = Origin { name: "a.example", port: 80 };

    /// The number of the bytes that pass; the same byte by byte.
    fn pass(bytes: &str) -> Result<usize, &'static str> {
        let at_once = Requests::new().pass(bytes.as_bytes(), ORIGIN);
        let (mut requests, mut passed) = (Requests::new(), Ok(0));
        for end in 1..=bytes.len() {
            if let Ok(start) = passed {
                let step = requests.pass(&bytes.as_bytes()[start..end], ORIGIN);
                passed = step.map(|step| start + step);
            }
        }
        assert_eq!(at_once, passed, "{bytes:?}");
        at_once
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

    #[test]
    fn requests_for_the_host_pass() {
        for request in [
            GET.to_owned(),
            GET.repeat(3),
            "GET / HTTP/1.0\r\nhost:\tA.Example.:80 \r\n\r\n".to_owned(),
            "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello{GET}"),
            format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n{GET}"
            ),
        ] {
            assert_eq!(pass(&request), Ok(request.len()), "{request:?}");
        }
        assert_eq!(
            pass("GET / HTTP/1.1\r\nHost: a.ex"),
            Ok(0),
            "a head waits until it is complete"
        );
    }

    #[test]
    fn requests_that_are_not_for_the_host_are_refused() {
        let chunked = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a.example\r\n";
        for request in [
            "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n".to_owned(),
            GET.to_owned() + "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example,b.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example:81\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost:\r\n a.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\n b.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\nHost: a.example\n\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\nX: \ny\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\nX: \0\r\n\r\n".to_owned(),
            "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n".to_owned(),
            "GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET a.example HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET /\t HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET / HTTP/1.2\r\nHost: a.example\r\n\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "connect a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
            "GET /\r\n\r\n".to_owned(),
            format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
            format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
            format!("{post}Content-Length: +5\r\n\r\nhello"),
            format!("{post}Content-Length: 5, 5\r\n\r\nhello"),
            format!("{post}Content-Length: 99999999999999999999\r\n\r\n"),
            format!("{post}Transfer-Encoding: identity\r\n\r\n"),
            format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n"),
            format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n"),
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            "POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            format!("{chunked}5;a=b\r\nhello\r\n0\r\n\r\n"),
            format!("{chunked}5\r\nhelloX"),
            format!("{chunked}0x5\r\nhello\r\n"),
            format!("{chunked}-1\r\n"),
            format!("{chunked}FFFFFFFFFFFFFFFF\r\n"),
            format!("{chunked}0\r\n folded\r\n\r\n"),
            "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket, h2c\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a.example\r\nHTTP2-Settings: x\r\nUpgrade: websocket\r\n\r\n"
                .to_owned(),
            "POST / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n".to_owned(),
            GET.to_owned() + "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n",
            format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "y".repeat(LONGEST)),
        ] {
            assert!(pass(&request).is_err(), "{request:?}");
        }
    }

    #[test]
    fn websocket_begins_when_the_server_has_switched() {
        let request = "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: WebSocket\r\n\r\n";
        let all = format!("{request}GET / HTTP/1.1\r\nHost: b.example\r\n\r\n");
        for (answer, switches) in
            [("HTTP/1.1 101 S", true), ("HTTP/1.1 200 O", false), ("HTTP/1.1 1011 ", false)]
        {
            let mut requests = Requests::new();
            assert_eq!(requests.pass(all.as_bytes(), ORIGIN), Ok(request.len()));
            assert!(requests.is_switching());
            assert_eq!(requests.take_answer(&answer.as_bytes()[..13]), switches);
            let rest = requests.pass(&all.as_bytes()[request.len()..], ORIGIN);
            assert_eq!(rest, Err("a request for another host"), "without a switch");
        }
    }
}
