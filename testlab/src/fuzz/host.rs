//! Files, the kernel's notices, and what programs of this host ask.

use std::cell::RefCell;
use std::fs;
use std::sync::LazyLock;

use control_proto::{AdminAnswer, AdminError};
use controller::secrets::ControllerSecrets;
use engine::{
    DeviceSecrets, Engine, EngineConfig, EngineEvent, EngineStatus, SavedState, StatePart,
};
use identity::{ChannelKey, DeviceKey, Invite, TunnelKey};
use keystore::{FileKeystore, Keystore, KeystoreError, open_with_passphrase};
use node::api::{
    ApiError, Event, JoinRequest, Joined, LeaveRequest, Netcheck, PingReply, PingRequest, Status,
    Why,
};
use noise_channel::Now;
use platform::links::changes;
use rand_chacha::ChaCha20Rng;
use serde_json::Value;
use shadowmesh::Config;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::control::an_invite;
use super::{now, rng};

pub(super) fn uapi(bytes: &[u8]) {
    let _ = wireguard::uapi::Request::parse(&String::from_utf8_lossy(bytes));
}

pub(super) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let config = Config::parse(&text);
    if config.is_err() {
        return;
    }
    let commented = format!("# a comment\n{text}\n");
    let again = Config::parse(&commented);
    assert!(again.is_err() || again == config, "a comment changes no setting");
}

/// What a node's local API is asked and answers.
pub(super) fn local_api(bytes: &[u8]) {
    stays::<PingRequest>(bytes);
    stays::<JoinRequest>(bytes);
    stays::<LeaveRequest>(bytes);
    stays::<Status>(bytes);
    stays::<Netcheck>(bytes);
    stays::<Why>(bytes);
    stays::<PingReply>(bytes);
    stays::<Joined>(bytes);
    stays::<Event>(bytes);
    stays::<ApiError>(bytes);
    stays::<AdminAnswer>(bytes);
    stays::<AdminError>(bytes);
}

/// What is read says the same when it is written and read again.
fn stays<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_value(&value).expect("it is JSON");
    let again: T = serde_json::from_value(written.clone()).expect("it was written by us");
    assert_eq!(serde_json::to_value(&again).ok(), Some::<Value>(written));
}

pub(super) fn netlink(bytes: &[u8]) {
    // Each message has a header of 16 bytes.
    assert!(changes(bytes).len() <= bytes.len() / 16);
}

/// A keystore that says the same whatever it is asked for.
#[derive(Debug)]
struct Says<'a>(&'a [u8]);

impl Keystore for Says<'_> {
    fn load(&self, _: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError> {
        Ok(Some(Zeroizing::new(self.0.to_vec())))
    }

    fn store(&self, _: &str, secret: &[u8]) -> Result<(), KeystoreError> {
        let again = ControllerSecrets::load(&Says(secret));
        assert!(matches!(again, Ok(Some(_))), "what is kept can be read");
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<(), KeystoreError> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, KeystoreError> {
        Ok(Vec::new())
    }
}

/// What a controller keeps in its keystore.
pub(super) fn secrets(bytes: &[u8]) {
    let keystore = Says(bytes);
    if let Ok(Some(secrets)) = ControllerSecrets::load(&keystore) {
        secrets.store(&keystore).expect("this keystore takes anything");
    }
}

/// A keystore under a passphrase, for as long as the thread lives.
struct SealedStore {
    folder: TempDir,
    store: FileKeystore,
}

thread_local! {
    static SEALED: RefCell<SealedStore> = RefCell::new(SealedStore::new());
}

impl SealedStore {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = FileKeystore::open(folder.path(), Some(b"passphrase")).expect("it is new");
        Self { folder, store }
    }
}

/// A file of a sealed keystore, and a sealed file by itself.
pub(super) fn sealed(bytes: &[u8]) {
    SEALED.with_borrow(|sealed| {
        fs::write(sealed.folder.path().join("secret"), bytes).expect("the folder is there");
        assert!(sealed.store.load("secret").is_err(), "nobody has the key");
    });
    let cheap = with_little_work(bytes);
    assert!(open_with_passphrase(&cheap, b"passphrase").is_err(), "nobody has sealed this");
}

/// Asks for little memory, few passes and few lanes where it asks for what might be granted: the numbers are
/// behind the five bytes by which the format begins.
fn with_little_work(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, most) in [(5, 128), (9, 2), (13, 4)] {
        let number = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>());
        let Some(number) = number else { break };
        let asked = u32::from_be_bytes(*number);
        if asked <= 1 << 20 {
            *number = (asked % most).to_be_bytes();
        }
    }
    bytes
}

/// What an engine wanted to remember beside the map.
pub(super) fn saved(bytes: &[u8]) {
    let (rng, now) = (&mut rng(), now());
    let (kept, shown) = run_engine(bytes.to_vec(), rng, now);
    let (_, again) = run_engine(kept, rng, now);
    assert_eq!(again.certificate_ends_in, shown.certificate_ends_in);
}

static INVITE: LazyLock<Invite> = LazyLock::new(an_invite);

/// Starts an engine, lets it do what is due at once, and stops it: what it wants to remember, and what it shows.
fn run_engine(saved: Vec<u8>, rng: &mut ChaCha20Rng, now: Now) -> (Vec<u8>, EngineStatus) {
    let config = EngineConfig {
        invite: INVITE.clone(),
        name: "device".parse().expect("a name"),
        secrets: DeviceSecrets {
            device: DeviceKey::from_bytes(&[1; 32]),
            tunnel: TunnelKey::from_bytes(&[2; 32]),
            channel: ChannelKey::from_bytes(&[3; 32]),
        },
        saved: SavedState { own: Some(saved.clone()), map: Some(saved) },
        udp: true,
        loopback: false,
        turn: Vec::new(),
        mtu: engine::DEFAULT_MTU.into(),
        has_aes: true,
    };
    let mut engine = Engine::new(config, rng, now);
    engine.handle_timeout(rng, now);
    engine.flush();
    let status = engine.status(now);
    assert!(status.peers.is_empty(), "nobody has the network's key");
    let mut kept = None;
    while let Some(event) = engine.poll_event() {
        if let EngineEvent::Save(StatePart::Own, bytes) = event {
            kept = Some(bytes);
        }
    }
    (kept.expect("it remembers its binding"), status)
}
