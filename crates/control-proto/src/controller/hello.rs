//! Who a node is, and whether it may come in.

use identity::{
    Binding, ChainError, ChainPart, DeviceId, DeviceName, Ipv4Prefix, Proof, ProvenRenewal,
    Renewal, RevocationTarget, Scope, Signed, SignerId, UnixTime, Validity,
};
use noise_channel::Now;

use super::session::{Delivered, Phase};
use super::{Change, Controller, DeviceRecord, InviteRecord, Reply, wall};
use crate::limits::{MAX_DEVICES, MAX_INVITES, MAX_PENDING_DEVICES};
use crate::map::chain_event;
use crate::{
    Actor, AuditAction, ConnectionId, ControllerMessage, Hello, Refusal, SecurityEvent, Welcome,
};

/// Why a hello is refused, and what of that is worth writing down.
struct Refused {
    refusal: Refusal,
    event: Option<SecurityEvent>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, event: None }
    }
}

impl Controller {
    pub(crate) fn handle_hello(&mut self, connection: ConnectionId, hello: &Hello, now: Now) {
        match self.admit(connection, hello, now) {
            Ok(device) => self.welcome(connection, device, hello),
            Err(Refused { refusal, event }) => {
                if let Some(event) = event {
                    self.event(None, event, now);
                }
                self.reply(Reply::Message(connection, ControllerMessage::Refused(refusal)));
                self.reply(Reply::Close(connection));
            }
        }
    }

    fn admit(
        &mut self,
        connection: ConnectionId,
        hello: &Hello,
        now: Now,
    ) -> Result<DeviceId, Refused> {
        let proof = hello.chain.prove(&self.authorities).map_err(|error| unworthy(None, error))?;
        let device = proof.certificate().device;
        let binding = self.check_keys(connection, device, hello, now)?;
        let verdict = proof.check(wall(now), &self.revocations);
        let is_known = self.state.devices.contains_key(&device);
        let pending = match verdict {
            Ok(_) => false,
            Err(ChainError::NeedsApproval) => {
                proof.grant().is_some_and(|grant| grant.needs_approval)
            }
            // Once admitted and not removed: the membership goes on.
            Err(error) if error.is_expired() && is_known => false,
            Err(error) => return Err(unworthy(Some(device), error)),
        };
        self.check_tunnel_key(&binding).map_err(|event| {
            let reason = "another device has announced this tunnel key".to_owned();
            Refused { refusal: Refusal::Keys { reason }, event: Some(event) }
        })?;
        if is_known {
            self.come_back(device, hello, &binding, now)?;
        } else {
            self.join(hello, &proof, pending, now)?;
            self.index.tunnels.insert(binding.tunnel_key, device);
        }
        Ok(device)
    }

    /// The DeviceKey must be present on this channel and stand for the channel's key.
    fn check_keys(
        &self,
        connection: ConnectionId,
        device: DeviceId,
        hello: &Hello,
        now: Now,
    ) -> Result<Binding, Refused> {
        let wrong = |reason: &str| Refused {
            refusal: Refusal::Keys { reason: reason.to_owned() },
            event: Some(SecurityEvent::WrongDevice { device }),
        };
        let Some(Phase::Stranger { remote_static, handshake_hash }) =
            self.sessions.get(&connection).map(|session| session.phase.clone())
        else {
            return Err(wrong("hello comes once, on a fresh channel"));
        };
        let proof = hello
            .presence
            .verify(self.network(), device)
            .map_err(|_| wrong("the proof of presence does not verify"))?;
        if proof.handshake_hash != handshake_hash {
            return Err(wrong("the proof of presence is for another channel"));
        }
        let binding = hello
            .binding
            .verify(self.network(), device)
            .map_err(|_| wrong("the binding does not verify"))?;
        if binding.device != device || *binding.channel_key.as_bytes() != remote_static {
            return Err(wrong("the binding names another channel key"));
        }
        if wall(now) >= binding.not_after {
            return Err(wrong("the binding has expired"));
        }
        Ok(binding)
    }

