//! The inspection of a program's bytes, before they are sent to the host.

use super::http::{self, Origin, Requests};
use super::name;
use super::rule::Check;
use super::tls::{self, Answer, Hello, Progress};

/// The bytes of a server's answer that an inspection needs.
pub const ANSWER: usize = tls::ANSWER;

/// The stage of an inspection.
#[derive(Debug)]
enum Stage {
    /// Any bytes pass.
    Open,
    /// A ClientHello must come. The number is the least length that is worth a new look.
    Hello(usize),
    /// A ClientHello has passed. No further byte passes before the server has answered.
    Answer,
    /// The server has answered with a HelloRetryRequest: a second ClientHello must come.
    SecondHello,
    /// Requests of HTTP/1.
    Requests(Requests),
}

/// Bytes of a program that are not sent yet, and the form that they must have.
#[derive(Debug)]
pub struct Inspection {
    stage: Stage,
    /// The form that the bytes must have.
    pub check: Check,
    /// Bytes that are not sent.
    pub held: Vec<u8>,
    /// The number of these bytes that may be sent.
    pub cleared: usize,
    /// The SNI of the ClientHello.
    pub sni: Option<String>,
    /// Whether the form becomes weaker where bytes would be refused.
    is_learning: bool,
}

impl Inspection {
    /// An inspection of a connection on which nothing has been sent.
    pub fn new(check: Check, is_learning: bool) -> Self {
        let stage = match check {
            Check::Tcp => Stage::Open,
            Check::Tls | Check::TlsEch => Stage::Hello(1),
            Check::Http => Stage::Requests(Requests::new()),
        };
        Self { stage, check, held: Vec::new(), cleared: 0, sni: None, is_learning }
    }

    /// Whether all that the program sends passes, so that no byte need be read.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Whether the first bytes of the server decide what passes next.
    pub fn awaits_answer(&self) -> bool {
        match &self.stage {
            Stage::Answer => true,
            Stage::Requests(requests) => requests.is_switching(),
            _ => false,
        }
    }

    /// The most bytes that are held.
    pub fn most(&self) -> usize {
        if matches!(self.stage, Stage::Requests(_)) { http::LONGEST } else { tls::LONGEST }
    }

    /// Passes all bytes, those that are held too.
    pub fn open(&mut self) {
        self.stage = Stage::Open;
        self.check = Check::Tcp;
        self.cleared = self.held.len();
    }

    /// Inspects what is held. `more` says whether more bytes may come. Returns whether all bytes have passed and no
    /// more come. Error: why the connection is refused.
    pub fn inspect(&mut self, origin: Origin<'_>, more: bool) -> Result<bool, &'static str> {
        let inspected = self.compare(origin, more);
        if inspected.is_err() && self.is_learning {
            self.open();
            return Ok(false);
        }
        inspected
    }

    fn compare(&mut self, origin: Origin<'_>, more: bool) -> Result<bool, &'static str> {
        let hello = match &mut self.stage {
            Stage::Open | Stage::Answer => None,
            Stage::Requests(requests) => {
                self.cleared = requests.pass(&self.held, origin)?;
                return Ok(self.cleared == 0 && !more);
            }
            Stage::Hello(needed) if self.held.len() < *needed => None,
            Stage::Hello(needed) => match tls::read(&self.held)? {
                Progress::Needs(bytes) => {
                    *needed = bytes;
                    None
                }
                Progress::Hello(hello) => Some((hello, Stage::Answer)),
            },
            Stage::SecondHello => match tls::read_second(&self.held)? {
                Progress::Needs(_) => None,
                Progress::Hello(hello) => Some((hello, Stage::Open)),
            },
        };
        match hello {
            Some((hello, next)) => {
                self.check_hello(hello, origin.name)?;
                self.cleared = self.held.len();
                self.stage = next;
                Ok(false)
            }
            None if more || self.is_open() => Ok(false),
            None => Err("no ClientHello"),
        }
    }

    fn check_hello(&mut self, hello: Hello, expected: &str) -> Result<(), &'static str> {
        let sni = hello.name.ok_or("no SNI")?;
        self.sni = Some(String::from_utf8_lossy(&sni).into_owned());
        if name::from_wire(&sni).as_deref() != Some(expected) {
            return Err("another SNI");
        }
        match self.check {
            Check::Tls if hello.has_ech && self.is_learning => self.check = Check::TlsEch,
            Check::Tls if hello.has_ech => return Err("encrypted_client_hello"),
            _ => {}
        }
        Ok(())
    }

    /// Takes the first bytes of the server's answer; none if there are no more.
    pub fn take_answer(&mut self, first: &[u8]) {
        match &mut self.stage {
            Stage::Requests(requests) => {
                if !requests.take_answer(first) {
                    return;
                }
            }
            Stage::Answer => match tls::answer(first) {
                Answer::Unknown if !first.is_empty() => return,
                Answer::Retry => {
                    self.stage = Stage::SecondHello;
                    return;
                }
                Answer::Unknown | Answer::Other => {}
            },
            _ => return,
        }
        self.stage = Stage::Open;
        self.cleared = self.held.len();
    }
}
