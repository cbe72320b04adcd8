//! The way of bulk between two nodes, machine by machine, without a network between them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use engine::{DataPlaneHandle, Engine, HostPacket, Now, StreamId};
use packet::{Offload, Segmentation, build, tcp::Flags};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use relay_proto::ConnectionId;

use super::world::{Setup, World};

const PATIENCE: Duration = Duration::from_secs(60);
/// Headers of the packets between the two: IPv6 and TCP without options.
const HEADERS: u16 = 60;
/// The MTU of the network.
const MTU: u16 = 1_280;

/// Two nodes of one network that have a session, and a relay to which both are attached.
///
/// What the simulator calls when a message arrives, a caller calls here himself: to measure it.
#[derive(Debug)]
pub struct Pair {
    world: World,
    rng: ChaCha20Rng,
    now: Now,
    links: [(StreamId, ConnectionId); 2],
}

impl Pair {
    /// Two nodes whose packets take the direct way.
    ///
    /// # Panics
    /// If the world does not become what it should.
    #[must_use]
    pub fn direct() -> Self {
        Self::new(false)
    }

    /// Two nodes whose packets go through the relay.
    ///
    /// # Panics
    /// If the world does not become what it should.
    #[must_use]
    pub fn relayed() -> Self {
        Self::new(true)
    }

    fn new(udp_blocked: bool) -> Self {
        let mut world = World::new(Setup { relays: 1, ..Setup::default() });
        world.nodes[1].udp_blocked = udp_blocked;
        let has_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
        assert!(world.run_until(PATIENCE, has_joined), "both join");
        let answered =
            world.ping_until_answered(0, 1, PATIENCE) && world.ping_until_answered(1, 0, PATIENCE);
        assert!(answered, "each reaches the other");
        let kind = if udp_blocked { "relay" } else { "direct" };
        let is_there = |world: &World| {
            [(0, 1), (1, 0)].iter().all(|(from, to)| world.path(*from, *to).starts_with(kind))
        };
        assert!(world.run_until(PATIENCE, is_there), "both find the path");
        let links = [0, 1].map(|node| world.link(node, 0).expect("both are attached"));
        let now = world.now();
        Self { world, rng: ChaCha20Rng::seed_from_u64(7), now, links }
    }

    /// A super-packet of the first for the second node, of `parts` full TCP segments.
    ///
    /// # Panics
    /// If that is more than a packet can be.
    #[must_use]
    pub fn super_packet(&self, parts: u16) -> (Offload, Vec<u8>) {
        let segment_size = MTU - HEADERS;
        let data = vec![7; usize::from(parts) * usize::from(segment_size)];
        let [from, to] = [0, 1].map(|node| SocketAddr::from((self.world.address(node), 5_201)));
        let meaning =
            build::Tcp { sequence: 1, acknowledgement: 1, flags: Flags::ACK, window: 512 };
        let offload = Offload {
            needs_checksum: true,
            segmentation: Segmentation::Tcp6,
            header_length: HEADERS,
            segment_size,
            checksum_start: 40,
            checksum_offset: 16,
        };
        (offload, build::tcp(from, to, &meaning, &data))
    }

    /// What the data threads of a node (0 or 1) work on.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn data_plane(&self, node: usize) -> DataPlaneHandle {
        self.world.nodes[node].engine.as_ref().expect("it runs").data_plane()
    }

    /// Where the datagrams of the first node come from.
    #[must_use]
    pub fn first_address(&self) -> SocketAddr {
        self.world.nodes[0].address
    }

    /// The time, which stands still but for [`wait`](Self::wait).
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now.instant
    }

    /// Lets time pass without anything that would be due: what a relay grants a second comes back.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// The first node takes a packet of its host; answers the message for the relay.
    ///
    /// # Panics
    /// If there is none.
    pub fn send(&mut self, packet: HostPacket) -> BytesMut {
        let now = self.now;
        let engine = engine(&mut self.world, 0);
        engine.handle_packet(packet, &mut self.rng, now);
        while engine.poll_stream().is_some() {}
        let message = engine.poll_message(self.links[0].0, now.instant).expect("a message");
        assert!(engine.poll_message(self.links[0].0, now.instant).is_none(), "one message");
        message
    }

    /// The relay takes a message of the first node; answers the one for the second.
    ///
    /// # Panics
    /// If there is none.
    pub fn forward(&mut self, message: Bytes) -> BytesMut {
        let now = self.now;
        let relay = &mut self.world.relays[0].server;
        relay.handle_message(self.links[0].1, message, &mut self.rng, now);
        while relay.poll_ready().is_some() {}
        let message = relay.poll_message(self.links[1].1, now.instant).expect("a message");
        assert!(relay.poll_message(self.links[1].1, now.instant).is_none(), "one message");
        message
    }

    /// The second node takes a message of the relay; answers the packet for its host.
    ///
    /// # Panics
    /// If there is none.
    pub fn receive(&mut self, message: Bytes) -> HostPacket {
        let now = self.now;
        let engine = engine(&mut self.world, 1);
        engine.handle_stream_message(self.links[1].0, message, &mut self.rng, now);
        engine.poll_packet().expect("a packet")
    }
}

fn engine(world: &mut World, node: usize) -> &mut Engine {
    world.nodes[node].engine.as_mut().expect("it runs")
}
