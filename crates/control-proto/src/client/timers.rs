//! What a client does by itself, and when.

use std::time::{Duration, Instant};

use identity::{UnixTime, Validity};
use rand_core::CryptoRng;

use super::backoff::jittered;
use crate::limits::RENEW_RETRY;

/// Endpoints that came too late for the hello are told after this long: by then a device knows its relays, and has
/// told newer ones, or has none.
const LATE_ENDPOINTS: Duration = Duration::from_secs(1);
/// Those who come back together, with a membership that is half over, ask for its renewal within this time.
const LATE_RENEWAL: Duration = Duration::from_secs(2);

/// When what does not depend on the connection is due. The renewal and the endpoints wait for a channel that is ready.
#[derive(Debug, Default)]
pub(super) struct Timers {
    renew: Option<Instant>,
    expire: Option<Instant>,
    endpoints: Option<Instant>,
}

impl Timers {
    /// A renewal is asked for a little before half of the membership is over.
    pub(super) fn plan_renewal(
        &mut self,
        validity: Option<Validity>,
        wall: UnixTime,
        now: Instant,
    ) {
        self.renew = validity.and_then(|validity| {
            let at = validity.not_before.plus(validity.seconds() / 20 * 9);
            now.checked_add(Duration::from_secs(at.since(wall)))
        });
    }

    /// What the map holds is looked at again when the first of it ends.
    pub(super) fn plan_expiry(&mut self, end: Option<UnixTime>, wall: UnixTime, now: Instant) {
        self.expire = end.and_then(|end| now.checked_add(Duration::from_secs(end.since(wall))));
    }

    /// The controller has let the device in.
    pub(super) fn handle_welcome(
        &mut self,
        are_endpoints_late: bool,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        self.endpoints = are_endpoints_late.then(|| now + LATE_ENDPOINTS);
        if is_due(self.renew, now) {
            self.renew = Some(now + jittered(LATE_RENEWAL, rng));
        }
    }

    /// Endpoints that are newer take the place of those that were late.
    pub(super) const fn forget_endpoints(&mut self) {
        self.endpoints = None;
    }

    /// Whether to ask for a renewal now; again later, if nothing comes of it.
    pub(super) fn take_renewal(&mut self, rng: &mut dyn CryptoRng, now: Instant) -> bool {
        let due = is_due(self.renew, now);
        if due {
            self.renew = Some(now + jittered(RENEW_RETRY, rng));
        }
        due
    }

    /// Whether to tell the endpoints now that were too late for the hello.
    pub(super) fn take_endpoints(&mut self, now: Instant) -> bool {
        self.endpoints.take_if(|at| now >= *at).is_some()
    }

    /// Whether something in the map may have ended.
    pub(super) fn is_expiry_due(&self, now: Instant) -> bool {
        is_due(self.expire, now)
    }

    /// What is due next.
    pub(super) fn poll_timeout(&self, is_ready: bool) -> Option<(Instant, &'static str)> {
        let renew = self.renew.filter(|_| is_ready).map(|at| (at, "renewal"));
        let late = self.endpoints.filter(|_| is_ready).map(|at| (at, "late endpoints"));
        let expire = self.expire.map(|at| (at, "expiry of peers"));
        renew.into_iter().chain(late).chain(expire).min()
    }
}

fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now >= at)
}
