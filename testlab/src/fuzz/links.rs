//! Both ends of a relay link, by whoever opened its channel and says what he likes inside: a device, a relay to a device,
//! or a relay to another.
//!
//! An input is a sequence of [`parts`]; the first byte of each says what it is: a message of the channel,
//! the honest message that attaches, a frame under hop protection, bytes as they are, or time that passes. Between relays
//! it may also be what they tell each other, in a frame that is in order, or that somebody is attached who says so.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::BytesMut;
use control_proto::limits::CAPABILITY;
use frame_proto::{
    FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, HopKey, HopSealer, TAG_LENGTH, compose, parse,
    payload_mut,
};
use identity::{Attachment, Binding, CertificateChain, DeviceId, Signed, UnixTime};
use minicbor::Encode;
use noise_channel::{
    Channel, InitiatorConfig, MessageClass, Now, ReplayGuard, ResponderConfig, Service,
};
use rand_chacha::ChaCha20Rng;
use relay_proto::{
    ClientConfig, ClientEvent, ConnectionId, FlowId, Limits, RelayClient, RelayServer, ServerEvent,
};

use super::{HERE, now, parts, rng};
use crate::members::{Member, Network};

const START: UnixTime = UnixTime(1_800_000_000);
const NONCE: [u8; 16] = [1; 16];
/// What the end that is played here seals its messages with.
const HOP: [u8; 32] = [5; 32];
/// Longer inputs say nothing that shorter ones do not.
const MOST_PARTS: usize = 32;

/// The messages that an honest end sends first.
#[derive(Encode)]
enum Message {
    #[n(0)]
    Attach(#[n(0)] Attach),
    #[n(1)]
    Attached(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
}

#[derive(Encode)]
#[cbor(array)]
struct Attach {
    #[n(0)]
    chain: CertificateChain,
    #[n(1)]
    binding: Signed<Binding>,
    #[n(2)]
    attachment: Signed<Attachment>,
    #[cbor(n(3), with = "minicbor::bytes")]
    hop_key: [u8; 32],
}

/// A network with a relay, two members, and two that are relays as well; its keys are made once.
struct Place {
    network: Network,
    members: [Member; 2],
    relays: [Member; 2],
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let rng = &mut rng();
    let network = Network::new(START, rng);
    let members = [1, 2].map(|serial| network.member(serial, rng));
    let relays = [3, 4].map(|serial| network.relay(serial, rng));
    Place { network, members, relays }
});

impl Place {
    /// What a member brings.
    fn config(&self, member: usize) -> ClientConfig {
        self.members[member].config(&self.network, 1, NONCE)
    }

    fn machine(&self, member: usize, rng: &mut ChaCha20Rng, now: Now) -> RelayClient {
        RelayClient::new(self.config(member), rng, now).expect("the relay's key is usable")
    }
}

/// The end that is played here: it has the keys, and no manners.
struct Played {
    channel: Channel,
    sealer: Option<HopSealer>,
    /// Whom its control frames name.
    peer: DeviceId,
    /// How it begins if it is honest.
    opening: Vec<u8>,
}

/// What a part of an input stands for.
enum Step {
    Message(Vec<u8>),
    Time(Duration),
    Nothing,
}

impl Played {
    fn step(&mut self, part: &[u8], now: Now) -> Step {
        let Some((kind, rest)) = part.split_first() else { return Step::Nothing };
        let message = match kind % 5 {
            0 => self.wrap(rest, now),
            1 if self.sealer.is_none() => {
                let message = self.wrap(&self.opening.clone(), now);
                self.sealer = Some(HopSealer::new(&HopKey::from_bytes(&HOP)));
                message
            }
            // A frame, and what follows it is padding.
            2 => self.seal(rest.to_vec()),
            3 => Some(rest.to_vec()),
            _ => return Step::Time(Duration::from_secs(rest.len() as u64)),
        };
        message.map_or(Step::Nothing, Step::Message)
    }

    /// A message of the channel, as frames carry it once there are some.
    fn wrap(&mut self, message: &[u8], now: Now) -> Option<Vec<u8>> {
        self.channel.send(message, MessageClass::Counted, now.instant).ok()?;
        let message = self.channel.poll_message()?;
        if self.sealer.is_none() {
            return Some(message);
        }
        self.frame(FrameType::Control, &message)
    }

    fn frame(&mut self, kind: FrameType, payload: &[u8]) -> Option<Vec<u8>> {
        self.seal(framed(kind, self.peer, payload)?)
    }

    fn seal(&mut self, mut frame: Vec<u8>) -> Option<Vec<u8>> {
        frame.resize(frame.len() + HOP_TAG_LENGTH, 0);
        self.sealer.as_mut()?.seal(&mut frame).ok()?;
        Some(frame)
    }
}

fn framed(kind: FrameType, peer: DeviceId, payload: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER_LENGTH + payload.len() + TAG_LENGTH];
    compose(kind, peer, &mut frame).ok()?;
    payload_mut(&mut frame).copy_from_slice(payload);
    Some(frame)
}

