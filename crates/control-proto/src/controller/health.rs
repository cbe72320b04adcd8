//! How the relays are doing, as devices are told.

use std::time::Instant;

use identity::DeviceId;
use noise_channel::Now;

use super::Controller;
use crate::limits::LOAD_REPORT_DEADLINE;
use crate::{LoadReport, MapItem};

/// A quarter of what a relay can serve, in thousandths.
const QUARTER: u32 = 250;
/// A load that is below a bound by so much, in thousandths, is a lower one.
const LOAD_MARGIN: u32 = 100;

/// What is known of a relay's health; lost at a restart, when all count as healthy for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    pub(super) heard: Instant,
    pub(super) report: Option<LoadReport>,
    pub(super) healthy: bool,
    /// Quarters of what it can serve, as devices were told.
    pub(super) load: u8,
}

impl Health {
    /// A relay that is there, of which nothing else is known.
    pub(super) const fn new(heard: Instant) -> Self {
        Self { heard, report: None, healthy: true, load: 0 }
    }

    pub(super) const fn item(&self, relay: DeviceId) -> MapItem {
        MapItem::RelayHealth(relay, self.healthy, self.load)
    }

    /// Takes over what the relay says of itself. Devices hear of a lower load only once it is clearly lower, so that one near
    /// a bound is not told every minute.
    pub(super) fn handle_report(&mut self, report: LoadReport, now: Instant) {
        let quarter = |permille: u32| (permille.min(1_000) / QUARTER) as u8;
        let busy = report.busy_permille;
        self.load = self.load.clamp(quarter(busy), quarter(busy.saturating_add(LOAD_MARGIN)));
        self.healthy = !report.draining;
        (self.heard, self.report) = (now, Some(report));
    }
}

impl Controller {
    /// Tells how every relay is doing that has an entry, and forgets the others.
    pub(super) fn publish_health(&mut self) {
        for (relay, health) in std::mem::take(&mut self.relays) {
            if self.relay_entry(relay).is_some() {
                self.publish(&health.item(relay));
                self.relays.insert(relay, health);
            }
        }
    }

    /// Tells devices of relays from which nothing has come for too long.
    pub(super) fn check_relays(&mut self, now: Now) {
        let silent: Vec<_> = self
            .relays
            .iter_mut()
            .filter(|(_, relay)| relay.healthy && now.instant >= relay.heard + LOAD_REPORT_DEADLINE)
            .map(|(device, relay)| {
                relay.healthy = false;
                relay.item(*device)
            })
            .collect();
        silent.iter().for_each(|item| self.publish(item));
    }
}
