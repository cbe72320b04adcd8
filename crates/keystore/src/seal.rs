//! The two sealed formats.
//!
//! By passphrase: `SMKP`, version 1, Argon2id memory in KiB (4), passes (4), lanes (4), salt (16),
//! nonce (12), AES-256-GCM ciphertext and tag; the 45 bytes before the ciphertext are authenticated
//! with it. By master key: `SMKE`, version 1, nonce (12), ciphertext and tag; the header and the
//! secret's name are authenticated.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use zeroize::Zeroizing;

use crate::KeystoreError;

const PASSPHRASE_MAGIC: &[u8; 5] = b"SMKP\x01";
const MASTER_MAGIC: &[u8; 5] = b"SMKE\x01";
const SALT_LEN: usize = 16;
const PASSPHRASE_HEADER: usize = PASSPHRASE_MAGIC.len() + 12 + SALT_LEN + NONCE_LEN;
const MASTER_HEADER: usize = MASTER_MAGIC.len() + NONCE_LEN;
const TAG_LEN: usize = 16;

/// The second recommended parameter set of RFC 9106 section 4: 64 MiB, 3 passes, 4 lanes.
const COST: Cost = Cost { memory_kib: 65_536, passes: 3, lanes: 4 };
/// A file may ask for at most this much work, so that a hostile backup cannot exhaust the memory.
const MAX_COST: Cost = Cost { memory_kib: 1 << 20, passes: 16, lanes: 16 };

#[derive(Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Seals bytes under a passphrase, in a form that says how to open it again.
#[must_use]
pub fn seal_with_passphrase(plain: &[u8], passphrase: &[u8]) -> Vec<u8> {
    let salt = random::<SALT_LEN>();
    let nonce = random::<NONCE_LEN>();
    let mut sealed = Vec::with_capacity(PASSPHRASE_HEADER + plain.len() + TAG_LEN);
    sealed.extend_from_slice(PASSPHRASE_MAGIC);
    for number in [COST.memory_kib, COST.passes, COST.lanes] {
        sealed.extend_from_slice(&number.to_be_bytes());
    }
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(&nonce);
    let key = derive(passphrase, &salt, COST).expect("our own cost parameters are valid");
    let header = sealed.clone();
    seal_into(&mut sealed, plain, &key, nonce, &header);
    sealed
}

/// Opens what [`seal_with_passphrase`] sealed.
///
/// # Errors
/// [`KeystoreError::Format`] when these are not such bytes, [`KeystoreError::Sealed`] when the
/// passphrase is another one or the bytes were changed.
pub fn open_with_passphrase(
    sealed: &[u8],
    passphrase: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let (header, body) = sealed.split_at_checked(PASSPHRASE_HEADER).ok_or(KeystoreError::Format)?;
    let fields = header.strip_prefix(PASSPHRASE_MAGIC).ok_or(KeystoreError::Format)?;
    let (cost, rest) = read_cost(fields).ok_or(KeystoreError::Format)?;
    let (salt, nonce) = rest.split_at(SALT_LEN);
    let key = derive(passphrase, salt, cost)?;
    open_from(body, &key, nonce, header)
}

/// The key that seals every secret of one store.
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    pub(crate) fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|key| Self(Zeroizing::new(key)))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    pub(crate) fn seal(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        let nonce = random::<NONCE_LEN>();
        let mut sealed = Vec::with_capacity(MASTER_HEADER + plain.len() + TAG_LEN);
        sealed.extend_from_slice(MASTER_MAGIC);
        sealed.extend_from_slice(&nonce);
        seal_into(&mut sealed, plain, &self.0, nonce, &master_aad(name));
        sealed
    }

    pub(crate) fn open(
        &self,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        let (header, body) = sealed.split_at_checked(MASTER_HEADER).ok_or(KeystoreError::Format)?;
        let nonce = header.strip_prefix(MASTER_MAGIC).ok_or(KeystoreError::Format)?;
        open_from(body, &self.0, nonce, &master_aad(name))
    }
}

fn master_aad(name: &str) -> Vec<u8> {
    [MASTER_MAGIC, name.as_bytes()].concat()
}

fn read_cost(fields: &[u8]) -> Option<(Cost, &[u8])> {
    let (numbers, rest) = fields.split_first_chunk::<12>()?;
    let number = |at: usize| {
        u32::from_be_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]])
    };
    let cost = Cost { memory_kib: number(0), passes: number(4), lanes: number(8) };
    let bearable = cost.memory_kib <= MAX_COST.memory_kib
        && cost.passes <= MAX_COST.passes
        && cost.lanes <= MAX_COST.lanes;
    bearable.then_some((cost, rest))
}

fn derive(
    passphrase: &[u8],
    salt: &[u8],
    cost: Cost,
) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|_| KeystoreError::Format)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.as_mut_slice())
        .map_err(|_| KeystoreError::Format)?;
    Ok(key)
}

fn seal_into(out: &mut Vec<u8>, plain: &[u8], key: &[u8; 32], nonce: [u8; NONCE_LEN], aad: &[u8]) {
    let body = out.len();
    out.extend_from_slice(plain);
    let tag = cipher(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            &mut out[body..],
        )
        .expect("a secret is far below the cipher's length limit");
    out.extend_from_slice(tag.as_ref());
}

fn open_from(
    body: &[u8],
    key: &[u8; 32],
    nonce: &[u8],
    aad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeystoreError::Format)?;
    let mut plain = Zeroizing::new(body.to_vec());
    let length = cipher(key)
        .open_in_place(nonce, Aad::from(aad), &mut plain)
        .map_err(|_| KeystoreError::Sealed)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length"))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}
