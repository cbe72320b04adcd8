//! What goes over UDP for circuits: what stands before a datagram, and the messages by which ends show where they are.

use std::fmt;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of what stands before a datagram, in bytes.
pub const HEAD_LEN: usize = 4;
/// Numbers of circuits are below this.
pub const NUMBERS: u32 = 1 << 24;
/// Length of the messages by which an end shows where it is, and of their answers, in bytes.
pub const BIND_LEN: usize = HEAD_LEN + NONCE_LEN + TAG_LEN;

const NONCE_LEN: usize = 8;
const TAG_LEN: usize = 16;

/// On the way to who passes it on. WireGuard's messages begin with 1 to 4, frames with their version, STUN's with 0 or 1.
const ASCENDING: u8 = 5;
/// On the way from there.
const DESCENDING: u8 = 6;

/// What stands before a datagram on a circuit: a byte that says in which direction it goes, and the circuit's number at
/// who passes it on, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head([u8; HEAD_LEN]);

impl Head {
    /// Of what is to be passed on.
    #[must_use]
    pub fn ascending(number: u32) -> Self {
        Self(head(ASCENDING, number))
    }

    /// Of what was passed on.
    #[must_use]
    pub fn descending(number: u32) -> Self {
        Self(head(DESCENDING, number))
    }

    /// What stands before this datagram, if it goes over a circuit.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let head = datagram.first_chunk()?;
        matches!(head[0], ASCENDING | DESCENDING).then_some(Self(*head))
    }

    /// The number of the circuit on which something is to be passed on.
    #[must_use]
    pub fn to_pass_on(self) -> Option<u32> {
        (self.0[0] == ASCENDING).then(|| number(self.0))
    }

    /// As it stands before the datagram.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes of what was taken to be passed on what is passed on.
    pub fn descend(datagram: &mut [u8]) {
        if let Some(first) = datagram.first_mut() {
            *first = DESCENDING;
        }
    }
}

fn head(kind: u8, number: u32) -> [u8; HEAD_LEN] {
    let [_, a, b, c] = number.to_be_bytes();
    [kind, a, b, c]
}

fn number([_, a, b, c]: [u8; HEAD_LEN]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

/// What an end repeats to show that it is where it says.
pub(crate) type Nonce = [u8; NONCE_LEN];

/// Which of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An end says that it is here.
    Bind = 7,
    /// The relay says what to repeat.
    Repeat = 8,
    /// That was repeated: the end is where it says.
    Bound = 9,
}

/// Proves one end of a circuit to the relay, and the relay to that end.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CircuitKey([u8; Self::LENGTH]);

impl CircuitKey {
    /// Its length in bytes.
    pub const LENGTH: usize = 16;

    /// A new one.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self([0; Self::LENGTH]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// The key from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for who may know them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// A message about a circuit.
    pub(crate) fn write(&self, kind: Kind, number: u32, nonce: Nonce) -> [u8; BIND_LEN] {
        let mut message = [0; BIND_LEN];
        let (text, tag) = message.split_at_mut(BIND_LEN - TAG_LEN);
        text[..HEAD_LEN].copy_from_slice(&head(kind as u8, number));
        text[HEAD_LEN..].copy_from_slice(&nonce);
        tag.copy_from_slice(&mac(&self.0, &[text]));
        message
    }

    /// What a message repeats, if it was written under this key.
    pub(crate) fn read(&self, message: &[u8; BIND_LEN]) -> Option<Nonce> {
        let (text, tag) = message.split_at(BIND_LEN - TAG_LEN);
        let is_right = bool::from(mac(&self.0, &[text]).ct_eq(tag));
        text.last_chunk().copied().filter(|_| is_right)
    }
}

impl fmt::Debug for CircuitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CircuitKey(..)")
    }
}

/// A message of this kind, and the circuit that it is about; nothing in it is proven yet.
pub(crate) fn about(kind: Kind, datagram: &[u8]) -> Option<(u32, &[u8; BIND_LEN])> {
    let message: &[u8; BIND_LEN] = datagram.try_into().ok()?;
    let head = *message.first_chunk()?;
    (head[0] == kind as u8).then(|| (number(head), message))
}

/// Keyed BLAKE2s with 16 bytes of output (RFC 7693).
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; TAG_LEN] {
    let mut state =
        Blake2sMac::<U16>::new_from_slice(key).expect("keys are of lengths that BLAKE2s takes");
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}
