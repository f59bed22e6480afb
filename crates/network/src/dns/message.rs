//! Questions and answers, without sockets.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Containers come and go; what they are told must not outlive them for long. Seconds.
const TTL: u32 = 1;
/// What a client without EDNS takes in a datagram.
const SMALLEST_DATAGRAM: u16 = 512;
const OUR_DATAGRAM: u16 = 4096;

/// What a container can ask about its networks.
pub(crate) trait Zone {
    /// The addresses of a name, in lower case and without the last dot; `None` if nobody has it.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;
    /// `name.network` of an address.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}

/// What to do about a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Reply(Vec<u8>),
    /// Not ours: ask upstream; the name, to decide whether that may be.
    Forward {
        name: String,
    },
    /// Not a question at all.
    Ignore,
}

/// Answers what is ours. `datagram`: the reply must fit what the client takes.
pub(crate) fn react(bytes: &[u8], zone: &dyn Zone, datagram: bool) -> Reaction {
    let Ok(query) = Message::from_vec(bytes) else {
        return malformed(bytes);
    };
    if query.message_type() != MessageType::Query {
        return Reaction::Ignore;
    }
    let [question] = query.queries() else {
        return Reaction::Reply(failure(&query, ResponseCode::FormErr));
    };
    if query.op_code() != OpCode::Query {
        return Reaction::Reply(failure(&query, ResponseCode::NotImp));
    }
    let name = plain(question.name());
    let forward = || Reaction::Forward { name: name.clone() };
    if question.query_class() != DNSClass::IN {
        return forward();
    }
    let records = if question.query_type() == RecordType::PTR {
        pointer(question.name(), zone)
    } else {
        zone.addresses(&name)
            .map(|addresses| address_records(question.name(), question.query_type(), &addresses))
    };
    // A known name without such a record is an empty answer: asking upstream would only find out
    // that the name does not exist there.
    records.map_or_else(forward, |records| {
        Reaction::Reply(reply(&query, records, datagram))
    })
}

/// The reply to a question that nobody could answer.
pub(crate) fn failed(bytes: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    Message::from_vec(bytes)
        .ok()
        .map(|query| failure(&query, code))
}

/// Whether another server may know better.
pub(crate) fn is_worth_another_server(reply: &[u8]) -> bool {
    let code = reply.get(3).map_or(0, |flags| flags & 0x0f);
    code == ResponseCode::ServFail.low() || code == ResponseCode::Refused.low()
}

fn malformed(bytes: &[u8]) -> Reaction {
    let Some(&[high, low]) = bytes.get(..2) else {
        return Reaction::Ignore;
    };
    if bytes.len() < 12 || bytes[2] & 0x80 != 0 {
        return Reaction::Ignore;
    }
    let id = u16::from_be_bytes([high, low]);
    let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    message.to_vec().map_or(Reaction::Ignore, Reaction::Reply)
}

fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn address_records(name: &Name, kind: RecordType, addresses: &[IpAddr]) -> Vec<Record> {
    let data = addresses
        .iter()
        .filter_map(|address| match (kind, address) {
            (RecordType::A, IpAddr::V4(v4)) => Some(RData::A(A(*v4))),
            (RecordType::AAAA, IpAddr::V6(v6)) => Some(RData::AAAA(AAAA(*v6))),
            _ => None,
        });
    data.map(|data| Record::from_rdata(name.clone(), TTL, data))
        .collect()
}

fn pointer(name: &Name, zone: &dyn Zone) -> Option<Vec<Record>> {
    let address = name.parse_arpa_name().ok()?.addr();
    let found = Name::from_ascii(format!("{}.", zone.name_of(address)?)).ok()?;
    let record = Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(found)));
    Some(vec![record])
}

fn start(query: &Message) -> Message {
    let mut message = Message::new();
    message
        .set_id(query.id())
        .set_message_type(MessageType::Response)
        .set_op_code(query.op_code())
        .set_recursion_desired(query.recursion_desired())
        .set_recursion_available(true)
        .add_queries(query.queries().to_vec());
    if query.extensions().is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_DATAGRAM);
        message.set_edns(edns);
    }
    message
}

fn failure(query: &Message, code: ResponseCode) -> Vec<u8> {
    let mut message = start(query);
    message.set_response_code(code);
    message.to_vec().unwrap_or_default()
}

