//! A network for the relay of this program, and its members.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use frame_proto::{
    FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, TAG_LENGTH, compose, payload, payload_mut,
};
use identity::{
    Attachment, Binding, Certificate, CertificateChain, ChannelKey, DelegatedKey, Delegation,
    DeviceId, DeviceKey, IssueLimits, NetworkId, NetworkKey, Revocations, Scope, Serial, Signed,
    TunnelKey, UnixTime, Validity, device_address,
};
use noise_channel::{ClockOffset, Now, PathSecret, Service, StaticSecret, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use relay_proto::{ClientConfig, ClientEvent, FlowId, RelayClient, RelayNetwork};

const WEEK: u64 = 7 * 24 * 3600;

/// This moment.
pub(crate) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    let wall = UnixMillis(u64::try_from(wall.as_millis()).expect("the clock is before 2500"));
    Now { instant: Instant::now(), wall }
}

/// The network of the benchmark, whose keys relay and load each make from the same seed.
pub(crate) struct Network {
    root: NetworkKey,
    issuer: DelegatedKey,
    relay: DeviceKey,
    relay_channel: ChannelKey,
    secret: PathSecret,
    start: UnixTime,
}

impl Network {
    pub(crate) fn of_benchmark() -> Self {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        Self {
            root: NetworkKey::generate(rng),
            issuer: DelegatedKey::generate(rng),
            relay: DeviceKey::generate(rng),
            relay_channel: ChannelKey::generate(rng),
            secret: PathSecret::from_bytes([7; 32]),
            start: UnixTime(now().wall.as_secs()),
        }
    }

    fn id(&self) -> NetworkId {
        self.root.id()
    }

    /// What the relay knows of it.
    pub(crate) fn served(&self) -> RelayNetwork {
        RelayNetwork {
            network: self.id(),
            relay: self.relay.id(),
            static_key: StaticSecret::from_bytes(*self.relay_channel.to_bytes()),
            path_secret: self.secret.clone(),
            revocations: Revocations::new(self.id()),
            clock_offset: ClockOffset(0),
        }
    }

    fn chain(&self, device: DeviceId, number: usize) -> CertificateChain {
        let delegation = Delegation {
            network: self.id(),
            scope: Scope::Issue,
            key: self.issuer.id(),
            validity: Validity::starting(self.start, WEEK),
            limits: IssueLimits::default(),
        };
        let certificate = Certificate {
            device,
            name: format!("device-{number}").parse().expect("a good name"),
            groups: Vec::new(),
            address: device_address(self.id(), device, 0),
            counter: 0,
            validity: Validity::starting(self.start, WEEK),
            serial: Serial(number as u64),
        };
        CertificateChain {
            delegation: Signed::sign(self.id(), &self.root, &delegation),
            grant: None,
            certificate: Signed::sign(self.id(), &self.issuer, &certificate),
            renewal: None,
        }
    }

    /// What a member says when it comes.
    fn config(&self, number: usize, nonce: [u8; 16]) -> (DeviceId, ClientConfig) {
        let rng = &mut ChaCha20Rng::seed_from_u64(2 + number as u64);
        let (key, channel) = (DeviceKey::generate(rng), ChannelKey::generate(rng));
        let binding = Binding {
            device: key.id(),
            tunnel_key: TunnelKey::generate(rng).public(),
            channel_key: channel.public(),
            number: 1,
            not_after: self.start.plus(WEEK),
            capability: 1,
        };
        // Whoever comes again comes later.
        let attachment = Attachment { relay: self.relay.id(), number: now().wall.0 };
        let config = ClientConfig {
            network: self.id(),
            relay: self.relay.id(),
            static_key: StaticSecret::from_bytes(*channel.to_bytes()),
            relay_key: *self.relay_channel.public().as_bytes(),
            mask: self.secret.mask(Service::Relay, nonce),
            capability: 1,
            clock_offset: ClockOffset(0),
            chain: self.chain(key.id(), number),
            binding: Signed::sign(self.id(), &key, &binding),
            attachment: Signed::sign(self.id(), &key, &attachment),
        };
        (key.id(), config)
    }
}

/// A member's end of its link.
pub(crate) struct Member {
    pub(crate) device: DeviceId,
    pub(crate) path: String,
    machine: RelayClient,
    rng: ChaCha20Rng,
}

impl Member {
    pub(crate) fn new(number: usize) -> Self {
        let network = Network::of_benchmark();
        let nonce = (u128::from(now().wall.0) << 32 | number as u128).to_be_bytes();
        let mut rng = ChaCha20Rng::from_seed(network.secret_seed(nonce));
        let (device, config) = network.config(number, nonce);
        let path = network.secret.path(Service::Relay, nonce);
        let machine = RelayClient::new(config, &mut rng, now()).expect("the key is usable");
        Self { device, path, machine, rng }
    }

    pub(crate) fn is_attached(&self) -> bool {
        assert!(!self.machine.is_closed(), "the relay ended a link");
        self.machine.is_attached()
    }

    /// A message for the relay, if there is one.
    pub(crate) fn poll_message(&mut self) -> Option<Bytes> {
        self.machine.poll_message(Instant::now()).map(BytesMut::freeze)
    }

    /// Takes a message; answers the payload of a frame.
    pub(crate) fn handle_message(&mut self, message: Bytes) -> Option<Bytes> {
        self.machine.handle_message(message, &mut self.rng, now());
        let mut payload_of_frame = None;
        while let Some(event) = self.machine.poll_event() {
            if let ClientEvent::Frame(frame) = event {
                let length = payload(&frame).len();
                payload_of_frame =
                    Some(frame.freeze().slice(HEADER_LENGTH..HEADER_LENGTH + length));
            }
        }
        payload_of_frame
    }

    /// What is due by now.
    pub(crate) fn handle_timeout(&mut self) {
        let now = now();
        if self.machine.poll_timeout().is_some_and(|(at, _)| at <= now.instant) {
            self.machine.handle_timeout(&mut self.rng, now);
        }
    }

    /// Queues a frame with a payload that `write` makes.
    pub(crate) fn send(&mut self, to: DeviceId, length: usize, write: impl FnOnce(&mut [u8])) {
        let whole = HEADER_LENGTH + length + TAG_LENGTH;
        let mut frame = BytesMut::with_capacity(whole + HOP_TAG_LENGTH);
        frame.resize(whole, 0);
        compose(FrameType::Data, to, &mut frame).expect("the payload fits");
        write(payload_mut(&mut frame));
        self.machine.send(FlowId(1), frame, Instant::now()).expect("the link is open");
    }
}

impl Network {
    /// Randomness of a link: each has a nonce of its own.
    fn secret_seed(&self, nonce: [u8; 16]) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&nonce);
        seed
    }
}
