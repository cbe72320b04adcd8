//! Datagrams that a relay passes on over UDP between two ends: a circuit.
//!
//! Over its link a member asks for a circuit to another ([`RelayClient::request_circuit`](crate::RelayClient::request_circuit)).
//! The relay gives it a number and a key for each end ([`CircuitOffer`]), and the member hands the other end its own, sealed from end to
//! end. Each then shows the relay where it is ([`CircuitBinding`]): it says so under its key, the relay answers with a nonce that
//! depends on the time and on the address from which that came, and what repeats it counts. From then on the relay passes on what comes from
//! one end's address with the circuit's number before it ([`Head`]) to the other's, and nothing else. Both ways no more leaves
//! than came.

mod end;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use identity::{DeviceId, NetworkId, RevocationTarget, Revocations};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::bucket::{Bucket, Rate};

pub use end::CircuitBinding;
pub use wire::{BIND_LEN, CircuitKey, HEAD_LEN, Head, NUMBERS};
use wire::{Kind, Nonce, about, mac};

/// A circuit that nobody has asked for in so long is forgotten: three questions.
const KEPT: Duration = Duration::from_secs(60);
/// Circuits of one network that one member asked for.
const MAX_ASKED: usize = 64;
/// What an end has to repeat counts for so long, and once more: an observer has no longer to pretend that it moved back.
const SLOT: Duration = Duration::from_secs(60);
/// So often a number is drawn: of ten thousand circuits one in 1,700 draws hits.
const DRAWS: usize = 8;
/// Where there is no room, what has ended is looked for so often.
const REVIEW: Duration = Duration::from_secs(1);
/// Devices of which it is remembered that they are served no more.
const MAX_EXPELLED: usize = 4_096;

/// What a member that asked for a circuit gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitOffer {
    /// The circuit's number at the relay.
    pub number: u32,
    /// The key of who asked, and that of the other end.
    pub keys: [CircuitKey; 2],
}

/// The same on a link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct OfferMessage {
    #[n(0)]
    number: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    own: [u8; CircuitKey::LENGTH],
    #[cbor(n(2), with = "minicbor::bytes")]
    other: [u8; CircuitKey::LENGTH],
}

impl From<&CircuitOffer> for OfferMessage {
    fn from(offer: &CircuitOffer) -> Self {
        let [own, other] = offer.keys.each_ref().map(|key| *key.as_bytes());
        Self { number: offer.number, own, other }
    }
}

impl From<OfferMessage> for CircuitOffer {
    fn from(message: OfferMessage) -> Self {
        let keys = [message.own, message.other].map(CircuitKey::from_bytes);
        Self { number: message.number, keys }
    }
}

/// Where a datagram came from, or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the relay's sockets.
    pub socket: usize,
    /// The address of the relay's to which it was sent, if that is known.
    pub local: Option<IpAddr>,
    /// The other host.
    pub remote: SocketAddr,
}

impl Place {
    fn is_at(&self, other: &Self) -> bool {
        (self.socket, self.remote) == (other.socket, other.remote)
    }
}

/// The circuits over one relay.
#[derive(Debug)]
pub struct Circuits {
    /// How many there may be.
    limit: usize,
    /// What each end may send.
    rate: Rate,
    /// What nonces are made of.
    secret: Zeroizing<[u8; 32]>,
    circuits: HashMap<u32, Circuit>,
    numbers: BTreeMap<Pair, u32>,
    /// How many each member asked for.
    asked: HashMap<(NetworkId, DeviceId), usize>,
    /// Bytes that were passed on for each network and not taken yet.
    forwarded: BTreeMap<NetworkId, u64>,
    /// Devices that are served no more.
    expelled: BTreeSet<(NetworkId, DeviceId)>,
    started: Instant,
    reviewed: Instant,
}

/// A network, and two of its devices in their order.
type Pair = (NetworkId, [DeviceId; 2]);

#[derive(Debug)]
struct Circuit {
    pair: Pair,
    asked_by: DeviceId,
    ends: [End; 2],
    until: Instant,
}

#[derive(Debug)]
struct End {
    key: CircuitKey,
    place: Option<Place>,
    bytes: Bucket,
}

