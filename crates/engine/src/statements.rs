//! What this device signs about itself: its binding, and its attachments to relays. Each has a number, and the
//! numbers are kept before anybody sees them.

use control_proto::limits::CAPABILITY;
use identity::{Attachment, Binding, DeviceId, NetworkId, Signed, UnixTime};
use noise_channel::Now;

use crate::config::DeviceSecrets;
use crate::context::Context;
use crate::engine::Engine;
use crate::relays::Credentials;
use crate::saved::Saved;
use crate::timers::BINDING_VALIDITY;

impl Engine {
    /// What proves this device to a relay, with the next attachment.
    pub(crate) fn credentials(
        &mut self,
        relay: DeviceId,
        now: Now,
    ) -> Option<(Credentials, Signed<Attachment>)> {
        let chain = self.control.client().chain()?.clone();
        let number = self.saved.next_number(now);
        let attachment = Attachment { relay, number };
        let attachment = Signed::sign(self.own.network, &self.own.secrets.device, &attachment);
        let binding = self.saved.binding.clone()?;
        let clock_offset = self.saved.clock_offset();
        self.schedule.save_now(now.instant);
        Some((Credentials { chain, binding, clock_offset }, attachment))
    }

    /// The right time has become known. What was numbered by a wrong one may count as older than
    /// what an earlier run of this device said, if that run's memory is lost.
    pub(crate) fn state_anew(&mut self, cx: &mut Context<'_>) {
        self.bind_anew(cx);
        self.underlay.announced = false;
        self.schedule.announce_now(cx.instant());
    }

    /// Renews the binding when half of its time is over.
    pub(crate) fn renew_binding(&mut self, cx: &mut Context<'_>) {
        if !lasts(self.own.binding_ends, UnixTime(self.saved.wall(cx.now).as_secs())) {
            self.bind_anew(cx);
        }
    }

    fn bind_anew(&mut self, cx: &mut Context<'_>) {
        let secrets = &self.own.secrets;
        let (signed, ends) = new_binding(&mut self.saved, secrets, self.own.network, cx.now);
        self.own.binding_ends = ends;
        self.control.client_mut().set_binding(signed, cx.instant());
        self.schedule.save_now(cx.instant());
    }
}

/// The saved binding if it fits and has more than half of its time left, or a new one; and when it ends.
pub(crate) fn current_binding(
    saved: &mut Saved,
    secrets: &DeviceSecrets,
    network: NetworkId,
    now: Now,
) -> (Signed<Binding>, UnixTime) {
    let device = secrets.device.id();
    let wall = UnixTime(saved.wall(now).as_secs());
    let fits = saved.binding.as_ref().and_then(|signed| {
        let binding = signed.verify(network, device).ok()?;
        let fits = binding.tunnel_key == secrets.tunnel.public()
            && binding.channel_key == secrets.channel.public()
            && binding.capability == u32::from(CAPABILITY)
            && lasts(binding.not_after, wall);
        fits.then(|| (signed.clone(), binding.not_after))
    });
    fits.unwrap_or_else(|| new_binding(saved, secrets, network, now))
}

fn new_binding(
    saved: &mut Saved,
    secrets: &DeviceSecrets,
    network: NetworkId,
    now: Now,
) -> (Signed<Binding>, UnixTime) {
    let not_after = UnixTime(saved.wall(now).as_secs()).plus(BINDING_VALIDITY);
    let binding = Binding {
        device: secrets.device.id(),
        tunnel_key: secrets.tunnel.public(),
        channel_key: secrets.channel.public(),
        number: saved.next_number(now),
        not_after,
        capability: CAPABILITY.into(),
    };
    let signed = Signed::sign(network, &secrets.device, &binding);
    saved.binding = Some(signed.clone());
    (signed, not_after)
}

/// Whether more than half of a binding's time is left.
fn lasts(not_after: UnixTime, wall: UnixTime) -> bool {
    not_after > wall.plus(BINDING_VALIDITY / 2)
}