    /// A tunnel key is one device's: it shows who sends.
    pub(crate) fn check_tunnel_key(&self, binding: &Binding) -> Result<(), SecurityEvent> {
        let owner = self.index.tunnels.get(&binding.tunnel_key);
        if owner.is_none_or(|owner| *owner == binding.device) {
            return Ok(());
        }
        Err(SecurityEvent::Conflict { device: binding.device, what: "tunnel key".to_owned() })
    }

    fn come_back(
        &mut self,
        device: DeviceId,
        hello: &Hello,
        binding: &Binding,
        now: Now,
    ) -> Result<(), Refused> {
        // The device itself is here, so that an older number is no play-back.
        if let Some(number) = self.outdates(hello, binding) {
            return Err(Refusal::Outdated { number }.into());
        }
        self.take_binding(&hello.binding, binding, now).map_err(Refused::from)?;
        if let Some(endpoints) = &hello.endpoints {
            self.take_endpoints(device, endpoints, now);
        }
        let Some(record) = self.state.devices.get(&device) else { return Ok(()) };
        let half = record.not_before.plus(record.not_after.since(record.not_before) / 2);
        if !record.pending && wall(now) >= half {
            self.renew(device, now);
        }
        Ok(())
    }

    /// The highest number that the device has used, if a new binding of it is not above.
    fn outdates(&self, hello: &Hello, binding: &Binding) -> Option<u64> {
        let record = self.state.devices.get(&binding.device)?;
        if record.binding == hello.binding {
            return None;
        }
        let (network, device) = (self.network(), binding.device);
        let known = record.binding.verify(network, device).map_or(0, |known| known.number);
        let endpoints = record.endpoints.as_ref().and_then(|e| e.verify(network, device).ok());
        let used = known.max(endpoints.map_or(0, |endpoints| endpoints.number));
        (binding.number <= used).then_some(used)
    }

    fn join(
        &mut self,
        hello: &Hello,
        proof: &Proof,
        pending: bool,
        now: Now,
    ) -> Result<(), Refused> {
        let certificate = proof.certificate();
        let device = certificate.device;
        let invite = self.check_invite(proof, now)?;
        // A member's membership goes on after its end; whoever is no member yet has none to go on.
        proof.validity().check(wall(now)).map_err(|source| {
            unworthy(Some(device), ChainError::Validity { part: ChainPart::Certificate, source })
        })?;
        if self.index.names.contains_key(&certificate.name) {
            let suggestion = self.free_name(&certificate.name);
            return Err(Refusal::NameTaken { suggestion }.into());
        }
        if self.index.addresses.contains_key(&certificate.address) {
            let counter = certificate.counter.saturating_add(1);
            return Err(Refusal::AddressTaken { counter }.into());
        }
        let waiting = self.state.devices.values().filter(|record| record.pending).count();
        if self.state.devices.len() >= MAX_DEVICES || pending && waiting >= MAX_PENDING_DEVICES {
            return Err(full(device));
        }
        let mut record = DeviceRecord {
            device,
            name: certificate.name.clone(),
            address: certificate.address,
            groups: certificate.groups.clone(),
            serial: certificate.serial,
            chain: hello.chain.clone(),
            binding: hello.binding.clone(),
            endpoints: None,
            ipv4: None,
            pending,
            joined: wall(now),
            not_before: proof.validity().not_before,
            not_after: proof.validity().not_after,
        };
        if !pending && invite.is_some() && record.chain.renewal.is_none() {
            self.confirm(&mut record, now).ok_or(Refusal::KeyNotHeld)?;
        }
        if let Some(mut invite) = invite {
            invite.used_by = Some(device);
            self.change(Change::Invite(Box::new(invite)));
        }
        self.state.counters.serial = self.state.counters.serial.max(certificate.serial.0);
        self.index.names.insert(record.name.clone(), device);
        self.index.addresses.insert(record.address, device);
        self.lease(&mut record, now);
        let action = AuditAction::DeviceJoined { device, name: record.name.clone(), pending };
        self.audit(Actor::Device { device }, action, now);
        self.publish_peer(&record);
        self.change(Change::Device(Box::new(record)));
        if let Some(endpoints) = &hello.endpoints {
            self.take_endpoints(device, endpoints, now);
        }
        Ok(())
    }

