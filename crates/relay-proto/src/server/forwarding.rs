//! Frames on their way through a relay.

use std::time::Instant;

use bytes::BytesMut;
use identity::{DeviceId, NetworkId};
use noise_channel::MessageClass;

use super::RelayServer;
use crate::carried::Route;
use crate::fair::FlowId;
use crate::limits::MESH_HOPS;
use crate::link::LinkError;
use crate::message::Message;
use crate::serving::{ConnectionId, ServerEvent};

impl RelayServer {
    /// The next frame for the host itself, with the device that sent it, which its header names too.
    #[must_use]
    pub fn poll_frame(&mut self) -> Option<(DeviceId, BytesMut)> {
        self.arrived.as_mut()?.pop_front()
    }

    /// Queues a frame of the host itself for a device; false if that is not attached.
    pub fn send(
        &mut self,
        (network, device): (NetworkId, DeviceId),
        flow: FlowId,
        mut frame: BytesMut,
        now: Instant,
    ) -> bool {
        let Some(id) = self.attached.get(&(network, device)).copied() else { return false };
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if frame_proto::set_peer(&mut frame, connection.relay).is_ok() {
            connection.link.outbound.push_frame(flow, frame, now);
            if let Some(at) = connection.link.outbound.poll_timeout() {
                self.timers.arm(id, at);
            }
            if connection.link.outbound.has_message() {
                self.ready.insert(id);
            }
            self.last_now = Some(now);
        }
        true
    }

    /// Passes a frame on, with the sender in place of the receiver.
    pub(super) fn forward(
        &mut self,
        id: ConnectionId,
        receiver: DeviceId,
        mut frame: BytesMut,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(sender) = connection.attached().map(|attached| attached.device) else { return };
        let (network, relay) = (connection.network, connection.relay);
        let size = frame.len() as u64;
        let load = self.loads.entry(network).or_default();
        load.bytes_received += size;
        if !connection.admit(size, now) {
            load.frames_dropped += 1;
            return;
        }
        frame_proto::set_peer(&mut frame, sender).expect("a frame has a header");
        if let Some(arrived) = &mut self.arrived {
            if receiver == relay {
                load.bytes_forwarded += size;
                return arrived.push_back((sender, frame));
            }
        } else if let Some(to) = self.attached.get(&(network, receiver)).copied() {
            return self.queue(to, network, (flow_of(sender, &frame), frame), now);
        } else {
            let route = Route { hops: MESH_HOPS - 1, receiver };
            if self.hand_on((network, route), None, (sender, &frame), now) {
                return;
            }
        }
        self.tell_unreachable(id, receiver, now);
    }

    /// Takes a frame that another relay hands on.
    pub(super) fn handle_carried(
        &mut self,
        id: ConnectionId,
        network: NetworkId,
        carried: BytesMut,
        now: Instant,
    ) {
        let Some((route, sender, frame)) = Route::unwrap(carried) else {
            return self.close_link(id, LinkError::Protocol("a route to nowhere"));
        };
        self.loads.entry(network).or_default().bytes_received += frame.len() as u64;
        if let Some(to) = self.attached.get(&(network, route.receiver)).copied() {
            return self.queue(to, network, (flow_of(sender, &frame), frame), now);
        }
        let onwards = route.hops.checked_sub(1).map(|hops| Route { hops, ..route });
        let is_handed_on = onwards
            .is_some_and(|route| self.hand_on((network, route), Some(id), (sender, &frame), now));
        if !is_handed_on {
            self.loads.entry(network).or_default().frames_dropped += 1;
        }
    }

    /// Hands a frame on to the next relay on the way to where its receiver is; false if there is none.
    fn hand_on(
        &mut self,
        (network, route): (NetworkId, Route),
        from: Option<ConnectionId>,
        (sender, frame): (DeviceId, &[u8]),
        now: Instant,
    ) -> bool {
        let mesh = self.neighbours.meshes.get_mut(&network);
        let Some((link, next)) = mesh.and_then(|mesh| mesh.next_hop(route.receiver, from)) else {
            return false;
        };
        self.queue(link, network, (flow_of(sender, frame), route.wrap(next, frame)), now);
        true
    }

    /// Queues a frame for the other end of a connection, whoever opened it.
    fn queue(
        &mut self,
        to: ConnectionId,
        network: NetworkId,
        (flow, frame): (FlowId, BytesMut),
        now: Instant,
    ) {
        let accepted = self.connections.get_mut(&to).map(|connection| &mut connection.link);
        let link = accepted.or_else(|| Some(self.neighbours.dialled.get_mut(&to)?.link()?.1));
        let Some(link) = link else { return };
        let load = self.loads.entry(network).or_default();
        let (size, dropped) = (frame.len() as u64, link.outbound.dropped());
        link.outbound.push_frame(flow, frame, now);
        if let Some(at) = link.outbound.poll_timeout() {
            self.timers.arm(to, at);
        }
        if link.outbound.dropped() == dropped {
            load.bytes_forwarded += size;
            if link.outbound.has_message() {
                self.ready.insert(to);
            }
        } else {
            load.frames_dropped += 1;
        }
    }

    /// Tells a client that nobody knows where a device is.
    fn tell_unreachable(&mut self, id: ConnectionId, receiver: DeviceId, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let network = connection.network;
        self.loads.entry(network).or_default().frames_dropped += 1;
        if !connection.unreachable.take(1, now) {
            return;
        }
        connection.link.send(&Message::Unreachable(receiver), MessageClass::Heartbeat, now);
        if let Some(sender) = connection.attached().filter(|_| self.arrived.is_some()) {
            let device = sender.device;
            self.events.push_back(ServerEvent::Misdirected { network, device });
        }
    }
}

/// The frames of one sender, those of each class apart: enough of its id to tell members of a network
/// apart, and the class.
fn flow_of(sender: DeviceId, frame: &[u8]) -> FlowId {
    let (head, _) = sender.as_bytes().split_first_chunk().expect("an id has 32 bytes");
    let class = frame_proto::parse(frame).map_or(0, |header| {
        u64::from(header.is_interactive()) | u64::from(header.is_background()) << 1
    });
    FlowId(u64::from_be_bytes(*head) << 2 | class)
}
