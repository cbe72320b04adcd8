//! From the bytes of a query to the bytes of a reply.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::NameError;
use crate::reverse::{self, ReverseName};
use crate::zone::{Lookup, Node, ReverseNode, TOP, Zone};

/// Time to live of every record, in seconds: a device that is renamed is found soon.
const TTL: u32 = 10;
/// Reply size over UDP without EDNS (RFC 1035 section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// Largest reply over UDP: fits every path without fragments (DNS Flag Day 2020).
const LARGEST_UDP: u16 = 1232;
const HEADER: usize = 12;
const MAX_QUERY: usize = 4096;

/// How large a reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// What the query's EDNS allows, up to 1232 bytes.
    Udp,
    /// 65,535 bytes.
    Tcp,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// Ask the host's own resolvers.
    Forward,
    /// Not a query: say nothing.
    Ignore,
}

/// The zones of all networks of a device.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    zones: Vec<Zone>,
    serial: u32,
}

/// A zone's answer before it becomes a message.
struct Findings {
    code: ResponseCode,
    apex: Name,
    answers: Vec<RData>,
    /// Whether the SOA belongs into the answer, not only beside an empty one.
    at_apex: bool,
}

impl Namespace {
    /// Puts zones together. `serial` rises whenever any of them changes.
    pub fn new(zones: Vec<Zone>, serial: u32) -> Result<Self, NameError> {
        for (index, zone) in zones.iter().enumerate() {
            if zones[..index].iter().any(|other| other.network() == zone.network()) {
                return Err(NameError::DuplicateZone);
            }
        }
        Ok(Self { zones, serial })
    }

    /// Finds the addresses of a dotted name.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Lookup {
        let labels: Vec<String> =
            name.trim_end_matches('.').rsplit('.').map(str::to_ascii_lowercase).collect();
        let Some((top, below)) = labels.split_first() else { return Lookup::Outside };
        if top != TOP {
            return Lookup::Outside;
        }
        let Some((network, relative)) = below.split_first() else { return Lookup::NoSuchName };
        match self.zone(network).map(|zone| zone.node(relative)) {
            Some(Node::Host(addresses)) => Lookup::Addresses(addresses.to_vec()),
            Some(Node::Apex | Node::Empty | Node::Missing) | None => Lookup::NoSuchName,
        }
    }

    /// Decides what becomes of a query that arrived over `limit`'s transport.
    #[must_use]
    pub fn answer(&self, query: &[u8], limit: Limit) -> Outcome {
        let Some(header) = query.first_chunk::<HEADER>() else { return Outcome::Ignore };
        let id = u16::from_be_bytes([header[0], header[1]]);
        let is_response = header[2] & 0x80 != 0;
        if is_response {
            return Outcome::Ignore;
        }
        let op_code = OpCode::from_u8((header[2] >> 3) & 0x0f);
        if op_code != OpCode::Query {
            return reply(&Message::error_msg(id, op_code, ResponseCode::NotImp), PLAIN_UDP);
        }
        let malformed =
            || reply(&Message::error_msg(id, op_code, ResponseCode::FormErr), PLAIN_UDP);
        if query.len() > MAX_QUERY {
            return malformed();
        }
        let Ok(request) = Message::from_vec(query) else { return malformed() };
        let [question] = &request.queries[..] else { return malformed() };
        let size = reply_size(&request, limit);
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return reply(&response_to(&request, ResponseCode::BADVERS), size);
        }
        let transfer = [RecordType::AXFR, RecordType::IXFR].contains(&question.query_type);
        if question.query_class != DNSClass::IN || transfer {
            return reply(&response_to(&request, ResponseCode::Refused), size);
        }
        match self.find(question) {
            Some(findings) => reply(&self.respond(&request, question, findings), size),
            None => Outcome::Forward,
        }
    }

    fn find(&self, question: &Query) -> Option<Findings> {
        let labels: Vec<Vec<u8>> = question.name.iter().map(<[u8]>::to_ascii_lowercase).collect();
        if labels.last().is_some_and(|top| top == TOP.as_bytes()) {
            return Some(self.find_forward(question, &labels));
        }
        let reverse = reverse::parse(&labels)?;
        let own = |zone| Some((zone, Zone::block_around(zone, &reverse.block)?.label_count()));
        let (zone, apex_labels) = self.zones.iter().find_map(own)?;
        Some(find_reverse(question, zone, apex_labels, &reverse))
    }

    fn find_forward(&self, question: &Query, labels: &[Vec<u8>]) -> Findings {
        let top_down: Option<Vec<String>> =
            labels.iter().rev().map(|label| String::from_utf8(label.clone()).ok()).collect();
        let zone = labels
            .len()
            .checked_sub(2)
            .and_then(|network| self.zone(std::str::from_utf8(&labels[network]).ok()?));
        let Some(zone) = zone else {
            let missing = labels.len() > 1;
            return Findings {
                code: if missing { ResponseCode::NXDomain } else { ResponseCode::NoError },
                apex: question.name.trim_to(1),
                answers: Vec::new(),
                at_apex: !missing,
            };
        };
        let node = match &top_down {
            Some(labels) => zone.node(&labels[2..]),
            None => Node::Missing,
        };
        let apex = question.name.trim_to(2);
        match node {
            Node::Apex => {
                Findings { code: ResponseCode::NoError, apex, answers: Vec::new(), at_apex: true }
            }
            Node::Host(addresses) => {
                let answers = addresses
                    .iter()
                    .map(|&address| address_data(address))
                    .filter(|data| wants(question, data.record_type()))
                    .collect();
                Findings { code: ResponseCode::NoError, apex, answers, at_apex: false }
            }
            Node::Empty => {
                Findings { code: ResponseCode::NoError, apex, answers: Vec::new(), at_apex: false }
            }
            Node::Missing => {
                Findings { code: ResponseCode::NXDomain, apex, answers: Vec::new(), at_apex: false }
            }
        }
    }

    fn respond(&self, request: &Message, question: &Query, findings: Findings) -> Message {
        let mut response = response_to(request, findings.code);
        response.metadata.authoritative = true;
        let soa = Record::from_rdata(findings.apex.clone(), TTL, self.soa(&findings.apex));
        let own = |data| Record::from_rdata(question.name.clone(), TTL, data);
        response.add_answers(findings.answers.into_iter().map(own));
        if findings.at_apex {
            if wants(question, RecordType::SOA) {
                response.add_answer(soa.clone());
            }
            if wants(question, RecordType::NS) {
                response.add_answer(own(RData::NS(NS(findings.apex))));
            }
        }
        if response.answers.is_empty() {
            response.add_authority(soa);
        }
        response
    }

    /// The SOA of a locally served zone, as RFC 6303 section 3 has it.
    fn soa(&self, apex: &Name) -> RData {
        let nobody = Name::from_str("nobody.invalid.").expect("a literal name is well-formed");
        RData::SOA(SOA::new(apex.clone(), nobody, self.serial, 3600, 1200, 604_800, TTL))
    }

    fn zone(&self, network: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.network() == network)
    }
}

