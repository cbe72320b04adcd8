//! What asks a running controller: invites, devices, the network.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control_proto::{
    AdminAnswer, AdminError, AdminRequest, CreatedInvite, DeviceView, InviteRequest, InviteState,
    InviteView, Mode, NetworkView, RelayView, SettingsChange,
};
use controller::{AdminClient, AdminClientError};
use identity::DeviceName;

use super::owner;
use crate::cli::{DeviceCommand, InviteCommand};
use crate::exit::{Exit, Failure};
use crate::output::{BOLD, GOOD, WARN, json, line, note, printable, rough, styled, table};

/// Characters of a key that must be given to name it.
const KEY_BEGINNING: usize = 8;

pub(crate) async fn invite(
    client: &AdminClient,
    command: InviteCommand,
    as_json: bool,
) -> Result<(), Failure> {
    match command {
        InviteCommand::Create { name, groups, expires, uses, approval, relay, owner } => {
            let request = InviteRequest {
                name: name.map(|name| parsed(&name)).transpose()?,
                groups: groups.iter().map(|group| parsed(group)).collect::<Result<_, _>>()?,
                expires_in: expires.as_secs(),
                uses,
                approval,
                relay,
            };
            let invites = match &owner.key_file {
                Some(file) => owner::create_invites(client, &owner, file, &request).await?,
                None => created(client, request).await?,
            };
            if as_json {
                json(&invites);
            } else {
                let command = if relay { "relay" } else { "up" };
                note(format_args!(
                    "Each admits one device, by `shadowmesh {command} INVITE`, and is a secret until then."
                ));
                for invite in &invites {
                    line(&invite.invite);
                }
            }
        }
        InviteCommand::List => {
            let invites = invites(client).await?;
            if as_json {
                json(&invites);
            } else {
                let rows: Vec<Vec<String>> = invites.iter().map(invite_row).collect();
                table(&["KEY", "STATE", "NAME", "GROUPS", "EXPIRES"], &rows);
            }
        }
        InviteCommand::Revoke { key } => {
            let invites = invites(client).await?;
            let mut matching =
                invites.iter().filter(|invite| invite.key.to_string().starts_with(&key)).peekable();
            // The controller does not know what the owner made, unless it is used.
            let invite = match (matching.peek(), key.parse()) {
                (None, Ok(whole)) => whole,
                (Some(_), _) | (None, Err(_)) => only(matching, "invite", &key)?.key,
            };
            done(client.request(&AdminRequest::RevokeInvite { invite }).await?)?;
            line("Revoked.");
        }
    }
    Ok(())
}

/// The device with this name, or with an id that begins so.
pub(crate) fn find_device<'a>(
    devices: &'a [DeviceView],
    name: &str,
) -> Result<&'a DeviceView, Failure> {
    let named = devices.iter().find(|device| device.name.as_str() == name);
    let by_id = |device: &&DeviceView| begins(&device.id.to_string(), name);
    named.map_or_else(|| only(devices.iter().filter(by_id), "device", name), Ok)
}

pub(crate) async fn device(
    client: &AdminClient,
    command: DeviceCommand,
    as_json: bool,
) -> Result<(), Failure> {
    let devices = devices(client).await?;
    let find = |name: &str| find_device(&devices, name);
    match command {
        DeviceCommand::List => {
            if as_json {
                json(&devices);
            } else {
                let rows: Vec<Vec<String>> = devices.iter().map(device_row).collect();
                table(&["NAME", "STATE", "ADDRESS", "IPV4", "GROUPS", "EXPIRES", "ID"], &rows);
            }
        }
        DeviceCommand::Approve { device } => {
            let device = find(&device)?;
            done(client.request(&AdminRequest::ApproveDevice { device: device.id }).await?)?;
            line(format_args!("Approved {}.", called(device)));
        }
        DeviceCommand::Rename { device, name } => {
            let device = find(&device)?;
            let name: DeviceName = parsed(&name)?;
            let request = AdminRequest::RenameDevice { device: device.id, name: name.clone() };
            done(client.request(&request).await?)?;
            line(format_args!("Renamed {} to {name}.", called(device)));
        }
        DeviceCommand::Remove { device } => {
            let device = find(&device)?;
            done(client.request(&AdminRequest::RemoveDevice { device: device.id }).await?)?;
            line(format_args!(
                "Removed and revoked {}: the others stop talking to it within seconds.",
                called(device)
            ));
        }
    }
    Ok(())
}

