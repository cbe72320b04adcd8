//! As much of iroh-relay's protocol, version 2, as sending and receiving datagrams takes.
//!
//! Messages and their numbers are those of the crate's `protos::{handshake, relay}`: a type, and what follows it as it is.

use bytes::{BufMut, Bytes, BytesMut};
use ed25519_dalek::{Signer, SigningKey};

pub(crate) const PATH: &str = "/relay";
pub(crate) const PROTOCOL: &str = "iroh-relay-v2";

const CHALLENGE: u8 = 0;
const CLIENT_AUTH: u8 = 1;
const CONFIRMED: u8 = 2;
const SEND: u8 = 4;
const RECEIVED: u8 = 6;
const GONE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What is signed to prove a key.
const SIGNED: &str = "iroh-relay handshake v1 challenge signature";
const ID: usize = 32;

/// An endpoint, known by its key.
pub(crate) struct Endpoint {
    key: SigningKey,
    is_attached: bool,
}

impl Endpoint {
    pub(crate) fn new(number: usize) -> Self {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Self { key: SigningKey::from_bytes(&seed), is_attached: false }
    }

    pub(crate) fn id(&self) -> [u8; ID] {
        self.key.verifying_key().to_bytes()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.is_attached
    }

    /// Takes a message; answers what has to go back, and the payload of a datagram.
    pub(crate) fn handle_message(&mut self, message: &Bytes) -> (Option<Bytes>, Option<Bytes>) {
        match (message[0], &message[1..]) {
            (RECEIVED, _) => (None, Some(message.slice(1 + ID + 1..))),
            (CHALLENGE, challenge) => {
                let signature = self.key.sign(&blake3::derive_key(SIGNED, challenge)).to_bytes();
                let length = [u8::try_from(signature.len()).expect("64 bytes")];
                let answer = [&[CLIENT_AUTH][..], &self.id(), &length, &signature].concat();
                (Some(answer.into()), None)
            }
            (CONFIRMED, _) => {
                self.is_attached = true;
                (None, None)
            }
            // At the end, when connections close one after the other.
            (GONE, _) => (None, None),
            (PING, nonce) => (Some([&[PONG][..], nonce].concat().into()), None),
            (other, rest) => panic!("iroh-relay says {other}: {}", String::from_utf8_lossy(rest)),
        }
    }
}

/// A datagram with a payload that `write` makes.
pub(crate) fn datagram(to: &[u8; ID], length: usize, write: impl FnOnce(&mut [u8])) -> Bytes {
    let head = 1 + ID + 1;
    let mut message = BytesMut::with_capacity(head + length);
    message.put_u8(SEND);
    message.put_slice(to);
    // No congestion mark.
    message.put_u8(0);
    message.resize(head + length, 0);
    write(&mut message[head..]);
    message.freeze()
}
