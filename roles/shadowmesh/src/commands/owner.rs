//! What the owner of a network does with its own key.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use control_proto::limits::{MAX_ITEMS_AT_ONCE, MAX_OUTLINE};
use control_proto::{
    AdminAnswer, AdminRequest, CreatedInvite, InviteRequest, MapItem, Outline, Owner, Unsigned,
};
use controller::AdminClient;
use controller::network::network_key;
use identity::{ServerAddress, TlsMode};

use super::admin::{done, rotation, unexpected};
use crate::cli::OwnerArgs;
use crate::exit::{Exit, Failure};
use crate::output::{line, note, printable};
use crate::{clock, passphrase};

/// The passphrase of a network's key.
pub(crate) const KEY_PASSPHRASE: &str = "SHADOWMESH_KEY_PASSPHRASE";

/// Opens the file of a network's key.
pub(crate) fn open(key_file: &Path) -> Result<Owner, Failure> {
    let passphrase = passphrase::ask(KEY_PASSPHRASE, "Passphrase of the network's key", false)?;
    Ok(Owner::new(network_key(key_file, passphrase.as_bytes())?))
}

/// Makes invites without the controller, which only tells where it is, if that.
pub(crate) async fn create_invites(
    client: &AdminClient,
    args: &OwnerArgs,
    key_file: &Path,
    request: &InviteRequest,
) -> Result<Vec<CreatedInvite>, Failure> {
    let outline = match &args.outline {
        Some(file) => read_outline(file)?,
        None => outline(client).await?,
    };
    invites(&open(key_file)?, &outline, request)
}

/// Makes invites with the network's own key.
pub(crate) fn invites(
    owner: &Owner,
    outline: &Outline,
    request: &InviteRequest,
) -> Result<Vec<CreatedInvite>, Failure> {
    let made = owner.invites(outline, request, &mut clock::rng(), clock::unix_time());
    let created = made?.into_iter().map(|(invite, grant)| CreatedInvite {
        key: grant.key,
        invite: invite.to_string(),
        expires: grant.validity.not_after.0,
    });
    Ok(created.collect())
}

/// What the controller says for invites.
pub(crate) async fn outline(client: &AdminClient) -> Result<Outline, Failure> {
    let AdminAnswer::Outline { outline } = client.request(&AdminRequest::Outline).await? else {
        return Err(unexpected());
    };
    outline.parse().map_err(|_| unexpected())
}

/// What waits for a signature.
pub(crate) async fn unsigned(client: &AdminClient) -> Result<Unsigned, Failure> {
    let AdminAnswer::Unsigned { unsigned } = client.request(&AdminRequest::Unsigned).await? else {
        return Err(unexpected());
    };
    unsigned.parse().map_err(|_| unexpected())
}

/// Shows what waits, and signs it if that is wanted.
pub(crate) async fn sign(client: &AdminClient, key_file: &Path, yes: bool) -> Result<(), Failure> {
    let unsigned = unsigned(client).await?;
    if unsigned.is_empty() {
        line("Nothing waits for a signature.");
        return Ok(());
    }
    describe(&unsigned);
    if !yes && !confirmed()? {
        line("Nothing was signed.");
        return Ok(());
    }
    sign_all(client, &open(key_file)?, &unsigned).await?;
    line("Signed and published.");
    Ok(())
}

/// Signs what waits and hands it to the controller.
pub(crate) async fn sign_all(
    client: &AdminClient,
    owner: &Owner,
    unsigned: &Unsigned,
) -> Result<(), Failure> {
    let signed = owner.sign(unsigned, clock::unix_millis());
    let items: Vec<String> = signed.iter().map(MapItem::to_text).collect();
    for chunk in items.chunks(MAX_ITEMS_AT_ONCE) {
        done(client.request(&AdminRequest::Publish { items: chunk.to_vec() }).await?)?;
    }
    Ok(())
}

/// Every field that will be signed: the list comes from a controller, which strict mode does not believe.
fn describe(unsigned: &Unsigned) {
    line(format_args!("epoch       {}", unsigned.epoch));
    if let Some(info) = &unsigned.info {
        let approval = if info.needs_approval { "needed" } else { "not needed" };
        line(format_args!(
            "settings    {}, {}, {}, approval {approval}",
            info.name, info.prefix, info.ipv4_prefix
        ));
        for rule in &info.traffic {
            line(format_args!("            traffic {rule}"));
        }
        line(format_args!("            padding {}", info.padding));
        for server in &info.turn {
            line(format_args!("            turn {server}"));
        }
        line(format_args!("            relays: {}", rotation(info.relay_rotation)));
        line(format_args!("            shaping {}", info.shaping));
        if info.streams_only {
            line("            streams only, no datagrams between devices");
        }
        for group in &info.peer_relays {
            line(format_args!("            peer relays: devices of group {group}"));
        }
    }
    if let Some(entry) = &unsigned.controller {
        line(format_args!("controller  channel key {}", entry.channel_key));
        entry.servers.iter().for_each(describe_server);
    }
    for entry in &unsigned.relays {
        line(format_args!("relay       {}", entry.device));
        line(format_args!("            channel key {}", entry.channel_key));
        entry.servers.iter().for_each(describe_server);
        for stun in &entry.stun {
            line(format_args!("            STUN at {stun}"));
        }
        if !entry.region.is_empty() {
            line(format_args!("            region {}", printable(&entry.region)));
        }
        for group in &entry.groups {
            line(format_args!("            for members of {group}"));
        }
    }
}

fn describe_server(server: &ServerAddress) {
    let dialled: Vec<String> = server.addresses.iter().map(ToString::to_string).collect();
    let dialled =
        if dialled.is_empty() { "what the name means".to_owned() } else { dialled.join(" ") };
    let judged = match server.tls {
        TlsMode::Plain => "no TLS".to_owned(),
        TlsMode::WebPki => "public certificate authorities".to_owned(),
        TlsMode::Pin(pin) => {
            let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("SPKI SHA-256 {pin}")
        }
    };
    let address = printable(&server.to_string());
    line(format_args!("            {address} at {dialled}, {judged}"));
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let text = "this signs with the network's key: run it at a terminal, or add --yes";
        return Err(Failure::new(Exit::Usage, text));
    }
    let failed = |error: std::io::Error| Failure::new(Exit::Host, error.to_string());
    let mut stderr = anstream::stderr();
    write!(stderr, "Sign these with the network's key? [y/N] ").map_err(failed)?;
    stderr.flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn read_outline(file: &Path) -> Result<Outline, Failure> {
    let wrong = |what: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("{}: {what}", file.display()))
    };
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_OUTLINE as u64).read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(MAX_OUTLINE as u64).read_to_string(&mut text))
    };
    read.map_err(|error| wrong(&error))?;
    text.parse().map_err(|error| wrong(&error))
}

/// Tells what is left to do after a change that only the owner can sign.
pub(crate) async fn remind(client: &AdminClient) -> Result<(), Failure> {
    if !unsigned(client).await?.is_empty() {
        note("It waits for your signature: `shadowmesh network sign --key-file FILE`.");
    }
    Ok(())
}
