//! The few fields of a frame that a link looks at.
//!
//! ```text
//! version 4 bits | type 4 | flags 8 | length 16 | sequence 32 | peer 32 B | nonce 24 B | payload | tag
//! ```

use identity::DeviceId;

/// Length of a frame's header.
pub(crate) const HEADER: usize = 64;

/// Length of the tag at the end of a frame.
pub(crate) const TAG: usize = 16;

/// What hop protection adds to a frame that carries data.
pub(crate) const HOP_TAG: usize = 16;

/// Longest frame that still fits one WebSocket message with its hop tags.
pub(crate) const MAX_FRAME: usize = 65_535 - 2 * HOP_TAG;

const VERSION: u8 = 1;
const DATA: u8 = 0;
const CONTROL: u8 = 4;
const MARKER: u8 = 5;
const PEER: std::ops::Range<usize> = 8..40;

/// What a link does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of one peer for another.
    Peer,
    /// A message of the channel.
    Control,
    /// The hop key changes.
    Marker,
}

/// What kind of frame this is; nothing for bytes that are no frame.
pub(crate) fn kind(frame: &[u8]) -> Option<Kind> {
    if frame.len() < HEADER + TAG || frame[0] >> 4 != VERSION {
        return None;
    }
    Some(match frame[0] & 0x0f {
        CONTROL => Kind::Control,
        MARKER => Kind::Marker,
        _ => Kind::Peer,
    })
}

/// Whether this is a frame that clients may hand over.
pub(crate) fn is_peer_frame(frame: &[u8]) -> bool {
    frame.len() <= MAX_FRAME && kind(frame) == Some(Kind::Peer)
}

/// Whether the payload is sealed for a peer, so that only the header needs hop protection.
pub(crate) fn is_data(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 0x0f == DATA)
}

/// The device in a frame's header.
pub(crate) fn peer(frame: &[u8]) -> Option<DeviceId> {
    let bytes: [u8; 32] = frame.get(PEER)?.try_into().ok()?;
    Some(DeviceId::from_bytes(bytes))
}

/// Puts a device into a frame's header.
pub(crate) fn set_peer(frame: &mut [u8], device: DeviceId) {
    if let Some(field) = frame.get_mut(PEER) {
        field.copy_from_slice(device.as_bytes());
    }
}

/// A frame around a message of the channel; the message's own tag is the frame's.
pub(crate) fn control(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + message.len() + 2 * HOP_TAG);
    frame.resize(HEADER, 0);
    frame[0] = VERSION << 4 | CONTROL;
    frame.extend_from_slice(message);
    frame
}

/// What [`control`] was given.
pub(crate) fn control_payload(frame: &[u8]) -> &[u8] {
    frame.get(HEADER..).unwrap_or_default()
}

/// The last frame under a hop key.
pub(crate) fn marker() -> Vec<u8> {
    let mut frame = vec![0; HEADER + TAG];
    frame[0] = VERSION << 4 | MARKER;
    frame
}
