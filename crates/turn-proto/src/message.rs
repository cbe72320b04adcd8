//! Messages of TURN (RFC 8656 section 18), and what proves them (RFC 8489 section 14.5).

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::rfc5389::attributes::{ErrorCode, Nonce, Realm, Username};
use stun_codec::rfc5766::attributes::{
    ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayAddress,
};
use stun_codec::rfc5766::methods;
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder, Method, TransactionId};
use zeroize::Zeroizing;

use crate::credentials::Login;
use attribute::Attribute;

/// Longest payload for a peer: what a datagram carries over IPv4, less the framing.
pub const MAX_PAYLOAD: usize = 65_000;
/// The header of a message.
pub(crate) const HEADER: usize = 20;
/// The longest message that is looked at: an indication with the longest payload.
const MAX_MESSAGE: usize = MAX_PAYLOAD + 256;
/// The UDP of [`RequestedTransport`].
const UDP: u8 = 17;
/// Credentials are wanted (RFC 8489 section 14.8).
pub(crate) const UNAUTHORIZED: u16 = 401;
/// Credentials are wanted with another nonce.
pub(crate) const STALE_NONCE: u16 = 438;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const FINGERPRINT: u16 = 0x8028;
/// Type and length of an attribute.
const ATTRIBUTE_HEADER: usize = 4;
const HMAC: usize = 20;

/// The attributes that a client writes and reads; integrity is added to and looked for in the bytes.
pub(crate) mod attribute {
    use super::{
        ChannelNumber, Data, ErrorCode, Lifetime, Nonce, Realm, RequestedTransport, Username,
        XorPeerAddress, XorRelayAddress,
    };

    stun_codec::define_attribute_enums!(
        Attribute,
        AttributeDecoder,
        AttributeEncoder,
        [
            ChannelNumber,
            Data,
            ErrorCode,
            Lifetime,
            Nonce,
            Realm,
            RequestedTransport,
            Username,
            XorPeerAddress,
            XorRelayAddress
        ]
    );
}

/// What a datagram, or a piece of a stream, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request, a response or an indication.
    Message,
    /// What a channel carries.
    Channel,
}

/// What begins with this byte (RFC 8656 section 12).
pub(crate) fn kind(first: u8) -> Option<Kind> {
    match first {
        0x00..0x40 => Some(Kind::Message),
        0x40..0x50 => Some(Kind::Channel),
        0x50.. => None,
    }
}

/// Which peer a channel leads to, and what it is called.
pub(crate) type Binding = (u16, SocketAddr);

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// An allocation for so many seconds.
    Allocate(u32),
    /// So many more seconds, or the end with none.
    Refresh(u32),
    /// A channel, and permission for what comes from the peer's address.
    Bind(Binding),
}

/// The realm and the nonce that the server wants named, and the key that goes with them.
pub(crate) struct Session {
    username: String,
    pub(crate) realm: String,
    pub(crate) nonce: String,
    key: Zeroizing<[u8; 16]>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// The key of long-term credentials (RFC 8489 section 9.2.2).
    pub(crate) fn new(login: &Login, realm: String, nonce: String) -> Self {
        let text = format!("{}:{realm}:{}", login.username, *login.password);
        let key = Zeroizing::new(md5::compute(Zeroizing::new(text).as_bytes()).0);
        Self { username: login.username.clone(), realm, nonce, key }
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &*self.key)
    }

    fn add_to(&self, message: &mut Message<Attribute>) -> Option<()> {
        message.add_attribute(Username::new(self.username.clone()).ok()?);
        message.add_attribute(Realm::new(self.realm.clone()).ok()?);
        message.add_attribute(Nonce::new(self.nonce.clone()).ok()?);
        Some(())
    }

    /// Adds what proves a message to the end of it.
    pub(crate) fn sign(&self, message: &mut Vec<u8>) {
        let whole = message.len() + ATTRIBUTE_HEADER + HMAC;
        set_length(message, whole);
        let tag = hmac::sign(&self.hmac(), message);
        message.extend(MESSAGE_INTEGRITY.to_be_bytes());
        message.extend((HMAC as u16).to_be_bytes());
        message.extend(tag.as_ref());
    }

    /// Whether the message proves to be by whoever knows the key, from the beginning to its end, which a fingerprint may follow.
    pub(crate) fn proves(&self, message: &[u8]) -> bool {
        let Some(at) = integrity(message).filter(|_| length(message) == Some(message.len())) else {
            return false;
        };
        let tag = &message[at + ATTRIBUTE_HEADER..][..HMAC];
        let mut before = message[..at].to_vec();
        set_length(&mut before, at + ATTRIBUTE_HEADER + HMAC);
        hmac::verify(&self.hmac(), &before, tag).is_ok()
    }
}

