//! STUN binding requests and responses (RFC 8489), the part that tells a device its address.
//!
//! Neither side authenticates: a client trusts a response only as a candidate, and a server tells
//! nobody more than where the request came from. Responses are never longer than 44 bytes more
//! than the request, and a server answers each request once, to its source. From its other port, and to another
//! port of its source (RFC 5780), it sends nothing that is longer than the request.

use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::rfc5389::Attribute;
use stun_codec::rfc5389::attributes::{
    ErrorCode, Fingerprint, MappedAddress, UnknownAttributes, XorMappedAddress,
};
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::{
    Attribute as _, AttributeType, Message, MessageClass, MessageDecoder, MessageEncoder,
    RawAttribute, TransactionId,
};

use crate::candidate::canonical;

/// Longest STUN message that is looked at; RFC 8489 section 6.1 asks to stay below the path MTU.
pub const MAX_MESSAGE: usize = 1_280;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Attribute types below this must be understood by the receiver (RFC 8489 section 14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
const UNKNOWN_ATTRIBUTE: u16 = 420;
/// Asks for an answer from elsewhere (RFC 5780 section 7.2) ...
const CHANGE_REQUEST: u16 = 0x0003;
/// ... which is another port.
const CHANGE_PORT: u8 = 0x02;
/// Asks for an answer to another port (RFC 5780 section 7.5).
const RESPONSE_PORT: u16 = 0x0027;
/// Makes others' requests longer (RFC 5780 section 7.6).
const PADDING: u16 = 0x0026;
/// Makes a request longer: what software it is (RFC 8489 section 14.14), which is not said. With a RESPONSE-PORT there must be no
/// PADDING.
const SOFTWARE: u16 = 0x8022;
/// So many spaces: then no answer that names an IPv6 address is longer than its request.
const FILLING: &[u8] = b"            ";
const HEADER: usize = 20;

/// Whether a datagram is STUN: two zero bits and the magic cookie (RFC 8489 section 5).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= 20 && datagram[0] < 0x40 && datagram[4..8] == MAGIC_COOKIE
}

/// A binding request with this transaction id.
pub fn binding_request(transaction: [u8; 12]) -> Vec<u8> {
    encode(Message::new(MessageClass::Request, BINDING, TransactionId::new(transaction)))
}

/// A binding request that wants its answer from the server's other port, and is as long as that answer will be.
pub fn binding_request_for_other_port(transaction: [u8; 12]) -> Vec<u8> {
    filled_request(transaction, CHANGE_REQUEST, &[0, 0, 0, CHANGE_PORT])
}

/// The same that wants its answer at another port of the address from which it comes.
pub fn binding_request_to_port(transaction: [u8; 12], port: u16) -> Vec<u8> {
    filled_request(transaction, RESPONSE_PORT, &port.to_be_bytes())
}

fn filled_request(transaction: [u8; 12], kind: u16, value: &[u8]) -> Vec<u8> {
    let mut request = binding_request(transaction);
    for (kind, value) in [(kind, value), (SOFTWARE, FILLING)] {
        request.extend(kind.to_be_bytes());
        request.extend([0, value.len() as u8]);
        request.extend(value);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    request[3] = (request.len() - HEADER) as u8;
    request
}

/// What a server says, with the transaction id of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The address that it sees.
    Address([u8; 12], SocketAddr),
    /// That it does not do what was asked.
    Error([u8; 12]),
}

/// What a binding response says.
pub fn parse_reply(datagram: &[u8]) -> Option<Reply> {
    let message = decode(datagram).filter(|message| message.method() == BINDING)?;
    let transaction = *message.transaction_id().as_bytes();
    match message.class() {
        MessageClass::SuccessResponse => {
            let address = match message.get_attribute::<XorMappedAddress>() {
                Some(attribute) => attribute.address(),
                None => message.get_attribute::<MappedAddress>()?.address(),
            };
            Some(Reply::Address(transaction, canonical(address)))
        }
        MessageClass::ErrorResponse => Some(Reply::Error(transaction)),
        MessageClass::Request | MessageClass::Indication => None,
    }
}

