//! Bytes turned into a layout and actions. Any bytes are a script.

use std::time::Duration;

use crate::places::Place;
use crate::sim::{
    Dependence, EdgeKind, INTERNET, NatBehaviour, Ports, Quality, SiteId, Streams, Underlay, World,
};

/// Actions of one script; what comes after them is passed over.
const MAX_ACTIONS: usize = 24;

/// What happens, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What the world begins with.
    pub layout: Layout,
    /// What is done to it.
    pub actions: Vec<Action>,
}

/// What the world begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Relays.
    pub relays: usize,
    /// The nodes, by their places.
    pub places: Vec<Place>,
    /// How datagrams fare.
    pub quality: Quality,
}

impl Place {
    /// A new site of this kind.
    pub fn site(self, world: &mut World) -> SiteId {
        use Dependence::{Address, AddressAndPort, Endpoint};
        let nat = |mapping, filtering| NatBehaviour {
            mapping,
            ports: Ports::Random,
            filtering,
            hairpin: true,
            expiry: Duration::from_secs(60),
        };
        let counting =
            NatBehaviour { ports: Ports::Counted(1), ..nat(AddressAndPort, AddressAndPort) };
        let home = nat(Endpoint, AddressAndPort);
        let underlay = &mut world.underlay;
        let kind = match self {
            Self::Open => return INTERNET,
            Self::Firewalled => EdgeKind::Firewall,
            Self::FullCone => EdgeKind::Nat(nat(Endpoint, Endpoint)),
            Self::Restricted => EdgeKind::Nat(nat(Endpoint, Address)),
            Self::PortRestricted => EdgeKind::Nat(home),
            Self::AddressSymmetric => EdgeKind::Nat(nat(Address, AddressAndPort)),
            Self::Symmetric => EdgeKind::Nat(nat(AddressAndPort, AddressAndPort)),
            Self::SymmetricWithIpv6 => EdgeKind::NatAndIpv6(nat(AddressAndPort, AddressAndPort)),
            Self::Carrier => return behind_carrier(home, home, underlay),
            Self::CountingCarrier => return behind_carrier(home, counting, underlay),
            Self::Counting => EdgeKind::Nat(counting),
            Self::Ipv6Only => EdgeKind::Ipv6,
            Self::NoUdp => EdgeKind::Streams(Streams::All),
            Self::Https => EdgeKind::Streams(Streams::Https),
            Self::Proxy => EdgeKind::Streams(Streams::Proxy),
        };
        underlay.add_site(INTERNET, kind)
    }
}

/// A site behind a translator that is behind another; neither lets its own hosts meet by outer addresses.
fn behind_carrier(home: NatBehaviour, carrier: NatBehaviour, underlay: &mut Underlay) -> SiteId {
    let edge = |nat| EdgeKind::Nat(NatBehaviour { hairpin: false, ..nat });
    let carrier = underlay.add_site(INTERNET, edge(carrier));
    underlay.add_site(carrier, edge(home))
}

/// Something that is done to the world. Hosts are given by numbers that are taken modulo how many there are:
/// of nodes, of relays, or of all, where the controller comes first, then relays, then nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Action {
    /// Time passes.
    Wait(Duration),
    /// An application asks another with a packet of this size.
    Ask { from: u8, to: u8, len: u16 },
    /// Whoever has a one is cut off from whoever has a zero.
    Split { sides: u16 },
    /// Two hosts are cut off from each other, beside all who are so already.
    Cut { one: u8, other: u8 },
    /// All are together again.
    Heal,
    /// The controller's process ends, or starts.
    Controller { up: bool },
    /// A relay's process ends, or starts.
    Relay { relay: u8, up: bool },
    /// A node's process ends and starts again, with what it had saved or without.
    Restart { node: u8, after: Duration, keep: bool },
    /// A node's process ends.
    Stop { node: u8 },
    /// A node's process starts if it does not run.
    Start { node: u8 },
    /// A node sleeps.
    Sleep { node: u8, time: Duration },
    /// A node moves to another place.
    Move { node: u8, place: Place },
    /// A node's wall clock is set.
    Clock { node: u8, ahead_ms: i64 },
    /// The disk of the controller, a relay or a node takes nothing more, or takes again.
    Disk { host: u8, full: bool },
    /// Datagrams from and to a node are dropped, or pass again.
    Udp { node: u8, blocked: bool },
    /// Datagrams fare like this from now on.
    Quality(Quality),
    /// Datagrams that a node sends fare like this.
    Uplink { node: u8, quality: Quality },
    /// The administrator removes a node.
    Remove { node: u8 },
    /// A further node joins.
    Join { place: Place },
    /// Another device tries the invite of a node.
    Intrude { node: u8 },
    /// A node sends in the name of a third one, or of itself as the local host.
    Forge { from: u8, to: u8, as_node: u8 },
    /// A node comes back with another tunnel key.
    ChangeKey { node: u8 },
    /// What has to be so by now is looked at.
    Check,
}

