//! The primitives that `snow` composes: one backend for each, randomness given by the caller.

use blake2::{Blake2s256, Digest};
use ciphers::{BadTag, Key, TAG_LENGTH};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Resolves exactly the primitives of `25519_ChaChaPoly_BLAKE2s`.
///
/// The only randomness of a handshake side is its ephemeral key, which is handed over here.
pub(crate) struct Primitives {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl Primitives {
    pub(crate) const fn with_ephemeral(ephemeral: Zeroizing<[u8; 32]>) -> Self {
        Self { ephemeral }
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::<X25519>::default()),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::Blake2s => Some(Box::<Blake2sHash>::default()),
            HashChoice::SHA256 | HashChoice::SHA512 | HashChoice::Blake2b => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::<ChaChaPoly>::default()),
            _ => None,
        }
    }
}

/// Yields the ephemeral key once; a second draw is an error rather than a repeated key.
struct OneDraw(Option<Zeroizing<[u8; 32]>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != bytes.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(&*bytes);
        Ok(())
    }
}

struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl Default for X25519 {
    fn default() -> Self {
        Self { secret: StaticSecret::from([0; 32]), public: PublicKey::from([0; 32]) }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(privkey);
        self.secret = StaticSecret::from(*bytes);
        self.public = PublicKey::from(&self.secret);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *bytes)?;
        self.set(&*bytes);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let bytes: [u8; 32] =
            pubkey.get(..32).and_then(|key| key.try_into().ok()).ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(bytes));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out[..32].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[derive(Default)]
struct Blake2sHash {
    state: Blake2s256,
}

impl Hash for Blake2sHash {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.state = Blake2s256::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let state = std::mem::take(&mut self.state);
        out[..32].copy_from_slice(&state.finalize());
    }
}

#[derive(Default)]
struct ChaChaPoly {
    key: Option<Key>,
}

impl ChaChaPoly {
    fn key(&self) -> &Key {
        self.key.as_ref().expect("snow sets a key before it uses the cipher")
    }

    /// Noise, section 12.3: 32 bits of zeros, then the counter little-endian.
    fn nonce(counter: u64) -> [u8; 12] {
        ciphers::nonce(counter.to_le_bytes())
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Some(Key::new(key));
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let tag = self.key().seal(Self::nonce(nonce), authtext, body);
        rest[..TAG_LENGTH].copy_from_slice(&tag);
        plaintext.len() + TAG_LENGTH
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let length = ciphertext.len().checked_sub(TAG_LENGTH).ok_or(Error::Decrypt)?;
        self.key()
            .open_to(Self::nonce(nonce), authtext, ciphertext, &mut out[..length])
            .map_err(|BadTag| Error::Decrypt)?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &serde_json::Value) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn the_cacophony_vector_for_noise_ik_comes_out() {
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../tests/data/noise_ik.json")).unwrap();
        let side = |ephemeral: &str| {
            let key: [u8; 32] = bytes(&vector[ephemeral]).try_into().unwrap();
            let params = vector["protocol_name"].as_str().unwrap().parse().unwrap();
            let primitives = Primitives::with_ephemeral(Zeroizing::new(key));
            snow::Builder::with_resolver(params, Box::new(primitives))
        };
        let mut initiator = side("init_ephemeral")
            .prologue(&bytes(&vector["init_prologue"]))
            .and_then(|b| {
                b.local_private_key(&bytes(&vector["init_static"]))?
                    .remote_public_key(&bytes(&vector["init_remote_static"]))?
                    .build_initiator()
            })
            .unwrap();
        let mut responder = side("resp_ephemeral")
            .prologue(&bytes(&vector["resp_prologue"]))
            .and_then(|b| b.local_private_key(&bytes(&vector["resp_static"]))?.build_responder())
            .unwrap();
        let messages = vector["messages"].as_array().unwrap();
        let (mut wire, mut plain) = ([0; 1024], [0; 1024]);
        let mut exchange =
            |from: &mut snow::HandshakeState, to: &mut snow::HandshakeState, n: usize| {
                let payload = bytes(&messages[n]["payload"]);
                let length = from.write_message(&payload, &mut wire).unwrap();
                assert_eq!(wire[..length], bytes(&messages[n]["ciphertext"]));
                let length = to.read_message(&wire[..length], &mut plain).unwrap();
                assert_eq!(plain[..length], payload);
            };
        exchange(&mut initiator, &mut responder, 0);
        exchange(&mut responder, &mut initiator, 1);
        assert_eq!(initiator.get_handshake_hash(), bytes(&vector["handshake_hash"]));
        let mut initiator = initiator.into_transport_mode().unwrap();
        let mut responder = responder.into_transport_mode().unwrap();
        for (n, message) in messages.iter().enumerate().skip(2) {
            let (from, to) = if n % 2 == 0 {
                (&mut initiator, &mut responder)
            } else {
                (&mut responder, &mut initiator)
            };
            let payload = bytes(&message["payload"]);
            let length = from.write_message(&payload, &mut wire).unwrap();
            assert_eq!(wire[..length], bytes(&message["ciphertext"]));
            let length = to.read_message(&wire[..length], &mut plain).unwrap();
            assert_eq!(plain[..length], payload);
        }
    }

    #[test]
    fn an_ephemeral_key_is_drawn_only_once() {
        let mut rng = OneDraw(Some(Zeroizing::new([7; 32])));
        let mut key = X25519::default();
        assert!(key.generate(&mut rng).is_ok());
        assert_eq!(key.generate(&mut rng), Err(Error::Rng));
    }

    #[test]
    fn a_low_order_public_key_is_refused() {
        let mut key = X25519::default();
        key.set(&[7; 32]);
        assert_eq!(key.dh(&[0; 32], &mut [0; 32]), Err(Error::Dh));
    }
}