    /// The record of the invite by which a device comes in; an invite that is good but not
    /// known, because it was made elsewhere or before a restore, is known from now on.
    fn check_invite(&self, proof: &Proof, now: Now) -> Result<Option<InviteRecord>, Refused> {
        let Some(grant) = proof.grant() else { return Ok(None) };
        let device = proof.certificate().device;
        if grant.validity.check(wall(now)).is_err() {
            return Err(misused(Refusal::InviteExpired, (grant.key, device), "expired"));
        }
        let Some(known) = self.state.invites.get(&grant.key) else {
            if self.state.invites.len() >= MAX_INVITES {
                return Err(full(device));
            }
            let (key, created) = (grant.key, wall(now));
            let grant = grant.clone();
            let record = InviteRecord { key, grant, created, used_by: None, revoked: false };
            return Ok(Some(record));
        };
        if known.used_by.is_none() && !known.revoked {
            return Ok(Some(known.clone()));
        }
        let (refusal, reason) = if known.revoked {
            (Refusal::InviteRevoked, "revoked")
        } else {
            (Refusal::InviteUsed, "used before")
        };
        Err(misused(refusal, (grant.key, device), reason))
    }

    fn welcome(&mut self, connection: ConnectionId, device: DeviceId, hello: &Hello) {
        let Some(record) = self.state.devices.get(&device) else { return };
        let (pending, chain, name) = (record.pending, record.chain.clone(), record.name.clone());
        let map = hello.have.map_or(Delivered::Nothing, Delivered::UpTo);
        if let Some(session) = self.sessions.get_mut(&connection) {
            session.phase = Phase::Ready { device, map: (!pending).then_some(map) };
        }
        // The newest channel of a device counts.
        if let Some(older) = self.by_device.insert(device, connection)
            && older != connection
        {
            self.close(older);
        }
        let network = self.state.settings.name.clone();
        let welcome = Welcome { network, mode: self.mode(), pending, name };
        self.reply(Reply::Message(connection, ControllerMessage::Welcome(welcome)));
        if chain != hello.chain {
            let message = ControllerMessage::Membership(Box::new(chain));
            self.reply(Reply::Message(connection, message));
        }
        self.reply(Reply::Deliver(connection));
        self.reply(Reply::Freshness(connection));
    }

    /// Lets a waiting device in, or lets a member go on; false if no key to renew is held.
    pub(crate) fn renew(&mut self, device: DeviceId, now: Now) -> bool {
        let Some(mut record) = self.state.devices.get(&device).cloned() else { return false };
        if self.confirm(&mut record, now).is_none() {
            return false;
        }
        record.pending = false;
        self.lease(&mut record, now);
        self.update_member(record);
        true
    }

    /// Lets a membership count from now on; nothing if no key to renew is held.
    fn confirm(&self, record: &mut DeviceRecord, now: Now) -> Option<()> {
        let (key, delegation) = self.config.keys.get(Scope::Renew)?;
        let validity = Validity::starting(wall(now), self.state.settings.validity);
        let certificate = record.chain.certificate.hash();
        let renewal = Renewal { certificate, device: record.device, validity };
        let renewal = Signed::sign(self.network(), key, &renewal);
        record.chain.renewal = Some(ProvenRenewal { delegation: delegation.clone(), renewal });
        (record.not_before, record.not_after) = (validity.not_before, validity.not_after);
        Some(())
    }

    /// Keeps and publishes a changed membership, and tells the device.
    pub(crate) fn update_member(&mut self, record: DeviceRecord) {
        let device = record.device;
        self.publish_peer(&record);
        let message = ControllerMessage::Membership(Box::new(record.chain.clone()));
        self.change(Change::Device(Box::new(record)));
        let Some(connection) = self.by_device.get(&device).copied() else { return };
        if let Some(session) = self.sessions.get_mut(&connection)
            && let Phase::Ready { map: map @ None, .. } = &mut session.phase
        {
            *map = Some(Delivered::Nothing);
        }
        self.reply(Reply::Message(connection, message));
        self.reply(Reply::Deliver(connection));
    }

