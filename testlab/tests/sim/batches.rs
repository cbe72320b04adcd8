//! What a data thread opens in one go.

use std::net::SocketAddr;

use engine::{DropReason, Inbound, Outbound};
use packet::{Packet, Segments};
use testlab::sim::Pair;
use wireguard_proto::OpenError;

const PARTS: u16 = 44;

/// What came of one datagram, without its bytes.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// A packet, by the TCP sequence number in it.
    Packet(u32),
    Engine,
    Dropped(DropReason),
}

/// The datagrams of so many super-packets of the first node.
fn sealed(pair: &Pair, super_packets: usize) -> Vec<Vec<u8>> {
    let (offload, packet) = pair.super_packet(PARTS);
    let segments = Segments::plan(&offload, &packet).expect("it fits");
    let plane = pair.data_plane(0);
    let seal = |_| {
        let mut out = Vec::new();
        let all = (&segments, 0..segments.count());
        let Outbound::Datagrams { len, datagram_len, .. } =
            plane.load().outbound(all, &mut out, pair.now())
        else {
            panic!("there is a session")
        };
        out[..len].chunks(datagram_len).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    (0..super_packets).flat_map(seal).collect()
}

/// What comes of datagrams that the second node receives, and how often its engine is told.
fn opened(pair: &Pair, datagrams: Vec<Vec<u8>>) -> (Vec<Came>, usize) {
    opened_from(pair.first_address(), pair, datagrams)
}

fn opened_from(from: SocketAddr, pair: &Pair, mut datagrams: Vec<Vec<u8>>) -> (Vec<Came>, usize) {
    let (mut came, mut notices) = (Vec::new(), 0);
    let plane = pair.data_plane(1).load();
    let all = datagrams.iter_mut().map(Vec::as_mut_slice);
    plane.inbound(from, all, pair.now(), |inbound| match inbound {
        Inbound::Packet(bytes) => {
            Packet::parse(bytes).expect("it was one");
            let sequence = bytes[44..48].try_into().expect("4 bytes");
            came.push(Came::Packet(u32::from_be_bytes(sequence)));
        }
        Inbound::ToEngine(_) => came.push(Came::Engine),
        Inbound::Passed(..) => panic!("there are no circuits"),
        Inbound::Dropped(reason) => came.push(Came::Dropped(reason)),
        Inbound::Notice(_) => notices += 1,
    });
    (came, notices)
}

fn packets(came: &[Came]) -> Vec<u32> {
    let sequence = |one: &Came| match one {
        Came::Packet(sequence) => Some(*sequence),
        Came::Engine | Came::Dropped(_) => None,
    };
    came.iter().filter_map(sequence).collect()
}

#[test]
fn more_than_a_run_stays_in_order() {
    let pair = Pair::direct();
    let datagrams = sealed(&pair, 3);
    let (came, notices) = opened(&pair, datagrams);
    let got = packets(&came);
    assert_eq!((got.len(), came.len()), (3 * usize::from(PARTS), 3 * usize::from(PARTS)));
    assert!(got.chunks(PARTS.into()).all(|one| one.is_sorted() && one[0] == 1));
    assert!(notices <= 1, "the engine is told once that a peer sends");
}

#[test]
fn a_replay_is_told_from_what_is_new_within_a_run_and_after_it() {
    let pair = Pair::direct();
    let datagrams = sealed(&pair, 1);
    let twice = datagrams.iter().flat_map(|one| [one.clone(), one.clone()]).collect();
    let (came, _) = opened(&pair, twice);
    let replayed = Came::Dropped(DropReason::Session(OpenError::Replayed));
    let count = |came: &[Came]| came.iter().filter(|one| **one == replayed).count();
    assert_eq!((packets(&came).len(), count(&came)), (PARTS.into(), PARTS.into()));
    let (came, notices) = opened(&pair, datagrams);
    assert_eq!((count(&came), came.len(), notices), (PARTS.into(), PARTS.into(), 0));
}

#[test]
fn what_is_changed_or_not_for_a_session_spoils_nothing_around_it() {
    let pair = Pair::direct();
    let mut datagrams = sealed(&pair, 1);
    let last = datagrams[5].len() - 1;
    datagrams[5][last] ^= 1;
    datagrams[9][4] ^= 1;
    datagrams.insert(20, vec![1; 148]);
    datagrams.insert(30, Vec::new());
    let (came, _) = opened(&pair, datagrams);
    let forged = Came::Dropped(DropReason::Session(OpenError::NotAuthentic));
    let count = |what: &Came| came.iter().filter(|one| *one == what).count();
    assert_eq!((count(&forged), count(&Came::Engine)), (1, 3));
    let got = packets(&came);
    assert_eq!(got.len(), usize::from(PARTS) - 2);
    assert!(got.is_sorted());
}

#[test]
fn nothing_comes_of_authentic_packets_from_an_address_that_only_the_device_itself_makes() {
    let pair = Pair::direct();
    let datagrams = sealed(&pair, 1);
    for from in ["[100::8000:0:0:0]:0", "[100::1:c000:201]:7"] {
        let from = from.parse().expect("an address");
        assert_eq!(opened_from(from, &pair, datagrams.clone()), (Vec::new(), 0));
    }
    assert_eq!(packets(&opened(&pair, datagrams).0).len(), usize::from(PARTS));
}
