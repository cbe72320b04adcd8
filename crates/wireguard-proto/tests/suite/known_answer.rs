//! The handshake against an independent implementation of Noise.

use std::net::SocketAddr;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use wireguard_proto::{
    Interface, PeerConfig, PresharedKey, PrivateKey, PublicKey, Received, Tai64N,
};

/// Snow's own primitives with a generator that repeats itself.
struct Seeded;

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRng(ChaCha20Rng::seed_from_u64(11))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct SeededRng(ChaCha20Rng);

impl Random for SeededRng {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const PSK: [u8; 32] = [9; 32];

struct Ours {
    interface: Interface<SocketAddr>,
    peer: PublicKey,
    at: SocketAddr,
    rng: ChaCha20Rng,
    now: Instant,
}

/// Our end with the other one's key as its peer, and a builder for the other.
fn ends() -> (Ours, PrivateKey, PrivateKey) {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let (own, theirs) = (PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng));
    let now = Instant::now();
    let at = ([192, 0, 2, 9], 9).into();
    let mut interface = Interface::new(crate::lab::config(&own), now);
    let config = PeerConfig {
        preshared_keys: vec![PresharedKey::from_bytes(PSK)],
        endpoint: Some(at),
        persistent_keepalive: None,
    };
    interface.add_peer(theirs.public_key(), config, now);
    (Ours { interface, peer: theirs.public_key(), at, rng, now }, own, theirs)
}

fn builder(key: &[u8; 32]) -> snow::Builder<'_> {
    snow::Builder::with_resolver(PATTERN.parse().unwrap(), Box::new(Seeded))
        .local_private_key(key)
        .unwrap()
        .prologue(PROLOGUE)
        .unwrap()
        .psk(2, &PSK)
        .unwrap()
}

#[test]
fn an_independent_responder_understands_our_initiation_and_we_its_response() {
    let (mut ours, own, theirs) = ends();
    let key = theirs.to_bytes();
    let mut responder = builder(&key).build_responder().unwrap();

    ours.interface.initiate(&ours.peer, &mut ours.rng, ours.now);
    let initiation = ours.interface.poll_transmit().unwrap().message;
    let mut timestamp = [0; 64];
    let len = responder.read_message(&initiation[8..116], &mut timestamp).unwrap();
    assert_eq!(timestamp[..len], *Tai64N::from_unix(crate::lab::WALL).as_bytes());
    assert_eq!(responder.get_remote_static(), Some(&own.public_key().as_bytes()[..]));

    let mut response = vec![0; 92];
    response[0] = 2;
    response[4..8].copy_from_slice(&77_u32.to_le_bytes());
    response[8..12].copy_from_slice(&initiation[4..8]);
    assert_eq!(responder.write_message(&[], &mut response[12..60]).unwrap(), 48);
    stamp_mac1(&mut response, &own.public_key());
    ours.interface.handle_datagram(&mut response, ours.at, &mut ours.rng, ours.now).unwrap();
    let transport = responder.into_stateless_transport_mode().unwrap();

    let keepalive = ours.interface.poll_transmit().unwrap().message;
    assert_eq!(keepalive[..8], [4, 0, 0, 0, 77, 0, 0, 0]);
    assert_eq!(transport.read_message(0, &keepalive[16..], &mut []).unwrap(), 0);

    let mut packet = vec![4, 0, 0, 0];
    packet.extend_from_slice(&initiation[4..8]);
    packet.extend_from_slice(&5_u64.to_le_bytes());
    packet.resize(16 + 4 + 16, 0);
    transport.write_message(5, b"pong", &mut packet[16..]).unwrap();
    let received =
        ours.interface.handle_datagram(&mut packet, ours.at, &mut ours.rng, ours.now).unwrap();
    let Received::Packet { payload, .. } = received else { panic!("a packet") };
    assert_eq!(payload, b"pong");
}

#[test]
fn we_understand_an_independent_initiator_and_it_our_response() {
    let (mut ours, own, theirs) = ends();
    let key = theirs.to_bytes();
    let own_public = own.public_key();
    let mut initiator =
        builder(&key).remote_public_key(own_public.as_bytes()).unwrap().build_initiator().unwrap();

    let mut initiation = vec![0; 148];
    initiation[0] = 1;
    initiation[4..8].copy_from_slice(&1234_u32.to_le_bytes());
    let timestamp = Tai64N::from_unix(crate::lab::WALL);
    initiator.write_message(timestamp.as_bytes(), &mut initiation[8..116]).unwrap();
    stamp_mac1(&mut initiation, &own.public_key());
    ours.interface.handle_datagram(&mut initiation, ours.at, &mut ours.rng, ours.now).unwrap();

    let response = ours.interface.poll_transmit().unwrap().message;
    assert_eq!(response[8..12], 1234_u32.to_le_bytes());
    assert_eq!(initiator.read_message(&response[12..60], &mut []).unwrap(), 0);
    let transport = initiator.into_stateless_transport_mode().unwrap();

    let tunnel = ours.interface.tunnel(&ours.peer).unwrap();
    assert!(tunnel.session(ours.now).is_none(), "the responder waits for the first packet");
    let mut packet = vec![4, 0, 0, 0];
    packet.extend_from_slice(&response[4..8]);
    packet.resize(16 + 4 + 16, 0);
    transport.write_message(0, b"ping", &mut packet[16..]).unwrap();
    ours.interface.handle_datagram(&mut packet, ours.at, &mut ours.rng, ours.now).unwrap();

    let session = ours.interface.tunnel(&ours.peer).unwrap().session(ours.now).unwrap();
    let mut message = vec![0; 16 + 4 + 16];
    message[16..20].copy_from_slice(b"pong");
    session.seal(session.reserve(1, ours.now).unwrap().next().unwrap(), &mut message);
    let mut text = [0; 4];
    assert_eq!(transport.read_message(0, &message[16..], &mut text).unwrap(), 4);
    assert_eq!(&text, b"pong");
}

/// mac1 as the paper defines it, computed by another BLAKE2s user than the crate's own code.
fn stamp_mac1(message: &mut [u8], receiver: &PublicKey) {
    use blake2::digest::{KeyInit, Mac, consts::U16};
    use blake2::{Blake2s256, Blake2sMac, Digest};
    let at = message.len() - 32;
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(receiver.as_bytes());
    let mut mac = Blake2sMac::<U16>::new_from_slice(&key.finalize()).unwrap();
    Mac::update(&mut mac, &message[..at]);
    message[at..at + 16].copy_from_slice(&mac.finalize().into_bytes());
}
