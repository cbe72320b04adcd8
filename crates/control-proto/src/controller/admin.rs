//! What administrators ask for.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use identity::{
    Certificate, CertificateChain, DeviceId, DeviceName, GroupName, MAX_GROUPS, MAX_TRAFFIC_RULES,
    MAX_TURN_SERVERS, ParseTrafficRuleError, ParseTurnServerError, RevocationTarget, Scope, Serial,
    Shaping, Signed, SignerId, TrafficRule, TunnelPublicKey, TurnServer, Validity,
};
use noise_channel::Now;
use rand_core::CryptoRng;
use shaping::Plan;

use super::{Change, Controller, DeviceRecord, InviteRecord, Reply, Ticket, wall};
use crate::limits::{LOG_ENTRIES, LOG_SECONDS, MAX_INVITES, MAX_PLACES, RELAY_ROTATION};
use crate::owner::{InviteOrder, check};
use crate::{
    Actor, AdminAnswer, AdminError, AdminRequest, AuditAction, ControllerPlace, CreatedInvite,
    DeviceView, InviteRequest, InviteState, InviteView, NetworkView, RelayView, SettingsChange,
    TurnText,
};

pub(crate) type Answer = Result<AdminAnswer, AdminError>;

/// The shortest membership: renewal at half of it must be possible over a night.
const SHORTEST_VALIDITY: u64 = 3_600;

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
            AdminRequest::Network => Ok(AdminAnswer::Network(self.network_view().into())),
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
            AdminRequest::AddName(request) => self.add_name(request, now),
            AdminRequest::Names => Ok(self.name_views()),
            AdminRequest::RemoveName { name } => self.remove_name(&name, now),
            AdminRequest::Relays => Ok(AdminAnswer::Relays { relays: self.relay_views() }),
            AdminRequest::Outline => {
                Ok(AdminAnswer::Outline { outline: self.outline().to_string() })
            }
            AdminRequest::Unsigned => {
                Ok(AdminAnswer::Unsigned { unsigned: self.unsigned().to_string() })
            }
            AdminRequest::Publish { items } => self.publish_signed(&items, now),
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
            settings.validity = self.checked_validity(validity)?;
        }
        if let Some(approval) = change.approval {
            settings.approval = approval;
        }
        settings.logs.entries = checked(change.log_entries, LOG_ENTRIES, "entries of a log")?
            .unwrap_or(settings.logs.entries);
        settings.logs.seconds = checked(change.log_seconds, LOG_SECONDS, "seconds in a log")?
            .unwrap_or(settings.logs.seconds);
        if let Some(controllers) = &change.controllers {
            settings.controllers = checked_places(controllers)?;
        }
        if let Some(rules) = &change.traffic {
            settings.traffic = checked_rules(rules)?;
        }
        settings.padding = change.padding.unwrap_or(settings.padding);
        if let Some(servers) = &change.turn {
            settings.turn = checked_turn(servers)?;
        }
        if let Some(seconds) = change.relay_rotation {
            settings.relay_rotation = checked_rotation(seconds)?;
        }
        if let Some(shaping) = &change.shaping {
            settings.shaping = checked_shaping(shaping)?;
        }
        if let Some(groups) = &change.peer_relays {
            settings.peer_relays = checked_groups(groups)?;
        }
        settings.streams_only = change.streams_only.unwrap_or(settings.streams_only);
        self.change(Change::Settings(settings));
        self.publish_info(wall(now));
        self.publish_controller(wall(now));
        self.prune_logs(now);
        self.done(AuditAction::SettingsChanged { change: change.without_secrets() }, now)
    }

    fn checked_validity(&self, validity: u64) -> Result<u64, AdminError> {
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
        Ok(validity)
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
        check(request)?;
        if request.relay && !self.holds(Scope::Relays) {
            return Err(not_held(Scope::Relays));
        }
        if let Some(name) = &request.name
            && self.index.names.contains_key(name)
        {
            return Err(AdminError::NameTaken { name: name.clone() });
        }
        Ok(())
    }

    fn create_invite(
        &mut self,
        request: &InviteRequest,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Option<CreatedInvite> {
        let issuer = self.config.keys.get(Scope::Issue)?;
        let serial = Serial(self.state.counters.serial + 1);
        let order = InviteOrder { request, issuer, serial };
        let (invite, grant) = self.outline().invite(&order, rng, wall(now));
        let key = grant.key;
        let expires = grant.validity.not_after.0;
        let record = InviteRecord { key, grant, created: wall(now), used_by: None, revoked: false };
        self.state.counters.serial += 1;
        self.change(Change::Invite(Box::new(record)));
        let action = AuditAction::InviteCreated { invite: key };
        self.audit(Actor::Administrator, action, now);
        Some(CreatedInvite { key, invite: invite.to_string(), expires })
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
        let Some(mut invite) = self.state.invites.get(&key).cloned() else {
            return self.revoke_unknown_invite(key, now);
        };
        // A used invite admits nobody any more; revoking its key would expel who came in by it.
        if invite.used_by.is_none() && !self.revoke(RevocationTarget::Invite(key), wall(now)) {
            return Err(not_held(Scope::Revoke));
        }
        invite.revoked = true;
        self.change(Change::Invite(Box::new(invite)));
        self.done(AuditAction::InviteRevoked { invite: key }, now)
    }

    /// An invite that the owner made is not known here before it is used.
    fn revoke_unknown_invite(&mut self, key: SignerId, now: Now) -> Answer {
        if self.holds(Scope::Issue) {
            return Err(AdminError::UnknownInvite);
        }
        if !self.revoke(RevocationTarget::Invite(key), wall(now)) {
            return Err(not_held(Scope::Revoke));
        }
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
        let proof = record.chain.prove(&self.authorities).map_err(|_| AdminError::UnknownDevice)?;
        let validity = Validity::starting(wall(now), self.state.settings.validity);
        let certificate =
            Certificate { name: name.clone(), validity, ..proof.certificate().clone() };
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
            log_entries: settings.logs.entries,
            log_seconds: settings.logs.seconds,
            controllers: self.servers().iter().map(ToString::to_string).collect(),
            traffic: settings.traffic.clone(),
            padding: settings.padding,
            turn: settings.turn.iter().map(ToString::to_string).collect(),
            relay_rotation: settings.relay_rotation,
            shaping: settings.shaping.clone(),
            peer_relays: settings.peer_relays.clone(),
            streams_only: settings.streams_only,
            epoch: self.authorities.epoch(),
            unsigned: self.unsigned().len() as u64,
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
            let report = health.and_then(|health| health.report);
            RelayView {
                id: entry.device,
                urls: entry.servers.iter().map(ToString::to_string).collect(),
                stun: entry.stun,
                healthy: health.is_some_and(|health| health.healthy),
                attached: report.map(|report| report.attached),
                cpu_permille: report.map(|report| report.cpu_permille),
                busy_permille: report.map(|report| report.busy_permille),
                region: entry.region,
                groups: entry.groups,
            }
        };
        self.relay_entries().into_iter().map(view).collect()
    }
}

