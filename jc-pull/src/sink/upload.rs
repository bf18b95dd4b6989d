//! Uploads of blobs to a registry, in pieces that resume (distribution-spec, "Pushing a blob in chunks").

use std::io::Read;
use std::sync::mpsc::sync_channel;

use jc_unshare::{Error, Result};
use reqwest::header::{HeaderName, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::answer::{next_url, received};
use super::blobs::{Sum, fill, unread};
use super::{Outgoing, Written};
use crate::digest::Digest;
use crate::http::{Content, Fault, Response, Retry, failed};
use crate::source::content_digest;
use crate::source::endpoint::{Answer, ApiRequest, Context, Endpoint, Object};

/// The bytes of a piece. Storage of clouds takes no pieces under 5 MiB, except the last.
const PIECE: usize = 8 << 20;
/// The longest piece that a registry may ask for.
const MAX_PIECE: usize = 64 << 20;

/// The header of a registry with the least bytes of a piece.
const MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A registry that takes blobs.
#[derive(Clone, Copy)]
pub struct Receiver<'a> {
    pub endpoint: &'a Endpoint,
    pub context: &'a Context,
}

/// The beginning of an upload.
enum Start<'a> {
    /// The registry has taken the blob from another of its repositories.
    Mounted(Written),
    Upload(Upload<'a>),
}

impl<'a> Receiver<'a> {
    /// Makes one attempt at a request.
    pub fn attempt(&self, request: ApiRequest<'_>) -> Result<Answer, Fault> {
        self.endpoint.attempt(self.context, request)
    }

    /// The attempts at one object.
    pub fn retry(&self) -> Retry {
        Retry::new(self.context.http.options().retries)
    }

    /// Uploads a blob. An upload that the registry has lost begins again.
    pub fn put(&self, blob: &Outgoing<'_>) -> Result<Written> {
        let once = || match self.put_once(blob) {
            Err(fault) if fault.status == Some(StatusCode::NOT_FOUND) => {
                Err(Fault { transient: true, ..fault })
            }
            outcome => outcome,
        };
        self.retry().run(&self.context.cancel, once).map_err(|fault| fault.error)
    }

    fn put_once(&self, blob: &Outgoing<'_>) -> Result<Written, Fault> {
        let start = self.retry().run(&self.context.cancel, || self.start(blob));
        match start.map_err(|fault| Fault::permanent(fault.error))? {
            Start::Mounted(written) => Ok(written),
            Start::Upload(upload) => upload.run(blob),
        }
    }

