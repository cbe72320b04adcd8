//! STUN binding requests and responses (RFC 8489), the part that tells a device its address.
//!
//! Neither side authenticates: a client trusts a response only as a candidate, and a server tells
//! nobody more than where the request came from. Responses are never longer than 44 bytes more
//! than the request, and a server answers each request once, to its source.

use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::rfc5389::Attribute;
use stun_codec::rfc5389::attributes::{
    ErrorCode, Fingerprint, MappedAddress, UnknownAttributes, XorMappedAddress,
};
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder, TransactionId};

use crate::candidate::canonical;

/// Longest STUN message that is looked at; RFC 8489 section 6.1 asks to stay below the path MTU.
pub const MAX_MESSAGE: usize = 1_280;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Attribute types below this must be understood by the receiver (RFC 8489 section 14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
const UNKNOWN_ATTRIBUTE: u16 = 420;

/// Whether a datagram is STUN: two zero bits and the magic cookie (RFC 8489 section 5).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= 20 && datagram[0] < 0x40 && datagram[4..8] == MAGIC_COOKIE
}

/// A binding request with this transaction id.
pub fn binding_request(transaction: [u8; 12]) -> Vec<u8> {
    encode(Message::new(MessageClass::Request, BINDING, TransactionId::new(transaction)))
}

/// The transaction id and the reflexive address out of a successful binding response.
pub fn parse_response(datagram: &[u8]) -> Option<([u8; 12], SocketAddr)> {
    let message = decode(datagram)?;
    if message.class() != MessageClass::SuccessResponse || message.method() != BINDING {
        return None;
    }
    let address = match message.get_attribute::<XorMappedAddress>() {
        Some(attribute) => attribute.address(),
        None => message.get_attribute::<MappedAddress>()?.address(),
    };
    Some((*message.transaction_id().as_bytes(), canonical(address)))
}

/// The server's answer to a datagram from `source`; nothing for what is not a binding request.
///
/// Requests with attributes that must be understood but are not get error 420, as RFC 8489 section
/// 6.3.1 demands.
pub fn answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let request = decode(datagram)?;
    if request.class() != MessageClass::Request || request.method() != BINDING {
        return None;
    }
    let unknown: Vec<_> = request
        .unknown_attributes()
        .map(stun_codec::Attribute::get_type)
        .filter(|kind| kind.as_u16() < COMPREHENSION_OPTIONAL)
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
