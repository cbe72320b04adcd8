//! Devices that hold everything a member's disk has, except for a certificate that counts.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{
    Binding, Certificate, CertificateChain, Delegation, DeviceKey, Invite, InviteKey, IssueLimits,
    NetworkId, NetworkKey, Scope, Serial, Signed, UnixTime, Validity, device_address,
};
use keystore::{FileKeystore, Keystore};
use minicbor::bytes::ByteArray;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use testlab::netns::wait_for;
use testlab::network::{Device, Lab};

use crate::PATIENCE;

/// How long an intruder gets to reach somebody.
const SIEGE: Duration = Duration::from_secs(6);
const DAY: u64 = 86_400;

/// `network-ID` on disk: invite, name, device key, tunnel key, channel key.
type Place = (Invite, String, ByteArray<32>, ByteArray<32>, ByteArray<32>);
/// `state-ID` on disk: format, chain, binding, nothing, timestamp, clock offset, number, least time.
type State = (
    u8,
    Option<CertificateChain>,
    Option<Signed<Binding>>,
    Option<bool>,
    ByteArray<12>,
    i64,
    u64,
    Option<u64>,
);

#[test]
fn a_device_with_a_forged_certificate_gets_nothing() {
    let mut siege = Siege::new();
    let (network, mut chain) = (siege.network, siege.stolen_chain());
    let forger = InviteKey::generate(&mut siege.rng);
    let certificate = siege.certificate(Serial(1), DAY);
    chain.certificate = Signed::sign(network, &forger, &certificate);
    chain.renewal = None;
    siege.lay(chain, "forged-certificate");
}

#[test]
fn a_device_with_a_certificate_of_another_network_gets_nothing() {
    let mut siege = Siege::new();
    let root = NetworkKey::generate(&mut siege.rng);
    let issuer = InviteKey::generate(&mut siege.rng);
    let delegation = Delegation {
        network: root.id(),
        key: issuer.id(),
        scope: Scope::Issue,
        validity: Validity::starting(now(), DAY),
        limits: IssueLimits::default(),
    };
    let certificate = siege.certificate(Serial(1), DAY);
    let chain = CertificateChain {
        delegation: Signed::sign(root.id(), &root, &delegation),
        grant: None,
        certificate: Signed::sign(root.id(), &issuer, &certificate),
        renewal: None,
    };
    siege.lay(chain, "foreign-certificate");
}

#[test]
fn a_device_with_an_expired_certificate_gets_nothing() {
    let siege = Siege::new();
    let invite: Invite = siege.lab.invite(&[]).parse().expect("an invite");
    let grant = invite.grant().expect("the invite is good");
    let certificate = siege.certificate(grant.serial, 1);
    let seed = minicbor::to_vec(&invite.key).expect("writing to memory cannot fail");
    let seed: ByteArray<32> = minicbor::decode(&seed).expect("the seed of a key");
    let key = InviteKey::from_bytes(&seed);
    let chain = CertificateChain {
        delegation: invite.delegation,
        grant: Some(invite.grant),
        certificate: Signed::sign(siege.network, &key, &certificate),
        renewal: None,
    };
    wait_for("the certificate to expire", PATIENCE, || {
        (now() > certificate.validity.not_after).then_some(())
    });
    siege.lay(chain, "expired-certificate");
}

/// A network with two members, and somebody who has stolen the disk of one, but not the keys.
struct Siege {
    lab: Lab,
    alice: Device,
    bob: Device,
    network: NetworkId,
    intruder: DeviceKey,
    rng: ChaCha20Rng,
}

impl Siege {
    fn new() -> Self {
        let mut lab = Lab::new();
        let (alice, bob) = (lab.device("alice"), lab.device("bob"));
        alice.wait_for_path(&bob, "direct", PATIENCE);
        alice.wait_until_saved();
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let intruder = DeviceKey::generate(&mut rng);
        let network = stored(&alice, "network-").0.parse().expect("the entry is named by the id");
        Self { lab, alice, bob, network, intruder, rng }
    }

