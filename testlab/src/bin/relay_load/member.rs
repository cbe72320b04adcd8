//! A member of the network that the relay of this program serves.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use frame_proto::{
    FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, TAG_LENGTH, compose, payload, payload_mut,
};
use identity::{DeviceId, UnixTime};
use noise_channel::{Now, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use relay_proto::{CircuitOffer, ClientEvent, FlowId, RelayClient};
use testlab::members::Network;

/// This moment.
pub(crate) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    let wall = UnixMillis(u64::try_from(wall.as_millis()).expect("the clock is before 2500"));
    Now { instant: Instant::now(), wall }
}

/// The network of the benchmark, whose keys relay and load each make from the same seed.
pub(crate) fn network() -> Network {
    Network::new(UnixTime(now().wall.as_secs()), &mut ChaCha20Rng::seed_from_u64(1))
}

/// A member's end of its link.
pub(crate) struct Member {
    pub(crate) device: DeviceId,
    pub(crate) path: String,
    machine: RelayClient,
    rng: ChaCha20Rng,
    /// What was offered last.
    offer: Option<CircuitOffer>,
}

impl Member {
    pub(crate) fn new(number: usize) -> Self {
        let (network, moment) = (network(), now().wall.0);
        let nonce = (u128::from(moment) << 32 | number as u128).to_be_bytes();
        let keys = &mut ChaCha20Rng::seed_from_u64(2 + number as u64);
        let member = network.member(number as u64, keys);
        // Whoever comes again comes later.
        let config = member.config(&network, moment, nonce);
        // Randomness of a link: each has a nonce of its own.
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&nonce);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let machine = RelayClient::new(config, &mut rng, now()).expect("the key is usable");
        Self { device: member.id(), path: network.path(nonce), machine, rng, offer: None }
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
            } else if let ClientEvent::Circuit(_, offer) = event {
                assert!(offer.is_some(), "the relay opens no circuit");
                self.offer = offer;
            }
        }
        payload_of_frame
    }

    /// Asks for a circuit.
    pub(crate) fn request_circuit(&mut self, to: DeviceId) {
        self.machine.request_circuit(to, Instant::now());
    }

    /// The circuit that was asked for, if it has come.
    pub(crate) fn take_offer(&mut self) -> Option<CircuitOffer> {
        self.offer.take()
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