    /// Starts an upload, or lets the registry take the blob from another repository.
    fn start(&self, blob: &Outgoing<'_>) -> Result<Start<'a>, Fault> {
        let begin = |query: &str| {
            let content = Content::EMPTY;
            self.attempt(ApiRequest::write(&Method::POST, Object::Uploads(query), content))
        };
        let answer = match (&blob.digest, blob.size, &blob.mount_from) {
            (Some(digest), Some(size), Some(from)) => {
                match begin(&format!("?mount={digest}&from={from}")) {
                    Ok(answer) if answer.response.status() == StatusCode::CREATED => {
                        check_digest(&answer.response, digest)?;
                        return Ok(Start::Mounted(Written { digest: digest.clone(), size }));
                    }
                    // A registry may refuse the request if the login has no access to the other repository.
                    Err(fault) if !fault.transient && fault.status.is_some() => begin("")?,
                    outcome => outcome?,
                }
            }
            _ => begin("")?,
        };
        let response = &answer.response;
        let least = response.headers().get(MIN_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let piece = PIECE.max(least.unwrap_or_default());
        let fault = |why: &str| Fault::permanent(failed(&Method::POST, response.url(), why));
        if piece > MAX_PIECE {
            return Err(fault(&format!("wants pieces of {piece} bytes")));
        }
        let location = next_location(response)?;
        let location = location.ok_or_else(|| fault("an upload without a location"))?;
        Ok(Start::Upload(Upload { receiver: *self, location, offset: 0, piece }))
    }

    /// The size of a blob that the registry has. The registry may not say the size.
    pub fn size_of(&self, digest: &Digest) -> Result<Option<Option<u64>>, Fault> {
        let target = digest.to_string();
        match self.attempt(ApiRequest::read(&Method::HEAD, Object::Blob(&target), "*/*")) {
            Ok(answer) => {
                let length = answer.response.headers().get("content-length");
                Ok(Some(length.and_then(|length| length.to_str().ok()?.parse().ok())))
            }
            Err(fault) if fault.status == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// The URL for the next request of an upload, if the answer has one.
fn next_location(response: &Response) -> Result<Option<Url>, Fault> {
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    // Text that is no ASCII is no URL.
    let next = next_url(response.url(), location.to_str().unwrap_or("https://"));
    let fault = |why| Fault::permanent(failed(&Method::POST, response.url(), why));
    next.map(Some).map_err(fault)
}

/// An upload that has begun.
struct Upload<'a> {
    receiver: Receiver<'a>,
    /// The URL of the next request.
    location: Url,
    /// The bytes that the registry has.
    offset: u64,
    /// The bytes of a piece.
    piece: usize,
}

/// A piece of a blob, and the number of its first byte.
struct Piece<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl Upload<'_> {
    /// Sends all bytes. A thread reads the next piece while this one sums up and sends.
    fn run(mut self, blob: &Outgoing<'_>) -> Result<Written, Fault> {
        let mut reader = (blob.open)().map_err(Fault::permanent)?;
        let (length, mut sum) = (self.piece, Sum::of(blob));
        std::thread::scope(|scope| {
            let (sender, pieces) = sync_channel::<Result<Vec<u8>>>(1);
            let read = move || {
                loop {
                    let piece = next_piece(&mut reader, length);
                    let is_last = piece.as_ref().map_or(true, |piece| piece.len() < length);
                    // The send fails if the upload has failed.
                    if sender.send(piece).is_err() || is_last {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().spawn_scoped(scope, read);
            thread.map_err(|e| Fault::permanent(unread(&e).context("start a thread")))?;
            let mut start = 0;
            loop {
                let ended = |_| Fault::permanent(Error::new("the blob has no end"));
                let bytes = pieces.recv().map_err(ended)?.map_err(Fault::permanent)?;
                sum.add(&bytes);
                let is_last = bytes.len() < length;
                if is_last && start == 0 {
                    let written = sum.finish(blob).map_err(Fault::permanent)?;
                    return self.put_whole(&written, &bytes).map(|()| written);
                }
                self.send(&Piece { start, bytes: &bytes })?;
                start += bytes.len() as u64;
                if is_last {
                    let written = sum.finish(blob).map_err(Fault::permanent)?;
                    return self.close(&written).map(|()| written);
                }
            }
        })
    }

    /// Sends a piece. After a failure, the registry says which bytes it has.
    fn send(&mut self, piece: &Piece<'_>) -> Result<(), Fault> {
        let (mut retry, cancel) = (self.receiver.retry(), self.receiver.context.cancel.clone());
        let mut is_known = true;
        retry.run(&cancel, || {
            if !is_known {
                self.ask_offset()?;
            }
            is_known = false;
            self.send_rest(piece)
        })
    }

    fn send_rest(&mut self, piece: &Piece<'_>) -> Result<(), Fault> {
        let end = piece.start + piece.bytes.len() as u64;
        while self.offset < end {
            let at = self.offset.checked_sub(piece.start).and_then(|at| usize::try_from(at).ok());
            let Some(bytes) = at.and_then(|at| piece.bytes.get(at..)) else {
                let why = format_args!("the registry has lost the bytes from {} on", self.offset);
                return Err(Fault::refused(Error::new(why), StatusCode::NOT_FOUND, None));
            };
            let content = Content { bytes, start: Some(self.offset), ..Content::EMPTY };
            let object = Object::Upload(&self.location);
            let request = ApiRequest::write(&Method::PATCH, object, content);
            let answer = self.receiver.attempt(request).map_err(|fault| {
                let is_gap = fault.status == Some(StatusCode::RANGE_NOT_SATISFIABLE);
                Fault { transient: fault.transient || is_gap, ..fault }
            })?;
            let before = self.offset;
            self.advance(&answer.response, Some(end))?;
            if self.offset <= before {
                let why = format!("has taken no byte behind {before}");
                return Err(Fault::temporary(failed(&Method::PATCH, &self.location, why)));
            }
        }
        if self.offset > end {
            let why = format!("says that it has {} bytes, and {end} were sent", self.offset);
            return Err(Fault::permanent(failed(&Method::PATCH, &self.location, why)));
        }
        Ok(())
    }

    /// Asks the registry for the bytes that it has.
    fn ask_offset(&mut self) -> Result<(), Fault> {
        let object = Object::Upload(&self.location);
        let answer = self.receiver.attempt(ApiRequest::read(&Method::GET, object, "*/*"))?;
        self.advance(&answer.response, None)
    }

    /// Takes the next URL and the number of bytes from an answer. Without a range, the registry has `sent` bytes.
    fn advance(&mut self, response: &Response, sent: Option<u64>) -> Result<(), Fault> {
        let range = response.headers().get(RANGE).map(|range| range.to_str().unwrap_or_default());
        let bad = |why: &str| Fault::permanent(failed(&Method::PATCH, response.url(), why));
        self.offset = match (range, sent) {
            (Some(range), _) => {
                received(range).ok_or_else(|| bad(&format!("has the range {range:?}")))?
            }
            (None, Some(sent)) => sent,
            (None, None) => return Err(bad("does not say which bytes it has")),
        };
        if let Some(next) = next_location(response)? {
            self.location = next;
        }
        Ok(())
    }

    /// Sends all bytes with the digest in one request. After a failure the upload begins again.
    fn put_whole(&self, written: &Written, bytes: &[u8]) -> Result<(), Fault> {
        match self.put(written, Content { bytes, ..Content::EMPTY }) {
            Err(fault) if fault.transient => match self.receiver.size_of(&written.digest) {
                Ok(Some(_)) => Ok(()),
                _ => Err(Fault { status: Some(StatusCode::NOT_FOUND), ..fault }),
            },
            outcome => outcome,
        }
    }

    /// Ends the upload with the digest of all bytes.
    fn close(&self, written: &Written) -> Result<(), Fault> {
        let mut is_first = true;
        self.receiver.retry().run(&self.receiver.context.cancel, || {
            // The answer to an earlier attempt may have got lost.
            let is_again = !std::mem::take(&mut is_first);
            if is_again && self.receiver.size_of(&written.digest)?.is_some() {
                return Ok(());
            }
            self.put(written, Content::EMPTY)
        })
    }

    fn put(&self, written: &Written, content: Content<'_>) -> Result<(), Fault> {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", &written.digest.to_string());
        let request = ApiRequest::write(&Method::PUT, Object::Upload(&url), content);
        let answer = self.receiver.attempt(request)?;
        check_digest(&answer.response, &written.digest)
    }
}

/// An error if the registry says that it has written something else.
pub fn check_digest(response: &Response, digest: &Digest) -> Result<(), Fault> {
    match content_digest(response).filter(|found| found != digest) {
        Some(found) => {
            let why = format!("{digest} was sent, and the registry says {found}");
            Err(Fault::permanent(failed(&Method::PUT, response.url(), why)))
        }
        None => Ok(()),
    }
}

fn next_piece(reader: &mut dyn Read, length: usize) -> Result<Vec<u8>> {
    let mut piece = vec![0; length];
    let filled = fill(reader, &mut piece).map_err(|e| unread(&e))?;
    piece.truncate(filled);
    Ok(piece)
}