    /// The chain on the stolen disk.
    fn stolen_chain(&self) -> CertificateChain {
        let state: State = minicbor::decode(&stored(&self.alice, "state-").1).expect("a state");
        state.1.expect("a member has a chain")
    }

    /// What would make the intruder a member from now on, if the right key signed it.
    fn certificate(&self, serial: Serial, seconds: u64) -> Certificate {
        let device = self.intruder.id();
        Certificate {
            device,
            name: "mallory".parse().expect("a name"),
            groups: Vec::new(),
            address: device_address(self.network, device, 0),
            counter: 0,
            validity: Validity::starting(now(), seconds),
            serial,
        }
    }

    /// Starts a node with this chain and sees it get nowhere, while those who belong here go on.
    fn lay(mut self, chain: CertificateChain, event: &str) {
        let mut mallory = self.lab.host("mallory");
        self.equip(&mallory, chain);
        let before = self.events(event);
        mallory.up(&[]);
        let targets = self.bob.addresses();
        wait_for("the controller to write down the attempt", PATIENCE, || {
            (self.events(event) > before).then_some(())
        });
        let besieged = std::time::Instant::now();
        while besieged.elapsed() < SIEGE {
            for target in &targets {
                assert!(!mallory.reaches(target), "mallory reaches {target}");
            }
        }
        let id = self.intruder.id().to_string();
        assert!(!self.lab.administer(&["device", "list"]).to_string().contains(&id));
        assert!(!self.bob.status().expect("bob answers").to_string().contains(&id));
        assert!(self.alice.reaches(&self.bob.full_name()));
    }

    /// Gives a host all that alice's disk has, with keys of its own and this chain.
    fn equip(&mut self, host: &Device, chain: CertificateChain) {
        let (_, place) = stored(&self.alice, "network-");
        let mut place: Place = minicbor::decode(&place).expect("a place");
        let (_, state) = stored(&self.alice, "state-");
        let mut state: State = minicbor::decode(&state).expect("a state");
        place.2 = (*self.intruder.to_bytes()).into();
        place.3 = (*identity::TunnelKey::generate(&mut self.rng).to_bytes()).into();
        place.4 = (*identity::ChannelKey::generate(&mut self.rng).to_bytes()).into();
        (state.1, state.2) = (Some(chain), None);
        let keys = keystore(host);
        let written = "writing to memory cannot fail";
        let (place, state) = (minicbor::to_vec(&place), minicbor::to_vec(&state));
        for (entry, bytes) in [
            ("network", place.expect(written)),
            ("state", state.expect(written)),
            ("map", stored(&self.alice, "map-").1),
        ] {
            keys.store(&format!("{entry}-{}", self.network), &bytes).expect("the disk takes it");
        }
    }

    /// How often the controller has written down this kind of event.
    fn events(&self, kind: &str) -> usize {
        let events = self.lab.administer(&["log", "events"]);
        let events = events.as_array().expect("a list of rows");
        events.iter().filter(|row| row["entry"]["event"]["kind"] == kind).count()
    }
}

fn keystore(device: &Device) -> FileKeystore {
    let folder = PathBuf::from(device.state_dir()).join("node");
    FileKeystore::open(folder, None).expect("a keystore without passphrase")
}

/// The rest of the name, and the bytes, of the device's only entry with this prefix.
fn stored(device: &Device, prefix: &str) -> (String, Vec<u8>) {
    let keys = keystore(device);
    let names = keys.list().expect("a readable keystore");
    let name = names.iter().find(|name| name.starts_with(prefix)).expect("the node has kept it");
    let bytes = keys.load(name).expect("readable").expect("listed");
    (name[prefix.len()..].to_owned(), bytes.to_vec())
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    UnixTime(since.as_secs())
}
