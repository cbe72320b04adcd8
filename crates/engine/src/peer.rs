//! What this node knows about one other member.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use frame_proto::{FrameType, introduced_key};
use identity::{DeviceId, Member, TunnelKey, TunnelPublicKey};
use path::{Counts, Message, Path, PathAgent, RelayChoice};
use wireguard_proto::PublicKey;

use crate::frames::Frames;
use crate::psk::End;
use crate::traffic::Traffic;
use crate::via::Arrival;

/// A member with a current binding.
#[derive(Debug)]
pub(crate) struct Peer {
    /// What its certificate proves.
    pub(crate) member: Member,
    /// Its keys and capability, as its binding announces them.
    pub(crate) end: End,
    /// The leased IPv4 address.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// Where among the relays it is.
    pub(crate) relays: RelayChoice<DeviceId>,
    pub(crate) agent: PathAgent,
    pub(crate) traffic: Traffic,
    /// Sealing and opening of frames, for each session that is alive.
    pub(crate) frames: Frames,
    /// When this device introduced itself last.
    pub(crate) introduced: Option<Instant>,
    /// How many revocations it knows, by its own word.
    pub(crate) revocations: Option<u64>,
    sample: Sample,
}

/// A peer for which there is traffic and no direct path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lacking {
    pub(crate) device: DeviceId,
    pub(crate) has_session: bool,
    /// Whether packets wait for a session.
    pub(crate) is_waiting: bool,
}

/// Bytes of a packet, in the mean, from which on large ones are among them, beside what acknowledges others.
const LARGE: u64 = 500;

/// Counters as they were when last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    sent: u64,
    sent_bytes: u64,
    received_on_chosen: u64,
}

impl Peer {
    pub(crate) fn new(
        member: Member,
        end: End,
        agent: PathAgent,
        relays: RelayChoice<DeviceId>,
        frames: Frames,
    ) -> Self {
        Self {
            member,
            end,
            ipv4: None,
            relays,
            agent,
            traffic: Traffic::default(),
            frames,
            introduced: None,
            revocations: None,
            sample: Sample::default(),
        }
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.member.device
    }

    /// The key by which the WireGuard interface knows the peer.
    pub(crate) fn key(&self) -> PublicKey {
        wireguard_key(&self.end.tunnel_key)
    }

    /// What there is of the peer beside traffic, if there is traffic and no direct path on which nobody passes it on.
    pub(crate) fn lacking(&self, now: Instant) -> Option<Lacking> {
        self.agent.lacks_direct(now).then(|| Lacking {
            device: self.device(),
            has_session: self.frames.sessions().next().is_some(),
            is_waiting: self.traffic.is_waiting(),
        })
    }

    /// The peer's addresses, IPv6 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = IpAddr::V6(self.member.address);
        std::iter::once(v6).chain(self.ipv4.map(IpAddr::V4))
    }

    /// A stream straight to the peer has opened or ended.
    pub(crate) fn handle_stream(&mut self, is_open: bool, now: Instant) {
        let was_open = self.relays.has_stream();
        match (was_open, is_open) {
            (false, true) => self.relays.handle_stream_opened(self.device(), now),
            (true, false) => self.relays.handle_stream_closed(),
            (true, true) | (false, false) => {}
        }
        self.agent.handle_stream(self.relays.is_straight(), now);
    }

    /// The peer is at this relay now, whatever it announced last, so answers find it there.
    pub(crate) fn heard_through(&mut self, relay: DeviceId, now: Instant) {
        if relay != self.device() && self.relays.handle_seen(relay) {
            self.agent.handle_relay(true, now);
        }
    }

    /// Takes in an authenticated disco message.
    pub(crate) fn receive_disco(&mut self, arrival: Arrival, message: Message, now: Instant) {
        match (&message, arrival) {
            (Message::Ping { transaction }, Arrival::Relay(relay)) => {
                self.relays.handle_ping(relay, *transaction);
            }
            (Message::Pong { transaction, .. }, Arrival::Relay(relay)) => {
                self.relays.handle_pong(relay, *transaction, now);
            }
            _ => {}
        }
        self.tell_counts(now);
        self.agent.handle_message(arrival.path(self.device()), message, now);
    }

    /// When the machines that find ways to the peer want to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [self.agent.poll_timeout(), self.relays.poll_timeout()];
        timeouts.into_iter().flatten().map(|(at, _)| at).min()
    }

    /// The tunnel key that an introduction names, if it is not the known one.
    pub(crate) fn new_key(&self, frame: &[u8]) -> Option<TunnelPublicKey> {
        introduced_key(frame).filter(|key| *key != self.end.tunnel_key)
    }

    /// Opens a frame sealed with a hello key, or an introduction that names a new tunnel key.
    pub(crate) fn open_hello(&self, frame: &mut [u8], ours: &TunnelKey) -> Option<FrameType> {
        match self.new_key(frame) {
            Some(key) => self.frames.open_introduction(frame, ours, &key),
            None => self.frames.open_hello(frame),
        }
    }

    /// Tells the path agent how many packets have gone and come without frames.
    pub(crate) fn tell_counts(&mut self, now: Instant) {
        let counters = &self.traffic.counters;
        let wrapped = |counter: &AtomicU64| counter.load(Relaxed) as u32;
        let counts = self.traffic.usable(now).map(|_| Counts {
            sent: wrapped(&counters.sent_straight),
            arrived: wrapped(&counters.received_straight),
        });
        self.agent.handle_counts(counts);
    }

    /// Tells the path agent what data threads did since the last call; true if anything moved.
    pub(crate) fn sample(&mut self, now: Instant) -> bool {
        let sample = Sample {
            sent: self.traffic.counters.sent_packets.load(Relaxed),
            sent_bytes: self.traffic.counters.sent_bytes.load(Relaxed),
            received_on_chosen: self.traffic.counters.received_on_chosen.load(Relaxed),
        };
        let sent = sample.sent != self.sample.sent;
        let mean = (sample.sent_bytes - self.sample.sent_bytes)
            .checked_div(sample.sent - self.sample.sent)
            .unwrap_or(0);
        let received = sample.received_on_chosen != self.sample.received_on_chosen;
        self.sample = sample;
        if sent {
            self.agent.handle_sent(now);
        }
        if mean >= LARGE {
            self.agent.handle_large_sent(now);
        }
        if received && let Path::Direct(_) = self.agent.chosen() {
            self.agent.handle_received(self.agent.chosen(), now);
        }
        sent || received
    }
}

/// The same 32 bytes as the WireGuard crate names them.
pub(crate) fn wireguard_key(key: &TunnelPublicKey) -> PublicKey {
    PublicKey::from_bytes(*key.as_bytes())
}