/// The transaction id and the reflexive address out of a successful binding response.
pub fn parse_response(datagram: &[u8]) -> Option<([u8; 12], SocketAddr)> {
    match parse_reply(datagram)? {
        Reply::Address(transaction, address) => Some((transaction, address)),
        Reply::Error(_) => None,
    }
}

/// The port of a server from which an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The one that was asked.
    Asked,
    /// The other one.
    Other,
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// From where.
    pub port: Port,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// The answer of a server to a datagram from `source`; nothing for what is not a binding request. A server with two ports of one
/// address answers from the other one if it is asked to. From there, and to another port than the source's, goes nothing that is
/// longer than the request.
///
/// Requests with attributes that must be understood but are not get error 420, as RFC 8489 section
/// 6.3.1 demands.
pub fn answer(datagram: &[u8], source: SocketAddr, has_other_port: bool) -> Option<Answer> {
    let request = binding(datagram)?;
    let value = |kind| {
        let mut attributes = request.unknown_attributes();
        let found = attributes.find(|attribute| attribute.get_type() == AttributeType::new(kind));
        found.map(RawAttribute::value)
    };
    let port = match value(CHANGE_REQUEST) {
        None | Some([0, 0, 0, 0]) => Some(Port::Asked),
        Some([0, 0, 0, CHANGE_PORT]) if has_other_port => Some(Port::Other),
        // It has no other port, or no other address.
        Some(_) => None,
    };
    let to = match value(RESPONSE_PORT) {
        None => Some(source.port()),
        Some([high, low, ..]) => Some(u16::from_be_bytes([*high, *low])).filter(|port| *port != 0),
        Some(_) => None,
    };
    let (Some(port), Some(to)) = (port, to) else {
        let bytes = respond(&request, &[], source)?;
        return Some(Answer { port: Port::Asked, to: source, bytes });
    };
    let bytes = respond(&request, &[CHANGE_REQUEST, RESPONSE_PORT, PADDING], source)?;
    let goes_back = port == Port::Asked && to == source.port();
    let to = with_port(source, to);
    (goes_back || bytes.len() <= datagram.len()).then_some(Answer { port, to, bytes })
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn binding(datagram: &[u8]) -> Option<Message<Attribute>> {
    let is_asked = |request: &Message<Attribute>| {
        request.class() == MessageClass::Request && request.method() == BINDING
    };
    decode(datagram).filter(is_asked)
}

/// The response to a request by whoever understands these attributes beside the usual ones.
fn respond(request: &Message<Attribute>, known: &[u16], source: SocketAddr) -> Option<Vec<u8>> {
    let unknown: Vec<_> = request
        .unknown_attributes()
        .map(stun_codec::Attribute::get_type)
        .filter(|kind| kind.as_u16() < COMPREHENSION_OPTIONAL && !known.contains(&kind.as_u16()))
        .collect();
    let transaction = request.transaction_id();
    let mut response = if unknown.is_empty() {
        let mut response = Message::new(MessageClass::SuccessResponse, BINDING, transaction);
        response.add_attribute(XorMappedAddress::new(canonical(source)));
        response
    } else {
        let mut response = Message::new(MessageClass::ErrorResponse, BINDING, transaction);
        response
            .add_attribute(ErrorCode::new(UNKNOWN_ATTRIBUTE, "Unknown Attribute".to_owned()).ok()?);
        response.add_attribute(UnknownAttributes::new(unknown));
        response
    };
    if request.get_attribute::<Fingerprint>().is_some() {
        response.add_attribute(Fingerprint::new(&response).ok()?);
    }
    Some(encode(response))
}

fn decode(datagram: &[u8]) -> Option<Message<Attribute>> {
    if datagram.len() > MAX_MESSAGE || !is_stun(datagram) {
        return None;
    }
    MessageDecoder::<Attribute>::new().decode_from_bytes(datagram).ok()?.ok()
}

fn encode(message: Message<Attribute>) -> Vec<u8> {
    MessageEncoder::new().encode_into_bytes(message).expect("binding messages are encodable")
}
