//! Two devices with a session, for the tests beside it.

use frame_proto::{Ends, FrameKeys, FrameOpener, FrameStreams, HEADER_LENGTH, TAG_LENGTH};
use identity::{DeviceId, NetworkId};

pub(crate) const ALICE: DeviceId = DeviceId::from_bytes([0xa; 32]);
pub(crate) const BOB: DeviceId = DeviceId::from_bytes([0xb; 32]);
pub(crate) const NETWORK: NetworkId = NetworkId::from_bytes([1; 32]);

pub(crate) const fn ends(local: DeviceId, remote: DeviceId) -> Ends {
    Ends { network: NETWORK, local, remote }
}

pub(crate) fn keys(send: u8, receive: u8, remote_index: u32, local_index: u32) -> FrameKeys {
    FrameKeys { send: [send; 32].into(), receive: [receive; 32].into(), remote_index, local_index }
}

/// Alice's sending half, and Bob's receiving half.
pub(crate) fn session() -> (FrameStreams, FrameOpener) {
    let (streams, _) = keys(1, 2, 7, 9).split(ends(ALICE, BOB));
    let (_, opener) = keys(2, 1, 9, 7).split(ends(BOB, ALICE));
    (streams, opener)
}

/// Room for a frame with `payload` in its place.
pub(crate) fn buffer(payload: &[u8]) -> Vec<u8> {
    [&[0; HEADER_LENGTH], payload, &[0; TAG_LENGTH]].concat()
}
