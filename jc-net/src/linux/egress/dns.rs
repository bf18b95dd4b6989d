//! The resolver inside: names that a rule allows have synthetic addresses, all others do not exist. No query
//! leads to a query outside.

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::name;
use super::names::Names;
use super::rules::{Refusal, Rules};

/// The longest query, in bytes: one question and an OPT record have less.
pub const LONGEST: usize = 1232;
/// The time that a client may keep an answer, in seconds. The address of a name changes only after thousands of
/// other names.
const TTL: u32 = 60;

/// An answer, and the name that was refused.
#[derive(Debug, Default)]
pub struct Answer {
    /// The message for the client. `None`: the bytes are no query, and an answer could be one to another client.
    pub bytes: Option<Vec<u8>>,
    /// The name as the client has spelled it, and the reason.
    pub refused: Option<(String, &'static str)>,
}

/// Answers a query, and says whether its name is refused.
pub fn answer(query: &[u8], rules: &Rules, names: &mut Names, has_v6: bool) -> Answer {
    const RESPONSE: u8 = 0x80;
    let header = query.first_chunk::<12>().filter(|header| header[2] & RESPONSE == 0);
    let Some(header) = header else {
        return Answer { bytes: None, refused: Some((String::new(), "not a query")) };
    };
    let packet = parse(query);
    let Some((packet, question)) = packet.as_ref().and_then(|p| Some((p, p.questions.first()?)))
    else {
        return malformed(header);
    };
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    let (shown, asked) = host(&question.qname);
    let resolved = match asked {
        Some(name) if question.qclass == QCLASS::CLASS(CLASS::IN) => {
            rules.resolves(&name).map(|_| name)
        }
        _ => Err(Refusal::NoRule),
    };
    let refused = match resolved {
        Ok(name) => {
            let addresses = names.addresses(&name);
            reply.answers.extend(record(question, addresses, has_v6));
            let is_address =
                [QTYPE::TYPE(TYPE::A), QTYPE::TYPE(TYPE::AAAA)].contains(&question.qtype);
            (!is_address).then_some((shown, "a query of another type than A and AAAA"))
        }
        Err(refusal) => {
            *reply.rcode_mut() = RCODE::NameError;
            Some((shown, refusal.words()))
        }
    };
    reply.questions.push(question.clone());
    Answer { bytes: reply.build_bytes_vec_compressed().ok(), refused }
}

/// Parses a message that is one question, and at most an OPT and a signature. Counts are compared first, since
/// the parser makes room for as many entries as they say.
fn parse(query: &[u8]) -> Option<Packet<'_>> {
    let count = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
    let (questions, answers, authorities, more) = (count(4)?, count(6)?, count(8)?, count(10)?);
    if query.len() > LONGEST || questions != 1 || answers != 0 || authorities != 0 || more > 2 {
        return None;
    }
    let packet = Packet::parse(query).ok()?;
    (packet.opcode() == OPCODE::StandardQuery && packet.questions.len() == 1).then_some(packet)
}

