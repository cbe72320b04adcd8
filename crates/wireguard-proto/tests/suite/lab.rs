//! Two interfaces, a virtual clock, and a wire between them that can lose.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use wireguard_proto::{
    Dropped, Event, Interface, InterfaceConfig, LoadLimits, PeerConfig, PresharedKey, PrivateKey,
    PublicKey, Received, Tai64N,
};

pub(crate) const WALL: Duration = Duration::from_secs(1_700_000_000);

pub(crate) struct End {
    pub(crate) interface: Interface<SocketAddr>,
    pub(crate) address: SocketAddr,
    pub(crate) peer: PublicKey,
    pub(crate) events: Vec<Event>,
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) keepalives: usize,
    pub(crate) dropped: Vec<Dropped>,
}

pub(crate) struct Lab {
    pub(crate) a: End,
    pub(crate) b: End,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: Instant,
    /// Whether messages of (a, b) arrive.
    pub(crate) connected: (bool, bool),
    /// Messages sent by (a, b), by type.
    pub(crate) sent: (Vec<u8>, Vec<u8>),
}

pub(crate) fn config(key: &PrivateKey) -> InterfaceConfig {
    InterfaceConfig {
        private_key: key.clone(),
        rekey_after_bytes: None,
        limits: LoadLimits::default(),
        last_timestamp: Tai64N::default(),
        wall: WALL,
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, vec![], vec![])
    }

    pub(crate) fn with(
        adjust: impl Fn(&mut InterfaceConfig),
        a_psk: Vec<PresharedKey>,
        b_psk: Vec<PresharedKey>,
    ) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let now = Instant::now();
        let keys = (PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng));
        let addresses: (SocketAddr, SocketAddr) =
            (([192, 0, 2, 1], 1000).into(), ([198, 51, 100, 2], 2000).into());
        let end = |key: &PrivateKey, peer: &PrivateKey, psk, at, peer_at| {
            let mut config = config(key);
            adjust(&mut config);
            let mut interface = Interface::new(config, now);
            let peer = peer.public_key();
            let config = PeerConfig {
                preshared_keys: psk,
                endpoint: Some(peer_at),
                persistent_keepalive: None,
            };
            assert!(interface.add_peer(peer, config, now));
            End {
                interface,
                address: at,
                peer,
                events: vec![],
                received: vec![],
                keepalives: 0,
                dropped: vec![],
            }
        };
        Self {
            a: end(&keys.0, &keys.1, a_psk, addresses.0, addresses.1),
            b: end(&keys.1, &keys.0, b_psk, addresses.1, addresses.0),
            rng,
            now,
            connected: (true, true),
            sent: (vec![], vec![]),
        }
    }

    /// Starts a handshake at a and lets it run.
    pub(crate) fn establish(&mut self) {
        let peer = self.a.peer;
        self.a.interface.initiate(&peer, &mut self.rng, self.now);
        self.settle();
        assert!(self.a.ready(self.now) && self.b.ready(self.now), "a session on both ends");
    }

    /// Carries messages until both ends are quiet.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            let Self { a, b, rng, now, connected, sent } = self;
            while let Some(mut transmit) = a.interface.poll_transmit() {
                quiet = false;
                sent.0.push(transmit.message[0]);
                if connected.0 {
                    b.take(&mut transmit.message, a.address, rng, *now);
                }
            }
            while let Some(mut transmit) = b.interface.poll_transmit() {
                quiet = false;
                sent.1.push(transmit.message[0]);
                if connected.1 {
                    a.take(&mut transmit.message, b.address, rng, *now);
                }
            }
            a.drain_events();
            b.drain_events();
            if quiet {
                return;
            }
        }
    }

    /// Lets virtual time pass, with every timeout at its instant.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            self.settle();
            let due = [&self.a, &self.b]
                .into_iter()
                .filter_map(|end| end.interface.poll_timeout())
                .map(|(at, _)| at)
                .min()
                .filter(|at| *at <= end);
            let Some(at) = due else { break };
            self.now = self.now.max(at);
            self.a.interface.handle_timeout(&mut self.rng, self.now);
            self.b.interface.handle_timeout(&mut self.rng, self.now);
        }
        self.now = end;
    }

    /// Sends 32 bytes from a to b, as an application would.
    pub(crate) fn a_sends(&mut self) {
        let Self { a, b, rng, now, connected, .. } = self;
        let Some(mut message) = a.seal(&[0x45; 32], rng, *now) else { return self.settle() };
        if connected.0 {
            b.take(&mut message, a.address, rng, *now);
        }
        self.settle();
    }

    /// Sends 32 bytes from b to a.
    pub(crate) fn b_sends(&mut self) {
        let Self { a, b, rng, now, connected, .. } = self;
        let Some(mut message) = b.seal(&[0x45; 32], rng, *now) else { return self.settle() };
        if connected.1 {
            a.take(&mut message, b.address, rng, *now);
        }
        self.settle();
    }
}

impl End {
    pub(crate) fn ready(&self, now: Instant) -> bool {
        self.interface.tunnel(&self.peer).is_some_and(|tunnel| tunnel.session(now).is_some())
    }

    /// Seals on the current session, or asks for one.
    pub(crate) fn seal(
        &mut self,
        payload: &[u8],
        rng: &mut ChaCha20Rng,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let session =
            self.interface.tunnel(&self.peer).and_then(|tunnel| tunnel.session(now)).cloned();
        let Some(session) = session else {
            self.interface.initiate(&self.peer.clone(), rng, now);
            return None;
        };
        let mut message = vec![0; payload.len() + 32];
        message[16..16 + payload.len()].copy_from_slice(payload);
        let counter = session.reserve(1, now).unwrap().next().unwrap();
        session.seal(counter, &mut message);
        if session.record_sent(message.len() as u64, true, now) {
            self.interface.handle_activity(&self.peer.clone(), rng, now);
        }
        Some(message)
    }

    pub(crate) fn take(
        &mut self,
        message: &mut [u8],
        from: SocketAddr,
        rng: &mut ChaCha20Rng,
        now: Instant,
    ) {
        match self.interface.handle_datagram(message, from, rng, now) {
            Ok(Received::Packet { payload: [], .. }) => self.keepalives += 1,
            Ok(Received::Packet { payload, .. }) => self.received.push(payload.to_vec()),
            Ok(Received::Handshake(_) | Received::Cookie(_)) => {}
            Err(reason) => self.dropped.push(reason),
        }
    }

    fn drain_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.interface.poll_event()));
    }
}