/// With as many records as fit; what is missing is asked for over TCP.
fn reply(query: &Message, mut records: Vec<Record>, datagram: bool) -> Vec<u8> {
    let limit = if datagram {
        query
            .extensions()
            .as_ref()
            .map_or(SMALLEST_DATAGRAM, |edns| {
                edns.max_payload().max(SMALLEST_DATAGRAM)
            })
    } else {
        u16::MAX
    };
    loop {
        let mut message = start(query);
        message.add_answers(records.iter().cloned());
        let bytes = message.to_vec().unwrap_or_default();
        if bytes.len() <= usize::from(limit) {
            return bytes;
        }
        // An address takes 16 bytes and an IPv6 address 28: this is on the safe side.
        let excess = bytes.len() - usize::from(limit);
        records.truncate(records.len().saturating_sub((excess / 28).max(1)));
        let mut cut = start(query);
        cut.set_truncated(true).add_answers(records.iter().cloned());
        let bytes = cut.to_vec().unwrap_or_default();
        if bytes.len() <= usize::from(limit) {
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    struct Lab;

    impl Zone for Lab {
        fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
            match name {
                "web" => Some(vec!["10.0.0.2".parse().unwrap()]),
                "six" => Some(vec!["fd00::2".parse().unwrap()]),
                "many" => Some((1..=200).map(|n| IpAddr::from([10, 0, 1, n])).collect()),
                _ => None,
            }
        }

        fn name_of(&self, address: IpAddr) -> Option<String> {
            (address == IpAddr::from([10, 0, 0, 2])).then(|| "web.lab".to_owned())
        }
    }

    fn ask(name: &str, kind: RecordType, edns: Option<u16>, datagram: bool) -> Reaction {
        let mut query = Message::new();
        query
            .set_id(7)
            .set_recursion_desired(true)
            .add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(size) = edns {
            let mut extension = Edns::new();
            extension.set_max_payload(size);
            query.set_edns(extension);
        }
        react(&query.to_vec().unwrap(), &Lab, datagram)
    }

    fn answer(reaction: Reaction) -> Message {
        match reaction {
            Reaction::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_names_have_addresses_in_any_case() {
        let message = answer(ask("WeB.", RecordType::A, None, true));
        assert_eq!((message.id(), message.answers().len()), (7, 1));
        assert!(message.recursion_available() && message.recursion_desired());
        assert_eq!(
            message.answers()[0].data(),
            &RData::A(A("10.0.0.2".parse().unwrap()))
        );
    }

    #[test]
    fn a_known_name_without_such_a_record_is_an_empty_answer() {
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT] {
            let message = answer(ask("web.", kind, None, true));
            assert_eq!(message.response_code(), ResponseCode::NoError);
            assert!(message.answers().is_empty());
        }
        assert!(
            answer(ask("six.", RecordType::A, None, true))
                .answers()
                .is_empty()
        );
    }

    #[test]
    fn unknown_names_and_addresses_are_asked_upstream() {
        for (name, kind) in [
            ("example.com.", RecordType::A),
            ("9.0.0.10.in-addr.arpa.", RecordType::PTR),
        ] {
            let name_asked = name.trim_end_matches('.').to_owned();
            let forward = Reaction::Forward { name: name_asked };
            assert_eq!(ask(name, kind, None, true), forward);
        }
    }

    #[test]
    fn addresses_have_names() {
        let message = answer(ask("2.0.0.10.in-addr.arpa.", RecordType::PTR, None, true));
        let name = Name::from_ascii("web.lab.").unwrap();
        assert_eq!(message.answers()[0].data(), &RData::PTR(PTR(name)));
    }

    #[test]
    fn a_datagram_is_cut_to_what_the_client_takes_and_says_so() {
        let Reaction::Reply(bytes) = ask("many.", RecordType::A, None, true) else {
            panic!("no reply");
        };
        assert!(bytes.len() <= 512, "{}", bytes.len());
        let message = Message::from_vec(&bytes).unwrap();
        assert!(message.truncated() && message.answers().len() > 20);
        let larger = answer(ask("many.", RecordType::A, Some(4096), true));
        assert_eq!((larger.truncated(), larger.answers().len()), (false, 200));
        assert!(larger.extensions().is_some());
        let stream = answer(ask("many.", RecordType::A, None, false));
        assert_eq!((stream.truncated(), stream.answers().len()), (false, 200));
    }

    #[test]
    fn rubbish_is_refused_or_ignored_and_never_forwarded() {
        assert_eq!(react(b"", &Lab, true), Reaction::Ignore);
        assert_eq!(react(&[0; 5], &Lab, true), Reaction::Ignore);
        let mut torn = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        torn.extend([63, b'a']);
        let message = answer(react(&torn, &Lab, true));
        assert_eq!(
            (message.id(), message.response_code()),
            (9, ResponseCode::FormErr)
        );
    }
}