    /// Takes a device out: from the map, from the disk, from its channel.
    pub(crate) fn expel(&mut self, device: DeviceId, at: UnixTime) {
        let Some(record) = self.state.devices.get(&device).cloned() else { return };
        self.index.names.remove(&record.name);
        self.index.addresses.remove(&record.address);
        self.index.tunnels.retain(|_, owner| *owner != device);
        if let Some(address) = record.ipv4 {
            self.index.leases.remove(&address);
        }
        self.withdraw_peer(&record, at);
        self.change(Change::RemoveDevice(device));
        if let Some(connection) = self.by_device.get(&device).copied() {
            self.reply(Reply::Message(connection, ControllerMessage::Removed));
            self.reply(Reply::Close(connection));
        }
    }

    fn lease(&mut self, record: &mut DeviceRecord, now: Now) {
        if record.pending || record.ipv4.is_some() {
            return;
        }
        let Some(address) = self.free_lease(record.device) else { return };
        if self.config.keys.get(Scope::Renew).is_some() {
            self.index.leases.insert(address, record.device);
            self.publish_lease(record.device, address, wall(now));
            record.ipv4 = Some(address);
        }
    }

    /// A free host of the /16; where the search begins depends on the device, so that a device
    /// that comes back often gets its old address.
    pub(crate) fn free_lease(&self, device: DeviceId) -> Option<std::net::Ipv4Addr> {
        let prefix: Ipv4Prefix = self.state.settings.ipv4;
        let [high, low, ..] = *device.as_bytes();
        let first = u16::from_be_bytes([high, low]);
        (0..=u16::MAX)
            .map(|step| first.wrapping_add(step))
            .filter(|host| !matches!(*host, 0 | u16::MAX))
            .map(|host| prefix.address(host))
            .find(|address| !self.index.leases.contains_key(address))
    }

    fn free_name(&self, taken: &DeviceName) -> DeviceName {
        let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        let stem = match taken.as_str().rsplit_once('-') {
            Some((stem, rest)) if is_number(rest) && !stem.is_empty() => stem,
            Some(_) | None => taken.as_str(),
        };
        // A label has 63 bytes, a suffix at most six.
        let stem = stem.get(..57).unwrap_or(stem).trim_end_matches('-');
        (2..=MAX_DEVICES + 2)
            .filter_map(|number| format!("{stem}-{number}").parse().ok())
            .find(|name| !self.index.names.contains_key(name))
            .unwrap_or_else(|| taken.clone())
    }
}

/// Another device would be one too many.
fn full(device: DeviceId) -> Refused {
    let event = SecurityEvent::RateLimited { device: Some(device) };
    Refused { refusal: Refusal::Full, event: Some(event) }
}

fn misused(refusal: Refusal, (invite, device): (SignerId, DeviceId), reason: &str) -> Refused {
    let reason = reason.to_owned();
    Refused { refusal, event: Some(SecurityEvent::InviteMisuse { invite, device, reason }) }
}

/// A chain whose signatures do not hold.
/// A chain that does not count.
fn unworthy(device: Option<DeviceId>, error: ChainError) -> Refused {
    let refusal = match error {
        ChainError::Revoked(RevocationTarget::Invite(_)) => Refusal::InviteRevoked,
        ChainError::Revoked(
            RevocationTarget::Device(_)
            | RevocationTarget::Serial(_)
            | RevocationTarget::Delegated(_),
        ) => Refusal::Revoked,
        ChainError::WrongNetwork
        | ChainError::Signature { .. }
        | ChainError::UnknownScope(_)
        | ChainError::WrongScope { .. }
        | ChainError::Validity { .. }
        | ChainError::LimitExceeded { .. }
        | ChainError::WrongRenewal
        | ChainError::NeedsApproval => Refusal::Chain { reason: error.to_string() },
    };
    Refused { refusal, event: Some(chain_event(device, error)) }
}