impl Script {
    /// What the bytes say.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut reader = Reader { bytes };
        let layout = reader.layout();
        let mut actions = Vec::new();
        while !reader.bytes.is_empty() && actions.len() < MAX_ACTIONS {
            actions.push(reader.action());
        }
        Self { layout, actions }
    }
}

/// Takes bytes from the front; zeros when there are none.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn layout(&mut self) -> Layout {
        let seed = u64::from(self.byte());
        let relays = 1 + usize::from(self.byte() % 2);
        let quality = self.quality();
        let places = (0..2 + self.byte() % 3).map(|_| self.place()).collect();
        Layout { seed, relays, places, quality }
    }

    fn action(&mut self) -> Action {
        match self.byte() % 32 {
            0..=3 => Action::Wait(self.seconds(120)),
            4..=6 => Action::Ask { from: self.byte(), to: self.byte(), len: self.length() },
            7 => Action::Split { sides: u16::from_be_bytes([self.byte(), self.byte()]) },
            8 => Action::Cut { one: self.byte(), other: self.byte() },
            9 => Action::Heal,
            10 | 11 => Action::Controller { up: self.flag() },
            12 | 13 => Action::Relay { relay: self.byte(), up: self.flag() },
            14 | 15 => {
                Action::Restart { node: self.byte(), after: self.seconds(30), keep: self.flag() }
            }
            16 => Action::Stop { node: self.byte() },
            17 => Action::Start { node: self.byte() },
            18 => Action::Sleep { node: self.byte(), time: self.seconds(255) },
            19 | 20 => Action::Move { node: self.byte(), place: self.place() },
            21 => Action::Clock { node: self.byte(), ahead_ms: self.clock() },
            22 => Action::Disk { host: self.byte(), full: self.flag() },
            23 => Action::Udp { node: self.byte(), blocked: self.flag() },
            24 => Action::Quality(self.quality()),
            25 => Action::Uplink { node: self.byte(), quality: self.quality() },
            26 => Action::Remove { node: self.byte() },
            27 => Action::Join { place: self.place() },
            28 => Action::Intrude { node: self.byte() },
            29 => Action::Forge { from: self.byte(), to: self.byte(), as_node: self.byte() },
            30 => Action::ChangeKey { node: self.byte() },
            _ => Action::Check,
        }
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    fn seconds(&mut self, most: u8) -> Duration {
        Duration::from_secs(u64::from(self.byte() % most) + 1)
    }

    fn length(&mut self) -> u16 {
        [0, 576, 1_280][usize::from(self.byte() % 3)]
    }

    fn place(&mut self) -> Place {
        // What was added later has numbers of its own, so that committed scripts keep their meaning.
        match usize::from(self.byte()) {
            byte @ ..240 => Place::ALL[byte % 10],
            byte @ 240..254 => Place::ALL[10 + (byte - 240) % 3],
            254 => Place::Https,
            _ => Place::Proxy,
        }
    }

    fn quality(&mut self) -> Quality {
        match self.byte() % 8 {
            0..=3 => Quality::GOOD,
            4 => Quality::BAD,
            5 => Quality::NOISY,
            6 => Quality::NARROW,
            _ => Quality::SLOW,
        }
    }

    /// Seconds, minutes, hours or days, fast or slow.
    fn clock(&mut self) -> i64 {
        let byte = self.byte();
        let amount = [0, 30_000, 300_000, 3_600_000, 2 * 86_400_000][usize::from(byte) % 5];
        if byte >= 128 { -amount } else { amount }
    }
}
