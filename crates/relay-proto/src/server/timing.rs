//! When messages to devices and other relays leave.

use std::collections::BTreeMap;
use std::time::Instant;

use identity::{NetworkId, Shaping};
use rand_core::CryptoRng;
use shaping::{Plan, PlanError};

use super::RelayServer;

/// What the networks wish, and what comes of it.
#[derive(Default)]
pub(super) struct Timing {
    wishes: BTreeMap<NetworkId, Shaping>,
    plans: BTreeMap<NetworkId, Plan>,
    /// A deadline that came with a message that was sent.
    sooner: Option<Instant>,
}

impl Timing {
    pub(super) fn plan(&self, network: NetworkId) -> Option<Plan> {
        self.plans.get(&network).cloned()
    }

    pub(super) fn forget(&mut self, network: NetworkId) {
        self.wishes.remove(&network);
        self.plans.remove(&network);
    }

    pub(super) fn bring_forward(&mut self, at: Instant) {
        self.sooner = Some(self.sooner.map_or(at, |sooner| sooner.min(at)));
    }
}

impl RelayServer {
    /// Has messages leave when the network wishes it, to those who pass over dummies.
    ///
    /// # Errors
    ///
    /// [`PlanError`] where it wishes for machines that cannot be run; messages then leave as soon as they can.
    pub fn set_shaping(
        &mut self,
        network: NetworkId,
        shaping: &Shaping,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), PlanError> {
        let known = self.timing.wishes.get(&network);
        if known.map_or(*shaping == Shaping::Off, |known| known == shaping) {
            return Ok(());
        }
        self.timing.wishes.insert(network, shaping.clone());
        let plan = Plan::new(shaping);
        self.set_plan(network, plan.as_ref().ok().cloned().flatten(), rng, now);
        plan.map(|_| ())
    }

    /// Has messages leave as a network's plan says, which somebody has made of what it wishes.
    pub fn set_plan(
        &mut self,
        network: NetworkId,
        plan: Option<Plan>,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        for (id, connection) in self.connections.iter_mut().filter(|(_, c)| c.network == network) {
            if connection.attached().is_some() {
                connection.link.set_plan(plan.clone(), rng, now);
                self.ready.insert(*id);
            }
        }
        self.shape_dialled(network, plan.as_ref(), rng, now);
        match plan {
            Some(plan) => drop(self.timing.plans.insert(network, plan)),
            None => drop(self.timing.plans.remove(&network)),
        }
        self.last_now = Some(now);
    }

    /// When [`Self::handle_timeout`] must be called at the latest for what [`Self::poll_message`] has given since this was
    /// asked for last. [`Self::poll_timeout`] knows of it too.
    #[must_use]
    pub const fn poll_sooner(&mut self) -> Option<Instant> {
        self.timing.sooner.take()
    }
}
