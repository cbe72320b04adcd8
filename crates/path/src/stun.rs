//! STUN binding requests and responses (RFC 8489), the part that tells a device its address.
//!
//! Neither side authenticates: a client trusts a response only as a candidate, and a server tells
//! nobody more than where the request came from. Responses are never longer than 44 bytes more
//! than the request, and a server answers each request once, to its source. From its other port
//! (RFC 5780) it sends nothing that is longer than the request.

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
/// Makes a request longer (RFC 5780 section 7.6) ...
const PADDING: u16 = 0x0026;
/// ... by this much: then none that names an IPv6 address is answered by more than it has itself.
const PADDING_LENGTH: usize = 12;
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
    let mut request = binding_request(transaction);
    for (kind, value) in
        [(CHANGE_REQUEST, &[0, 0, 0, CHANGE_PORT][..]), (PADDING, &[0; PADDING_LENGTH][..])]
    {
        request.extend(kind.to_be_bytes());
        request.extend([0, value.len() as u8]);
        request.extend(value);
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

/// The answer of a server with one port to a datagram from `source`; nothing for what is not a binding
/// request.
///
/// Requests with attributes that must be understood but are not get error 420, as RFC 8489 section
/// 6.3.1 demands.
pub fn answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    respond(&binding(datagram)?, &[], source)
}

/// The port of a server from which an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The one that was asked.
    Asked,
    /// The other one.
    Other,
}

/// The same of a server with two ports of one address, which sends nothing from the other that is longer than the
/// request.
pub fn answer_from_two_ports(datagram: &[u8], source: SocketAddr) -> Option<(Port, Vec<u8>)> {
    let request = binding(datagram)?;
    let is_change =
        |attribute: &&RawAttribute| attribute.get_type() == AttributeType::new(CHANGE_REQUEST);
    let change = request.unknown_attributes().find(is_change).map(RawAttribute::value);
    let port = match change {
        None | Some([0, 0, 0, 0]) => Port::Asked,
        Some([0, 0, 0, CHANGE_PORT]) => Port::Other,
        // It has no other address.
        Some(_) => return Some((Port::Asked, respond(&request, &[], source)?)),
    };
    let response = respond(&request, &[CHANGE_REQUEST, PADDING], source)?;
    let is_short = response.len() <= datagram.len();
    (port == Port::Asked || is_short).then_some((port, response))
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
