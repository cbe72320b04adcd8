//! Network address translators and firewalls, as RFC 4787 tells them apart.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Mappings get ports from here on.
const FIRST_PORT: u16 = 20_000;

/// What a translator takes for the same: of mappings RFC 4787 section 4.1, of filters section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Wherever it goes to, or comes from.
    Endpoint,
    /// The same host.
    Address,
    /// The same host and port.
    AddressAndPort,
}

impl Dependence {
    /// The part of a remote address that makes a difference.
    fn part(self, remote: SocketAddr) -> Option<(IpAddr, u16)> {
        match self {
            Self::Endpoint => None,
            Self::Address => Some((remote.ip(), 0)),
            Self::AddressAndPort => Some((remote.ip(), remote.port())),
        }
    }
}

/// Which port a translator gives to a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// This many further than the one before.
    Counted(u16),
    /// Any, so that nobody outside can know it.
    Random,
}

/// How a translator behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatBehaviour {
    /// When two destinations see the same port.
    pub mapping: Dependence,
    /// Which port a new mapping gets.
    pub ports: Ports,
    /// Who may answer to it.
    pub filtering: Dependence,
    /// Whether hosts behind it reach each other by their outer addresses (RFC 4787 section 6).
    pub hairpin: bool,
    /// After how long without anything sent a mapping is forgotten.
    pub expiry: Duration,
}

type Part = Option<(IpAddr, u16)>;

/// A translator with one outer address.
#[derive(Clone, Debug)]
pub struct Nat {
    behaviour: NatBehaviour,
    outside: IpAddr,
    ports: BTreeMap<(SocketAddr, Part), u16>,
    mappings: BTreeMap<u16, Mapping>,
    last_port: u16,
    rng: ChaCha20Rng,
}

#[derive(Clone, Debug)]
struct Mapping {
    inside: SocketAddr,
    until: Instant,
    /// Who was sent to, with the time until which that counts.
    sent_to: BTreeMap<Part, Instant>,
}

impl Nat {
    /// A translator that has seen nothing yet.
    #[must_use]
    pub fn new(behaviour: NatBehaviour, outside: IpAddr) -> Self {
        let (ports, mappings) = (BTreeMap::new(), BTreeMap::new());
        // Each translator chooses otherwise than the others, and always the same.
        let mut hasher = DefaultHasher::new();
        outside.hash(&mut hasher);
        let rng = ChaCha20Rng::seed_from_u64(hasher.finish());
        Self { behaviour, outside, ports, mappings, last_port: FIRST_PORT, rng }
    }

    /// The address that the outside sees.
    #[must_use]
    pub fn outside(&self) -> IpAddr {
        self.outside
    }

    /// What the sender's address turns into on the way out.
    pub fn outbound(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        let key = (from, self.behaviour.mapping.part(to));
        let known = self.ports.get(&key).copied();
        let alive = known.filter(|port| self.mappings.get(port).is_some_and(|m| m.until > now));
        let port = alive.unwrap_or_else(|| self.open(key, known, now));
        let until = now + self.behaviour.expiry;
        let mapping = self.mappings.get_mut(&port).expect("it was found or opened");
        mapping.until = until;
        mapping.sent_to.insert(self.behaviour.filtering.part(to), until);
        SocketAddr::new(self.outside, port)
    }

    /// The host inside that gets what arrives at a port, if it is let in. What is let in keeps no
    /// mapping alive.
    #[must_use]
    pub fn inbound(&self, from: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&port).filter(|mapping| mapping.until > now)?;
        let part = self.behaviour.filtering.part(from);
        let permitted = mapping.sent_to.get(&part).is_some_and(|until| *until > now);
        permitted.then_some(mapping.inside)
    }

    /// Whether inside hosts may use outer addresses among themselves.
    #[must_use]
    pub fn hairpins(&self) -> bool {
        self.behaviour.hairpin
    }

    /// A further mapping of somebody else behind it, to nobody in particular.
    pub fn disturb(&mut self, now: Instant) {
        let elsewhere = SocketAddr::from((self.rng.next_u32().to_be_bytes(), 443));
        let somebody = SocketAddr::from(([192, 168, 0, 250], elsewhere.port()));
        self.outbound(somebody, elsewhere, now);
    }

    /// A mapping on a port that nobody has.
    fn open(&mut self, key: (SocketAddr, Part), before: Option<u16>, now: Instant) -> u16 {
        if let Some(port) = before {
            self.mappings.remove(&port);
        }
        let mut port = self.next_port();
        while self.mappings.contains_key(&port) {
            port = self.next_port();
        }
        self.last_port = port;
        let (inside, until) = (key.0, now);
        let mapping = Mapping { inside, until, sent_to: BTreeMap::new() };
        self.mappings.insert(self.last_port, mapping);
        self.ports.insert(key, self.last_port);
        self.last_port
    }

    fn next_port(&mut self) -> u16 {
        match self.behaviour.ports {
            Ports::Counted(step) => {
                let next = self.last_port.checked_add(step);
                next.unwrap_or(FIRST_PORT + self.last_port % step)
            }
            Ports::Random => FIRST_PORT + (self.rng.next_u32() as u16) % (u16::MAX - FIRST_PORT),
        }
    }
}

/// A firewall that lets in what answers something (RFC 6092), without translation.
#[derive(Clone, Debug)]
pub struct Firewall {
    filtering: Dependence,
    expiry: Duration,
    sent: BTreeMap<(SocketAddr, Part), Instant>,
}

impl Firewall {
    /// A firewall that has seen nothing yet.
    #[must_use]
    pub fn new(filtering: Dependence, expiry: Duration) -> Self {
        Self { filtering, expiry, sent: BTreeMap::new() }
    }

    /// A datagram goes out.
    pub fn outbound(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) {
        self.sent.insert((from, self.filtering.part(to)), now + self.expiry);
    }

    /// Whether a datagram may come in.
    #[must_use]
    pub fn permits(&self, from: SocketAddr, to: SocketAddr, now: Instant) -> bool {
        self.sent.get(&(to, self.filtering.part(from))).is_some_and(|until| *until > now)
    }
}
