//! The four messages of section 5.4 of the paper as byte layouts.

/// Length of a handshake initiation.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Length of a transport message without payload: a keepalive.
pub const KEEPALIVE_LEN: usize = TRANSPORT_HEADER_LEN + 16;
/// Bytes of a transport message before its payload: type, receiver index, counter.
pub const TRANSPORT_HEADER_LEN: usize = 16;
/// Bytes that a transport message adds to its (padded) payload: header and tag.
pub const TRANSPORT_OVERHEAD: usize = TRANSPORT_HEADER_LEN + 16;

/// What a datagram claims to be, by its type and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// First handshake message, 148 bytes.
    Initiation,
    /// Second handshake message, 92 bytes.
    Response,
    /// An answer of a responder under load, 64 bytes.
    CookieReply,
    /// An encrypted packet, at least 32 bytes.
    Transport,
}

impl MessageKind {
    /// Tells what `datagram` claims to be; `None` when type and length fit no message.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match (datagram.first_chunk::<4>()?, datagram.len()) {
            ([1, 0, 0, 0], INITIATION_LEN) => Some(Self::Initiation),
            ([2, 0, 0, 0], RESPONSE_LEN) => Some(Self::Response),
            ([3, 0, 0, 0], COOKIE_REPLY_LEN) => Some(Self::CookieReply),
            ([4, 0, 0, 0], KEEPALIVE_LEN..) => Some(Self::Transport),
            _ => None,
        }
    }
}

/// The receiver index of a transport message, which names the session; `None` for other bytes.
#[must_use]
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    let kind = MessageKind::of(datagram)?;
    (kind == MessageKind::Transport).then(|| read_u32(datagram, 4))
}

/// Length of a payload after padding to a multiple of 16, but not beyond `mtu`
/// (section 5.4.6 of the paper).
#[must_use]
pub fn padded_len(payload: usize, mtu: usize) -> usize {
    payload.next_multiple_of(16).min(mtu.max(payload))
}

/// Little-endian number at `at`; the caller has checked the length by [`MessageKind::of`].
pub(crate) fn read_u32(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(message, at))
}

/// Fixed run of bytes at `at`; the caller has checked the length by [`MessageKind::of`].
pub(crate) fn bytes<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    message[at..at + N].try_into().expect("a slice of N bytes")
}

/// Offsets inside the messages.
pub(crate) mod at {
    /// Sender index of initiation and response; receiver index of cookie reply and transport.
    pub(crate) const INDEX: usize = 4;
    pub(crate) const INITIATION_EPHEMERAL: usize = 8;
    pub(crate) const INITIATION_STATIC: usize = 40;
    pub(crate) const INITIATION_TIMESTAMP: usize = 88;
    pub(crate) const INITIATION_MAC1: usize = 116;
    pub(crate) const RESPONSE_RECEIVER: usize = 8;
    pub(crate) const RESPONSE_EPHEMERAL: usize = 12;
    pub(crate) const RESPONSE_EMPTY: usize = 44;
    pub(crate) const RESPONSE_MAC1: usize = 60;
    pub(crate) const COOKIE_NONCE: usize = 8;
    pub(crate) const COOKIE_SEALED: usize = 32;
    pub(crate) const COUNTER: usize = 8;
}