pub(crate) async fn show(client: &AdminClient, as_json: bool) -> Result<(), Failure> {
    let network = network(client).await?;
    if as_json {
        json(&network);
        return Ok(());
    }
    let admission = match network.mode {
        Mode::Simple => "simple: this controller holds keys that can admit devices",
        Mode::Strict => "strict: this controller cannot admit devices",
    };
    line(format_args!("{}  {}", styled(BOLD, format_args!("{}.alt", network.name)), network.id));
    line(format_args!("  mode         {admission}"));
    line(format_args!("  prefixes     {}  {}", network.ula, network.ipv4));
    line(format_args!("  approval     {}", if network.approval { "needed" } else { "not needed" }));
    line(format_args!(
        "  membership   valid for {}, renewed before",
        rough(Duration::from_secs(network.validity))
    ));
    line(format_args!("  controllers  {}", network.controllers.join("  ")));
    for rule in &network.traffic {
        line(format_args!("  traffic      {rule}"));
    }
    line(format_args!("  padding      {}", network.padding));
    for server in &network.turn {
        line(format_args!("  turn         {server}"));
    }
    line(format_args!("  relays       {}", rotation(network.relay_rotation)));
    line(format_args!("  shaping      {}", network.shaping));
    if network.streams_only {
        line("  datagrams    none between devices, streams only");
    }
    for group in &network.peer_relays {
        line(format_args!("  peer relays  devices of group {group}"));
    }
    line(format_args!(
        "  logs         {} entries each, {}",
        network.log_entries,
        rough(Duration::from_secs(network.log_seconds))
    ));
    line(format_args!("  devices      {}, {} online", network.devices, network.online));
    line(format_args!("  epoch        {}", network.epoch));
    if network.unsigned > 0 {
        let waiting = format!("{} records wait for `network sign`", network.unsigned);
        line(format_args!("  unsigned     {}", styled(WARN, waiting)));
    }
    Ok(())
}

pub(crate) async fn set(client: &AdminClient, change: SettingsChange) -> Result<(), Failure> {
    done(client.request(&AdminRequest::ChangeSettings(change)).await?)?;
    line("Changed.");
    Ok(())
}

pub(crate) async fn relays(client: &AdminClient, as_json: bool) -> Result<(), Failure> {
    let AdminAnswer::Relays { relays } = client.request(&AdminRequest::Relays).await? else {
        return Err(unexpected());
    };
    if as_json {
        json(&relays);
    } else {
        let rows: Vec<Vec<String>> = relays.iter().map(relay_row).collect();
        table(&["ID", "STATE", "ATTACHED", "CPU", "BUSY", "REGION", "GROUPS", "ADDRESSES"], &rows);
    }
    Ok(())
}

/// Makes invites and returns them with their secrets.
pub(crate) async fn created(
    client: &AdminClient,
    request: InviteRequest,
) -> Result<Vec<CreatedInvite>, Failure> {
    let AdminAnswer::InvitesCreated { invites } =
        client.request(&AdminRequest::CreateInvite(request)).await?
    else {
        return Err(unexpected());
    };
    Ok(invites)
}

async fn network(client: &AdminClient) -> Result<NetworkView, Failure> {
    let AdminAnswer::Network(network) = client.request(&AdminRequest::Network).await? else {
        return Err(unexpected());
    };
    Ok(*network)
}

async fn invites(client: &AdminClient) -> Result<Vec<InviteView>, Failure> {
    let AdminAnswer::Invites { invites } = client.request(&AdminRequest::Invites).await? else {
        return Err(unexpected());
    };
    Ok(invites)
}

pub(crate) async fn devices(client: &AdminClient) -> Result<Vec<DeviceView>, Failure> {
    let AdminAnswer::Devices { devices } = client.request(&AdminRequest::Devices).await? else {
        return Err(unexpected());
    };
    Ok(devices)
}