/// A relay, an honest member who is attached, and the connection of a member who is not honest.
struct AtRelay {
    relay: RelayServer,
    honest: (ConnectionId, RelayClient),
    played: (ConnectionId, Played),
    /// Who that is.
    device: DeviceId,
}

pub(super) fn server(bytes: &[u8]) {
    let (rng, mut now) = (&mut rng(), now());
    let mut lab = AtRelay::new(&PLACE.members[0], PLACE.config(0), rng, now);
    for part in parts(bytes).take(MOST_PARTS) {
        let step = lab.played.1.step(part, now);
        lab.take(step, rng, &mut now);
    }
}

pub(super) fn between(bytes: &[u8]) {
    let (rng, mut now) = (&mut rng(), now());
    let Place { network, relays, .. } = &*PLACE;
    let config = relays[0].config(network, 1, NONCE);
    let mut lab =
        AtRelay::new(&relays[0], ClientConfig { capability: CAPABILITY, ..config }, rng, now);
    lab.relay.set_relays(network.id(), relays.each_ref().map(Member::id), now);
    for part in parts(bytes).take(MOST_PARTS) {
        let step = lab.played.1.step_of_relay(part, now);
        lab.take(step, rng, &mut now);
        assert!(lab.relay.reach(network.id()).0 <= relays.len());
        lab.call(now);
        lab.settle(rng, now);
    }
}

impl Played {
    fn step_of_relay(&mut self, part: &[u8], now: Now) -> Step {
        let message = match part {
            [5, rest @ ..] => self.frame(FrameType::Mesh, rest),
            [6, hops, to, rest @ ..] => self.frame(FrameType::Carried, &carried(*hops, *to, rest)),
            [7, of, number, after, rest @ ..] => {
                let relay = &PLACE.relays[usize::from(of % 2)];
                let word = if rest.is_empty() { attached(relay) } else { linked(rest) };
                self.frame(FrameType::Mesh, &delta(relay, *number, *after, &word))
            }
            _ => return self.step(part, now),
        };
        message.map_or(Step::Nothing, Step::Message)
    }
}

/// What one of the relays says of itself, or is said to say, as relays encode it: who it is, until where that leads, after
/// what it begins, and one word.
fn delta(relay: &Member, number: u8, after: u8, word: &[u8]) -> Vec<u8> {
    let run = START.0 * 1_000;
    let head = encoded(&(relay.id(), (run, number), after));
    let changes = [&[0x81, 0x82][..], &encoded(&number), word].concat();
    // Three members of an array become four, in an array of one, in a message of the kind 3.
    [&[0x82, 3, 0x81, 0x84], &head[1..], &changes].concat()
}

/// The member who is not here is attached there.
fn attached(relay: &Member) -> Vec<u8> {
    let Place { network, members: [member, _], .. } = &*PLACE;
    let attachment = member.config_for(network, relay, 1, NONCE).attachment;
    encoded(&(0_u8, (member.id(), attachment)))
}

/// It has links to the first relay and to some others, as far away as the bytes say.
fn linked(distances: &[u8]) -> Vec<u8> {
    let Place { network, relays: [one, other], .. } = &*PLACE;
    let relays = [network.served().relay, one.id(), other.id()].into_iter().cycle();
    let links: Vec<_> =
        relays.zip(distances).map(|(relay, far)| (relay, u32::from(*far) * 1_000)).collect();
    encoded(&(2_u8, (links,)))
}

/// A frame of the member who is not here, on its way between relays: to whom it may be handed on so often, and the frame.
fn carried(hops: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let Place { members: [member, honest], relays: [_, other], .. } = &*PLACE;
    let to = [honest, member, other][usize::from(to % 3)];
    let mut frame = framed(FrameType::Data, member.id(), payload).unwrap_or_default();
    frame.splice(0..0, to.id().as_bytes().iter().copied());
    frame.insert(0, hops);
    frame
}

impl AtRelay {
    fn take(&mut self, step: Step, rng: &mut ChaCha20Rng, now: &mut Now) {
        match step {
            Step::Message(message) => {
                self.relay.handle_message(self.played.0, message, rng, *now);
            }
            Step::Time(time) => {
                *now = now.after(time);
                self.relay.handle_timeout(rng, *now);
            }
            Step::Nothing => {}
        }
        self.settle(rng, *now);
    }

    /// The honest member sends the one who is not here something.
    fn call(&mut self, now: Now) {
        let frame = framed(FrameType::Data, PLACE.members[0].id(), b"hello").expect("it is short");
        // A link that the relay has closed loses it.
        let _ = self.honest.1.send(FlowId(0), BytesMut::from(&*frame), now.instant);
    }

