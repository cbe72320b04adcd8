//! What administrators ask for.

use std::net::SocketAddr;

use identity::{
    Certificate, CertificateChain, DeviceId, DeviceName, GroupName, Invite, InviteGrant, InviteKey,
    InviteSecret, MAX_GROUPS, PathSecretBytes, RevocationTarget, Scope, Serial, Signed, SignerId,
    SuccessorRule, TunnelPublicKey, Validity,
};
use noise_channel::Now;
use rand_core::CryptoRng;

use super::{Change, Controller, DeviceRecord, InviteRecord, Reply, Ticket, wall};
use crate::limits::{MAX_INVITES, MAX_INVITES_AT_ONCE};
use crate::membership::claims;
use crate::{
    Actor, AdminAnswer, AdminError, AdminRequest, AuditAction, CreatedInvite, DeviceView,
    InviteRequest, InviteState, InviteView, NetworkView, RelayView, SettingsChange,
};

pub(crate) type Answer = Result<AdminAnswer, AdminError>;

/// Relays that an invite names, enough to get in by another one when one is down.
const RELAYS_IN_INVITE: usize = 3;

/// The shortest membership: renewal at half of it must be possible over a night.
const SHORTEST_VALIDITY: u64 = 3_600;

/// The longest time that an invite may be used, in seconds.
const LONGEST_INVITE: u64 = 90 * 24 * 3600;

impl Controller {
    /// Does what an administrator asks; the answer comes as [`super::Output::Answer`], once what
    /// it says is on disk.
    pub fn handle_admin(
        &mut self,
        ticket: Ticket,
        request: AdminRequest,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        self.last_now = now.instant;
        let result = self.answer(request, rng, now);
        self.reply(Reply::Answer(ticket, result));
        self.commit(now);
    }

    fn answer(&mut self, request: AdminRequest, rng: &mut dyn CryptoRng, now: Now) -> Answer {
        match request {
            AdminRequest::Network => Ok(AdminAnswer::Network(self.network_view())),
            AdminRequest::ChangeSettings(change) => self.change_settings(&change, now),
            AdminRequest::CreateInvite(request) => self.create_invites(&request, rng, now),
            AdminRequest::Invites => Ok(AdminAnswer::Invites { invites: self.invite_views(now) }),
            AdminRequest::RevokeInvite { invite } => self.revoke_invite(invite, now),
            AdminRequest::Devices => Ok(AdminAnswer::Devices { devices: self.device_views() }),
            AdminRequest::ApproveDevice { device } => self.approve(device, now),
            AdminRequest::RenameDevice { device, name } => self.rename(device, name, now),
            AdminRequest::RemoveDevice { device } => self.remove(device, now),
            AdminRequest::AddPeer(request) => self.add_peer(&request, now),
            AdminRequest::Peers => Ok(AdminAnswer::Peers { peers: self.peer_views() }),
            AdminRequest::RemovePeer { name } => self.remove_peer(&name, now),
            AdminRequest::Relays => Ok(AdminAnswer::Relays { relays: self.relay_views() }),
            AdminRequest::WithdrawRelay { device } => {
                if self.relay_entry(device).is_none() {
                    return Err(AdminError::UnknownRelay);
                }
                if !self.withdraw_relay(device, wall(now)) {
                    return Err(not_held(Scope::Relays));
                }
                self.done(AuditAction::RelayWithdrawn { device }, now)
            }
        }
    }

    pub(crate) fn done(&mut self, action: AuditAction, now: Now) -> Answer {
        self.audit(Actor::Administrator, action, now);
        Ok(AdminAnswer::Done)
    }

    fn change_settings(&mut self, change: &SettingsChange, now: Now) -> Answer {
        let mut settings = self.state.settings.clone();
        if let Some(validity) = change.validity {
            let longest = [Scope::Issue, Scope::Renew]
                .into_iter()
                .filter_map(|scope| {
                    let (key, _) = self.config.keys.get(scope)?;
                    Some(self.authorities.delegation(key.id(), scope).ok()?.limits.max_validity)
                })
                .min()
                .unwrap_or(identity::DEFAULT_VALIDITY);
            if !(SHORTEST_VALIDITY..=longest).contains(&validity) {
                let what =
                    format!("a membership is valid for {SHORTEST_VALIDITY} to {longest} seconds");
                return Err(AdminError::OutOfBounds { what });
            }
            settings.validity = validity;
        }
        if let Some(approval) = change.approval {
            if !self.holds(Scope::Policy) {
                return Err(not_held(Scope::Policy));
            }
            settings.approval = approval;
        }
        self.change(Change::Settings(settings));
        self.publish_info(wall(now));
        self.done(AuditAction::SettingsChanged, now)
    }

