//! A TURN server, on a codec whose integrity is not the client's, and the sockets of nodes towards it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytecodec::{DecodeExt, EncodeExt};
use engine::{SocketCommand, SocketId};
use stun_codec::rfc5389::attributes::{ErrorCode, MessageIntegrity, Nonce, Realm, Username};
use stun_codec::rfc5766::attributes::{
    ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayAddress,
};
use stun_codec::rfc5766::methods;
use stun_codec::{
    Message, MessageClass, MessageDecoder, MessageEncoder, TransactionId, define_attribute_enums,
};

use super::underlay::HostId;
use super::world::World;

define_attribute_enums!(
    Attribute,
    AttributeDecoder,
    AttributeEncoder,
    [
        ChannelNumber,
        Data,
        ErrorCode,
        Lifetime,
        MessageIntegrity,
        Nonce,
        Realm,
        RequestedTransport,
        Username,
        XorPeerAddress,
        XorRelayAddress
    ]
);

/// Where it is.
const ADDRESS: [u8; 4] = [203, 0, 113, 9];
const PORT: u16 = 3_478;
/// The ports of allocations begin here.
const FIRST_PORT: u16 = 50_000;
const USER: &str = "alice";
const PASSWORD: &str = "password";
const REALM: &str = "sim";
const NONCE: &str = "once";
/// The allocation that is granted, in seconds.
const LIFETIME: u32 = 600;
/// For how long a channel lets in what comes from its host (RFC 8656 section 9).
const PERMISSION: Duration = Duration::from_secs(300);

/// A datagram from one of the server's addresses to somebody.
type Sent = (SocketAddr, SocketAddr, Vec<u8>);

/// A TURN server on the internet.
#[derive(Debug, Default)]
pub struct TurnHost {
    /// Whether it answers.
    pub running: bool,
    /// By the client's address.
    allocations: BTreeMap<SocketAddr, Allocation>,
    ports: u16,
    /// Datagrams that it has passed on.
    pub passed_on: u64,
}

#[derive(Debug)]
struct Allocation {
    relayed: SocketAddr,
    /// The request that made it, which may come twice.
    made_by: TransactionId,
    channels: BTreeMap<u16, SocketAddr>,
    /// Until when each host is let in.
    permitted: BTreeMap<IpAddr, Instant>,
}

impl Allocation {
    /// Makes a channel, or makes it last; says whether that number and that peer may be together.
    fn bind(&mut self, number: u16, peer: SocketAddr, now: Instant) -> bool {
        let is_other = |(known, to): (&u16, &SocketAddr)| (*known == number) != (*to == peer);
        if self.channels.iter().any(is_other) {
            return false;
        }
        self.channels.insert(number, peer);
        self.permitted.insert(peer.ip(), now + PERMISSION);
        true
    }
}

impl TurnHost {
    /// How settings name it.
    #[must_use]
    pub fn setting() -> String {
        format!("udp/{},username={USER},password={PASSWORD}", Self::address())
    }

    fn address() -> SocketAddr {
        SocketAddr::from((ADDRESS, PORT))
    }

    /// How many allocations there are.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// Whether it takes datagrams there.
    pub(super) fn listens_at(&self, to: SocketAddr) -> bool {
        self.running && to.ip() == Self::address().ip()
    }

    /// What comes of a datagram.
    pub(super) fn receive(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
        now: Instant,
    ) -> Vec<Sent> {
        let sent = if to != Self::address() {
            self.receive_from_peer((from, to), bytes, now)
        } else if bytes[0] & 0xc0 == 0x40 {
            self.receive_for_peer(from, bytes)
        } else {
            let decoded = MessageDecoder::<Attribute>::new().decode_from_bytes(bytes);
            let request = decoded.ok().and_then(Result::ok);
            let answer = request.and_then(|request| self.answer(from, &request, now));
            return answer.map(|answer| (to, from, encode(answer))).into_iter().collect();
        };
        self.passed_on += u64::from(sent.is_some());
        sent.into_iter().collect()
    }

    fn receive_for_peer(&self, from: SocketAddr, bytes: &[u8]) -> Option<Sent> {
        let allocation = self.allocations.get(&from)?;
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let peer = allocation.channels.get(&u16::from_be_bytes([head[0], head[1]]))?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        Some((allocation.relayed, *peer, rest.get(..length)?.to_vec()))
    }

