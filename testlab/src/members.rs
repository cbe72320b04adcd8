//! A network that one relay serves, or several, and its members, without a controller.

use control_proto::limits::CAPABILITY;
use identity::{
    Attachment, Binding, Certificate, CertificateChain, ChannelKey, ChannelPublicKey, DelegatedKey,
    Delegation, DeviceId, DeviceKey, GroupName, IssueLimits, NetworkId, NetworkKey, Padding,
    Revocations, Scope, Serial, Signed, TunnelKey, UnixTime, Validity, device_address,
};
use noise_channel::{ClockOffset, PathSecret, Service, StaticSecret};
use rand_chacha::ChaCha20Rng;
use relay_proto::{ClientConfig, RelayNetwork};

const WEEK: u64 = 7 * 24 * 3600;
const SECRET: PathSecret = PathSecret::from_bytes([9; 32]);

/// The keys of a network and of its relay.
#[derive(Debug)]
pub struct Network {
    root: NetworkKey,
    issuer: DelegatedKey,
    relay: DeviceId,
    relay_channel: ChannelKey,
    start: UnixTime,
}

impl Network {
    /// A network whose members belong to it for a week from `start` on.
    #[must_use]
    pub fn new(start: UnixTime, rng: &mut ChaCha20Rng) -> Self {
        Self {
            root: NetworkKey::generate(rng),
            issuer: DelegatedKey::generate(rng),
            relay: DeviceId::from_bytes([8; 32]),
            relay_channel: ChannelKey::from_bytes(&[4; 32]),
            start,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.root.id()
    }

    /// The path of a connection to its relay.
    #[must_use]
    pub fn path(&self, nonce: [u8; 16]) -> String {
        SECRET.path(Service::Relay, nonce)
    }

    /// What its relay knows of it.
    #[must_use]
    pub fn served(&self) -> RelayNetwork {
        RelayNetwork {
            network: self.id(),
            relay: self.relay,
            static_key: StaticSecret::from_bytes(*self.relay_channel.to_bytes()),
            path_secret: SECRET,
            revocations: Revocations::new(self.id()),
            clock_offset: ClockOffset(0),
            padding: Padding::Off,
            groups: Vec::new(),
        }
    }

    /// What a member that is a relay knows of it.
    #[must_use]
    pub fn served_by(&self, relay: &Member) -> RelayNetwork {
        let static_key = StaticSecret::from_bytes(*relay.channel.to_bytes());
        RelayNetwork { relay: relay.id(), static_key, ..self.served() }
    }

    /// A new member, whose certificate has this serial number.
    #[must_use]
    pub fn member(&self, serial: u64, rng: &mut ChaCha20Rng) -> Member {
        self.member_of(Vec::new(), serial, rng)
    }

    /// A new member that may be a relay.
    #[must_use]
    pub fn relay(&self, serial: u64, rng: &mut ChaCha20Rng) -> Member {
        self.member_of(vec![GroupName::relay()], serial, rng)
    }

    fn member_of(&self, groups: Vec<GroupName>, serial: u64, rng: &mut ChaCha20Rng) -> Member {
        let (key, channel) = (DeviceKey::generate(rng), ChannelKey::generate(rng));
        let validity = Validity::starting(self.start, WEEK);
        let delegation = Delegation {
            network: self.id(),
            scope: Scope::Issue,
            key: self.issuer.id(),
            validity,
            limits: IssueLimits::default(),
        };
        let certificate = Certificate {
            device: key.id(),
            name: format!("device-{serial}").parse().expect("a good name"),
            groups,
            address: device_address(self.id(), key.id(), 0),
            counter: 0,
            validity,
            serial: Serial(serial),
        };
        let chain = CertificateChain {
            delegation: Signed::sign(self.id(), &self.root, &delegation),
            grant: None,
            certificate: Signed::sign(self.id(), &self.issuer, &certificate),
            renewal: None,
        };
        Member { key, channel, chain }
    }
}

/// A device of a network.
#[derive(Clone, Debug)]
pub struct Member {
    key: DeviceKey,
    channel: ChannelKey,
    chain: CertificateChain,
}

impl Member {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.key.id()
    }

    /// What it brings when it comes to its network's relay, by the path of `nonce`. Whoever comes again has a higher number.
    #[must_use]
    pub fn config(&self, network: &Network, number: u64, nonce: [u8; 16]) -> ClientConfig {
        let relay = (network.relay, network.relay_channel.public());
        self.config_at(network, relay, number, nonce)
    }

    /// What it brings to a relay that is a member.
    #[must_use]
    pub fn config_for(
        &self,
        network: &Network,
        relay: &Self,
        number: u64,
        nonce: [u8; 16],
    ) -> ClientConfig {
        let config = self.config_at(network, (relay.id(), relay.channel.public()), number, nonce);
        ClientConfig { capability: CAPABILITY, ..config }
    }

    fn config_at(
        &self,
        network: &Network,
        (relay, relay_key): (DeviceId, ChannelPublicKey),
        number: u64,
        nonce: [u8; 16],
    ) -> ClientConfig {
        let binding = Binding {
            device: self.id(),
            tunnel_key: TunnelKey::from_bytes(&[1; 32]).public(),
            channel_key: self.channel.public(),
            number: 1,
            not_after: network.start.plus(WEEK),
            capability: 1,
        };
        let attachment = Attachment { relay, number };
        ClientConfig {
            network: network.id(),
            static_key: StaticSecret::from_bytes(*self.channel.to_bytes()),
            relay,
            relay_key: *relay_key.as_bytes(),
            mask: SECRET.mask(Service::Relay, nonce),
            capability: 1,
            clock_offset: ClockOffset(0),
            chain: self.chain.clone(),
            binding: Signed::sign(network.id(), &self.key, &binding),
            attachment: Signed::sign(network.id(), &self.key, &attachment),
            is_relay: false,
        }
    }
}
