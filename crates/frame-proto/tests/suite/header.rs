//! The header's layout.

use data_encoding::HEXLOWER;
use frame_proto::{
    DATA_PAYLOAD_LIMIT, FrameError, FrameType, HEADER_LENGTH, Header, PAYLOAD_LIMIT, compose,
    parse, payload, set_peer,
};
use proptest::prelude::*;

use crate::ends::{ALICE, BOB, buffer};

const KINDS: [FrameType; 10] = [
    FrameType::Data,
    FrameType::Handshake,
    FrameType::Disco,
    FrameType::Introduce,
    FrameType::Control,
    FrameType::Marker,
    FrameType::Carried,
    FrameType::Mesh,
    FrameType::Dummy,
    FrameType::Bundle,
];

fn header() -> Header {
    let mut nonce = [0; 24];
    nonce.iter_mut().zip(0x40..).for_each(|(byte, value)| *byte = value);
    Header {
        kind: FrameType::Disco,
        flags: 0x81,
        length: 0x1234,
        sequence: 0x5152_5354,
        peer: ALICE,
        nonce,
    }
}

#[test]
fn the_header_has_the_bytes_that_it_always_had() {
    let expected = format!(
        "12811234{}{}404142434445464748494a4b4c4d4e4f5051525354555657",
        "51525354",
        "0a".repeat(32)
    );
    assert_eq!(HEXLOWER.encode(&header().encode()), expected);
    let read = Header::decode(&header().encode()).unwrap();
    assert_eq!(read, header());
    assert_eq!(read.receiver_index(), 0x4041_4243);
    assert_eq!(read.stream(), 0x4849_4a4b_4c4d_4e4f);
    assert_eq!(read.counter(), 0x5051_5253_5455_5657);
    assert!(read.is_hello());
}

#[test]
fn another_version_or_type_is_refused() {
    let mut bytes = header().encode();
    bytes[0] = 0x22;
    assert_eq!(Header::decode(&bytes), Err(FrameError::Version(2)));
    bytes[0] = 0x1a;
    assert_eq!(Header::decode(&bytes), Err(FrameError::Type(10)));
}

#[test]
fn a_data_frame_leaves_room_for_the_wrapping_of_relays() {
    assert_eq!(DATA_PAYLOAD_LIMIT, 65_407);
    let mut fits = buffer(&vec![0; DATA_PAYLOAD_LIMIT]);
    assert_eq!(compose(FrameType::Data, BOB, &mut fits), Ok(()));
    assert!(parse(&fits).is_ok());
    let mut long = buffer(&vec![0; DATA_PAYLOAD_LIMIT + 1]);
    assert_eq!(compose(FrameType::Data, BOB, &mut long), Err(FrameError::TooLong));
    assert_eq!(compose(FrameType::Control, BOB, &mut long), Ok(()));
    long[0] &= 0xf0;
    assert_eq!(parse(&long), Err(FrameError::TooLong));
    let mut longest = buffer(&vec![0; PAYLOAD_LIMIT + 1]);
    assert_eq!(compose(FrameType::Control, BOB, &mut longest), Err(FrameError::TooLong));
    assert_eq!(compose(FrameType::Control, BOB, &mut [0; 79]), Err(FrameError::Length));
}

#[test]
fn a_relay_changes_the_peer_and_nothing_else() {
    let mut frame = buffer(b"payload");
    compose(FrameType::Introduce, BOB, &mut frame).unwrap();
    let before = frame.clone();
    set_peer(&mut frame, ALICE).unwrap();
    assert_eq!(parse(&frame).unwrap().peer, ALICE);
    assert_eq!((&frame[..8], &frame[40..]), (&before[..8], &before[40..]));
    assert_eq!(payload(&frame), b"payload");
    assert_eq!(set_peer(&mut [0; 63], ALICE), Err(FrameError::Length));
}

#[test]
fn a_frame_of_another_length_than_its_header_says_is_refused() {
    let mut frame = buffer(b"payload");
    compose(FrameType::Data, BOB, &mut frame).unwrap();
    assert_eq!(parse(&frame[..frame.len() - 1]), Err(FrameError::Length));
    frame.push(0);
    assert_eq!(parse(&frame), Err(FrameError::Length));
}

#[test]
fn what_is_not_between_peers_stays_on_its_hop() {
    let local = KINDS.map(FrameType::is_hop_local);
    assert_eq!(local, [false, false, false, false, true, true, true, true, true, true]);
}

proptest! {
    #[test]
    fn reading_is_the_inverse_of_writing(
        kind in prop::sample::select(&KINDS[..]),
        (flags, length, sequence) in any::<(u8, u16, u32)>(),
        nonce in any::<[u8; 24]>(),
    ) {
        let length = length.min(65_407);
        let header = Header { kind, flags, length, sequence, peer: BOB, nonce };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn no_bytes_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = payload(&bytes);
        if let Some(head) = bytes.first_chunk::<HEADER_LENGTH>()
            && let Ok(header) = Header::decode(head)
        {
            prop_assert_eq!(&header.encode(), head);
        }
    }
}