/// Seconds between two choices of relays: never, or so far apart that links to relays are not all that devices make.
fn checked_rotation(seconds: u32) -> Result<u32, AdminError> {
    if seconds == 0 || RELAY_ROTATION.contains(&seconds) {
        return Ok(seconds);
    }
    let (least, most) = (RELAY_ROTATION.start(), RELAY_ROTATION.end());
    let what = format!("relays are changed after {least} to {most} seconds, or never (0)");
    Err(AdminError::OutOfBounds { what })
}

fn checked_groups(groups: &[String]) -> Result<Vec<GroupName>, AdminError> {
    if groups.len() > MAX_GROUPS {
        return Err(AdminError::Full { what: "groups of peer relays".into(), limit: MAX_GROUPS });
    }
    let parsed = groups.iter().map(|group| {
        group
            .parse()
            .map_err(|error| AdminError::OutOfBounds { what: format!("{group:?}: {error}") })
    });
    parsed.collect()
}

fn checked(
    wanted: Option<u64>,
    bounds: RangeInclusive<u64>,
    what: &str,
) -> Result<Option<u64>, AdminError> {
    match wanted {
        Some(number) if !bounds.contains(&number) => {
            let what = format!("{} to {} {what} are kept", bounds.start(), bounds.end());
            Err(AdminError::OutOfBounds { what })
        }
        Some(_) | None => Ok(wanted),
    }
}

/// A DNS name has 253 characters at most (RFC 1035 section 2.3.4).
fn checked_places(places: &[ControllerPlace]) -> Result<Vec<ControllerPlace>, AdminError> {
    let is_good = |place: &ControllerPlace| {
        let host = &place.host;
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        (1..=253).contains(&host.len())
            && plain
            && place.port != 0
            && place.addresses.len() <= MAX_PLACES
    };
    if places.len() <= MAX_PLACES && places.iter().all(is_good) {
        return Ok(places.to_vec());
    }
    let what = format!(
        "a controller has up to {MAX_PLACES} places, each a host name or address and a port"
    );
    Err(AdminError::OutOfBounds { what })
}

fn checked_rules(rules: &[String]) -> Result<Vec<TrafficRule>, AdminError> {
    if rules.len() > MAX_TRAFFIC_RULES {
        let what = format!("a network has up to {MAX_TRAFFIC_RULES} rules for traffic");
        return Err(AdminError::OutOfBounds { what });
    }
    let parsed = rules.iter().map(|rule| rule.parse());
    parsed
        .collect::<Result<_, ParseTrafficRuleError>>()
        .map_err(|error| AdminError::OutOfBounds { what: error.to_string() })
}

fn checked_turn(servers: &[TurnText]) -> Result<Vec<TurnServer>, AdminError> {
    if servers.len() > MAX_TURN_SERVERS {
        let what = format!("a network has up to {MAX_TURN_SERVERS} TURN servers");
        return Err(AdminError::OutOfBounds { what });
    }
    let parsed = servers.iter().map(|server| server.0.as_str().parse());
    parsed
        .collect::<Result<_, ParseTurnServerError>>()
        .map_err(|error| AdminError::OutOfBounds { what: error.to_string() })
}

pub(crate) fn not_held(scope: Scope) -> AdminError {
    AdminError::KeyNotHeld { scope: scope.to_string() }
}

/// What every member can do.
fn checked_shaping(shaping: &Shaping) -> Result<Shaping, AdminError> {
    match Plan::new(shaping) {
        Ok(_) => Ok(shaping.clone()),
        Err(error) => Err(AdminError::OutOfBounds { what: error.to_string() }),
    }
}
