//! The device without a TUN: a TCP/IP stack in this process, reached by proxy and forwards.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use netstack::{Netstack, NetstackHandle, forward, proxy};
use packet::{Coalescer, Merging, Offload, Packet, PacketSink, flow};
use platform::udp::{MAX_SEGMENTS, MAX_SEND};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tracing::warn;

use crate::{
    NodeSettings, StartError, data::Buffers, directory::Directory, settings::SMALLEST_MTU,
};

/// Packets taken from the stack at once: few wake-ups where much is sent, and long runs to join.
const BATCH: usize = 512;
/// What a sealed packet is longer by at most: header, tag and padding.
const SEALING: usize = 48;

/// The userspace stack of all networks with everything that leads into it.
#[derive(Debug)]
pub(crate) struct Userspace {
    way: StackWay,
    proxy: Option<SocketAddr>,
    /// Ends with this value.
    _services: JoinSet<()>,
}

/// A network's way to the stack.
#[derive(Clone, Debug)]
pub(crate) struct StackWay {
    /// Takes packets for this device.
    pub(crate) packets: mpsc::Sender<BytesMut>,
    /// To keep the stack's addresses in step.
    pub(crate) stack: NetstackHandle,
    /// The ports that lead to local services.
    pub(crate) published: Vec<u16>,
}

impl Userspace {
    /// Starts the stack, the proxy, the forwards and the published ports.
    pub(crate) async fn start(
        settings: &NodeSettings,
        directory: &Directory,
    ) -> Result<Self, StartError> {
        let resolver = Arc::new(directory.clone());
        let (stack, packets) =
            Netstack::start(&[], SMALLEST_MTU.into(), resolver).map_err(StartError::Stack)?;
        let mut services = JoinSet::new();
        let proxy = match settings.proxy {
            None => None,
            Some(address) => {
                let listener = listen(address).await?;
                let bound = listener.local_addr().map_err(StartError::Stack)?;
                let stack = stack.clone();
                services.spawn(
                    async move { ended("proxy", proxy::serve(listener, stack, None).await) },
                );
                Some(bound)
            }
        };
        for entry in &settings.forwards {
            let (host, port) =
                entry.target().ok_or_else(|| StartError::Forward(entry.to.clone()))?;
            let listener = listen(entry.listen).await?;
            let forward = forward::forward(listener, stack.clone(), host.to_owned(), port);
            services.spawn(async move { ended("forward", forward.await) });
        }
        for entry in &settings.publish {
            let listener = stack.listen(entry.port).map_err(StartError::Stack)?;
            let publish = forward::publish(listener, entry.to);
            services.spawn(async move { ended("published port", publish.await) });
        }
        services.spawn(carry(packets.from_stack, directory.clone(), SMALLEST_MTU.into()));
        let published = settings.publish.iter().map(|entry| entry.port).collect();
        let way = StackWay { packets: packets.to_stack, stack, published };
        Ok(Self { way, proxy, _services: services })
    }

    /// Where the proxy listens.
    pub(crate) fn proxy(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// What a network needs of the stack.
    pub(crate) fn way(&self) -> StackWay {
        self.way.clone()
    }
}

/// Carries what the stack sends into the networks, until the stack ends. What belongs to no network is
/// lost, as on any wire.
async fn carry(mut from_stack: mpsc::Receiver<BytesMut>, directory: Directory, mtu: usize) {
    let mut packets = Vec::with_capacity(BATCH);
    let mut buffers = Buffers::new();
    while from_stack.recv_many(&mut packets, BATCH).await > 0 {
        join(&mut packets, mtu, &mut |offload: &Offload, pieces: &[&[u8]]| {
            let Some(outlet) = pieces.first().and_then(|header| directory.outlet(header)) else {
                return;
            };
            let room = buffers.room();
            pieces.iter().for_each(|piece| room.extend_from_slice(piece));
            outlet.send(offload, &mut buffers);
        });
        packets.clear();
    }
}

/// Joins packets into super-packets that one send takes.
///
/// The stack lets its connections send in turns, so those of each are brought together first.
fn join(packets: &mut [BytesMut], mtu: usize, sink: &mut impl PacketSink) {
    packets.sort_by(|a, b| flow(a).cmp(flow(b)));
    let parts = (MAX_SEND / (mtu + SEALING)).clamp(1, MAX_SEGMENTS);
    for packets in packets.chunks(parts) {
        let mut coalescer = Coalescer::new(Merging::ALL);
        for packet in packets.iter().filter_map(|packet| Packet::parse(packet).ok()) {
            coalescer.push(packet, sink);
        }
        coalescer.finish(sink);
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn ended(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "a {what} has ended");
    }
}

#[cfg(test)]
mod tests {
    use packet::{build, tcp::Flags};

    use super::*;

    const LENGTH: usize = 1_220;
    const MTU: usize = 1_280;

    /// The next full packet of a connection, which the port tells.
    fn segment(port: u16, sequence: u32) -> BytesMut {
        let source = SocketAddr::new("fd00::1".parse().expect("an address"), port);
        let destination = "[fd00::2]:80".parse().expect("an address");
        let meaning = build::Tcp { sequence, acknowledgement: 7, flags: Flags::ACK, window: 512 };
        BytesMut::from(&build::tcp(source, destination, &meaning, &[1; LENGTH])[..])
    }

    #[test]
    fn what_connections_send_in_turns_leaves_in_one_burst_each() {
        let step = u32::try_from(LENGTH).expect("it is short");
        let in_turns = (0..20).flat_map(|index| [1, 2].map(|port| segment(port, index * step)));
        let mut packets: Vec<_> = in_turns.collect();
        let mut bursts = Vec::new();
        join(&mut packets, MTU, &mut |offload: &Offload, pieces: &[&[u8]]| {
            bursts.push((usize::from(offload.segment_size), pieces.len() - 1));
        });
        assert_eq!(bursts, [(LENGTH, 20), (LENGTH, 20)]);
    }

    #[test]
    fn no_burst_is_longer_than_one_send() {
        let step = u32::try_from(LENGTH).expect("it is short");
        let mut packets: Vec<_> = (0..100).map(|index| segment(1, index * step)).collect();
        let mut parts = Vec::new();
        join(&mut packets, MTU, &mut |_: &Offload, pieces: &[&[u8]]| parts.push(pieces.len() - 1));
        assert_eq!(parts.iter().sum::<usize>(), 100);
        assert!(parts.iter().all(|count| count * (MTU + SEALING) <= MAX_SEND), "{parts:?}");
    }
}
