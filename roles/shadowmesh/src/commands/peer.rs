//! Plain WireGuard peers: a printer's gateway, a phone with nothing but the WireGuard application.

use std::fmt::Write as _;
use std::net::IpAddr;

use control_proto::{AdminAnswer, AdminRequest, DeviceView, PeerRequest, PeerView};
use controller::AdminClient;

use super::admin::{devices, done, parsed, remaining, unexpected};
use crate::cli::PeerCommand;
use crate::exit::Failure;
use crate::output::{json, line, note, table};

/// The least that every path carries.
const MTU: u16 = 1280;
/// Seconds: below what NATs forget, since only the peer can call.
const KEEPALIVE: u16 = 25;

pub(crate) async fn peer(
    client: &AdminClient,
    command: PeerCommand,
    as_json: bool,
) -> Result<(), Failure> {
    match command {
        PeerCommand::Add { name, key, expires } => {
            let (name, key) = (parsed(&name)?, parsed(&key)?);
            let request = PeerRequest { key, name, expires_in: expires.as_secs() };
            let added = peers(client, &AdminRequest::AddPeer(request)).await?;
            let devices = devices(client).await?;
            let peer = added.first().ok_or_else(unexpected)?;
            if as_json {
                json(peer);
            } else {
                note(format_args!(
                    "For the peer's `wg-quick`; it calls first, and reaches the devices listed here."
                ));
                line(configuration(peer, &devices).trim_end());
            }
        }
        PeerCommand::List => {
            let peers = peers(client, &AdminRequest::Peers).await?;
            if as_json {
                json(&peers);
            } else {
                let rows: Vec<Vec<String>> = peers.iter().map(row).collect();
                table(&["NAME", "ADDRESSES", "EXPIRES", "KEY"], &rows);
            }
        }
        PeerCommand::Remove { name } => {
            let request = AdminRequest::RemovePeer { name: parsed(&name)? };
            done(client.request(&request).await?)?;
            line("Removed: the devices stop talking to it within seconds.");
        }
    }
    Ok(())
}

async fn peers(client: &AdminClient, request: &AdminRequest) -> Result<Vec<PeerView>, Failure> {
    let AdminAnswer::Peers { peers } = client.request(request).await? else {
        return Err(unexpected());
    };
    Ok(peers)
}

/// What the peer writes into its configuration beside its private key.
fn configuration(peer: &PeerView, devices: &[DeviceView]) -> String {
    let mut text = format!(
        "[Interface]\n# PrivateKey = the one that belongs to {}\nAddress = {}\nMTU = {MTU}\n",
        peer.key,
        list(&peer.addresses)
    );
    let usable = devices.iter().filter(|device| !device.pending);
    for device in usable {
        let (Some(key), Some(endpoint)) = (&device.tunnel_key, device.endpoints.last()) else {
            continue;
        };
        let ipv4 = device.ipv4.map(IpAddr::V4);
        let addresses: Vec<_> = [device.address.into()].into_iter().chain(ipv4).collect();
        let _ = write!(
            text,
            "\n# {}\n[Peer]\nPublicKey = {key}\nAllowedIPs = {}\nEndpoint = {endpoint}\n\
             PersistentKeepalive = {KEEPALIVE}\n",
            device.name,
            list(&addresses)
        );
    }
    text
}

fn row(peer: &PeerView) -> Vec<String> {
    vec![
        peer.name.to_string(),
        list(&peer.addresses),
        remaining(peer.expires),
        peer.key.to_string(),
    ]
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses = addresses.iter().map(|address| match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    });
    addresses.collect::<Vec<_>>().join(", ")
}
