//! A frame on its way from one relay to another: a route, then the frame as the receiver's relay hands it out.

use bytes::{Buf, BufMut, BytesMut};
use frame_proto::{FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, TAG_LENGTH, compose};
use identity::DeviceId;

/// Bytes of a route.
const ROUTE_LENGTH: usize = 1 + 32;

/// How a frame travels between relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Relays to which it may still be handed on.
    pub(crate) hops: u8,
    /// The device that it is for.
    pub(crate) receiver: DeviceId,
}

impl Route {
    /// Wraps a frame whose peer is its sender for `next`, a relay; with capacity for the hop tag.
    pub(crate) fn wrap(&self, next: DeviceId, frame: &[u8]) -> BytesMut {
        let length = HEADER_LENGTH + ROUTE_LENGTH + frame.len() + TAG_LENGTH;
        let mut carried = BytesMut::with_capacity(length + HOP_TAG_LENGTH);
        carried.put_bytes(0, HEADER_LENGTH);
        carried.put_u8(self.hops);
        carried.put_slice(self.receiver.as_bytes());
        carried.put_slice(frame);
        carried.put_bytes(0, TAG_LENGTH);
        compose(FrameType::Carried, next, &mut carried)
            .expect("the longest frame and a route fit a frame");
        carried
    }

    /// The route of what [`Self::wrap`] made, and the frame with its sender, in the same memory; none for anything else.
    pub(crate) fn unwrap(mut carried: BytesMut) -> Option<(Self, DeviceId, BytesMut)> {
        let end = carried.len().checked_sub(TAG_LENGTH)?;
        carried.truncate(end);
        if carried.len() < HEADER_LENGTH + ROUTE_LENGTH {
            return None;
        }
        carried.advance(HEADER_LENGTH);
        let hops = carried.get_u8();
        let mut receiver = [0; 32];
        carried.copy_to_slice(&mut receiver);
        let header =
            frame_proto::parse(&carried).ok().filter(|header| !header.kind.is_hop_local())?;
        let route = Self { hops, receiver: DeviceId::from_bytes(receiver) };
        Some((route, header.peer, carried))
    }
}

#[cfg(test)]
mod tests {
    use frame_proto::{DATA_PAYLOAD_LIMIT, payload_mut};
    use proptest::prelude::*;

    use super::*;

    const SENDER: DeviceId = DeviceId::from_bytes([1; 32]);
    const NEXT: DeviceId = DeviceId::from_bytes([2; 32]);
    const ROUTE: Route = Route { hops: 3, receiver: DeviceId::from_bytes([3; 32]) };

    fn frame(kind: FrameType, payload: &[u8]) -> BytesMut {
        let mut frame = BytesMut::zeroed(HEADER_LENGTH + payload.len() + TAG_LENGTH);
        compose(kind, SENDER, &mut frame).expect("it fits");
        payload_mut(&mut frame).copy_from_slice(payload);
        frame
    }

    #[test]
    fn the_longest_frame_can_be_carried() {
        let frame = frame(FrameType::Data, &[7; DATA_PAYLOAD_LIMIT]);
        let carried = ROUTE.wrap(NEXT, &frame);
        assert!(carried.capacity() >= carried.len() + HOP_TAG_LENGTH);
        assert_eq!(frame_proto::parse(&carried).map(|header| header.peer), Ok(NEXT));
        assert_eq!(Route::unwrap(carried), Some((ROUTE, SENDER, frame)));
    }

    #[test]
    fn only_frames_between_peers_are_carried() {
        for kind in [FrameType::Control, FrameType::Marker, FrameType::Carried, FrameType::Mesh] {
            assert_eq!(Route::unwrap(ROUTE.wrap(NEXT, &frame(kind, b"inner"))), None);
        }
        for kind in [FrameType::Handshake, FrameType::Disco, FrameType::Introduce] {
            assert!(Route::unwrap(ROUTE.wrap(NEXT, &frame(kind, b"inner"))).is_some());
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Route::unwrap(BytesMut::from(&bytes[..]));
        }

        #[test]
        fn reading_what_was_cut_or_changed_never_panics(cut in 0..200_usize, at in 0..200_usize, with: u8) {
            let mut carried = ROUTE.wrap(NEXT, &frame(FrameType::Data, &[7; 30]));
            let length = carried.len();
            carried[at % length] = with;
            carried.truncate(length - cut % length);
            let _ = Route::unwrap(carried);
        }
    }
}