fn find_reverse(question: &Query, zone: &Zone, apex_labels: usize, name: &ReverseName) -> Findings {
    let node = if name.malformed { ReverseNode::Missing } else { zone.reverse_node(&name.block) };
    let (code, answers) = match node {
        ReverseNode::Apex | ReverseNode::Empty => (ResponseCode::NoError, Vec::new()),
        ReverseNode::Missing => (ResponseCode::NXDomain, Vec::new()),
        ReverseNode::Pointer(labels) => {
            let answers = full_name(zone, labels)
                .filter(|_| wants(question, RecordType::PTR))
                .map(|target| vec![RData::PTR(PTR(target))])
                .unwrap_or_default();
            (ResponseCode::NoError, answers)
        }
    };
    let at_apex = node == ReverseNode::Apex;
    Findings { code, apex: question.name.trim_to(apex_labels), answers, at_apex }
}

fn full_name(zone: &Zone, top_down: &[String]) -> Option<Name> {
    let labels = top_down.iter().rev().map(String::as_str).chain([zone.network(), TOP]);
    let mut name = Name::from_labels(labels.map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(ip) => RData::A(A(Ipv4Addr::from(ip.octets()))),
        IpAddr::V6(ip) => RData::AAAA(AAAA(Ipv6Addr::from(ip.octets()))),
    }
}

/// ANY is answered with what there is, which is little (RFC 8482 section 4.3).
fn wants(question: &Query, kind: RecordType) -> bool {
    question.query_type == kind || question.query_type == RecordType::ANY
}

fn response_to(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.checking_disabled = request.metadata.checking_disabled;
    response.metadata.response_code = code;
    response.add_queries(request.queries.iter().cloned());
    if let Some(edns) = &request.edns {
        let mut own = Edns::new();
        own.set_max_payload(LARGEST_UDP).set_version(0).set_dnssec_ok(edns.flags().dnssec_ok);
        own.set_rcode_high(code.high());
        response.set_edns(own);
    }
    response
}

fn reply_size(request: &Message, limit: Limit) -> u16 {
    match limit {
        Limit::Tcp => u16::MAX,
        Limit::Udp => request
            .edns
            .as_ref()
            .map_or(PLAIN_UDP, |edns| edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP)),
    }
}

/// Encodes a reply; one that is too large loses its records and says so (RFC 2181 section 9).
fn reply(message: &Message, size: u16) -> Outcome {
    let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(size);
    let whole = message.to_vec().ok().filter(fits);
    match whole.or_else(|| message.truncate().to_vec().ok().filter(fits)) {
        Some(bytes) => Outcome::Reply(bytes),
        None => Outcome::Ignore,
    }
}
