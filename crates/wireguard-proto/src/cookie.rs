//! mac1, mac2 and cookies (section 5.4.4 and 5.4.7 of the paper), seen from the sender.

use std::time::{Duration, Instant};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use crate::keys::PublicKey;
use crate::message::{COOKIE_REPLY_LEN, at, bytes};
use crate::primitives::{hash, mac, seal, xchacha};

/// A cookie is worth this long after it came, and its maker changes secrets as often.
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// The two keys that anyone can derive from the receiver's static key.
#[derive(Clone, Debug)]
pub(crate) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    pub(crate) fn new(receiver: &PublicKey) -> Self {
        Self {
            mac1: hash(&[b"mac1----", receiver.as_bytes()]),
            cookie: hash(&[b"cookie--", receiver.as_bytes()]),
        }
    }

    /// Whether a handshake message (148 or 92 bytes) was made for this receiver.
    pub(crate) fn check_mac1(&self, message: &[u8]) -> bool {
        let (covered, macs) = message.split_at(message.len() - 32);
        mac(&self.mac1, &[covered]).ct_eq(&macs[..16]).into()
    }

    /// Writes a cookie reply to the sender of `message`.
    pub(crate) fn seal_cookie(
        &self,
        message: &[u8],
        cookie: &[u8; 16],
        rng: &mut dyn CryptoRng,
    ) -> [u8; COOKIE_REPLY_LEN] {
        let mut reply = [0; COOKIE_REPLY_LEN];
        reply[0] = 3;
        reply[at::INDEX..at::INDEX + 4].copy_from_slice(&message[at::INDEX..at::INDEX + 4]);
        rng.fill_bytes(&mut reply[at::COOKIE_NONCE..at::COOKIE_SEALED]);
        let (key, nonce) = xchacha(&self.cookie, &bytes(&reply, at::COOKIE_NONCE));
        reply[at::COOKIE_SEALED..at::COOKIE_SEALED + 16].copy_from_slice(cookie);
        let mac1 = &message[message.len() - 32..message.len() - 16];
        seal(&key, nonce, mac1, &mut reply[at::COOKIE_SEALED..]);
        reply
    }
}

/// Whether mac2 of `message` was made with `cookie`.
pub(crate) fn check_mac2(message: &[u8], cookie: &[u8; 16]) -> bool {
    let (covered, mac2) = message.split_at(message.len() - 16);
    mac(cookie, &[covered]).ct_eq(mac2).into()
}

/// The MACs that a tunnel puts on its handshake messages to one peer.
#[derive(Clone, Debug)]
pub(crate) struct CookieJar {
    keys: MacKeys,
    cookie: Option<([u8; 16], Instant)>,
    last_mac1: Option<[u8; 16]>,
}

impl CookieJar {
    pub(crate) fn new(peer: &PublicKey) -> Self {
        Self { keys: MacKeys::new(peer), cookie: None, last_mac1: None }
    }

    /// Fills in both MACs of a handshake message.
    pub(crate) fn stamp(&mut self, message: &mut [u8], now: Instant) {
        let mac1_at = message.len() - 32;
        let mac1 = mac(&self.keys.mac1, &[&message[..mac1_at]]);
        message[mac1_at..mac1_at + 16].copy_from_slice(&mac1);
        self.last_mac1 = Some(mac1);
        self.cookie = self
            .cookie
            .filter(|(_, since)| now.saturating_duration_since(*since) < COOKIE_LIFETIME);
        if let Some((cookie, _)) = self.cookie {
            let mac2 = mac(&cookie, &[&message[..mac1_at + 16]]);
            message[mac1_at + 16..].copy_from_slice(&mac2);
        }
    }

    /// Takes the cookie out of a reply to the last message stamped; false for any other.
    pub(crate) fn take_cookie(&mut self, reply: &[u8; COOKIE_REPLY_LEN], now: Instant) -> bool {
        let Some(mac1) = self.last_mac1 else { return false };
        let (key, nonce) = xchacha(&self.keys.cookie, &bytes(reply, at::COOKIE_NONCE));
        let mut sealed: [u8; 32] = bytes(reply, at::COOKIE_SEALED);
        let Ok(cookie) = key.open(nonce, &mac1, &mut sealed) else { return false };
        self.cookie = Some((bytes(cookie, 0), now));
        self.last_mac1 = None;
        true
    }
}
