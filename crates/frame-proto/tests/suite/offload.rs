//! The head of a data payload.

use frame_proto::{OffloadError, OffloadHeader, Segmentation};
use proptest::prelude::*;

fn v4(protocol: u8, rest: usize) -> Vec<u8> {
    let mut packet = vec![0; 20 + rest];
    packet[0] = 0x45;
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[9] = protocol;
    if protocol == 6 && rest > 12 {
        packet[32] = 0x50;
    }
    packet
}

fn v6(protocol: u8, rest: usize) -> Vec<u8> {
    let mut packet = vec![0; 40 + rest];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&u16::try_from(rest).unwrap().to_be_bytes());
    packet[6] = protocol;
    if protocol == 6 {
        packet[52] = 0x50;
    }
    packet
}

fn tcp4() -> OffloadHeader {
    OffloadHeader {
        segmentation: Segmentation::Tcp4,
        needs_checksum: true,
        segment_size: 1200,
        checksum_start: 20,
        checksum_offset: 16,
    }
}

fn split(header: OffloadHeader, packet: &[u8]) -> Result<OffloadHeader, OffloadError> {
    let payload = [&header.encode(), packet].concat();
    let (header, rest) = OffloadHeader::split(&payload)?;
    assert_eq!(rest, packet);
    Ok(header)
}

#[test]
fn the_header_has_the_bytes_that_it_always_had() {
    assert_eq!(tcp4().encode(), [1, 1, 0x04, 0xb0, 0, 20, 0, 16]);
    assert_eq!(OffloadHeader::default().encode(), [0; 8]);
}

#[test]
fn headers_that_fit_their_packet_are_accepted() {
    let none = OffloadHeader::default();
    assert_eq!(split(none, &v4(1, 8)), Ok(none));
    assert_eq!(split(tcp4(), &v4(6, 4000)), Ok(tcp4()));
    let tcp6 = OffloadHeader { segmentation: Segmentation::Tcp6, checksum_start: 40, ..tcp4() };
    assert_eq!(split(tcp6, &v6(6, 4000)), Ok(tcp6));
    let udp = OffloadHeader { segmentation: Segmentation::Udp, checksum_offset: 6, ..tcp4() };
    assert_eq!(split(udp, &v4(17, 4000)), Ok(udp));
    let checksum = OffloadHeader { segmentation: Segmentation::None, segment_size: 0, ..tcp4() };
    assert_eq!(split(checksum, &v4(6, 20)), Ok(checksum));
}

#[test]
fn a_header_that_contradicts_its_packet_is_refused() {
    let refused = |header: OffloadHeader, packet: Vec<u8>| {
        assert_eq!(split(header, &packet), Err(OffloadError::Mismatch), "{header:?}");
    };
    refused(tcp4(), v4(17, 4000));
    refused(tcp4(), v6(6, 4000));
    refused(OffloadHeader { segmentation: Segmentation::Tcp6, ..tcp4() }, v4(6, 4000));
    refused(OffloadHeader { checksum_start: 24, ..tcp4() }, v4(6, 4000));
    refused(OffloadHeader { checksum_offset: 6, ..tcp4() }, v4(6, 4000));
    refused(OffloadHeader { segment_size: 0, ..tcp4() }, v4(6, 4000));
    refused(OffloadHeader { needs_checksum: false, ..tcp4() }, v4(6, 4000));
    refused(OffloadHeader { segmentation: Segmentation::None, ..tcp4() }, v4(6, 4000));
    refused(tcp4(), v4(6, 20));
    refused(tcp4(), v4(6, 12));
    let mut fragment = v4(6, 4000);
    fragment[6] = 0x20;
    refused(tcp4(), fragment);
    let mut short_header = v4(6, 4000);
    short_header[32] = 0x40;
    refused(tcp4(), short_header);
}

#[test]
fn a_packet_of_another_length_than_it_says_is_refused() {
    let mut packet = v4(1, 8);
    packet.push(0);
    assert_eq!(split(OffloadHeader::default(), &packet), Err(OffloadError::Mismatch));
    let packet = &v6(58, 8)[..47];
    assert_eq!(split(OffloadHeader::default(), packet), Err(OffloadError::Mismatch));
    assert_eq!(split(OffloadHeader::default(), &[]), Err(OffloadError::TooShort));
    assert_eq!(split(OffloadHeader::default(), &[0x50; 60]), Err(OffloadError::Mismatch));
    assert_eq!(OffloadHeader::split(&[0; 7]), Err(OffloadError::TooShort));
}

#[test]
fn unknown_kinds_and_flags_are_refused() {
    for (at, value) in [(0, 4), (1, 2)] {
        let mut payload = [OffloadHeader::default().encode().as_slice(), &v4(1, 8)].concat();
        payload[at] = value;
        assert_eq!(OffloadHeader::split(&payload), Err(OffloadError::Unknown));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_the_parser(
        head in prop::array::uniform8(0u8..48),
        first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x00]),
        mut packet in prop::collection::vec(any::<u8>(), 0..120),
        honest in any::<bool>(),
    ) {
        let length = u16::try_from(packet.len()).unwrap();
        if let Some(byte) = packet.first_mut() {
            *byte = first;
        }
        if honest && packet.len() > 6 {
            let (at, said) = if first < 0x60 { (2, length) } else { (4, length.saturating_sub(40)) };
            packet[at..at + 2].copy_from_slice(&said.to_be_bytes());
        }
        let payload = [head.as_slice(), &packet].concat();
        if let Ok((header, rest)) = OffloadHeader::split(&payload) {
            prop_assert_eq!(header.encode(), head);
            let checksum = usize::from(header.checksum_start) + usize::from(header.checksum_offset);
            prop_assert!(checksum + 2 <= rest.len());
        }
    }
}
