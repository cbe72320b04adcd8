//! Bytes of any kind from anyone.

use crate::lab::Lab;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic_the_interface(
        kind in 0_u8..6,
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        exact in any::<bool>(),
    ) {
        let mut lab = Lab::new();
        lab.establish();
        if exact {
            let len = match kind { 1 => 148, 2 => 92, 3 => 64, _ => bytes.len().max(32) };
            bytes.resize(len, 0);
        }
        if let Some(head) = bytes.first_chunk_mut::<4>() {
            *head = [kind, 0, 0, 0];
        }
        let from = lab.a.address;
        lab.b.take(&mut bytes, from, &mut lab.rng, lab.now);
        prop_assert_eq!(lab.b.dropped.len(), 1);
        lab.a_sends();
        prop_assert_eq!(lab.b.received.len(), 1);
    }

    #[test]
    fn a_message_with_any_bit_changed_is_dropped(at in 0_usize..1000, bit in 0_u32..8) {
        let mut lab = Lab::new();
        let peer = lab.a.peer;
        lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
        let mut message = lab.a.interface.poll_transmit().unwrap().message;
        let at = at % 132; // mac2 does not count without load
        message[at] ^= 1 << bit;
        let from = lab.a.address;
        lab.b.take(&mut message, from, &mut lab.rng, lab.now);
        prop_assert_eq!(lab.b.dropped.len(), 1);
    }
}

#[test]
fn a_replayed_and_a_damaged_packet_are_dropped() {
    let mut lab = Lab::new();
    lab.establish();
    let from = lab.a.address;
    let mut message = lab.a.seal(&[0x45; 32], &mut lab.rng, lab.now).unwrap();
    lab.b.take(&mut message.clone(), from, &mut lab.rng, lab.now);
    lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    let mut damaged = lab.a.seal(&[0x45; 32], &mut lab.rng, lab.now).unwrap();
    damaged[20] ^= 1;
    lab.b.take(&mut damaged, from, &mut lab.rng, lab.now);
    assert_eq!((lab.b.received.len(), lab.b.dropped.len()), (1, 2));
}
