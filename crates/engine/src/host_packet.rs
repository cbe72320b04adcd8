//! Packets and super-packets between this device and the engine.

use bytes::BytesMut;
use frame_proto::{
    DATA_PAYLOAD_LIMIT, HEADER_LENGTH, HOP_TAG_LENGTH, OFFLOAD_LENGTH, OffloadHeader, TAG_LENGTH,
};
use packet::{Offload, Packet, Segmentation, Segments};

/// Parts of a super-packet in one frame: more than 64 KiB of the shortest segments that networks are
/// made for (RFC 879), and no more than a receiver without offloads likes to split.
const MAX_PARTS: usize = 128;
const TCP_CHECKSUM: u16 = 16;
const UDP_HEADER: usize = 8;

/// A packet or super-packet with room around it, so that it becomes a frame, or came from one, where it
/// lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPacket {
    offload: Offload,
    frame: BytesMut,
}

impl HostPacket {
    /// Bytes that a frame has before the packet.
    pub const HEADROOM: usize = HEADER_LENGTH + OFFLOAD_LENGTH;
    /// Bytes that a message to a relay has after the packet.
    pub const TAILROOM: usize = TAG_LENGTH + HOP_TAG_LENGTH;

    /// Copies a packet or super-packet.
    #[must_use]
    pub fn new(offload: Offload, packet: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(Self::HEADROOM + packet.len() + Self::TAILROOM);
        frame.resize(Self::HEADROOM, 0);
        frame.extend_from_slice(packet);
        Self { offload, frame }
    }

    /// Takes a packet that stands behind [`Self::HEADROOM`] bytes; with a capacity for
    /// [`Self::TAILROOM`] more it is never copied.
    ///
    /// # Panics
    /// If `frame` is shorter than [`Self::HEADROOM`].
    #[must_use]
    pub fn in_place(offload: Offload, frame: BytesMut) -> Self {
        assert!(frame.len() >= Self::HEADROOM, "a packet stands behind its head room");
        Self { offload, frame }
    }

    /// A complete packet.
    #[must_use]
    pub fn single(packet: &[u8]) -> Self {
        Self::new(Offload::default(), packet)
    }

    /// What is left to be done to it; fits [`Self::bytes`] if it came from the engine.
    #[must_use]
    pub fn offload(&self) -> &Offload {
        &self.offload
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.frame[Self::HEADROOM..]
    }

    /// Gives the complete packets that it stands for, in order; none if the offload does not fit.
    pub fn split(&self, mut each: impl FnMut(&[u8])) {
        if self.offload.is_none() {
            return each(self.bytes());
        }
        let Ok(segments) = Segments::plan(&self.offload, self.bytes()) else { return };
        let mut part = vec![0; segments.longest()];
        for index in 0..segments.count() {
            let part = &mut part[..segments.length(index)];
            segments.write(index, part);
            each(part);
        }
    }

    /// The length of the longest packet that it stands for; 0 if the offload does not fit.
    pub(crate) fn longest(&self) -> usize {
        match Segments::plan(&self.offload, self.bytes()) {
            Ok(segments) => segments.longest(),
            Err(_) => 0,
        }
    }

    /// Whether routers may split the packets that it stands for.
    pub(crate) fn may_be_split(&self) -> bool {
        Packet::parse(self.bytes()).is_ok_and(|packet| packet::may_be_split(&packet))
    }

    /// Gives the complete packets that it stands for as fragments of at most `mtu` bytes, in order.
    pub(crate) fn fragment(&self, mtu: usize, mut each: impl FnMut(&[u8])) {
        self.split(|part| {
            if let Ok(part) = Packet::parse(part) {
                packet::fragment(&part, mtu, &mut each);
            }
        });
    }

