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
    let (send, receive) = ([send; 32].into(), [receive; 32].into());
    FrameKeys { send, receive, remote_index, local_index, has_aes: false }
}

/// Both halves of Alice and of Bob, by whether they have AES in their processors.
pub(crate) fn two_ends(alice: bool, bob: bool) -> [(FrameStreams, FrameOpener); 2] {
    let (a, b) = (keys(1, 2, 7, 9), keys(2, 1, 9, 7));
    [
        FrameKeys { has_aes: alice, ..a }.split(ends(ALICE, BOB)),
        FrameKeys { has_aes: bob, ..b }.split(ends(BOB, ALICE)),
    ]
}

/// Alice's sending half, and Bob's receiving half.
pub(crate) fn session() -> (FrameStreams, FrameOpener) {
    let [(streams, _), (_, opener)] = two_ends(false, false);
    (streams, opener)
}

/// Room for a frame with `payload` in its place.
pub(crate) fn buffer(payload: &[u8]) -> Vec<u8> {
    [&[0; HEADER_LENGTH], payload, &[0; TAG_LENGTH]].concat()
}
