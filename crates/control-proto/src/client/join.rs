//! Joining, and what the controller wants to be different about it.

use identity::{CertificateChain, DeviceId, DeviceName, Invite, UnixTime};

use super::Admission;
use crate::Refusal;
use crate::limits::JOIN_ATTEMPTS;

/// How far a device that joins has come.
#[derive(Debug, Default)]
pub(super) struct Join {
    attempts: u32,
    /// Which of the device's addresses it asks for.
    counter: u32,
}

impl Join {
    /// What an invite makes of the device, under the invite's own name if it has one.
    pub(super) fn certify(
        &self,
        invite: &Invite,
        name: &DeviceName,
        device: DeviceId,
        wall: UnixTime,
    ) -> Result<CertificateChain, String> {
        let fixed = invite.grant().map_err(|error| error.to_string())?.name;
        let name = fixed.as_ref().unwrap_or(name);
        invite.certify(device, name, self.counter, wall).map_err(|error| error.to_string())
    }

    /// Adapts what is asked for to a refusal; whether that is worth another attempt at once.
    pub(super) fn adapt(&mut self, refusal: &Refusal, admission: &mut Admission) -> bool {
        if self.attempts >= JOIN_ATTEMPTS {
            return false;
        }
        match (refusal, admission) {
            (Refusal::NameTaken { suggestion }, Admission::Invite { name, .. }) => {
                *name = suggestion.clone();
            }
            (Refusal::AddressTaken { counter }, Admission::Invite { .. }) => {
                self.counter = *counter;
            }
            // Whoever drives the client has newer numbers before it says hello again.
            (Refusal::Outdated { .. }, _) => {}
            (_, _) => return false,
        }
        self.attempts += 1;
        true
    }
}
