//! The messages with which two peers find paths to each other.

use std::net::{Ipv4Addr, SocketAddr};

use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

use crate::MAX_CANDIDATES;
use crate::translator::PortSequence;

/// By how many bytes a probe is shorter than the tunnel's packets that it stands for: sealed into a hello frame (64-byte
/// header, 16-byte tag) it becomes a UDP payload as long as theirs (16 and 16). For packets of 1,280 bytes these are 1,312,
/// and the answer proves a path MTU of 1,360 over IPv6.
pub(crate) const PROBE_SHORTER: usize = 48;
/// The longest message. Nothing larger than jumbo frames is searched for.
pub const MAX_MESSAGE: usize = 9_216;

/// Matches a pong with its ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TransactionId(#[cbor(with = "minicbor::bytes")] pub [u8; 12]);

impl TransactionId {
    pub(crate) fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut transaction = [0; 12];
        rng.fill_bytes(&mut transaction);
        Self(transaction)
    }
}

/// A disco message. Carried in disco frames, which authenticate the sender.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Message {
    /// Asks for a pong over the path on which this arrived.
    #[n(0)]
    #[cbor(array)]
    Ping {
        /// Chosen at random by the sender.
        #[n(0)]
        transaction: TransactionId,
    },
    /// Answers a ping on the path on which it arrived.
    #[n(1)]
    #[cbor(array)]
    Pong {
        /// As in the ping.
        #[n(0)]
        transaction: TransactionId,
        /// How many of the tunnel's packets have come to the sender straight from the receiver so far, counted anew after the largest
        /// number; none where the ping did not come straight, or the sender has no session in which packets could come.
        #[n(1)]
        arrived: Option<u32>,
    },
    /// Asks the receiver to probe these addresses now; sent through a relay.
    #[n(2)]
    #[cbor(array)]
    CallMeMaybe {
        /// Where the sender may be reachable.
        #[n(0)]
        candidates: Vec<SocketAddr>,
        /// How the sender's translator counts, if each destination gets a port of its own. Its address is
        /// one of the candidates'.
        #[n(1)]
        ports: Option<PortSequence>,
    },
    /// Asks at which address the receiver's translator keeps one port for all destinations, because the sender's gives ports
    /// at random.
    #[n(5)]
    #[cbor(array)]
    MappingRequest {
        /// The address of the sender's translator.
        #[n(0)]
        at: Ipv4Addr,
    },
    /// Answers that.
    #[n(6)]
    #[cbor(array)]
    Mapping {
        /// The address; none if each destination gets a port of its own.
        #[n(0)]
        steady: Option<SocketAddr>,
    },
    /// Tells that the sender has sent to that address from many sockets, to which its translator will have given ports.
    #[n(7)]
    #[cbor(array)]
    Scattered,
    /// Tells where the count of the sender's translator stands. The sender keeps it there for a moment, and asks the receiver,
    /// whose translator counts as well, to do the same and to guess.
    #[n(8)]
    #[cbor(array)]
    Rendezvous {
        /// Its address is one of the sender's candidates.
        #[n(0)]
        ports: PortSequence,
    },
    /// Asks the receiver to pass datagrams on between the sender and a third device.
    #[n(3)]
    #[cbor(array)]
    CircuitRequest {
        /// The id of the third one.
        #[cbor(n(0), with = "minicbor::bytes")]
        peer: [u8; 32],
    },
    /// Tells that the sender passes datagrams on between the receiver and a third device, or does not.
    #[n(4)]
    #[cbor(array)]
    Circuit {
        /// The id of the third one.
        #[cbor(n(0), with = "minicbor::bytes")]
        peer: [u8; 32],
        /// The number of the circuit at the sender; none if it does not pass anything on between the two.
        #[n(1)]
        number: Option<u32>,
    },
    /// Tells that a relay passes datagrams on between the sender and the receiver.
    #[n(9)]
    #[cbor(array)]
    RelayCircuit {
        /// The id of the relay.
        #[cbor(n(0), with = "minicbor::bytes")]
        relay: [u8; 32],
        /// The number of the circuit at the relay.
        #[n(1)]
        number: u32,
        /// By which the receiver shows the relay where it is.
        #[cbor(n(2), with = "minicbor::bytes")]
        key: [u8; 16],
    },
}

/// The bytes are not a disco message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any disco message may be.
    #[error("disco message of {0} bytes, the limit is {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not the expected CBOR.
    #[error("malformed disco message: {0}")]
    Malformed(String),
    /// More candidates than a device may announce.
    #[error("{0} candidates, the limit is {MAX_CANDIDATES}")]
    TooManyCandidates(usize),
}

impl Message {
    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to a vector does not fail")
    }

    /// The message as bytes, filled up with zeros to what becomes a datagram as long as one of the tunnel's packets of `mtu`
    /// bytes does.
    pub fn encode_padded(&self, mtu: usize) -> Vec<u8> {
        let mut bytes = self.encode();
        bytes.resize(mtu.saturating_sub(PROBE_SHORTER).clamp(bytes.len(), MAX_MESSAGE), 0);
        bytes
    }

    /// Parses a message; whatever follows it is padding.
    ///
    /// # Errors
    /// If the bytes are too many, are not a known message, or name too many candidates.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        let message: Self =
            minicbor::decode(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))?;
        match &message {
            Self::CallMeMaybe { candidates, .. } if candidates.len() > MAX_CANDIDATES => {
                Err(DecodeError::TooManyCandidates(candidates.len()))
            }
            Self::Ping { .. }
            | Self::Pong { .. }
            | Self::CallMeMaybe { .. }
            | Self::MappingRequest { .. }
            | Self::Mapping { .. }
            | Self::Scattered
            | Self::Rendezvous { .. }
            | Self::CircuitRequest { .. }
            | Self::Circuit { .. }
            | Self::RelayCircuit { .. } => Ok(message),
        }
    }
}
