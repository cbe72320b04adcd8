//! A host with nothing but WireGuard, as `wg` would set it up, at the other end of a node.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use engine::Now;
use identity::{StaticPeer, TunnelPublicKey, UnixTime};
use rand_chacha::ChaCha20Rng;
use wireguard_proto::{
    Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, PublicKey, Received,
    TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, Tai64N,
};

use super::packets::Echo;

/// A plain WireGuard interface whose one peer is a node, and an application behind it.
#[derive(Debug)]
pub struct PlainHost {
    /// Its WireGuard key.
    pub key: TunnelPublicKey,
    /// Its address in the network underneath.
    pub address: SocketAddr,
    /// Its address in the overlay.
    pub inner: Ipv6Addr,
    /// Questions that reached its application.
    pub asked: u64,
    answers: BTreeSet<u64>,
    interface: Interface<SocketAddr>,
    node: PublicKey,
    waiting: VecDeque<Vec<u8>>,
}

impl PlainHost {
    pub(super) fn new(
        node: &TunnelPublicKey,
        at: SocketAddr,
        inner: Ipv6Addr,
        rng: &mut ChaCha20Rng,
        now: Now,
    ) -> Self {
        let private_key = PrivateKey::generate(rng);
        let key = TunnelPublicKey::from_bytes(*private_key.public_key().as_bytes());
        let config = InterfaceConfig {
            private_key,
            rekey_after_bytes: None,
            limits: LoadLimits::default(),
            last_timestamp: Tai64N::default(),
            wall: Duration::from_millis(now.wall.0),
        };
        let mut interface = Interface::new(config, now.instant);
        let node = PublicKey::from_bytes(*node.as_bytes());
        let peer = PeerConfig { endpoint: Some(at), ..PeerConfig::default() };
        interface.add_peer(node, peer, now.instant);
        let address = SocketAddr::from(([192, 0, 2, 77], 51_820));
        let (answers, waiting) = (BTreeSet::new(), VecDeque::new());
        Self { key, address, inner, asked: 0, answers, interface, node, waiting }
    }

    /// The record that lets the host in until `not_after`.
    pub fn record(&self, not_after: UnixTime) -> StaticPeer {
        StaticPeer {
            tunnel_key: self.key,
            name: "printer".parse().expect("a label"),
            addresses: vec![IpAddr::V6(self.inner)],
            not_after,
        }
    }

    /// Whether the question with this number was answered.
    pub fn is_answered(&self, number: u64) -> bool {
        self.answers.contains(&number)
    }

    pub(super) fn send(&mut self, packet: Vec<u8>, rng: &mut ChaCha20Rng, now: Instant) {
        self.waiting.push_back(packet);
        if self.interface.tunnel(&self.node).and_then(|tunnel| tunnel.session(now)).is_none() {
            self.interface.initiate(&self.node, rng, now);
        }
    }

    pub(super) fn receive(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        rng: &mut ChaCha20Rng,
        now: Instant,
    ) {
        let received = self.interface.handle_datagram(datagram, from, rng, now);
        let Ok(Received::Packet { payload, .. }) = received else { return };
        let Some(echo) = Echo::from_packet(payload) else { return };
        if echo.answer {
            self.answers.insert(echo.number);
        } else {
            self.asked += 1;
            self.waiting.push_back(echo.answered().to_packet(0));
        }
    }

    pub(super) fn handle_timeout(&mut self, rng: &mut ChaCha20Rng, now: Instant) {
        self.interface.handle_timeout(rng, now);
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.interface.poll_timeout()
    }

    /// The next datagram to send.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        while self.interface.poll_event().is_some() {}
        while let Some(transmit) = self.interface.poll_transmit() {
            if let Some(to) = transmit.endpoint {
                return Some((to, transmit.message));
            }
        }
        let tunnel = self.interface.tunnel(&self.node)?;
        let (session, to) = (tunnel.session(now)?, *tunnel.endpoint()?);
        let packet = self.waiting.pop_front()?;
        let mut message = vec![0; TRANSPORT_OVERHEAD + packet.len().next_multiple_of(16)];
        message[TRANSPORT_HEADER_LEN..][..packet.len()].copy_from_slice(&packet);
        session.seal(session.reserve(1, now).ok()?.next()?, &mut message);
        let _ = session.record_sent(message.len() as u64, true, now);
        Some((to, message))
    }
}
