//! The limit of a machine: one end of a tunnel without a cipher.
//!
//! TUN → split → UDP with segmentation offload → joined receive → coalesce → TUN, in one thread. It does
//! what a tunnel has to do besides encrypting, so that a real one can be compared with it.
//!
//! `limit INTERFACE ADDRESS:PORT PEER:PORT`, as root; `make bench` runs two of them.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use bytes::BytesMut;
use packet::{Coalescer, Offload, Packet, Segments};
use platform::{
    Interest, Poller, ReceiveBatch, Transmit, Tun, TunConfig, TunError, UdpConfig, UdpSocket,
    tun::MAX_PACKET, udp::MAX_SEGMENTS,
};

/// What WireGuard adds in front and behind.
const HEADER: usize = 16;
const TAG: usize = 16;
/// Super-packets taken from one side before the other gets its turn, as in a node.
const READS: usize = 16;
const RECEIVE_SLOTS: usize = 8;

struct End {
    tun: Tun,
    socket: UdpSocket,
    peer: SocketAddr,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [interface, local, peer] = &args[..] else {
        panic!("limit INTERFACE ADDRESS:PORT PEER:PORT");
    };
    let [local, peer] = [local, peer].map(|text| text.parse::<SocketAddr>().expect("an address"));
    let config = UdpConfig { address: local.ip(), ..UdpConfig::ipv4(local.port()) };
    let tun = Tun::open(TunConfig::named(interface)).expect("a TUN interface");
    End { tun, socket: UdpSocket::bind(&config).expect("a free port"), peer }.run();
}

impl End {
    fn run(&self) {
        let mut poller = Poller::new().expect("a poller");
        poller.add(&self.tun, 0, Interest::Read).expect("it can be watched");
        poller.add(&self.socket, 1, Interest::Read).expect("it can be watched");
        let mut packet = BytesMut::with_capacity(MAX_PACKET);
        let mut datagrams = Vec::with_capacity(2 * MAX_PACKET);
        let mut batch = ReceiveBatch::new(RECEIVE_SLOTS);
        loop {
            let mut is_ready = [false; 2];
            for ready in poller.wait(None).expect("it waits") {
                is_ready[usize::try_from(ready.token).expect("0 or 1")] = true;
            }
            if is_ready[0] {
                self.send(&mut packet, &mut datagrams);
            }
            if is_ready[1] {
                self.receive(&mut batch);
            }
        }
    }

    fn send(&self, packet: &mut BytesMut, datagrams: &mut Vec<u8>) {
        for _ in 0..READS {
            packet.clear();
            let offload = match self.tun.receive(packet) {
                Ok(Some(offload)) => offload,
                Ok(None) => return,
                Err(TunError::Gone) => std::process::exit(0),
                Err(error) => panic!("{error}"),
            };
            let Ok(segments) = Segments::plan(&offload, packet) else { continue };
            for first in (0..segments.count()).step_by(MAX_SEGMENTS) {
                datagrams.clear();
                for index in first..segments.count().min(first + MAX_SEGMENTS) {
                    let (start, length) = (datagrams.len() + HEADER, segments.length(index));
                    datagrams.resize(start + length + TAG, 0);
                    segments.write(index, &mut datagrams[start..start + length]);
                }
                let segment = u16::try_from(HEADER + segments.longest() + TAG).ok();
                let destination = self.peer;
                let transmit = Transmit { destination, source: None, segment, bytes: datagrams };
                // What the network does not take is lost, as on any wire.
                let _ = self.socket.send(&transmit);
            }
        }
    }

    fn receive(&self, batch: &mut ReceiveBatch) {
        if !self.socket.receive(batch).expect("the socket works") {
            return;
        }
        let mut sink = |offload: &Offload, pieces: &[&[u8]]| {
            // What the host cannot take now is lost, as on any wire.
            let _ = self.tun.send(offload, pieces);
        };
        let mut coalescer = Coalescer::new(self.tun.merging());
        for datagram in batch.datagrams() {
            for bytes in datagram.segments() {
                let bytes: &[u8] = bytes;
                let end = bytes.len().saturating_sub(TAG);
                let inner = bytes.get(HEADER..end).unwrap_or_default();
                if let Ok(packet) = Packet::parse(inner) {
                    coalescer.push(packet, &mut sink);
                }
            }
        }
        coalescer.finish(&mut sink);
    }
}