    fn new(member: &Member, config: ClientConfig, rng: &mut ChaCha20Rng, now: Now) -> Self {
        let place = &*PLACE;
        let mut relay = RelayServer::new(CAPABILITY, Limits::default());
        relay.add_network(place.network.served());
        let mut open = || {
            let recognised = relay.recognise(&place.network.path(NONCE));
            let recognised = recognised.expect("the relay serves the network");
            relay.handle_open(recognised, HERE.ip(), now).expect("there is room")
        };
        let ids = (open(), open());
        let played = Played {
            channel: channel(&config, rng, now),
            sealer: None,
            peer: config.relay,
            opening: encoded(&Message::Attach(Attach {
                chain: config.chain,
                binding: config.binding,
                attachment: config.attachment,
                hop_key: HOP,
            })),
        };
        let honest = place.machine(1, rng, now);
        let (honest, played) = ((ids.1, honest), (ids.0, played));
        let mut lab = Self { relay, honest, played, device: member.id() };
        lab.shake_hands(rng, now);
        lab.settle(rng, now);
        assert!(lab.honest.1.is_attached());
        lab
    }

    fn shake_hands(&mut self, rng: &mut ChaCha20Rng, now: Now) {
        let (id, played) = &mut self.played;
        while let Some(message) = played.channel.poll_message() {
            self.relay.handle_message(*id, message.as_slice().to_vec(), rng, now);
            while let Some(answer) = self.relay.poll_message(*id, now.instant) {
                played.channel.handle_message(&answer, rng, now);
            }
        }
        assert!(played.channel.is_open());
    }

    /// Carries what the relay and the honest member say, and looks at it.
    fn settle(&mut self, rng: &mut ChaCha20Rng, now: Now) {
        let (id, machine) = &mut self.honest;
        let [member, honest] = PLACE.members.each_ref().map(Member::id);
        loop {
            let said = machine.poll_message(now.instant);
            let heard = self.relay.poll_message(*id, now.instant);
            if said.is_none() && heard.is_none() {
                break;
            }
            said.into_iter().for_each(|said| self.relay.handle_message(*id, said, rng, now));
            heard.into_iter().for_each(|heard| machine.handle_message(heard, rng, now));
        }
        while let Some(message) = self.relay.poll_message(self.played.0, now.instant) {
            assert!(message.len() <= usize::from(u16::MAX));
        }
        while self.relay.poll_ready().is_some() {}
        while let Some(event) = self.relay.poll_event() {
            if let ServerEvent::Attached { connection, device, .. } = event {
                let own = if connection == *id { honest } else { self.device };
                assert_eq!(device, own, "nobody attaches by another's name");
            }
        }
        while let Some(event) = machine.poll_event() {
            if let ClientEvent::Frame(frame) = event {
                let header = parse(&frame).expect("a relay carries frames");
                // A relay says for others who sent what; the receiver asks for proof.
                if self.device == member {
                    assert_eq!(header.peer, member, "a frame comes from who sent it");
                }
                assert!(!header.kind.is_hop_local());
            }
        }
    }
}

/// A member's channel to the relay, by itself.
fn channel(member: &ClientConfig, rng: &mut ChaCha20Rng, now: Now) -> Channel {
    let config = InitiatorConfig {
        static_key: member.static_key.clone(),
        remote_static: member.relay_key,
        prologue: member.network.as_bytes().to_vec(),
        mask: member.mask.clone(),
        capability: member.capability,
        clock_offset: member.clock_offset,
    };
    Channel::initiate(config, rng, now).expect("the relay's key is usable")
}

pub(super) fn client(bytes: &[u8]) {
    let (rng, mut now) = (&mut rng(), now());
    let mut machine = PLACE.machine(0, rng, now);
    let mut played = relay_for(&mut machine, rng, now);
    for part in parts(bytes).take(MOST_PARTS) {
        let was_closed = machine.is_closed();
        match played.step(part, now) {
            Step::Message(message) => machine.handle_message(BytesMut::from(&*message), rng, now),
            Step::Time(time) => {
                now = now.after(time);
                machine.handle_timeout(rng, now);
            }
            Step::Nothing => {}
        }
        while machine.poll_message(now.instant).is_some() {}
        while let Some(event) = machine.poll_event() {
            assert!(!was_closed, "nothing happens after the end");
            if let ClientEvent::Frame(frame) = event {
                assert!(parse(&frame).is_ok_and(|header| !header.kind.is_hop_local()));
            }
        }
    }
}

/// A relay whose channel with the client is open.
fn relay_for(machine: &mut RelayClient, rng: &mut ChaCha20Rng, now: Now) -> Played {
    let relay = PLACE.network.served();
    let config = ResponderConfig {
        static_key: relay.static_key,
        prologue: relay.network.as_bytes().to_vec(),
        mask: relay.path_secret.mask(Service::Relay, NONCE),
        capability: 1,
        replay: ReplayGuard::default(),
    };
    let mut channel = Channel::respond(config, now);
    while let Some(message) = machine.poll_message(now.instant) {
        channel.handle_message(&message, rng, now);
        while let Some(answer) = channel.poll_message() {
            machine.handle_message(answer, rng, now);
        }
    }
    assert!(channel.is_open());
    Played {
        channel,
        sealer: None,
        peer: PLACE.members[0].id(),
        opening: encoded(&Message::Attached(HOP)),
    }
}

fn encoded(message: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(message).expect("writing to memory cannot fail")
}
