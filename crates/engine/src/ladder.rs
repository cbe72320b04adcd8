//! The ways to a peer, and when each joins the others.
//!
//! Frames through a relay and datagrams straight to the peer begin at once. Others cost somebody something, so each waits for a moment
//! in which most pairs have found a better one (RFC 8305 section 5):
//!
//! | way | joins after |
//! |---|---|
//! | a stream to a peer that listens | 250 ms |
//! | a circuit, over a relay or another member | 500 ms |
//! | an allocation at a TURN server | 1 s |
//!
//! What won in the same local network before does not wait. It has to prove itself like all others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use identity::DeviceId;
use minicbor::{Decode, Encode};
use noise_channel::Now;
use path::{Alias, Path};
use rand_core::CryptoRng;

use crate::context::Context;
use crate::engine::Engine;
use crate::io::EngineEvent;

/// A way to a peer that is better than frames through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Rung {
    /// Datagrams straight to this address of the peer.
    #[n(0)]
    Straight(#[n(0)] SocketAddr),
    /// A stream straight to the peer, or from it.
    #[n(1)]
    Stream,
    /// A circuit.
    #[n(2)]
    Circuit,
    /// An allocation of this device at a TURN server.
    #[n(3)]
    Allocation,
}

impl Rung {
    /// How long traffic has to lack something better.
    pub(crate) const fn stagger(self) -> Duration {
        match self {
            Self::Straight(_) => Duration::ZERO,
            Self::Stream => Duration::from_millis(250),
            Self::Circuit => Duration::from_millis(500),
            Self::Allocation => Duration::from_secs(1),
        }
    }
}

/// What won the last time where this device is now, of peers that are not found yet.
#[derive(Debug, Default)]
pub(crate) struct Ladder(BTreeMap<DeviceId, Rung>);

impl Ladder {
    /// How long traffic for a peer has to lack something better than this.
    pub(crate) fn stagger(&self, peer: DeviceId, rung: Rung) -> Duration {
        if self.0.get(&peer) == Some(&rung) { Duration::ZERO } else { rung.stagger() }
    }

    /// The device is no peer any more, or is found.
    pub(crate) fn forget(&mut self, device: DeviceId) {
        self.0.remove(&device);
    }

    /// The address at which a peer was reached.
    pub(crate) fn straight(&self, peer: DeviceId) -> Option<SocketAddr> {
        match self.0.get(&peer)? {
            Rung::Straight(address) => Some(*address),
            Rung::Stream | Rung::Circuit | Rung::Allocation => None,
        }
    }
}

impl Engine {
    /// By what peers were reached before in the local network where this device is now, as
    /// [`EngineEvent::Won`] told: it is tried first. To be called before the change of the network is told.
    pub fn handle_winners(
        &mut self,
        winners: impl IntoIterator<Item = (DeviceId, Rung)>,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        self.ladder = Ladder(winners.into_iter().collect());
        for device in self.peers.devices() {
            self.recall(device, now.instant);
        }
        self.drain(&mut Context { rng, now });
    }

    /// A peer is reached by this now.
    pub(crate) fn note_winner(&mut self, peer: DeviceId, rung: Rung, now: Instant) {
        // What was remembered is for the first attempt: from then on moments to wait keep what is worse from being taken too soon.
        if matches!(rung, Rung::Straight(_)) || self.ladder.straight(peer).is_none() {
            self.ladder.forget(peer);
            self.recall(peer, now);
        }
        self.output.events.push_back(EngineEvent::Won { peer, rung });
    }

    /// Tells the machine that chooses the path to a peer where the peer was reached before.
    pub(crate) fn recall(&mut self, device: DeviceId, now: Instant) {
        let won = self.ladder.straight(device);
        if let Some(peer) = self.peers.touch(device) {
            peer.agent.handle_recalled(won, now);
        }
    }

    /// The rung that a path is, unless it is the lowest, or leads over what will not be the same another time.
    pub(crate) fn rung(&self, device: DeviceId, path: Path) -> Option<Rung> {
        match path {
            Path::Direct(address) => match Alias::of(address) {
                Some(Alias::Circuit(_)) => Some(Rung::Circuit),
                Some(Alias::Turn(..)) => Some(Rung::Allocation),
                Some(Alias::Socket(..)) => None,
                None => self.peers.get(device)?.agent.straight().map(Rung::Straight),
            },
            Path::Stream => Some(Rung::Stream),
            Path::Relay | Path::None => None,
        }
    }
}
