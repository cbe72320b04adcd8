//! The queues of an interface, and which one a flow has.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::Range,
    sync::Arc,
};

use packet::{Merging, Offload};
use platform::{Delivery, Tun, TunError};

/// Queues of an interface that are read in turns.
///
/// What the host sends waits in them by flow, so that bulk does not hold up what is interactive beside it, and flows
/// share what a thread can do. The system steers a flow to the queue to which its other direction was last written;
/// so each packet is written to the queue of its flow.
#[derive(Clone, Debug)]
pub(super) struct Queues {
    all: Arc<[Arc<Tun>]>,
    own: Range<usize>,
    /// Seeded at random: nobody can choose with whom to wait.
    hasher: RandomState,
}

impl Queues {
    /// All of an interface, at least one.
    pub(super) fn new(all: &[Arc<Tun>]) -> Self {
        Self { all: all.into(), own: 0..all.len(), hasher: RandomState::new() }
    }

    /// Those of one of so many threads, no more than there are queues.
    pub(super) fn of_thread(&self, thread: usize, threads: usize) -> Self {
        let bound = |thread| thread * self.all.len() / threads;
        Self { own: bound(thread)..bound(thread + 1), ..self.clone() }
    }

    pub(super) fn own(&self) -> &[Arc<Tun>] {
        &self.all[self.own.clone()]
    }

    /// Which super-packets may be written: the same to all.
    pub(super) fn merging(&self) -> Merging {
        self.all[0].merging()
    }

    /// Writes one packet or super-packet, given as slices in order, of which the first begins with its headers.
    pub(super) fn send(&self, offload: &Offload, pieces: &[&[u8]]) -> Result<Delivery, TunError> {
        let own = self.own();
        let hash = self.hasher.hash_one(flow(pieces.first().unwrap_or(&&[][..])));
        let queue = usize::try_from(hash % own.len() as u64).expect("there are few queues");
        own[queue].send(offload, pieces)
    }
}

/// What all packets of a connection have in common: addresses and ports.
pub(crate) fn flow(packet: &[u8]) -> &[u8] {
    let range = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 12..24 } else { 8..44 };
    packet.get(range).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use platform::tun::MAX_PACKET;

    /// Queues, and for each of them the end where what was written to it arrives.
    fn queues(number: usize) -> (Queues, Vec<Tun>) {
        let pairs: Vec<_> = (0..number).map(|_| Tun::pair().expect("two ends")).collect();
        let (ours, hosts): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(|(ours, host)| (Arc::new(ours), host)).unzip();
        (Queues::new(&ours), hosts)
    }

    /// A TCP segment from a port, which says nothing else.
    fn packet(port: u16) -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[0] = 0x60;
        packet[40..42].copy_from_slice(&port.to_be_bytes());
        packet
    }

    /// The ports of what has arrived at each of the hosts' ends.
    fn arrived(hosts: &[Tun]) -> Vec<Vec<u16>> {
        let all = |host: &Tun| {
            let mut ports = Vec::new();
            let mut buffer = BytesMut::with_capacity(MAX_PACKET);
            while host.receive(&mut buffer).expect("it is open").is_some() {
                ports.push(u16::from_be_bytes([buffer[40], buffer[41]]));
                buffer.clear();
            }
            ports
        };
        hosts.iter().map(all).collect()
    }

    #[test]
    fn a_flow_stays_in_its_queue_and_flows_are_spread_over_them() {
        let (queues, hosts) = queues(8);
        for port in (1..=64).chain(1..=64) {
            let packet = packet(port);
            let sent = queues.send(&Offload::default(), &[&packet[..50], &packet[50..]]);
            assert_eq!(sent.expect("it is open"), Delivery::Sent);
        }
        let arrived = arrived(&hosts);
        assert_eq!(arrived.iter().map(Vec::len).sum::<usize>(), 128);
        for ports in &arrived {
            let (first, again) = ports.split_at(ports.len() / 2);
            assert_eq!(first, again, "each flow comes twice to the same queue");
        }
        assert!(arrived.iter().filter(|ports| !ports.is_empty()).count() > 1);
    }

    #[test]
    fn threads_share_all_queues() {
        let (queues, hosts) = queues(8);
        for threads in 1..=8 {
            let shares: Vec<_> = (0..threads).map(|one| queues.of_thread(one, threads)).collect();
            assert!(shares.iter().all(|share| !share.own().is_empty()));
            assert_eq!(shares.iter().map(|share| share.own().len()).sum::<usize>(), 8);
        }
        let last = queues.of_thread(3, 4);
        for port in 0..64 {
            let _ = last.send(&Offload::default(), &[&packet(port)]).expect("it is open");
        }
        let arrived = arrived(&hosts);
        assert!(arrived[..6].iter().all(Vec::is_empty));
        assert_eq!(arrived[6].len() + arrived[7].len(), 64);
    }

    #[test]
    fn what_has_no_headers_is_written_like_any_other() {
        let (queues, _hosts) = queues(2);
        for packet in [&[][..], &[0x45], &[0x60; 39]] {
            assert!(queues.send(&Offload::default(), &[packet]).is_ok());
        }
    }
}
