//! What the name service knows: the containers on the networks of the one that asks.

use super::{Member, forward::Transport};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata},
    serialize::binary::{BinEncodable, BinEncoder},
};
use ipnet::IpNet;
use std::{cell::RefCell, collections::HashMap, net::IpAddr};

/// Docker's time to live, in seconds.
const TTL: u32 = 600;

/// How large an answer by UDP we announce to take (EDNS, RFC 6891); the DNS flag day's recommendation.
const PAYLOAD: u16 = 1232;

/// How often each name with several addresses was asked for: the addresses take turns in being the first.
pub type Turns = RefCell<HashMap<String, usize>>;

/// What to do about a query.
#[derive(Debug)]
pub enum Decision {
    /// Nothing: it is no query.
    Ignore,
    Answer(Vec<u8>),
    /// Ask `servers`. `limit`: what the asker takes, in bytes. `failure`: the answer when none of them has one.
    Forward {
        servers: Vec<IpAddr>,
        limit: u16,
        failure: Vec<u8>,
    },
}

/// Looks at `packet`, a query by `asker`, one of `members`.
pub fn decide<'a>(
    packet: &[u8],
    transport: Transport,
    asker: &Member,
    members: impl Iterator<Item = &'a Member> + Clone,
    turns: &Turns,
) -> Decision {
    let Ok(query) = Message::from_vec(packet) else { return Decision::Ignore };
    if query.message_type != MessageType::Query {
        return Decision::Ignore;
    }
    let limit = match transport {
        Transport::Udp => query.max_payload(),
        Transport::Tcp => u16::MAX,
    };
    let answered =
        |code, records| encode(&response(&query, code, records), limit).map_or(Decision::Ignore, Decision::Answer);
    if query.op_code != OpCode::Query {
        return answered(ResponseCode::NotImp, Vec::new());
    }
    let [question] = query.queries.as_slice() else { return answered(ResponseCode::FormErr, Vec::new()) };
    match records(question, asker, members, turns) {
        Some(records) => answered(ResponseCode::NoError, records),
        // A single label can only be a container's name then, and there is none such.
        None if asker.servers.is_empty() && question.name.num_labels() == 1 => {
            answered(ResponseCode::NXDomain, Vec::new())
        }
        None => match answered(ResponseCode::ServFail, Vec::new()) {
            Decision::Answer(failure) if !asker.servers.is_empty() => {
                Decision::Forward { servers: asker.servers.clone(), limit, failure }
            }
            answered => answered,
        },
    }
}

/// `message` as it goes over the wire in at most `limit` bytes; what does not fit is left out, and the answer says so.
fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut buffer = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut buffer);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    Some(buffer)
}

fn response(query: &Message, code: ResponseCode, records: Vec<Record>) -> Message {
    let mut answer = Message::response(query.id, query.op_code);
    answer.metadata.recursion_desired = query.recursion_desired;
    answer.metadata.checking_disabled = query.checking_disabled;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries = query.queries.clone();
    answer.answers = records;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        answer.edns = Some(edns);
    }
    answer
}

/// The records that answer `question`; empty for another type of a name that we know; None for what we don't.
fn records<'a>(
    question: &Query,
    asker: &Member,
    members: impl Iterator<Item = &'a Member> + Clone,
    turns: &Turns,
) -> Option<Vec<Record>> {
    if question.query_class != DNSClass::IN {
        return None;
    }
    let wanted = |kind| question.query_type == kind || question.query_type == RecordType::ANY;
    let record = |data| Record::from_rdata(question.name.clone(), TTL, data);
    if let Ok(net) = question.name.parse_arpa_name() {
        let name = name_of(net, asker, members)?;
        let name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
        return Some(if wanted(RecordType::PTR) { vec![record(RData::PTR(rdata::PTR(name)))] } else { Vec::new() });
    }
    let name = question.name.to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let mut addresses = asker.attachments.iter().find_map(|own| {
        let found: Vec<_> = members
            .clone()
            .flat_map(|member| &member.attachments)
            .filter(|other| other.network_id == own.network_id && other.names.iter().any(|known| known == name))
            .map(|other| other.address)
            .collect();
        (!found.is_empty()).then_some(found)
    })?;
    if !wanted(RecordType::A) {
        return Some(Vec::new());
    }
    if addresses.len() > 1 {
        let mut turns = turns.borrow_mut();
        let turn = turns.entry(name.to_string()).or_default();
        let count = addresses.len();
        addresses.rotate_left(*turn % count);
        *turn = turn.wrapping_add(1);
    }
    Some(addresses.into_iter().map(|address| record(RData::A(address.into()))).collect())
}

/// The name of the container that has the address `net` on a network of the asker's.
fn name_of<'a>(net: IpNet, asker: &Member, mut members: impl Iterator<Item = &'a Member>) -> Option<&'a str> {
    let IpAddr::V4(address) = net.addr() else { return None };
    if net.prefix_len() != 32 {
        return None;
    }
    members.find_map(|member| {
        let found = member.attachments.iter().find(|other| {
            other.address == address && asker.attachments.iter().any(|own| own.network_id == other.network_id)
        })?;
        found.names.first().map(String::as_str)
    })
}
