//! Frames that leave as one message, where each message has its time.

use bytes::BytesMut;
use frame_proto::{
    FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, Header, PAYLOAD_LIMIT, TAG_LENGTH, payload,
};

use crate::padding::SHAPED_LENGTH;

/// What a bundle and its hop add to the frames in it, in bytes.
pub(crate) const OVERHEAD: usize = HEADER_LENGTH + TAG_LENGTH + HOP_TAG_LENGTH;

/// The bytes of frames that one message takes.
pub(crate) const ROOM: usize = PAYLOAD_LIMIT - OVERHEAD;

/// Where more than this waits behind a frame, in bytes as queues count them, somebody sends more than packets one by one:
/// nearly three of them, which wait for less time than people notice.
pub(crate) const BACKLOG: usize = 3 * SHAPED_LENGTH;

/// The frames of a bundle, which may wait in queues that count their bytes, each in memory of its own with room for the
/// hop's tag; nothing unless there are some, and all of it is frames that may be in one.
pub(crate) fn unbundle(bundle: &[u8]) -> Option<Vec<(Header, BytesMut)>> {
    let mut rest = payload(bundle);
    let mut frames = Vec::new();
    while let Some(head) = rest.first_chunk() {
        let header = Header::decode(head).ok().filter(|header| may_be_bundled(header.kind))?;
        let (frame, after) = rest.split_at_checked(header.frame_length())?;
        let mut own = BytesMut::with_capacity(frame.len() + HOP_TAG_LENGTH);
        own.extend_from_slice(frame);
        frames.push((header, own));
        rest = after;
    }
    (rest.is_empty() && !frames.is_empty()).then_some(frames)
}

/// What waits in queues, and no message of the hop itself.
fn may_be_bundled(kind: FrameType) -> bool {
    kind == FrameType::Carried || !kind.is_hop_local()
}

#[cfg(test)]
mod tests {
    use frame_proto::{compose, payload_mut};
    use identity::DeviceId;
    use proptest::prelude::*;

    use super::*;

    const PEER: DeviceId = DeviceId::from_bytes([1; 32]);

    fn frame(kind: FrameType, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER_LENGTH + payload.len() + TAG_LENGTH];
        compose(kind, PEER, &mut frame).expect("it fits");
        payload_mut(&mut frame).copy_from_slice(payload);
        frame
    }

    fn bundle(frames: &[Vec<u8>]) -> Vec<u8> {
        frame(FrameType::Bundle, &frames.concat())
    }

    #[test]
    fn what_a_hop_says_to_itself_is_in_no_bundle() {
        use FrameType::{Bundle, Control, Dummy, Marker, Mesh};
        for kind in [Bundle, Control, Dummy, Marker, Mesh] {
            assert!(unbundle(&bundle(&[frame(kind, b"inner")])).is_none(), "{kind:?}");
        }
    }

    #[test]
    fn a_bundle_of_nothing_is_none() {
        assert!(unbundle(&bundle(&[])).is_none());
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_and_nothing_comes_out_of_a_part(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..10),
            cut in 1..80_usize,
        ) {
            let kinds = [FrameType::Data, FrameType::Carried, FrameType::Disco];
            let frames: Vec<_> = payloads
                .iter()
                .zip(kinds.into_iter().cycle())
                .map(|(payload, kind)| frame(kind, payload))
                .collect();
            let out = unbundle(&bundle(&frames)).expect("all are frames");
            prop_assert!(out.iter().all(|(_, frame)| frame.capacity() >= frame.len() + HOP_TAG_LENGTH));
            let out: Vec<_> = out.into_iter().map(|(_, frame)| frame.to_vec()).collect();
            prop_assert_eq!(&out, &frames);
            let all = frames.concat();
            let part = frame(FrameType::Bundle, &all[..all.len() - cut]);
            prop_assert!(unbundle(&part).is_none());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unbundle(&bytes);
            let _ = unbundle(&frame(FrameType::Bundle, &bytes));
        }
    }
}