    /// Cuts off what a tunnel has put behind the packet.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.frame.truncate(Self::HEADROOM + len);
    }

    /// How many packets it stands for.
    pub(crate) fn parts(&self) -> usize {
        match self.offload.segmentation {
            Segmentation::None => 1,
            Segmentation::Tcp4 | Segmentation::Tcp6 | Segmentation::Udp => {
                let headers = usize::from(header_length(&self.offload, self.bytes()));
                let payload = self.bytes().len().saturating_sub(headers);
                payload.div_ceil(usize::from(self.offload.segment_size).max(1))
            }
        }
    }

    /// The head of the payload, if one frame can carry the packet and its receiver will take it.
    pub(crate) fn head(&self) -> Option<OffloadHeader> {
        let header = to_wire(&self.offload);
        let fits = OFFLOAD_LENGTH + self.bytes().len() <= DATA_PAYLOAD_LIMIT
            && self.parts() <= MAX_PARTS
            && header.check(self.bytes()).is_ok();
        fits.then_some(header)
    }

    /// A frame around the packet with everything but its header and its tag.
    pub(crate) fn into_frame(self, head: &OffloadHeader) -> BytesMut {
        let mut frame = self.frame;
        frame[HEADER_LENGTH..Self::HEADROOM].copy_from_slice(&head.encode());
        frame.resize(frame.len() + TAG_LENGTH, 0);
        frame
    }

    /// The packet in an opened data frame, if its head fits it: the peer may send anything.
    pub(crate) fn from_frame(mut frame: BytesMut) -> Option<Self> {
        let (head, bytes) = OffloadHeader::split(frame_proto::payload(&frame)).ok()?;
        let offload = from_wire(&head, bytes);
        offload.validate(bytes).ok()?;
        frame.truncate(frame.len() - TAG_LENGTH);
        let packet = Self { offload, frame };
        (packet.parts() <= MAX_PARTS).then_some(packet)
    }
}

fn to_wire(offload: &Offload) -> OffloadHeader {
    if offload.is_none() {
        return OffloadHeader::default();
    }
    OffloadHeader {
        segmentation: match offload.segmentation {
            Segmentation::None => frame_proto::Segmentation::None,
            Segmentation::Tcp4 => frame_proto::Segmentation::Tcp4,
            Segmentation::Tcp6 => frame_proto::Segmentation::Tcp6,
            Segmentation::Udp => frame_proto::Segmentation::Udp,
        },
        needs_checksum: offload.needs_checksum,
        segment_size: match offload.segmentation {
            Segmentation::None => 0,
            Segmentation::Tcp4 | Segmentation::Tcp6 | Segmentation::Udp => offload.segment_size,
        },
        checksum_start: offload.checksum_start,
        checksum_offset: offload.checksum_offset,
    }
}

fn from_wire(head: &OffloadHeader, packet: &[u8]) -> Offload {
    let mut offload = Offload {
        needs_checksum: head.needs_checksum,
        segmentation: match head.segmentation {
            frame_proto::Segmentation::None => Segmentation::None,
            frame_proto::Segmentation::Tcp4 => Segmentation::Tcp4,
            frame_proto::Segmentation::Tcp6 => Segmentation::Tcp6,
            frame_proto::Segmentation::Udp => Segmentation::Udp,
        },
        header_length: 0,
        segment_size: head.segment_size,
        checksum_start: head.checksum_start,
        checksum_offset: head.checksum_offset,
    };
    if head.needs_checksum {
        offload.header_length = header_length(&offload, packet);
    }
    offload
}