    fn create_invites(
        &mut self,
        request: &InviteRequest,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Answer {
        self.check_invite_request(request)?;
        self.forget_old_invites(now);
        if self.state.invites.len() + usize::from(request.uses) > MAX_INVITES {
            return Err(AdminError::Full { what: "invites".into(), limit: MAX_INVITES });
        }
        let mut invites = Vec::new();
        for _ in 0..request.uses {
            let invite = self.create_invite(request, rng, now).ok_or(not_held(Scope::Issue))?;
            invites.push(invite);
        }
        Ok(AdminAnswer::InvitesCreated { invites })
    }

    fn check_invite_request(&self, request: &InviteRequest) -> Result<(), AdminError> {
        if !self.holds(Scope::Issue) {
            return Err(not_held(Scope::Issue));
        }
        if !(1..=MAX_INVITES_AT_ONCE).contains(&request.uses) {
            let what = format!("make 1 to {MAX_INVITES_AT_ONCE} invites at a time");
            return Err(AdminError::OutOfBounds { what });
        }
        if !(60..=LONGEST_INVITE).contains(&request.expires_in) {
            let what = "an invite may be used for a minute to 90 days".to_owned();
            return Err(AdminError::OutOfBounds { what });
        }
        if request.groups.len() >= MAX_GROUPS {
            let what = format!("a device is in fewer than {MAX_GROUPS} groups");
            return Err(AdminError::OutOfBounds { what });
        }
        if request.relay && !self.holds(Scope::Relays) {
            return Err(not_held(Scope::Relays));
        }
        if let Some(name) = &request.name {
            if request.uses > 1 {
                return Err(AdminError::NameForMany);
            }
            if self.index.names.contains_key(name) {
                return Err(AdminError::NameTaken { name: name.clone() });
            }
        }
        Ok(())
    }

    fn create_invite(
        &mut self,
        request: &InviteRequest,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Option<CreatedInvite> {
        let (issuer, delegation) = self.config.keys.get(Scope::Issue)?;
        let key = InviteKey::generate(rng);
        let mut groups = request.groups.clone();
        if request.relay && !groups.contains(&GroupName::relay()) {
            groups.push(GroupName::relay());
        }
        let grant = InviteGrant {
            key: key.id(),
            name: request.name.clone(),
            groups,
            needs_approval: request.approval.unwrap_or(self.state.settings.approval),
            validity: Validity::starting(wall(now), request.expires_in),
            max_validity: self.state.settings.validity,
            serial: Serial(self.state.counters.serial + 1),
            prefix: self.state.settings.ula,
        };
        let mut relays = self.relay_entries();
        relays.truncate(RELAYS_IN_INVITE);
        let invite = Invite {
            network: self.network(),
            network_name: self.state.settings.name.clone(),
            controllers: self.config.servers.clone(),
            controller_key: self.config.channel_key.public(),
            successor: SuccessorRule::ByRecord,
            path_secret: PathSecretBytes((*self.config.path_secret.as_bytes()).into()),
            relays,
            delegation: delegation.clone(),
            grant: Signed::sign(self.network(), issuer, &grant),
            key: InviteSecret::from(&key),
        };
        let expires = grant.validity.not_after.0;
        let record = InviteRecord {
            key: key.id(),
            grant,
            created: wall(now),
            used_by: None,
            revoked: false,
        };
        self.state.counters.serial += 1;
        self.change(Change::Invite(Box::new(record)));
        let action = AuditAction::InviteCreated { invite: key.id() };
        self.audit(Actor::Administrator, action, now);
        Some(CreatedInvite { key: key.id(), invite: invite.to_string(), expires })
    }

    /// Invites that can never be used again make room for new ones when room is needed. Used ones
    /// stay as long as their grant is valid, because it alone would admit a second device.
    fn forget_old_invites(&mut self, now: Now) {
        if self.state.invites.len() < MAX_INVITES / 2 {
            return;
        }
        let day = 24 * 3600;
        let over = |invite: &&InviteRecord| wall(now) >= invite.grant.validity.not_after.plus(day);
        let old: Vec<_> = self.state.invites.values().filter(over).map(|i| i.key).collect();
        for key in old {
            self.change(Change::RemoveInvite(key));
        }
    }

    fn revoke_invite(&mut self, key: SignerId, now: Now) -> Answer {
        let mut invite = self.state.invites.get(&key).cloned().ok_or(AdminError::UnknownInvite)?;
        // A used invite admits nobody any more; revoking its key would expel who came in by it.
        if invite.used_by.is_none() && !self.revoke(RevocationTarget::Invite(key), wall(now)) {
            return Err(not_held(Scope::Revoke));
        }
        invite.revoked = true;
        self.change(Change::Invite(Box::new(invite)));
        self.done(AuditAction::InviteRevoked { invite: key }, now)
    }

    fn approve(&mut self, device: DeviceId, now: Now) -> Answer {
        let record = self.state.devices.get(&device).ok_or(AdminError::UnknownDevice)?;
        if !record.pending {
            return Ok(AdminAnswer::Done);
        }
        if !self.renew(device, now) {
            return Err(not_held(Scope::Renew));
        }
        self.done(AuditAction::DeviceApproved { device }, now)
    }

    /// Certifies a member again under another name; everything else stays.
    fn rename(&mut self, device: DeviceId, name: DeviceName, now: Now) -> Answer {
        let mut record =
            self.state.devices.get(&device).cloned().ok_or(AdminError::UnknownDevice)?;
        if record.name == name {
            return Ok(AdminAnswer::Done);
        }
        if self.index.names.contains_key(&name) {
            return Err(AdminError::NameTaken { name });
        }
        if record.pending {
            let what = "the device waits for approval; approve it first".to_owned();
            return Err(AdminError::OutOfBounds { what });
        }
        let (issuer, delegation) =
            self.config.keys.get(Scope::Issue).ok_or(not_held(Scope::Issue))?;
        let before = claims(&record.chain, self.network())
            .map_err(|_| AdminError::UnknownDevice)?
            .certificate;
        let validity = Validity::starting(wall(now), self.state.settings.validity);
        let certificate = Certificate { name: name.clone(), validity, ..before };
        record.chain = CertificateChain {
            delegation: delegation.clone(),
            grant: None,
            certificate: Signed::sign(self.network(), issuer, &certificate),
            renewal: None,
        };
        (record.not_before, record.not_after) = (validity.not_before, validity.not_after);
        self.index.names.remove(&record.name);
        self.index.names.insert(name.clone(), device);
        record.name = name.clone();
        self.update_member(record);
        self.done(AuditAction::DeviceRenamed { device, name }, now)
    }

    fn remove(&mut self, device: DeviceId, now: Now) -> Answer {
        if !self.state.devices.contains_key(&device) {
            return Err(AdminError::UnknownDevice);
        }
        if !self.revoke(RevocationTarget::Device(device), wall(now)) {
            return Err(not_held(Scope::Revoke));
        }
        self.expel(device, wall(now));
        self.done(AuditAction::DeviceRemoved { device }, now)
    }

    fn network_view(&self) -> NetworkView {
        let settings = &self.state.settings;
        NetworkView {
            id: self.network(),
            name: settings.name.clone(),
            mode: self.mode(),
            ula: settings.ula.to_string(),
            ipv4: settings.ipv4.to_string(),
            approval: settings.approval,
            validity: settings.validity,
            controllers: self.config.servers.iter().map(ToString::to_string).collect(),
            epoch: self.authorities.epoch(),
            devices: self.state.devices.len() as u64,
            online: self.by_device.len() as u64,
        }
    }

    fn invite_views(&self, now: Now) -> Vec<InviteView> {
        let mut views: Vec<_> = self
            .state
            .invites
            .values()
            .map(|invite| InviteView {
                key: invite.key,
                name: invite.grant.name.clone(),
                groups: invite.grant.groups.clone(),
                approval: invite.grant.needs_approval,
                created: invite.created.0,
                expires: invite.grant.validity.not_after.0,
                state: if invite.used_by.is_some() {
                    InviteState::Used
                } else if invite.revoked {
                    InviteState::Revoked
                } else if wall(now) >= invite.grant.validity.not_after {
                    InviteState::Expired
                } else {
                    InviteState::Open
                },
                used_by: invite.used_by,
            })
            .collect();
        views.sort_by_key(|view| (view.created, view.key));
        views
    }

    fn device_views(&self) -> Vec<DeviceView> {
        let view = |record: &DeviceRecord| DeviceView {
            id: record.device,
            name: record.name.clone(),
            groups: record.groups.clone(),
            address: record.address,
            ipv4: record.ipv4,
            tunnel_key: self.tunnel_key(record),
            endpoints: self.endpoints(record),
            pending: record.pending,
            online: self.by_device.contains_key(&record.device),
            joined: record.joined.0,
            expires: record.not_after.0,
        };
        self.state.devices.values().map(view).collect()
    }

    fn tunnel_key(&self, record: &DeviceRecord) -> Option<TunnelPublicKey> {
        let binding = record.binding.verify(self.network(), record.device).ok()?;
        Some(binding.tunnel_key)
    }

    fn endpoints(&self, record: &DeviceRecord) -> Vec<SocketAddr> {
        let signed = record.endpoints.as_ref();
        let endpoints = signed.and_then(|e| e.verify(self.network(), record.device).ok());
        let candidates = endpoints.map(|endpoints| endpoints.candidates).unwrap_or_default();
        candidates.into_iter().map(|candidate| candidate.address).collect()
    }

    fn relay_views(&self) -> Vec<RelayView> {
        let view = |entry: identity::RelayEntry| {
            let health = self.relays.get(&entry.device);
            RelayView {
                id: entry.device,
                urls: entry.servers.iter().map(ToString::to_string).collect(),
                stun: entry.stun,
                healthy: health.is_some_and(|health| health.healthy),
                attached: health.and_then(|health| Some(health.report?.attached)),
            }
        };
        self.relay_entries().into_iter().map(view).collect()
    }
}

pub(crate) fn not_held(scope: Scope) -> AdminError {
    AdminError::KeyNotHeld { scope: scope.to_string() }
}
