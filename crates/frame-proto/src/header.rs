//! The header, and a frame as a whole.

use identity::DeviceId;

/// Bytes before the payload.
pub const HEADER_LENGTH: usize = 64;

/// Bytes after the payload.
pub const TAG_LENGTH: usize = 16;

/// Bytes of the nonce.
pub(crate) const NONCE_LENGTH: usize = 24;

/// The longest payload, in bytes: what the length field can say.
pub const PAYLOAD_LIMIT: usize = u16::MAX as usize;

/// The longest payload of a data frame, in bytes: leaves the 128 bytes by which relays wrap a
/// frame for each other.
pub const DATA_PAYLOAD_LIMIT: usize = PAYLOAD_LIMIT - 128;

/// The flag of frames that are sealed with a [`HelloKey`](crate::HelloKey).
pub const FLAG_HELLO: u8 = 1;

/// The flag of frames whose sender means them to wait apart from its others: of flows that send little.
pub const FLAG_INTERACTIVE: u8 = 2;

/// The flag of frames whose sender means them to have what others leave.
pub const FLAG_BACKGROUND: u8 = 4;

/// The flag of frames whose sender has AES in its processor, and would rather be sent AES-256-GCM.
pub const FLAG_AES: u8 = 8;

const VERSION: u8 = 1;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameType {
    /// A packet between peers.
    Data,
    /// A WireGuard handshake message between peers.
    Handshake,
    /// A path discovery message between peers.
    Disco,
    /// Certificates and bindings between peers.
    Introduce,
    /// A message of the Noise channel of this hop.
    Control,
    /// The hop key changes after this frame.
    Marker,
    /// A frame between peers that one relay hands to another.
    Carried,
    /// What relays tell each other about who is where.
    Mesh,
    /// Nothing: the other end of the hop throws it away.
    Dummy,
    /// Several frames that cross the hop in one message.
    Bundle,
}

impl FrameType {
    const ALL: [Self; 10] = [
        Self::Data,
        Self::Handshake,
        Self::Disco,
        Self::Introduce,
        Self::Control,
        Self::Marker,
        Self::Carried,
        Self::Mesh,
        Self::Dummy,
        Self::Bundle,
    ];

    /// Whether the frame concerns the two ends of the hop only and is never forwarded.
    #[must_use]
    pub const fn is_hop_local(self) -> bool {
        match self {
            Self::Control
            | Self::Marker
            | Self::Carried
            | Self::Mesh
            | Self::Dummy
            | Self::Bundle => true,
            Self::Data | Self::Handshake | Self::Disco | Self::Introduce => false,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Handshake => 1,
            Self::Disco => 2,
            Self::Introduce => 3,
            Self::Control => 4,
            Self::Marker => 5,
            Self::Carried => 6,
            Self::Mesh => 7,
            Self::Dummy => 8,
            Self::Bundle => 9,
        }
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a frame has, or other than its header says.
    #[error("the length of the frame does not fit its header")]
    Length,
    /// A version that is not spoken here.
    #[error("frame version {0} is not spoken here")]
    Version(u8),
    /// A type that is not known here.
    #[error("frame type {0} is not known here")]
    Type(u8),
    /// The payload is longer than a frame of this type may carry.
    #[error("the payload is too long")]
    TooLong,
}

/// The fields before the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub kind: FrameType,
    /// See [`FLAG_HELLO`], [`FLAG_INTERACTIVE`], [`FLAG_BACKGROUND`] and [`FLAG_AES`]; others are for later versions and are passed over.
    pub flags: u8,
    /// Bytes of payload.
    pub length: u16,
    /// The low 32 bits of the counter in the nonce.
    pub sequence: u32,
    /// The receiver on the way to a relay, the sender on the way from it.
    pub peer: DeviceId,
    /// Receiver index 4, cipher 4, stream number 8, counter 8; random under a hello key.
    pub nonce: [u8; NONCE_LENGTH],
}