fn invite_row(invite: &InviteView) -> Vec<String> {
    let state = match invite.state {
        InviteState::Open => "open",
        InviteState::Used => "used",
        InviteState::Expired => "expired",
        InviteState::Revoked => "revoked",
    };
    vec![
        short(&invite.key.to_string()),
        state.to_owned(),
        invite.name.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        groups(&invite.groups),
        remaining(invite.expires),
    ]
}

fn device_row(device: &DeviceView) -> Vec<String> {
    let state = if device.pending {
        styled(WARN, "waiting")
    } else if device.online {
        styled(GOOD, "online")
    } else {
        "offline".to_owned()
    };
    vec![
        device.name.to_string(),
        state,
        device.address.to_string(),
        device.ipv4.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        groups(&device.groups),
        remaining(device.expires),
        short(&device.id.to_string()),
    ]
}

fn relay_row(relay: &RelayView) -> Vec<String> {
    vec![
        short(&relay.id.to_string()),
        if relay.healthy { styled(GOOD, "healthy") } else { styled(WARN, "no reports") },
        relay.attached.map_or_else(|| "-".to_owned(), |attached| attached.to_string()),
        relay.cpu_permille.map_or_else(|| "-".to_owned(), |cpu| format!("{} %", cpu / 10)),
        relay.busy_permille.map_or_else(|| "-".to_owned(), |busy| format!("{} %", busy / 10)),
        if relay.region.is_empty() { "-".to_owned() } else { printable(&relay.region) },
        groups(&relay.groups),
        relay.urls.join(" "),
    ]
}

/// When devices are at home at other relays.
pub(crate) fn rotation(seconds: u32) -> String {
    match seconds {
        0 => "the nearest, for as long as they are well".to_owned(),
        _ => format!("others after {}", rough(Duration::from_secs(seconds.into()))),
    }
}

fn groups(groups: &[identity::GroupName]) -> String {
    if groups.is_empty() {
        return "-".to_owned();
    }
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// How long from now, for a time in seconds since the Unix epoch.
pub(crate) fn remaining(until: u64) -> String {
    match until.checked_sub(unix_seconds()) {
        Some(seconds) => format!("in {}", rough(Duration::from_secs(seconds))),
        None => "over".to_owned(),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether `name` is a key, or enough of its beginning that nobody means another by it.
fn begins(key: &str, name: &str) -> bool {
    name.len() >= KEY_BEGINNING && key.starts_with(name)
}

/// A device as it was found, so that a mistake is seen.
fn called(device: &DeviceView) -> String {
    format!("{} ({})", device.name, short(&device.id.to_string()))
}

/// Enough of a key to tell it from others and to name it in a command.
pub(crate) fn short(key: &str) -> String {
    key.chars().take(12).collect()
}

fn only<'a, T>(
    mut found: impl Iterator<Item = &'a T>,
    what: &str,
    name: &str,
) -> Result<&'a T, Failure> {
    let first = found.next().ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("there is no {what} {name}; `shadowmesh {what} list` shows all"),
        )
    })?;
    if found.next().is_some() {
        return Err(Failure::new(
            Exit::Usage,
            format!("{name} fits more than one {what}; write more of it"),
        ));
    }
    Ok(first)
}

pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))
}

pub(crate) fn done(answer: AdminAnswer) -> Result<(), Failure> {
    let AdminAnswer::Done = answer else { return Err(unexpected()) };
    Ok(())
}

pub(crate) fn unexpected() -> Failure {
    Failure::new(
        Exit::Other,
        "the controller's answer does not fit the question; is it of another version?",
    )
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::new(exit_of(&error), error.to_string())
    }
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let advice = "start it with `shadowmesh serve`, or name its --state-dir";
        Self::of_request(&error, ("controller", advice), exit_of)
    }
}

fn exit_of(error: &AdminError) -> Exit {
    match error {
        AdminError::UnknownDevice
        | AdminError::UnknownInvite
        | AdminError::UnknownPeer
        | AdminError::UnknownName
        | AdminError::UnknownRelay => Exit::NotFound,
        AdminError::NameTaken { .. }
        | AdminError::KeyNotHeld { .. }
        | AdminError::NotBelieved { .. }
        | AdminError::Full { .. } => Exit::Refused,
        AdminError::OutOfBounds { .. } | AdminError::OtherNetwork | AdminError::NameForMany => {
            Exit::Usage
        }
    }
}