    fn receive_from_peer(
        &self,
        (from, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
        now: Instant,
    ) -> Option<Sent> {
        let mut all = self.allocations.iter();
        let (client, allocation) = all.find(|(_, allocation)| allocation.relayed == to)?;
        allocation.permitted.get(&from.ip()).filter(|until| **until > now)?;
        let channel = allocation.channels.iter().find(|(_, peer)| **peer == from);
        let payload = match channel {
            Some((number, _)) => {
                let length = u16::try_from(bytes.len()).expect("datagrams are short");
                [&number.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat()
            }
            None => {
                let transaction = TransactionId::new([0; 12]);
                let mut message =
                    Message::new(MessageClass::Indication, methods::DATA, transaction);
                message.add_attribute(XorPeerAddress::new(from));
                message.add_attribute(Data::new(bytes.to_vec()).expect("datagrams are short"));
                encode(message)
            }
        };
        Some((Self::address(), *client, payload))
    }

    fn answer(
        &mut self,
        from: SocketAddr,
        request: &Message<Attribute>,
        now: Instant,
    ) -> Option<Message<Attribute>> {
        let (user, realm) = (name(), realm());
        let is_signed = request
            .get_attribute::<MessageIntegrity>()
            .is_some_and(|proof| proof.check_long_term_credential(&user, &realm, PASSWORD).is_ok());
        if !is_signed {
            return Some(refusal(request, 401));
        }
        let mut answer = response(request, MessageClass::SuccessResponse);
        match request.method() {
            methods::ALLOCATE => {
                let made_by = request.transaction_id();
                let relayed = match self.allocations.get(&from) {
                    Some(allocation) if allocation.made_by == made_by => allocation.relayed,
                    Some(_) => return Some(refusal(request, 437)),
                    None => self.allocate(from, made_by),
                };
                answer.add_attribute(XorRelayAddress::new(relayed));
                answer.add_attribute(Lifetime::from_u32(LIFETIME));
            }
            _ if !self.allocations.contains_key(&from) => return Some(refusal(request, 437)),
            methods::REFRESH => {
                let wanted = request.get_attribute::<Lifetime>()?.lifetime();
                if wanted.is_zero() {
                    self.allocations.remove(&from);
                }
                answer.add_attribute(Lifetime::new(wanted).ok()?);
            }
            _ => {
                let peer = request.get_attribute::<XorPeerAddress>()?.address();
                let number = request.get_attribute::<ChannelNumber>()?.value();
                if !self.allocations.get_mut(&from)?.bind(number, peer, now) {
                    return Some(refusal(request, 400));
                }
            }
        }
        let proof = MessageIntegrity::new_long_term_credential(&answer, &user, &realm, PASSWORD);
        answer.add_attribute(proof.expect("it is encodable"));
        Some(answer)
    }

    fn allocate(&mut self, from: SocketAddr, made_by: TransactionId) -> SocketAddr {
        let relayed = SocketAddr::from((ADDRESS, FIRST_PORT + self.ports));
        self.ports += 1;
        let (channels, permitted) = (BTreeMap::new(), BTreeMap::new());
        self.allocations.insert(from, Allocation { relayed, made_by, channels, permitted });
        relayed
    }
}

fn name() -> Username {
    Username::new(USER.to_owned()).expect("it is short")
}

fn realm() -> Realm {
    Realm::new(REALM.to_owned()).expect("it is short")
}

fn response(request: &Message<Attribute>, class: MessageClass) -> Message<Attribute> {
    Message::new(class, request.method(), request.transaction_id())
}

fn refusal(request: &Message<Attribute>, code: u16) -> Message<Attribute> {
    let mut answer = response(request, MessageClass::ErrorResponse);
    answer.add_attribute(ErrorCode::new(code, String::new()).expect("it is a code"));
    answer.add_attribute(realm());
    answer.add_attribute(Nonce::new(NONCE.to_owned()).expect("it is short"));
    answer
}

fn encode(message: Message<Attribute>) -> Vec<u8> {
    MessageEncoder::new().encode_into_bytes(message).expect("it is encodable")
}

impl World {
    /// What a node's shell does with sockets beside its own.
    pub(super) fn handle_socket_command(&mut self, index: usize, command: SocketCommand) {
        let now = self.node_now(index);
        match command {
            SocketCommand::Open { socket, remote, .. } => {
                let from = self.nodes[index].new_address(remote);
                self.nodes[index].sockets.insert(socket, (from, remote));
                if let Some(engine) = &mut self.nodes[index].engine {
                    engine.handle_socket_opened(socket, &mut self.rng, now);
                }
            }
            SocketCommand::Send { socket, bytes } => {
                let Some((from, remote)) = self.nodes[index].sockets.get(&socket).copied() else {
                    return;
                };
                if self.nodes[index].source(remote).is_some() {
                    self.send_datagram(HostId::Node(index), from, remote, bytes);
                }
            }
            SocketCommand::Close { socket } => {
                self.nodes[index].sockets.remove(&socket);
            }
        }
    }

    /// What is wrong with the TURN server in a node's eyes.
    pub fn turn_problem(&self, node: usize) -> Option<String> {
        let engine = self.nodes[node].engine.as_ref()?;
        engine.status(self.now).turn.first()?.problem.clone()
    }

    /// The one of these sockets of a node that takes a datagram.
    pub(super) fn socket_at(
        &self,
        index: usize,
        to: SocketAddr,
        from: SocketAddr,
    ) -> Option<SocketId> {
        let mut sockets = self.nodes[index].sockets.iter();
        sockets.find(|(_, socket)| **socket == (to, from)).map(|(turn, _)| *turn)
    }
}