/// FORMERR, with nothing of the query but its number.
fn malformed(header: &[u8; 12]) -> Answer {
    let [high, low, ..] = *header;
    let bytes = vec![high, low, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
    Answer { bytes: Some(bytes), refused: Some((String::new(), "a malformed query")) }
}

/// A name as it is shown, and as it is compared. A dot within a label is no border of labels.
fn host(name: &Name<'_>) -> (String, Option<String>) {
    let labels: Vec<&[u8]> = name.as_bytes().collect();
    let joined = labels.join(&b'.');
    let has_dots = labels.iter().any(|label| label.contains(&b'.'));
    let name = if has_dots { None } else { name::from_wire(&joined) };
    (String::from_utf8_lossy(&joined).into_owned(), name)
}

/// The address record that is asked for; other types have no data.
fn record<'a>(
    question: &Question<'a>,
    (v4, v6): (std::net::Ipv4Addr, std::net::Ipv6Addr),
    has_v6: bool,
) -> Option<ResourceRecord<'a>> {
    let data = match question.qtype {
        QTYPE::TYPE(TYPE::A) => RData::A(A { address: v4.to_bits() }),
        QTYPE::TYPE(TYPE::AAAA) if has_v6 => RData::AAAA(AAAA { address: v6.to_bits() }),
        _ => return None,
    };
    Some(ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            bytes.push(label.len() as u8);
            bytes.extend(*label);
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    fn ask(bytes: &[u8]) -> Answer {
        let rules =
            Rules::new(vec!["a.example:443".parse().unwrap(), "*.b:443".parse().unwrap()], vec![]);
        answer(bytes, &rules.unwrap(), &mut Names::default(), true)
    }

    /// The code and the addresses.
    fn answered(bytes: &[u8]) -> (RCODE, Vec<RData<'static>>) {
        let bytes = ask(bytes).bytes.unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.id(), 0xabcd);
        let answers = packet.answers.iter().map(|record| record.rdata.clone().into_owned());
        (packet.rcode(), answers.collect())
    }

    #[test]
    fn allowed_names_have_addresses() {
        let v4 = RData::A(A { address: 0xc612_0100 });
        assert_eq!(answered(&query(&[b"a", b"example"], 1)), (RCODE::NoError, vec![v4.clone()]));
        assert_eq!(answered(&query(&[b"A", b"eXample"], 1)), (RCODE::NoError, vec![v4.clone()]));
        assert_eq!(answered(&query(&[b"x_y", b"z", b"b"], 1)), (RCODE::NoError, vec![v4]));
        assert_eq!(answered(&query(&[b"a", b"example"], 28)).1.len(), 1);
        for other in [2, 5, 6, 12, 15, 16, 33, 64, 65, 255] {
            assert_eq!(
                answered(&query(&[b"a", b"example"], other)),
                (RCODE::NoError, vec![]),
                "{other}"
            );
            assert!(ask(&query(&[b"a", b"example"], other)).refused.is_some());
        }
    }

    #[test]
    fn other_names_do_not_exist() {
        for labels in [
            &[&b"evil"[..], b"example"][..],
            &[b"b"],
            &[b"evilb"],
            &[b"a", b"example", b"evil"],
            &[b"a.example"],
            &[b"a", b"example\0"],
            &[b"\xff", b"b"],
            &[b"x.y", b"b"],
            &[],
        ] {
            let answer = ask(&query(labels, 1));
            assert_eq!(answered(&query(labels, 1)), (RCODE::NameError, vec![]), "{labels:?}");
            assert!(answer.refused.is_some());
        }
        let mut chaos = query(&[b"a", b"example"], 1);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(answered(&chaos).0, RCODE::NameError);
    }

    #[test]
    fn malformed_queries_get_an_error_and_responses_none() {
        let good = query(&[b"a", b"example"], 1);
        let mut two = good.clone();
        two[5] = 2;
        two.extend(&good[12..]);
        let mut many = good.clone();
        many[4..12].fill(0xff);
        let mut pointer = good.clone();
        pointer[12..14].copy_from_slice(&[0xc0, 12]);
        let mut update = good.clone();
        update[2] = 5 << 3;
        let long = query(&[&[b'a'; 64], b"b"], 1);
        for bytes in [
            &two,
            &many,
            &pointer,
            &update,
            &long,
            &good[..20].to_vec(),
            &[&good[..], &[0; 1300]].concat(),
        ] {
            assert_eq!(ask(bytes).bytes.unwrap()[..4], [0xab, 0xcd, 0x80, 0x81], "{bytes:?}");
        }
        let mut response = good;
        response[2] |= 0x80;
        for bytes in [&response[..], &response[..11]] {
            let answer = ask(bytes);
            assert!(answer.bytes.is_none() && answer.refused.is_some());
        }
    }
}
