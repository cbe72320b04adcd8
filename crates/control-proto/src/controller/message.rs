//! What nodes say once they are known.

use std::time::Instant;

use identity::{Binding, DeviceId, Endpoints, GroupName, RelayEntry, Scope, Signed};
use noise_channel::Now;

use super::health::Health;
use super::session::Phase;
use super::{Change, Controller, DeviceRecord, Reply, wall};
use crate::limits::{MAX_RELAY_ENTRY, MAX_REPORT};
use crate::{
    Actor, AuditAction, ConnectionId, ControllerMessage, LoadReport, MessageError, NodeMessage,
    Refusal, SecurityEvent,
};

impl Controller {
    pub(crate) fn handle_payload(&mut self, connection: ConnectionId, bytes: &[u8], now: Now) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let device = session.device();
        if !session.allow_payload(now.instant) {
            self.event(None, SecurityEvent::RateLimited { device }, now);
            self.refuse(connection, Refusal::RateLimited);
            self.reply(Reply::Close(connection));
            return;
        }
        let is_stranger = matches!(session.phase, Phase::Stranger { .. });
        match (NodeMessage::from_bytes(bytes), device) {
            (Ok(NodeMessage::Hello(hello)), _) if is_stranger => {
                self.handle_hello(connection, &hello, now);
            }
            (Ok(message), Some(device)) => self.handle_known(connection, device, message, now),
            // Of a later version: passed over.
            (Err(MessageError::Unknown), Some(_)) => {}
            (Err(error), _) => {
                let event = SecurityEvent::ProtocolViolation { device, reason: error.to_string() };
                self.event(None, event, now);
                self.close(connection);
            }
            (Ok(_), None) => {
                let reason = "the first message is no hello".to_owned();
                self.event(None, SecurityEvent::ProtocolViolation { device, reason }, now);
                self.close(connection);
            }
        }
    }

    fn handle_known(
        &mut self,
        connection: ConnectionId,
        device: DeviceId,
        message: NodeMessage,
        now: Now,
    ) {
        match message {
            NodeMessage::Hello(_) => {
                self.violation(device, "a second hello", now);
                self.close(connection);
            }
            NodeMessage::Endpoints(endpoints) => self.take_endpoints(device, &endpoints, now),
            NodeMessage::Binding(signed) => {
                let binding = signed
                    .verify(self.network(), device)
                    .ok()
                    .filter(|binding| binding.device == device && wall(now) < binding.not_after);
                match binding {
                    Some(binding) => {
                        if let Err(refusal) = self.take_binding(&signed, &binding, now) {
                            self.refuse(connection, refusal);
                        }
                    }
                    None => self.forged(device, "binding", now),
                }
            }
            NodeMessage::Renew => {
                let is_member = self.state.devices.get(&device).is_some_and(|d| !d.pending);
                if !is_member || !self.renew(device, now) {
                    self.refuse(connection, Refusal::KeyNotHeld);
                }
            }
            NodeMessage::Load(report) => self.take_load(connection, device, report, now),
            NodeMessage::Relay(entry) => self.take_relay(connection, device, entry, now),
            NodeMessage::Security(event, number) => {
                let size = minicbor::to_vec(&event).map_or(usize::MAX, |bytes| bytes.len());
                if size > MAX_REPORT {
                    return self.violation(device, "a report is too long", now);
                }
                self.event(Some(device), event, now);
                self.reply(Reply::Message(connection, ControllerMessage::Noted(number)));
            }
            NodeMessage::Leave => {
                self.audit(Actor::Device { device }, AuditAction::DeviceLeft { device }, now);
                self.expel(device, wall(now));
            }
        }
    }

    /// Keeps a binding unless it is older than the known one, or names the tunnel key of another.
    pub(crate) fn take_binding(
        &mut self,
        signed: &Signed<Binding>,
        binding: &Binding,
        now: Now,
    ) -> Result<(), Refusal> {
        let device = binding.device;
        let Some(mut record) = self.state.devices.get(&device).cloned() else { return Ok(()) };
        if record.binding == *signed {
            return Ok(());
        }
        let known = record.binding.verify(self.network(), device).ok();
        if binding.number <= known.map_or(0, |known| known.number) {
            let what = "binding".to_owned();
            self.event(None, SecurityEvent::RollbackRefused { what }, now);
            let reason = "the binding is older than the known one".to_owned();
            return Err(Refusal::Keys { reason });
        }
        if let Err(event) = self.check_tunnel_key(binding) {
            self.event(None, event, now);
            let reason = "another device has announced this tunnel key".to_owned();
            return Err(Refusal::Keys { reason });
        }
        if let Some(known) = known {
            self.index.tunnels.remove(&known.tunnel_key);
        }
        self.index.tunnels.insert(binding.tunnel_key, device);
        record.binding = signed.clone();
        self.keep(record);
        Ok(())
    }

    /// Keeps endpoints unless they are older than the known ones.
    pub(crate) fn take_endpoints(
        &mut self,
        device: DeviceId,
        signed: &Signed<Endpoints>,
        now: Now,
    ) {
        let Some(mut record) = self.state.devices.get(&device).cloned() else { return };
        if record.endpoints.as_ref() == Some(signed) {
            return;
        }
        let network = self.network();
        let number = |signed: &Signed<Endpoints>| {
            let endpoints = signed.verify(network, device).ok()?;
            endpoints.is_bounded().then_some(endpoints.number)
        };
        let Some(new) = number(signed) else { return self.forged(device, "endpoints", now) };
        if record.endpoints.as_ref().and_then(number).is_some_and(|known| new <= known) {
            let what = "endpoints".to_owned();
            self.event(None, SecurityEvent::RollbackRefused { what }, now);
            return;
        }
        record.endpoints = Some(signed.clone());
        self.keep(record);
    }

    fn keep(&mut self, record: DeviceRecord) {
        self.publish_peer(&record);
        self.change(Change::Device(Box::new(record)));
    }

    fn take_load(
        &mut self,
        connection: ConnectionId,
        device: DeviceId,
        report: LoadReport,
        now: Now,
    ) {
        if !self.is_relay(device) {
            return self.refuse_relay(connection, device, now);
        }
        if self.relay_entry(device).is_some() {
            let health = self.relays.entry(device).or_insert_with(|| Health::new(now.instant));
            health.handle_report(report, now.instant);
            let item = health.item(device);
            self.publish(&item);
        }
    }

    fn take_relay(
        &mut self,
        connection: ConnectionId,
        device: DeviceId,
        entry: RelayEntry,
        now: Now,
    ) {
        let network = self.network();
        let is_own = self.state.devices.get(&device).is_some_and(|record| {
            let binding = record.binding.verify(network, device);
            entry.device == device && binding.is_ok_and(|b| b.channel_key == entry.channel_key)
        });
        if !is_own || !self.is_relay(device) {
            return self.refuse_relay(connection, device, now);
        }
        let size = minicbor::to_vec(&entry).map_or(usize::MAX, |bytes| bytes.len());
        if size > MAX_RELAY_ENTRY {
            return self.violation(device, "the entry of a relay is too long", now);
        }
        match self.publish_relay(entry.clone(), wall(now)) {
            None => {
                self.offer_relay(entry);
                self.refuse(connection, Refusal::KeyNotHeld);
            }
            Some(is_new) => {
                self.note_relay(device, now.instant);
                if is_new {
                    let action = AuditAction::RelayPublished { device };
                    self.audit(Actor::Device { device }, action, now);
                }
            }
        }
    }

    /// A relay is there: well, unless it has said that devices should leave it.
    pub(super) fn note_relay(&mut self, device: DeviceId, now: Instant) {
        let known = self.relays.remove(&device);
        let leaving = known.filter(|health| health.report.is_some_and(|report| report.draining));
        let health = Health { heard: now, ..leaving.unwrap_or(Health::new(now)) };
        self.relays.insert(device, health);
        self.publish(&health.item(device));
    }

    fn is_relay(&self, device: DeviceId) -> bool {
        self.state
            .devices
            .get(&device)
            .is_some_and(|record| !record.pending && record.groups.contains(&GroupName::relay()))
    }

    fn refuse_relay(&mut self, connection: ConnectionId, device: DeviceId, now: Now) {
        self.violation(device, "acts as a relay, or as another one, without being it", now);
        self.refuse(connection, Refusal::NotARelay);
    }

    fn violation(&mut self, device: DeviceId, reason: &str, now: Now) {
        let (device, reason) = (Some(device), reason.to_owned());
        self.event(None, SecurityEvent::ProtocolViolation { device, reason }, now);
    }

    fn forged(&mut self, device: DeviceId, what: &str, now: Now) {
        let reason = format!("sent by {device}, does not verify");
        let event = SecurityEvent::ForgedStatement { what: what.to_owned(), reason };
        self.event(None, event, now);
    }

    fn refuse(&mut self, connection: ConnectionId, refusal: Refusal) {
        self.reply(Reply::Message(connection, ControllerMessage::Refused(refusal)));
    }

    /// Whether the key of a scope is held.
    pub(crate) fn holds(&self, scope: Scope) -> bool {
        self.config.keys.get(scope).is_some()
    }
}