/// Writes into the header how long the message is as a whole.
fn set_length(message: &mut [u8], whole: usize) {
    let length =
        u16::try_from(whole - HEADER).expect("requests are short, responses fit their length");
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// How long the header says that the message is as a whole.
fn length(message: &[u8]) -> Option<usize> {
    let [high, low] = *message.get(2..)?.first_chunk()?;
    Some(HEADER + usize::from(u16::from_be_bytes([high, low])))
}

/// Where the integrity of a message stands, if nothing but a fingerprint follows.
fn integrity(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let head = message.get(at..at + ATTRIBUTE_HEADER)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let next = at + ATTRIBUTE_HEADER + length.next_multiple_of(4);
        if u16::from_be_bytes([head[0], head[1]]) == MESSAGE_INTEGRITY {
            let rest = message.get(next..)?;
            let is_last =
                rest.is_empty() || rest.len() == 8 && rest.starts_with(&FINGERPRINT.to_be_bytes());
            return (length == HMAC && is_last).then_some(at);
        }
        at = next;
    }
}

/// A request with this transaction id; nothing if what the server wants named has no room in one.
pub(crate) fn request(
    ask: Ask,
    transaction: [u8; 12],
    session: Option<&Session>,
) -> Option<Vec<u8>> {
    let method = method(ask);
    let mut message = Message::new(MessageClass::Request, method, TransactionId::new(transaction));
    match ask {
        Ask::Allocate(seconds) => {
            message.add_attribute(RequestedTransport::new(UDP));
            message.add_attribute(Lifetime::from_u32(seconds));
        }
        Ask::Refresh(seconds) => message.add_attribute(Lifetime::from_u32(seconds)),
        Ask::Bind((number, peer)) => {
            message.add_attribute(ChannelNumber::new(number).ok()?);
            message.add_attribute(XorPeerAddress::new(peer));
        }
    }
    if let Some(session) = session {
        session.add_to(&mut message)?;
    }
    let mut bytes = MessageEncoder::new().encode_into_bytes(message).ok()?;
    if let Some(session) = session {
        session.sign(&mut bytes);
    }
    Some(bytes)
}

fn method(ask: Ask) -> Method {
    match ask {
        Ask::Allocate(_) => methods::ALLOCATE,
        Ask::Refresh(_) => methods::REFRESH,
        Ask::Bind(_) => methods::CHANNEL_BIND,
    }
}

