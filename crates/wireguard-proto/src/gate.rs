use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::cookie::{COOKIE_LIFETIME, MacKeys, check_mac2};
use crate::keys::PublicKey;
use crate::message::{COOKIE_REPLY_LEN, MessageKind};
use crate::primitives::mac;

/// Who a handshake message came from, as far as cookies and budgets tell senders apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// What a cookie is bound to: all that a sender must hold to receive the answer.
    pub identity: [u8; 32],
    /// What a budget is shared by: the part that one party can hardly change.
    pub prefix: [u8; 16],
}

impl From<SocketAddr> for Source {
    /// Identity is address and port; the prefix is an IPv4 /24 or an IPv6 /48.
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        }
        .octets();
        let mut identity = [0; 32];
        identity[..16].copy_from_slice(&ip);
        identity[16..18].copy_from_slice(&address.port().to_be_bytes());
        let kept = if address.ip().to_canonical().is_ipv4() { 15 } else { 6 };
        let mut prefix = [0; 16];
        prefix[..kept].copy_from_slice(&ip[..kept]);
        Self { identity, prefix }
    }
}

/// A rate with a burst: tokens per second and the most that may be saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events per second in the long run; at least 1.
    pub per_second: u32,
    /// Events at once after a pause; at least 1.
    pub burst: u32,
}

/// When a responder asks for cookies, and how many handshakes it computes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Handshake messages from everybody above which everybody needs a cookie.
    pub arrivals: Rate,
    /// Handshake messages of one source prefix above which that prefix needs a cookie.
    pub arrivals_of_prefix: Rate,
    /// Handshakes computed for everybody.
    pub admissions: Rate,
    /// Handshakes computed for one source prefix.
    pub admissions_of_prefix: Rate,
}

impl Default for LoadLimits {
    /// Sized so that the Diffie-Hellmans of all admissions (four of some 50 µs each) take a fifth
    /// of one core at most, and that ten thousand peers are all back within ten seconds.
    fn default() -> Self {
        Self {
            arrivals: Rate { per_second: 100, burst: 200 },
            arrivals_of_prefix: Rate { per_second: 10, burst: 20 },
            admissions: Rate { per_second: 1000, burst: 1000 },
            admissions_of_prefix: Rate { per_second: 100, burst: 200 },
        }
    }
}

/// Why a handshake message was turned away before it cost a Diffie-Hellman.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateRefusal {
    /// Not an initiation or a response.
    #[error("not a handshake message")]
    NotAHandshake,
    /// mac1 was made for another static key, or by someone who does not know ours.
    #[error("the message's first MAC is not for this interface")]
    WrongMac1,
    /// The sender must first prove that it receives at its address; send it this cookie reply.
    #[error("the sender was asked for a cookie")]
    CookieNeeded([u8; COOKIE_REPLY_LEN]),
    /// The budget of the sender's prefix or of the interface is used up.
    #[error("the handshake budget is used up")]
    OverBudget,
}

/// The check that stands before every Diffie-Hellman of a responder: mac1, then a cookie when the
/// measured rate calls for it, then a budget per source prefix and in total.
///
/// One gate serves any number of threads.
pub struct Gate {
    keys: MacKeys,
    limits: LoadLimits,
    state: Mutex<GateState>,
}

struct GateState {
    secret: Zeroizing<[u8; 32]>,
    secret_since: Option<Instant>,
    arrivals: Bucket,
    admissions: Bucket,
    loaded_until: Option<Instant>,
    prefixes: BTreeMap<[u8; 16], PrefixState>,
    swept: Option<Instant>,
    /// Shared by all prefixes that found the table full.
    overflow: PrefixState,
}

#[derive(Clone, Default)]
struct PrefixState {
    arrivals: Bucket,
    admissions: Bucket,
    loaded_until: Option<Instant>,
}

/// Load lasts this long after the last message above the rate.
const LOAD_LINGERS: Duration = Duration::from_secs(1);
/// Between two looks for idle prefixes while the table is full: an idle one is full again after two seconds.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);
/// Prefixes told apart at a time; about 150 bytes each.
const MAX_PREFIXES: usize = 4096;