impl Circuits {
    /// No circuit yet; so many may be, and each end may send so much.
    #[must_use]
    pub fn new((limit, rate): (usize, Rate), rng: &mut dyn CryptoRng, now: Instant) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self {
            limit,
            rate,
            secret,
            circuits: HashMap::new(),
            numbers: BTreeMap::new(),
            asked: HashMap::new(),
            forwarded: BTreeMap::new(),
            expelled: BTreeSet::new(),
            started: now,
            reviewed: now,
        }
    }

    /// The circuit between a member that asks for it and another device, a new one if need be; none if there is no room.
    pub fn open(
        &mut self,
        network: NetworkId,
        [from, to]: [DeviceId; 2],
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Option<CircuitOffer> {
        if [from, to].iter().any(|end| self.expelled.contains(&(network, *end))) {
            return None;
        }
        let pair = (network, [from.min(to), from.max(to)]);
        let number = match self.numbers.get(&pair) {
            Some(number) => *number,
            None => self.insert(pair, from, rng, now)?,
        };
        let circuit = self.circuits.get_mut(&number)?;
        circuit.until = now + KEPT;
        let mut keys = circuit.ends.each_ref().map(|end| end.key.clone());
        if from > to {
            keys.reverse();
        }
        Some(CircuitOffer { number, keys })
    }

    fn insert(
        &mut self,
        pair: Pair,
        from: DeviceId,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Option<u32> {
        let (network, [one, other]) = pair;
        if self.circuits.len() >= self.limit && now >= self.reviewed + REVIEW {
            self.expire(now);
        }
        let asked = self.asked.get(&(network, from)).copied().unwrap_or(0);
        if one == other || self.circuits.len() >= self.limit || asked >= MAX_ASKED {
            return None;
        }
        let mut numbers = (0..DRAWS).map(|_| rng.next_u32() % NUMBERS);
        let number = numbers.find(|number| !self.circuits.contains_key(number))?;
        let rate = self.rate;
        let ends = [(); 2].map(|()| End {
            key: CircuitKey::generate(rng),
            place: None,
            bytes: Bucket::full(rate, now),
        });
        self.circuits.insert(number, Circuit { pair, asked_by: from, ends, until: now });
        self.numbers.insert(pair, number);
        self.asked.insert((network, from), asked + 1);
        Some(number)
    }

    /// Takes a datagram by which an end shows where it is; what to answer to there, which is not longer.
    pub fn handle_bind(
        &mut self,
        from: Place,
        datagram: &[u8],
        now: Instant,
    ) -> Option<[u8; BIND_LEN]> {
        let (number, message) = about(Kind::Bind, datagram)?;
        let slot = now.saturating_duration_since(self.started).as_secs() / SLOT.as_secs();
        let circuit = self.circuits.get_mut(&number)?;
        let (repeated, end) =
            circuit.ends.iter_mut().find_map(|end| Some((end.key.read(message)?, end)))?;
        let nonce = |slot| nonce(&self.secret, (number, slot), &from);
        if repeated == nonce(slot) || repeated == nonce(slot.saturating_sub(1)) {
            end.place = Some(from);
            return Some(end.key.write(Kind::Bound, number, repeated));
        }
        Some(end.key.write(Kind::Repeat, number, nonce(slot)))
    }

    /// Where datagrams go that came from there with this before them, `bytes` of them together.
    pub fn pass_on(&mut self, from: &Place, head: Head, bytes: u64, now: Instant) -> Option<Place> {
        let circuit = self.circuits.get_mut(&head.to_pass_on()?)?;
        let [one, other] = &mut circuit.ends;
        let is_from = |end: &End| end.place.is_some_and(|place| place.is_at(from));
        let (end, to) = if is_from(one) {
            (one, other.place)
        } else if is_from(other) {
            (other, one.place)
        } else {
            return None;
        };
        let to = to.filter(|_| circuit.until > now && end.bytes.take(bytes, now))?;
        let (network, _) = circuit.pair;
        *self.forwarded.entry(network).or_default() += bytes;
        Some(to)
    }

    /// Forgets what nobody asks for any more.
    pub fn expire(&mut self, now: Instant) {
        self.reviewed = now;
        self.retain(|circuit| circuit.until > now);
    }

    /// Passes nothing on any more for devices that a network has revoked, attached or not.
    pub fn set_revocations(&mut self, network: NetworkId, revocations: &Revocations) {
        let of_network = self.numbers.keys().filter(|(of, _)| *of == network);
        let ends = of_network.flat_map(|(_, ends)| *ends);
        let is_revoked =
            |device: &DeviceId| revocations.contains(&RevocationTarget::Device(*device));
        let revoked: BTreeSet<_> = ends.filter(is_revoked).collect();
        revoked.into_iter().for_each(|device| self.expel(network, device));
    }

    /// Passes nothing on any more for a device that a network serves no more, until it is [admitted](Self::admit) again.
    pub fn expel(&mut self, network: NetworkId, device: DeviceId) {
        if self.expelled.len() >= MAX_EXPELLED {
            self.expelled.pop_first();
        }
        self.expelled.insert((network, device));
        self.retain(|circuit| circuit.pair.0 != network || !circuit.pair.1.contains(&device));
    }

    /// A device is served.
    pub fn admit(&mut self, network: NetworkId, device: DeviceId) {
        self.expelled.remove(&(network, device));
    }

    /// Passes nothing on any more for a network.
    pub fn forget(&mut self, network: NetworkId) {
        self.retain(|circuit| circuit.pair.0 != network);
        self.forwarded.remove(&network);
        self.expelled.retain(|(of, _)| *of != network);
    }

    /// Bytes of a network that were passed on since [`Self::take_forwarded`].
    #[must_use]
    pub fn forwarded(&self, network: NetworkId) -> u64 {
        self.forwarded.get(&network).copied().unwrap_or(0)
    }

    /// The same, and counts anew from now on.
    pub fn take_forwarded(&mut self, network: NetworkId) -> u64 {
        self.forwarded.remove(&network).unwrap_or(0)
    }

    /// How many circuits there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.circuits.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }

    fn retain(&mut self, is_kept: impl Fn(&Circuit) -> bool) {
        let Self { circuits, numbers, asked, .. } = self;
        circuits.retain(|_, circuit| {
            let kept = is_kept(circuit);
            if !kept {
                numbers.remove(&circuit.pair);
                let asker = (circuit.pair.0, circuit.asked_by);
                if let Some(count) = asked.get_mut(&asker) {
                    *count -= 1;
                    if *count == 0 {
                        asked.remove(&asker);
                    }
                }
            }
            kept
        });
    }
}

/// What an end at this place has to repeat at this time.
fn nonce(secret: &[u8; 32], (number, slot): (u32, u64), place: &Place) -> Nonce {
    let ip = match place.remote.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let port = place.remote.port().to_be_bytes();
    let socket = (place.socket as u64).to_be_bytes();
    let (number, slot) = (number.to_be_bytes(), slot.to_be_bytes());
    let whole = mac(secret, &[&number, &slot, &socket, &ip.octets(), &port]);
    *whole.first_chunk().expect("a tag is longer")
}