impl Header {
    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0] = VERSION << 4 | self.kind.number();
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..40].copy_from_slice(self.peer.as_bytes());
        bytes[40..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError::Version`], [`FrameError::Type`] and [`FrameError::TooLong`].
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<Self, FrameError> {
        if bytes[0] >> 4 != VERSION {
            return Err(FrameError::Version(bytes[0] >> 4));
        }
        let number = bytes[0] & 0xf;
        let kind = *FrameType::ALL.get(usize::from(number)).ok_or(FrameError::Type(number))?;
        let length = u16::from_be_bytes(field(bytes, 2));
        if kind == FrameType::Data && usize::from(length) > DATA_PAYLOAD_LIMIT {
            return Err(FrameError::TooLong);
        }
        Ok(Self {
            kind,
            flags: bytes[1],
            length,
            sequence: u32::from_be_bytes(field(bytes, 4)),
            peer: DeviceId::from_bytes(field(bytes, 8)),
            nonce: field(bytes, 40),
        })
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn frame_length(&self) -> usize {
        HEADER_LENGTH + usize::from(self.length) + TAG_LENGTH
    }

    /// The WireGuard index that the receiver gave the session.
    #[must_use]
    pub fn receiver_index(&self) -> u32 {
        u32::from_be_bytes(field(&self.nonce, 0))
    }

    /// The number of the stream within the session.
    #[must_use]
    pub fn stream(&self) -> u64 {
        u64::from_be_bytes(field(&self.nonce, 8))
    }

    /// The number of the frame within the stream.
    #[must_use]
    pub fn counter(&self) -> u64 {
        u64::from_be_bytes(field(&self.nonce, 16))
    }

    /// Whether the frame is sealed with a [`HelloKey`](crate::HelloKey).
    #[must_use]
    pub const fn is_hello(&self) -> bool {
        self.flags & FLAG_HELLO != 0
    }

    /// Whether the frame is to wait apart from its sender's others.
    #[must_use]
    pub const fn is_interactive(&self) -> bool {
        self.flags & FLAG_INTERACTIVE != 0
    }

    /// Whether the frame is to have what others leave.
    #[must_use]
    pub const fn is_background(&self) -> bool {
        self.flags & FLAG_BACKGROUND != 0
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

/// Reads the header of a whole frame.
///
/// # Errors
/// [`FrameError`]; also if there are more or fewer bytes than the header says.
pub fn parse(frame: &[u8]) -> Result<Header, FrameError> {
    let bytes = frame.first_chunk::<HEADER_LENGTH>().ok_or(FrameError::Length)?;
    let header = Header::decode(bytes)?;
    if frame.len() != header.frame_length() {
        return Err(FrameError::Length);
    }
    Ok(header)
}

/// Writes the header of a frame that is not sealed end to end, and a tag of zeros: for control
/// frames and markers, whose protection is the hop's.
///
/// `frame` has the payload in its place, with 64 bytes before and 16 after it.
///
/// # Errors
/// [`FrameError::Length`] if there is no room for header and tag, [`FrameError::TooLong`].
pub fn compose(kind: FrameType, peer: DeviceId, frame: &mut [u8]) -> Result<(), FrameError> {
    let length = payload_length(kind, frame)?;
    let nonce = [0; NONCE_LENGTH];
    let header = Header { kind, flags: 0, length, sequence: 0, peer, nonce };
    frame[..HEADER_LENGTH].copy_from_slice(&header.encode());
    let end = frame.len() - TAG_LENGTH;
    frame[end..].fill(0);
    Ok(())
}

/// The payload of a frame that [`parse`] accepted; nothing of anything shorter than a frame.
#[must_use]
pub fn payload(frame: &[u8]) -> &[u8] {
    let end = frame.len().saturating_sub(TAG_LENGTH);
    frame.get(HEADER_LENGTH..end).unwrap_or_default()
}

/// The payload of a frame that [`parse`] accepted, to change; nothing of anything shorter.
#[must_use]
pub fn payload_mut(frame: &mut [u8]) -> &mut [u8] {
    let end = frame.len().saturating_sub(TAG_LENGTH);
    frame.get_mut(HEADER_LENGTH..end).unwrap_or_default()
}

/// Puts `peer` in the place of the frame's peer, which is all that a relay changes.
///
/// # Errors
/// [`FrameError::Length`] if `frame` is shorter than a header.
pub fn set_peer(frame: &mut [u8], peer: DeviceId) -> Result<(), FrameError> {
    let header = frame.first_chunk_mut::<HEADER_LENGTH>().ok_or(FrameError::Length)?;
    header[8..40].copy_from_slice(peer.as_bytes());
    Ok(())
}

/// The length of the payload between header and tag in `frame`, if a frame of `kind` may have it.
pub(crate) fn payload_length(kind: FrameType, frame: &[u8]) -> Result<u16, FrameError> {
    let length = frame.len().checked_sub(HEADER_LENGTH + TAG_LENGTH).ok_or(FrameError::Length)?;
    if kind == FrameType::Data && length > DATA_PAYLOAD_LIMIT {
        return Err(FrameError::TooLong);
    }
    u16::try_from(length).map_err(|_| FrameError::TooLong)
}