impl Gate {
    /// A gate for the interface with this static key.
    #[must_use]
    pub fn new(own: &PublicKey, limits: LoadLimits) -> Self {
        Self {
            keys: MacKeys::new(own),
            limits,
            state: Mutex::new(GateState {
                secret: Zeroizing::new([0; 32]),
                secret_since: None,
                arrivals: Bucket::default(),
                admissions: Bucket::default(),
                loaded_until: None,
                prefixes: BTreeMap::new(),
                swept: None,
                overflow: PrefixState::default(),
            }),
        }
    }

    /// Whether everybody needs a cookie at present.
    #[must_use]
    pub fn is_loaded(&self, now: Instant) -> bool {
        lasts(self.state().loaded_until, now)
    }

    /// Decides whether a handshake message from `source` may cost a Diffie-Hellman.
    ///
    /// # Errors
    /// The reason to drop it; a [`GateRefusal::CookieNeeded`] carries the answer to send.
    pub fn admit(
        &self,
        message: &[u8],
        source: &Source,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), GateRefusal> {
        match MessageKind::of(message) {
            Some(MessageKind::Initiation | MessageKind::Response) => {}
            Some(MessageKind::CookieReply | MessageKind::Transport) | None => {
                return Err(GateRefusal::NotAHandshake);
            }
        }
        if !self.keys.check_mac1(message) {
            return Err(GateRefusal::WrongMac1);
        }
        let mut state = self.state();
        if state.measure(source, &self.limits, now) {
            let cookie = state.cookie(source, rng, now);
            if !check_mac2(message, &cookie) {
                let reply = self.keys.seal_cookie(message, &cookie, rng);
                return Err(GateRefusal::CookieNeeded(reply));
            }
        }
        if state.spend(source, &self.limits, now) { Ok(()) } else { Err(GateRefusal::OverBudget) }
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl GateState {
    /// Counts an arrival; true when its sender needs a cookie.
    fn measure(&mut self, source: &Source, limits: &LoadLimits, now: Instant) -> bool {
        if !self.arrivals.take(limits.arrivals, now) {
            self.loaded_until = Some(now + LOAD_LINGERS);
        }
        let loaded = lasts(self.loaded_until, now);
        let prefix = self.prefix(source, now);
        if !prefix.arrivals.take(limits.arrivals_of_prefix, now) {
            prefix.loaded_until = Some(now + LOAD_LINGERS);
        }
        loaded || lasts(prefix.loaded_until, now)
    }

    /// Takes one admission out of both budgets; the prefix's own comes first, so that a greedy
    /// prefix does not spend what belongs to the others.
    fn spend(&mut self, source: &Source, limits: &LoadLimits, now: Instant) -> bool {
        self.prefix(source, now).admissions.take(limits.admissions_of_prefix, now)
            && self.admissions.take(limits.admissions, now)
    }

    fn prefix(&mut self, source: &Source, now: Instant) -> &mut PrefixState {
        if self.prefixes.len() >= MAX_PREFIXES && !self.prefixes.contains_key(&source.prefix) {
            // A flood from everywhere must not pay for a sweep with each of its messages.
            if self.swept.is_none_or(|swept| now >= swept + SWEEP_PAUSE) {
                self.swept = Some(now);
                self.prefixes.retain(|_, prefix| !prefix.is_idle(now));
            }
            if self.prefixes.len() >= MAX_PREFIXES {
                return &mut self.overflow;
            }
        }
        self.prefixes.entry(source.prefix).or_default()
    }

    fn cookie(&mut self, source: &Source, rng: &mut dyn CryptoRng, now: Instant) -> [u8; 16] {
        let fresh = self
            .secret_since
            .is_some_and(|since| now.saturating_duration_since(since) < COOKIE_LIFETIME);
        if !fresh {
            rng.fill_bytes(&mut *self.secret);
            self.secret_since = Some(now);
        }
        mac(&*self.secret, &[&source.identity])
    }
}

impl PrefixState {
    fn is_idle(&self, now: Instant) -> bool {
        self.arrivals.is_full(now) && self.admissions.is_full(now)
    }
}

/// A token bucket that stores the instant at which it will be full again.
#[derive(Clone, Copy, Default)]
struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let token = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + token;
        if full_at.saturating_duration_since(now) > token * rate.burst.max(1) {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

fn lasts(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| now < until)
}
