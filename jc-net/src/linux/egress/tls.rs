//! The first message of a TLS connection, ClientHello (RFC 8446, 4.1.2), as far as a rule is about it. DTLS and
//! SSL 2 have other first bytes and are refused.

/// The longest ClientHello, with the headers of its records, in bytes.
pub const LONGEST: usize = 16 << 10;
/// The most records that a ClientHello may be spread over.
const MOST_RECORDS: usize = 64;
/// The headers of a record and of a message.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// The progress of the reading.
#[derive(Debug, Eq, PartialEq)]
pub enum Progress {
    /// The message is not complete. The number is the least length that is worth a new look.
    Needs(usize),
    /// The message is complete.
    Hello(Hello),
}

/// The parts of a ClientHello that rules are about.
#[derive(Debug, Eq, PartialEq)]
pub struct Hello {
    /// The host name of the server_name extension (RFC 6066, 3).
    pub name: Option<Vec<u8>>,
    /// Whether there is an encrypted_client_hello extension, which may be another name, or noise.
    pub has_ech: bool,
}

/// The answer of a server to a ClientHello.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// There are too few bytes to know.
    Unknown,
    /// HelloRetryRequest: a second ClientHello follows.
    Retry,
    /// Any other: no further message of the client is plain.
    Other,
}

/// The bytes that [`answer`] needs: headers, version and random.
pub const ANSWER: usize = RECORD_HEADER + MESSAGE_HEADER + 2 + 32;

/// Reads the first bytes of a server (RFC 8446, 4.1.3).
pub fn answer(bytes: &[u8]) -> Answer {
    const SERVER_HELLO: u8 = 2;
    const RETRY: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8,
        0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8,
        0x33, 0x9c,
    ];
    let is = |at: usize, byte: u8| bytes.get(at).is_none_or(|b| *b == byte);
    if !is(0, HANDSHAKE) || !is(RECORD_HEADER, SERVER_HELLO) {
        return Answer::Other;
    }
    match bytes.get(ANSWER - RETRY.len()..ANSWER) {
        None => Answer::Unknown,
        Some(random) if random == RETRY => Answer::Retry,
        Some(_) => Answer::Other,
    }
}

/// Reads the bytes of a client after a HelloRetryRequest, up to its second ClientHello. Records of
/// ChangeCipherSpec and of early data may come before.
pub fn read_second(bytes: &[u8]) -> Result<Progress, &'static str> {
    const PASSED: [u8; 2] = [20, 23];
    let mut skipped = 0;
    while let Some(&[kind, _, _, high, low]) = bytes[skipped..].first_chunk()
        && PASSED.contains(&kind)
    {
        let end = skipped + RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
        if end > LONGEST {
            return Err("a TLS record that is empty or too long");
        }
        if end >= bytes.len() {
            return Ok(Progress::Needs(end + 1));
        }
        skipped = end;
    }
    let is_short = bytes.len() - skipped < RECORD_HEADER;
    match read(&bytes[skipped..]) {
        Err(_) if is_short && bytes.get(skipped).is_none_or(|kind| PASSED.contains(kind)) => {
            Ok(Progress::Needs(skipped + RECORD_HEADER))
        }
        Ok(Progress::Needs(needed)) => Ok(Progress::Needs(skipped + needed)),
        other => other,
    }
}

/// Reads the first bytes of a connection. Error: no ClientHello, or one that servers may read in several ways.
pub fn read(bytes: &[u8]) -> Result<Progress, &'static str> {
    let mut message = Vec::new();
    let mut rest = bytes;
    for _ in 0..MOST_RECORDS {
        let needs = |more: usize| Ok(Progress::Needs(bytes.len() - rest.len() + more));
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE)
            || rest.get(1).is_some_and(|v| *v != 3)
        {
            return Err("not TLS");
        }
        let Some(&[_, _, _, high, low]) = rest.first_chunk() else { return needs(RECORD_HEADER) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || bytes.len() - rest.len() + RECORD_HEADER + length > LONGEST {
            return Err("a TLS record that is empty or too long");
        }
        let Some(fragment) = rest.get(RECORD_HEADER..RECORD_HEADER + length) else {
            return needs(RECORD_HEADER + length);
        };
        message.extend_from_slice(fragment);
        rest = &rest[RECORD_HEADER + length..];
        if let Some(&[kind, a, b, c]) = message.first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize + MESSAGE_HEADER;
            if kind != CLIENT_HELLO || length > LONGEST {
                return Err("not a TLS ClientHello");
            }
            if message.len() > length {
                return Err("more than a ClientHello in its TLS records");
            }
            if message.len() == length {
                let hello = parse(&message[MESSAGE_HEADER..]).ok_or("a malformed ClientHello")?;
                return hello.map(Progress::Hello);
            }
        }
    }
    Err("a ClientHello in too many TLS records")
}

/// A part of a message that is read from its beginning.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number with this length in bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.bytes(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector, whose length is a number with this length in bytes.
    fn vector(&mut self, bytes: usize) -> Option<Self> {
        let length = self.number(bytes)?;
        self.bytes(length).map(Self)
    }
}

