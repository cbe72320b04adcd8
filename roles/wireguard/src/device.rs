use std::collections::{BTreeMap, VecDeque};
use std::time::{Instant, SystemTime};

use packet::Offload;
use rand_chacha::ChaCha20Rng;
use wireguard_proto::{
    Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, PublicKey, Tai64N,
};

use crate::allowed_ips::AllowedIps;
use crate::remote::Remote;
use crate::uapi::{Changes, PeerChanges, hex, line};

/// Packets that wait for a session, per peer; what comes beyond pushes out the oldest.
const MAX_STAGED: usize = 128;

/// What is configured and what is known, without sockets.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) interface: Interface<Remote>,
    pub(crate) allowed_ips: AllowedIps,
    /// Whether the key is a configured one; until then a throwaway stands in and is not shown.
    configured: bool,
    pub(crate) listen_port: u16,
    pub(crate) fwmark: u32,
    staged: BTreeMap<PublicKey, VecDeque<Staged>>,
    pub(crate) rng: ChaCha20Rng,
}

/// A packet or super-packet that waits for a session.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) offload: Offload,
    pub(crate) packet: Vec<u8>,
}

impl Device {
    pub(crate) fn new(mut rng: ChaCha20Rng, rekey_after_bytes: Option<u64>, now: Instant) -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let config = InterfaceConfig {
            private_key: PrivateKey::generate(&mut rng),
            rekey_after_bytes,
            limits: LoadLimits::default(),
            last_timestamp: Tai64N::default(),
            wall,
        };
        Self {
            interface: Interface::new(config, now),
            allowed_ips: AllowedIps::default(),
            configured: false,
            listen_port: 0,
            fwmark: 0,
            staged: BTreeMap::new(),
            rng,
        }
    }

    /// Carries out a `set=1` but for what sockets must do, which the caller does first.
    pub(crate) fn apply(&mut self, changes: Changes, now: Instant) {
        if let Some(key) = changes.private_key {
            self.configured = key.is_some();
            let key = key.unwrap_or_else(|| PrivateKey::generate(&mut self.rng));
            if key.public_key() != *self.interface.public_key() {
                self.interface.set_private_key(key, now);
                let own = *self.interface.public_key();
                self.forget(&own);
            }
        }
        if changes.replace_peers {
            let all: Vec<PublicKey> =
                self.interface.tunnels().map(|tunnel| *tunnel.peer()).collect();
            for peer in all {
                self.interface.remove_peer(&peer, now);
            }
            self.allowed_ips.clear();
            self.staged.clear();
        }
        for peer in changes.peers {
            self.apply_peer(peer, now);
        }
    }

    fn apply_peer(&mut self, changes: PeerChanges, now: Instant) {
        let peer = changes.public_key;
        if changes.remove {
            return self.remove_peer(&peer, now);
        }
        if self.interface.tunnel(&peer).is_none()
            && (changes.update_only || !self.interface.add_peer(peer, PeerConfig::default(), now))
        {
            return;
        }
        if let Some(key) = changes.preshared_key {
            self.interface.set_preshared_keys(&peer, vec![key]);
        }
        if let Some(address) = changes.endpoint {
            self.interface.set_endpoint(&peer, Remote::new(address));
        }
        if changes.replace_allowed_ips {
            self.allowed_ips.remove_all(&peer);
        }
        for (add, prefix) in changes.allowed_ips {
            if add {
                self.allowed_ips.insert(prefix, peer);
            } else {
                self.allowed_ips.remove(prefix, &peer);
            }
        }
        if let Some(interval) = changes.persistent_keepalive {
            self.interface.set_persistent_keepalive(&peer, Some(interval), now);
        }
    }

    fn remove_peer(&mut self, peer: &PublicKey, now: Instant) {
        self.interface.remove_peer(peer, now);
        self.forget(peer);
    }

    fn forget(&mut self, peer: &PublicKey) {
        self.allowed_ips.remove_all(peer);
        self.staged.remove(peer);
    }

    /// Asks for a session with a peer.
    pub(crate) fn initiate(&mut self, peer: &PublicKey, now: Instant) {
        self.interface.initiate(peer, &mut self.rng, now);
    }

    /// Looks at a peer whose session asked for it.
    pub(crate) fn handle_activity(&mut self, peer: &PublicKey, now: Instant) {
        self.interface.handle_activity(peer, &mut self.rng, now);
    }

    /// Keeps a packet until its peer has a session.
    pub(crate) fn stage(&mut self, peer: PublicKey, offload: Offload, packet: &[u8]) {
        let queue = self.staged.entry(peer).or_default();
        if queue.len() >= MAX_STAGED {
            queue.pop_front();
        }
        queue.push_back(Staged { offload, packet: packet.to_vec() });
    }

    /// What waited for a peer's session.
    pub(crate) fn take_staged(&mut self, peer: &PublicKey) -> VecDeque<Staged> {
        self.staged.remove(peer).unwrap_or_default()
    }

    /// Lets the system choose the source address for a peer from now on.
    pub(crate) fn forget_source(&mut self, remote: &Remote) {
        let peers: Vec<PublicKey> = self
            .interface
            .tunnels()
            .filter(|tunnel| tunnel.endpoint() == Some(remote))
            .map(|tunnel| *tunnel.peer())
            .collect();
        for peer in peers {
            self.interface.set_endpoint(&peer, Remote::new(remote.address));
        }
    }

    /// The lines that answer `get=1`.
    pub(crate) fn describe(&self) -> String {
        let mut out = String::new();
        if self.configured {
            let key = self.interface.private_key().to_bytes();
            line(&mut out, "private_key", &*hex(&key));
        }
        line(&mut out, "listen_port", self.listen_port);
        if self.fwmark != 0 {
            line(&mut out, "fwmark", self.fwmark);
        }
        let allowed_ips = self.allowed_ips.by_peer();
        for tunnel in self.interface.tunnels() {
            line(&mut out, "public_key", &*hex(tunnel.peer().as_bytes()));
            let preshared = tunnel.preshared_keys().first().map_or([0; 32], |key| *key.as_bytes());
            line(&mut out, "preshared_key", &*hex(&preshared));
            line(&mut out, "protocol_version", 1);
            if let Some(remote) = tunnel.endpoint() {
                line(&mut out, "endpoint", remote.address);
            }
            let handshake = tunnel.last_handshake().unwrap_or_default();
            line(&mut out, "last_handshake_time_sec", handshake.as_secs());
            line(&mut out, "last_handshake_time_nsec", handshake.subsec_nanos());
            line(&mut out, "tx_bytes", tunnel.sent_bytes());
            line(&mut out, "rx_bytes", tunnel.received_bytes());
            let keepalive = tunnel.persistent_keepalive().unwrap_or_default();
            line(&mut out, "persistent_keepalive_interval", keepalive.as_secs());
            for prefix in allowed_ips.get(tunnel.peer()).into_iter().flatten() {
                line(&mut out, "allowed_ip", prefix);
            }
        }
        out
    }
}