/// The length of all headers, from where the transport header stands.
fn header_length(offload: &Offload, packet: &[u8]) -> u16 {
    let transport = usize::from(offload.checksum_start);
    let length = match offload.checksum_offset {
        TCP_CHECKSUM => packet.get(transport + 12).map_or(0, |byte| usize::from(byte >> 4) * 4),
        _ => UDP_HEADER,
    };
    u16::try_from(transport + length).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use frame_proto::{Ends, FrameKeys, FrameOpener, FrameSealer, FrameType};
    use identity::{DeviceId, NetworkId};
    use packet::{build, checksum::Sum, tcp::Flags};
    use proptest::prelude::*;

    use super::*;

    const FLOWS: [(&str, &str); 2] =
        [("100.64.0.1:1000", "100.64.0.2:80"), ("[fd00::1]:1000", "[fd00::2]:80")];

    /// A packet as a host with offloads hands it over.
    fn from_host(version: usize, is_tcp: bool, data: &[u8], segment_size: u16) -> HostPacket {
        let (source, destination) = FLOWS[version];
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let flags = Flags(Flags::ACK.0 | Flags::PSH.0 | Flags::FIN.0);
        let meaning = build::Tcp { sequence: u32::MAX - 5, acknowledgement: 7, flags, window: 512 };
        let mut packet = match is_tcp {
            true => build::tcp(source, destination, &meaning, data),
            false => build::udp(source, destination, data),
        };
        let view = Packet::parse(&packet).unwrap();
        let (start, length) = (view.transport_offset(), view.payload().len());
        let sum = Sum::pseudo_header(view.source(), view.destination(), view.protocol(), length);
        let (field, header) = if is_tcp { (16, 20) } else { (6, 8) };
        packet[start + field..start + field + 2].copy_from_slice(&sum.fold());
        let start = u16::try_from(start).unwrap();
        let offload = Offload {
            needs_checksum: true,
            segmentation: match (segment_size, is_tcp, version) {
                (0, ..) => Segmentation::None,
                (_, true, 0) => Segmentation::Tcp4,
                (_, true, _) => Segmentation::Tcp6,
                (_, false, _) => Segmentation::Udp,
            },
            header_length: start + header,
            segment_size,
            checksum_start: start,
            checksum_offset: u16::try_from(field).unwrap(),
        };
        HostPacket::new(offload, &packet)
    }

    fn two_ends() -> (FrameSealer, FrameOpener) {
        let [local, remote] = [1, 2].map(|byte| DeviceId::from_bytes([byte; 32]));
        let ends = Ends { network: NetworkId::from_bytes([3; 32]), local, remote };
        let keys = |send: [u8; 32], receive: [u8; 32], remote_index, local_index| FrameKeys {
            send: send.into(),
            receive: receive.into(),
            remote_index,
            local_index,
            has_aes: false,
        };
        let (streams, _) = keys([4; 32], [5; 32], 6, 7).split(ends);
        let theirs = Ends { local: remote, remote: local, ..ends };
        let (_, opener) = keys([5; 32], [4; 32], 7, 6).split(theirs);
        (streams.begin(), opener)
    }

    fn parts_of(packet: &HostPacket) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        packet.split(|part| parts.push(part.to_vec()));
        parts
    }

    fn is_whole(part: &[u8]) -> bool {
        Packet::parse(part).unwrap().transport_checksum_is_valid()
    }

    proptest! {
        #[test]
        fn a_super_packet_that_crossed_in_a_frame_splits_as_it_would_have_at_its_sender(
            version in 0..2_usize,
            is_tcp: bool,
            data in prop::collection::vec(any::<u8>(), 1..60_000),
            segment_size in prop_oneof![Just(0_u16), 500..1400_u16, 1400..20_000_u16],
        ) {
            let sent = from_host(version, is_tcp, &data, segment_size);
            let before = parts_of(&sent);
            prop_assert_eq!(sent.parts(), before.len());
            prop_assert!(before.iter().all(|part| is_whole(part)));

            let head = sent.head().unwrap();
            let room = sent.frame.as_ptr();
            let mut frame = sent.into_frame(&head);
            let (sealer, opener) = two_ends();
            sealer.seal(FrameType::Data, 0, &mut frame).unwrap();
            prop_assert_eq!(frame.as_ptr(), room, "nothing is copied");
            opener.open(&mut frame).unwrap();
            let received = HostPacket::from_frame(frame).unwrap();
            prop_assert_eq!(parts_of(&received), before);
        }

        #[test]
        fn whatever_head_a_peer_sends_what_is_taken_fits_its_packet(
            version in 0..2_usize,
            is_tcp: bool,
            length in 1..5_000_usize,
            segment_size in 0..1400_u16,
            changes in prop::collection::vec((0..90_usize, any::<u8>()), 0..4),
        ) {
            let sent = from_host(version, is_tcp, &vec![7; length], segment_size);
            let mut payload = to_wire(sent.offload()).encode().to_vec();
            payload.extend_from_slice(sent.bytes());
            for (at, byte) in changes {
                if let Some(place) = payload.get_mut(at) {
                    *place = byte;
                }
            }
            let mut frame = BytesMut::zeroed(HEADER_LENGTH);
            frame.extend_from_slice(&payload);
            frame.resize(frame.len() + TAG_LENGTH, 0);
            if let Some(taken) = HostPacket::from_frame(frame) {
                prop_assert_eq!(taken.offload().validate(taken.bytes()), Ok(()));
                let parts = parts_of(&taken);
                prop_assert_eq!(parts.len(), taken.parts());
                prop_assert!(parts.len() <= MAX_PARTS);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(taken) = HostPacket::from_frame(BytesMut::from(bytes.as_slice())) {
                prop_assert_eq!(taken.offload().validate(taken.bytes()), Ok(()));
            }
        }
    }

    #[test]
    fn what_a_frame_cannot_carry_or_a_receiver_would_refuse_is_split_before() {
        let many_parts = from_host(0, true, &[0; 20_000], 100);
        assert_eq!((many_parts.parts(), many_parts.head()), (200, None));
        let too_long = from_host(1, true, &[0; 65_450], 1220);
        assert_eq!(too_long.head(), None);
        assert_eq!(parts_of(&too_long).len(), too_long.parts());
    }
}