/// A payload as the channel of its peer carries it, filled up as a stream wants it if so wished.
pub(crate) fn channel_data(number: u16, payload: &[u8], filled: bool) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD)?;
    let mut bytes = Vec::with_capacity(ATTRIBUTE_HEADER + payload.len().next_multiple_of(4));
    bytes.extend(number.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(payload);
    if filled {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

/// What came from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// Data of a channel.
    Channel(u16, &'a [u8]),
    /// Data of a peer, with its address.
    Data(SocketAddr, Vec<u8>),
    /// The answer to a request.
    Answer([u8; 12], Answer),
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has done so.
    Success {
        /// The address of an allocation.
        relayed: Option<SocketAddr>,
        /// For how many seconds.
        lifetime: Option<u64>,
    },
    /// It has not.
    Error {
        /// Why (RFC 8489 section 14.8).
        code: u16,
        /// What it wants named.
        realm: Option<String>,
        /// The same.
        nonce: Option<String>,
    },
}

impl Answer {
    /// Whether it counts only with proof (RFC 8489 section 9.2.5), as the answer to a request with or without: success
    /// does, and what else is wrong with a request that the server has proven already.
    pub(crate) fn must_be_proven(&self, signed: bool) -> bool {
        match self {
            Self::Success { .. } => true,
            Self::Error { code, .. } => signed && ![UNAUTHORIZED, STALE_NONCE].contains(code),
        }
    }
}

/// Reads what came from the server; nothing for what is of no use to a client.
pub(crate) fn parse(bytes: &[u8]) -> Option<Incoming<'_>> {
    match kind(*bytes.first()?)? {
        Kind::Channel => {
            let (head, rest) = bytes.split_first_chunk::<ATTRIBUTE_HEADER>()?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            Some(Incoming::Channel(u16::from_be_bytes([head[0], head[1]]), rest.get(..length)?))
        }
        Kind::Message => parse_message(bytes),
    }
}

fn parse_message(bytes: &[u8]) -> Option<Incoming<'_>> {
    if bytes.len() > MAX_MESSAGE {
        return None;
    }
    let message = MessageDecoder::<Attribute>::new().decode_from_bytes(bytes).ok()?.ok()?;
    let transaction = *message.transaction_id().as_bytes();
    match message.class() {
        MessageClass::Indication if message.method() == methods::DATA => {
            let peer = message.get_attribute::<XorPeerAddress>()?.address();
            let data = message.get_attribute::<Data>()?.data().to_vec();
            Some(Incoming::Data(peer, data))
        }
        MessageClass::SuccessResponse => {
            let relayed = message.get_attribute::<XorRelayAddress>().map(XorRelayAddress::address);
            let lifetime = message.get_attribute::<Lifetime>();
            let lifetime = lifetime.map(|lifetime| lifetime.lifetime().as_secs());
            Some(Incoming::Answer(transaction, Answer::Success { relayed, lifetime }))
        }
        MessageClass::ErrorResponse => {
            let code = message.get_attribute::<ErrorCode>()?.code();
            let realm = message.get_attribute::<Realm>().map(|realm| realm.text().to_owned());
            let nonce = message.get_attribute::<Nonce>().map(|nonce| nonce.value().to_owned());
            Some(Incoming::Answer(transaction, Answer::Error { code, realm, nonce }))
        }
        MessageClass::Request | MessageClass::Indication => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.4: a request with long-term credentials.
    const REQUEST: &str = "000100602112a44278ad3433c6ad72c029da412e\
        00060012e3839ee38388e383aae38383e382af e382b90000\
        0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341\
        0014000b6578616d706c652e6f726700\
        00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

    fn bytes(text: &str) -> Vec<u8> {
        let text = text.replace(' ', "").to_ascii_uppercase();
        data_encoding::HEXUPPER.decode(text.as_bytes()).expect("the test writes hexadecimals")
    }

    fn login() -> Login {
        let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".to_owned();
        // What SASLprep makes of the password of the RFC.
        Login { username, password: Zeroizing::new("TheMatrIX".to_owned()), lasts: None }
    }

    fn session() -> Session {
        Session::new(&login(), "example.org".into(), "f//499k954d6OL34oL9FSTvy64sA".into())
    }

    #[test]
    fn the_request_of_rfc_5769_is_proven_and_no_other() {
        let mut request = bytes(REQUEST);
        assert!(session().proves(&request));
        for index in 0..request.len() {
            request[index] ^= 1;
            assert!(!session().proves(&request), "byte {index}");
            request[index] ^= 1;
        }
        let other = Login { password: Zeroizing::new("other".to_owned()), ..login() };
        let other = Session::new(&other, "example.org".into(), session().nonce);
        assert!(!other.proves(&request));
    }

    #[test]
    fn a_signed_request_proves_itself_and_nothing_may_follow() {
        let peer = "192.0.2.7:4242".parse().expect("an address");
        for ask in [Ask::Allocate(600), Ask::Refresh(0), Ask::Bind((0x4000, peer))] {
            let mut request = request(ask, [7; 12], Some(&session())).expect("it fits");
            assert!(session().proves(&request));
            request.extend([0x80, 0x22, 0, 0]);
            let length = request.len();
            set_length(&mut request, length);
            assert!(!session().proves(&request));
        }
    }

    #[test]
    fn a_request_has_golden_bytes() {
        let request = request(Ask::Allocate(600), [1; 12], None).expect("it fits");
        let golden = "000300102112a442010101010101010101010101 0019000411000000 000d000400000258";
        assert_eq!(request, bytes(golden));
    }

    #[test]
    fn data_of_channels_is_read_as_it_was_written() {
        for filled in [false, true] {
            let written = channel_data(0x4001, b"hello", filled).expect("it fits");
            assert_eq!(written.len().is_multiple_of(4), filled);
            assert_eq!(parse(&written), Some(Incoming::Channel(0x4001, b"hello")));
        }
        assert_eq!(channel_data(0x4001, &vec![0; MAX_PAYLOAD + 1], false), None);
    }
}