/// The body of a ClientHello. `None`: malformed.
fn parse(body: &[u8]) -> Option<Result<Hello, &'static str>> {
    let mut body = Reader(body);
    body.bytes(2 + 32)?; // version and random
    body.vector(1)?; // session ID
    body.vector(2)?; // cipher suites
    body.vector(1)?; // compression methods
    let mut hello = Hello { name: None, has_ech: false };
    if body.0.is_empty() {
        return Some(Ok(hello));
    }
    let mut extensions = body.vector(2)?;
    if !body.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let value = extensions.vector(2)?;
        if kind == usize::from(SERVER_NAME) {
            if hello.name.is_some() {
                return Some(Err("a ClientHello with two server names"));
            }
            hello.name = Some(server_name(value)?.to_vec());
        }
        hello.has_ech |= kind == usize::from(ENCRYPTED_CLIENT_HELLO);
    }
    Some(Ok(hello))
}

/// The only name of the extension, which is a host name: no other type has been defined.
fn server_name(mut value: Reader<'_>) -> Option<&[u8]> {
    let mut list = value.vector(2)?;
    let is_host = list.number(1)? == usize::from(HOST_NAME);
    let name = list.vector(2)?;
    (is_host && value.0.is_empty() && list.0.is_empty() && !name.0.is_empty()).then_some(name.0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn vector(bytes: usize, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u32).to_be_bytes();
        [&length[4 - bytes..], value].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(2, value)].concat()
    }

    fn sni(name: &str) -> Vec<u8> {
        extension(0, &vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat()))
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[]),
            &vector(2, &[0x13, 1]),
            &vector(1, &[0]),
            &vector(2, &extensions.concat()),
        ];
        [&[1][..], &vector(3, &body.concat())].concat()
    }

    /// The records of a message, each with at most `most` of its bytes.
    fn records(message: &[u8], most: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1][..], &vector(2, part)].concat();
        message.chunks(most).flat_map(record).collect()
    }

    fn hello(extensions: &[Vec<u8>]) -> Result<Progress, &'static str> {
        read(&records(&message(extensions), usize::MAX))
    }

    fn named(name: &str, has_ech: bool) -> Result<Progress, &'static str> {
        Ok(Progress::Hello(Hello { name: Some(name.into()), has_ech }))
    }

    #[test]
    fn the_server_name_is_found() {
        let noise = extension(0x2a2a, &[]);
        assert_eq!(hello(&[noise.clone(), sni("a.example"), noise]), named("a.example", false));
        assert_eq!(hello(&[sni("a.example"), extension(0xfe0d, &[0])]), named("a.example", true));
        assert_eq!(hello(&[]), Ok(Progress::Hello(Hello { name: None, has_ech: false })));
    }

    #[test]
    fn a_message_may_be_spread_over_records_and_segments() {
        let message = message(&[sni("a.example")]);
        for most in [2, 3, 4, 5, 7, 30, 1000] {
            let bytes = records(&message, most);
            assert_eq!(read(&bytes), named("a.example", false), "{most}");
            let mut reads = 0;
            let mut needed = 0;
            for length in 0..bytes.len() {
                if length < needed {
                    continue;
                }
                reads += 1;
                match read(&bytes[..length]) {
                    Ok(Progress::Needs(more)) => needed = more,
                    other => panic!("{length} of {}: {other:?}", bytes.len()),
                }
                assert!(needed > length && needed <= bytes.len());
            }
            assert!(reads <= 2 * MOST_RECORDS + 1);
        }
        assert!(read(&records(&message, 1)).is_err(), "one byte a record");
    }

    #[test]
    fn a_second_hello_is_read_after_a_retry() {
        let mut retry = vec![22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3];
        retry.extend([
            0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65,
        ]);
        retry.extend([
            0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2,
        ]);
        retry.extend([0xc8, 0xa8, 0x33, 0x9c]);
        assert_eq!((retry.len(), answer(&retry)), (ANSWER, Answer::Retry));
        for length in 0..retry.len() {
            assert_eq!(answer(&retry[..length]), Answer::Unknown, "{length}");
        }
        retry[40] ^= 1;
        assert_eq!(answer(&retry), Answer::Other);
        assert_eq!(answer(&[21, 3, 3, 0, 2, 2, 40]), Answer::Other);
        let hello = records(&message(&[sni("b.example")]), 1000);
        let before = [&[20, 3, 3, 0, 1, 1][..], &[23, 3, 3, 0, 3, 7, 7, 7]].concat();
        let all = [&before[..], &hello].concat();
        assert_eq!(read_second(&all), named("b.example", false));
        assert_eq!(read_second(&hello), named("b.example", false));
        for length in 0..all.len() {
            let needed = read_second(&all[..length]);
            assert!(
                matches!(needed, Ok(Progress::Needs(more)) if more > length),
                "{length} {needed:?}"
            );
        }
        assert!(read_second(&[21, 3, 3, 0, 2, 1, 0]).is_err());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let two = extension(
            0,
            &vector(2, &[&[0][..], &vector(2, b"a"), &[0], &vector(2, b"b")].concat()),
        );
        let other = extension(0, &vector(2, &[&[1][..], &vector(2, b"a")].concat()));
        let empty = extension(0, &vector(2, &[&[0][..], &vector(2, b"")].concat()));
        for extensions in
            [vec![sni("a"), sni("b")], vec![two], vec![other], vec![empty], vec![extension(0, &[])]]
        {
            assert!(hello(&extensions).is_err(), "{extensions:?}");
        }
        let message = message(&[sni("a")]);
        assert!(read(&records(&[&message[..], &message].concat(), usize::MAX)).is_err());
        let mut long = message.clone();
        long[3] += 1;
        long.push(0);
        assert!(read(&records(&long, usize::MAX)).is_err(), "a byte after the extensions");
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"SSH-2.0-x",
            &[0x80, 0x2e, 1],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 255, 255],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        assert!(read(&records(&[2, 0, 0, 0], 4)).is_err(), "a ServerHello");
    }
}
