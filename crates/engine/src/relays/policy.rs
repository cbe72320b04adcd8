//! How long messages on all links are, and when they leave, as the network wishes it.

use control_proto::SecurityEvent;
use identity::{Padding, Shaping};
use relay_proto::RelayClient;
use shaping::Plan;

use super::Relays;
use crate::context::Context;
use crate::links::Link;
use crate::relay_event::RelayEvent;
use crate::streams::Streams;

/// What the network wishes, and what comes of it.
#[derive(Debug, Default)]
pub(super) struct Policy {
    padding: Padding,
    shaping: Shaping,
    plan: Option<Plan>,
}

impl Policy {
    /// Takes a new link into it.
    pub(super) fn apply(&self, client: &mut RelayClient, cx: &mut Context<'_>) {
        client.set_padding(self.padding);
        client.set_shaping(self.plan.clone(), cx.rng, cx.now.instant);
    }
}

impl Relays {
    /// Takes over how the network wants messages to be filled up.
    pub(crate) fn set_padding(&mut self, padding: Padding) {
        self.policy.padding = padding;
        self.guests.set_padding(padding);
        let lines = self.links.values_mut().flat_map(Link::lines_mut);
        lines.filter_map(|line| line.client.as_mut()).for_each(|link| link.set_padding(padding));
    }

    /// Takes over when the network wants messages to leave. Machines that cannot be run are none, and an alarm.
    pub(crate) fn set_shaping(
        &mut self,
        shaping: Shaping,
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        if shaping == self.policy.shaping {
            return;
        }
        let plan = Plan::new(&shaping).unwrap_or_else(|error| {
            let reason = error.to_string();
            let broken = SecurityEvent::ProtocolViolation { device: None, reason };
            self.events.push_back(RelayEvent::Alarm(broken));
            None
        });
        self.guests.set_plan(plan.clone(), cx);
        self.drain_guests(streams, cx.instant());
        for line in self.links.values_mut().flat_map(Link::lines_mut) {
            if let Some(client) = &mut line.client {
                client.set_shaping(plan.clone(), cx.rng, cx.now.instant);
                streams.wake(line.stream);
            }
        }
        (self.policy.shaping, self.policy.plan) = (shaping, plan);
    }
}
