//! The queues of an interface: which one a flow has, and reading them in turns.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::Range,
    sync::Arc,
};

use packet::{Merging, Offload, flow};

use crate::{Delivery, Tun, TunError, poll::ReadySet, tun::SUPER_PACKET};

/// Bytes read before something else gets its turn: a few super-packets.
const TURN: usize = 4 * SUPER_PACKET as usize;
/// What a packet counts at least, so that small ones have a bound too.
const LEAST: usize = 4 * 1024;

/// Queues of an interface that are read in turns.
///
/// What the host sends waits in them by flow, so that bulk does not hold up what is interactive beside it, and flows
/// share what a thread can do. The system steers a flow to the queue to which its other direction was last written;
/// so each packet is written to the queue of its flow.
#[derive(Clone, Debug)]
pub struct Queues {
    all: Arc<[Tun]>,
    own: Range<usize>,
    /// Seeded at random: nobody can choose with whom to wait.
    hasher: RandomState,
}

impl Queues {
    /// How many a thread wants: enough that flows seldom wait for each other.
    pub const PER_THREAD: usize = 8;

    /// All of an interface.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new(all: Vec<Tun>) -> Self {
        assert!(!all.is_empty(), "an interface has a queue");
        Self { own: 0..all.len(), all: all.into(), hasher: RandomState::new() }
    }

    /// Those of one of so many threads, no more than there are queues.
    #[must_use]
    pub fn of_thread(&self, thread: usize, threads: usize) -> Self {
        let bound = |thread| thread * self.all.len() / threads;
        Self { own: bound(thread)..bound(thread + 1), ..self.clone() }
    }

    /// One of the interface's, for what concerns all of it.
    #[must_use]
    pub fn first(&self) -> &Tun {
        &self.all[0]
    }

    /// Those of this thread.
    #[must_use]
    pub fn own(&self) -> &[Tun] {
        &self.all[self.own.clone()]
    }

    /// Which super-packets may be written: the same to all.
    #[must_use]
    pub fn merging(&self) -> Merging {
        self.first().merging()
    }

    /// Reads from those of this thread that are `ready`, a packet of each in turns, until they are empty or what `read`
    /// answers, which is a packet's length or that none waits, adds up to a few super-packets.
    ///
    /// # Errors
    /// The first of `read`.
    pub fn take_turn(
        &self,
        mut ready: ReadySet,
        mut read: impl FnMut(&Tun) -> Result<Option<usize>, TunError>,
    ) -> Result<(), TunError> {
        let mut taken = 0;
        while taken < TURN && !ready.is_empty() {
            for index in ready.iter() {
                match read(&self.own()[index])? {
                    Some(length) => taken += length.max(LEAST),
                    None => ready.remove(index),
                }
            }
        }
        Ok(())
    }

    /// Writes one packet or super-packet, given as slices in order, of which the first begins with its headers.
    ///
    /// # Errors
    /// Of [`Tun::send`].
    pub fn send(&self, offload: &Offload, pieces: &[&[u8]]) -> Result<Delivery, TunError> {
        let own = self.own();
        let hash = self.hasher.hash_one(flow(pieces.first().unwrap_or(&&[][..])));
        let queue = usize::try_from(hash % own.len() as u64).expect("there are few queues");
        own[queue].send(offload, pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tun::MAX_PACKET;
    use bytes::BytesMut;

    /// Queues, and for each of them the end where what was written to it arrives.
    fn queues(number: usize) -> (Queues, Vec<Tun>) {
        let pairs: Vec<_> = (0..number).map(|_| Tun::pair().expect("two ends")).collect();
        let (ours, hosts) = pairs.into_iter().unzip();
        (Queues::new(ours), hosts)
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
    fn a_turn_takes_of_every_queue_and_ends() {
        let (queues, _hosts) = queues(3);
        let mut ready = ReadySet::default();
        [0, 2].into_iter().for_each(|index| ready.insert(index));
        let mut left = [5_usize, 5, 1];
        let mut order = Vec::new();
        let mut read = |length: usize| {
            queues.take_turn(ready, |queue| {
                let index = queues.own().iter().position(|own| std::ptr::eq(own, queue));
                let index = index.expect("its own");
                order.push(index);
                left[index] = left[index].saturating_sub(1);
                Ok((left[index] > 0).then_some(length))
            })
        };
        read(60).expect("nothing failed");
        assert_eq!(order, [0, 2, 0, 0, 0, 0], "the second is not ready, the third soon empty");

        let mut taken = 0;
        let mut endless = |length: usize| {
            taken = 0;
            let read = queues.take_turn(ready, |_| {
                taken += 1;
                Ok(Some(length))
            });
            read.expect("nothing failed");
            taken
        };
        assert_eq!(endless(SUPER_PACKET as usize), 4);
        assert_eq!(endless(60), 60);
        assert!(queues.take_turn(ready, |_| Err(TunError::Gone)).is_err());
    }

    #[test]
    fn what_has_no_headers_is_written_like_any_other() {
        let (queues, _hosts) = queues(2);
        for packet in [&[][..], &[0x45], &[0x60; 39]] {
            assert!(queues.send(&Offload::default(), &[packet]).is_ok());
        }
    }
}
