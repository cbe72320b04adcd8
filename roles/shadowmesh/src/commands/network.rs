//! The network as a whole: on disk, and by its running controller.

use std::path::Path;

use control_proto::{ControllerPlace, Mode, SettingsChange, TurnText};
use controller::AdminClient;
use controller::network::NewNetwork;
use identity::{NetworkName, ParseShapingError, Shaping};
use zeroize::Zeroizing;

use super::owner::KEY_PASSPHRASE;
use super::serve::network_folder;
use super::{admin, owner};
use crate::cli::NetworkCommand;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::listen::addresses;
use crate::output::line;
use crate::values::{HostPort, Place, Traffic, Turn};
use crate::{clock, passphrase};

/// The passphrase of a backup.
const BACKUP_PASSPHRASE: &str = "SHADOWMESH_BACKUP_PASSPHRASE";

pub(crate) async fn network(
    command: NetworkCommand,
    config: &Config,
    as_json: bool,
) -> Result<(), Failure> {
    let client = AdminClient::new(config.controller_socket()?);
    let folder = network_folder(config);
    match command {
        NetworkCommand::Create { name, key_file, strict } => {
            let name: NetworkName = name
                .parse()
                .map_err(|error| Failure::new(Exit::Usage, format!("{name:?}: {error}")))?;
            let passphrase =
                passphrase::ask(KEY_PASSPHRASE, "Passphrase for the network's key", true)?;
            let mode = if strict { Mode::Strict } else { Mode::Simple };
            let passphrase = passphrase.as_bytes();
            let new = NewNetwork { name, mode, key_file: &key_file, passphrase };
            let id = folder.create(new, &mut clock::rng(), clock::unix_time()).await?;
            line(format_args!(
                "Created network {id}. Keep {} in a safe place.",
                key_file.display()
            ));
            Ok(())
        }
        NetworkCommand::Outline => {
            line(owner::outline(&client).await?);
            Ok(())
        }
        NetworkCommand::Sign { key_file, yes } => owner::sign(&client, &key_file, yes).await,
        NetworkCommand::Show => admin::show(&client, as_json).await,
        NetworkCommand::Set {
            approval,
            validity,
            controllers,
            traffic,
            padding,
            turn,
            turn_file,
            relay_rotation,
            shaping,
            peer_relays,
            streams_only,
            log_entries,
            log_age,
        } => {
            let change = SettingsChange {
                approval,
                validity: validity.map(|validity| validity.as_secs()),
                log_entries,
                log_seconds: log_age.map(|age| age.as_secs()),
                controllers: places(controllers).await,
                traffic: rules(&traffic),
                padding,
                turn: servers(turn, turn_file.as_deref())?,
                relay_rotation,
                shaping: shaped(&shaping)?,
                peer_relays: groups(peer_relays),
                streams_only,
            };
            admin::set(&client, change).await?;
            owner::remind(&client).await
        }
        NetworkCommand::Relays => admin::relays(&client, as_json).await,
        NetworkCommand::Backup { file } => {
            let passphrase = passphrase::ask(BACKUP_PASSPHRASE, "Passphrase for the backup", true)?;
            folder.backup(&file, passphrase.as_bytes()).await?;
            line(format_args!("Wrote {}.", file.display()));
            Ok(())
        }
        NetworkCommand::Restore { file, key_file } => {
            let backup = passphrase::ask(BACKUP_PASSPHRASE, "Passphrase of the backup", false)?;
            let key = passphrase::ask(KEY_PASSPHRASE, "Passphrase of the network's key", false)?;
            let id = folder.restore(
                (&file, backup.as_bytes()),
                (&key_file, key.as_bytes()),
                clock::unix_time(),
            )?;
            line(format_args!(
                "Restored network {id} under a new epoch; `shadowmesh serve` runs it."
            ));
            Ok(())
        }
    }
}

/// The places that are asked for, with the addresses that their hosts have now.
async fn places(wanted: Vec<Place>) -> Option<Vec<ControllerPlace>> {
    let is_asked = !wanted.is_empty();
    let mut places = Vec::new();
    for place in wanted {
        let Place::At(HostPort { host, port }) = place else { return Some(Vec::new()) };
        let host = host.to_string();
        let addresses = addresses(&host, port).await;
        places.push(ControllerPlace { host, port, addresses });
    }
    is_asked.then_some(places)
}

/// The rules that are asked for.
fn rules(wanted: &[Traffic]) -> Option<Vec<String>> {
    let rules = wanted.iter().filter_map(|one| match one {
        Traffic::Unruled => None,
        Traffic::Rule(rule) => Some(rule.to_string()),
    });
    (!wanted.is_empty()).then(|| rules.collect())
}

/// The groups of peer relays that are asked for.
fn groups(wanted: Vec<String>) -> Option<Vec<String>> {
    let is_asked = !wanted.is_empty();
    is_asked.then(|| wanted.into_iter().filter(|group| group != "none").collect())
}

/// The TURN servers that are asked for, on the command line or in a file.
fn servers(wanted: Vec<Turn>, file: Option<&Path>) -> Result<Option<Vec<TurnText>>, Failure> {
    let mut wanted = wanted;
    if let Some(file) = file {
        let wrong = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let text = Zeroizing::new(text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let parsed =
            lines.map(|line| line.parse::<Turn>().map_err(|error| wrong(error.to_string())));
        wanted = parsed.collect::<Result<_, _>>()?;
    }
    let is_asked = !wanted.is_empty();
    let servers = wanted.into_iter().filter_map(|one| match one {
        Turn::Unused => None,
        Turn::Server(server) => Some(TurnText(server)),
    });
    Ok(is_asked.then(|| servers.collect()))
}

/// The shaping that is asked for.
fn shaped(words: &[String]) -> Result<Option<Shaping>, Failure> {
    let parsed = (!words.is_empty()).then(|| words.join(" ").parse()).transpose();
    parsed.map_err(|error: ParseShapingError| Failure::new(Exit::Usage, error.to_string()))
}

/// A host's name as a label: its first part, without what labels cannot have.
pub(crate) fn label(host: &str) -> String {
    let first = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let label: String = first
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_labels() {
        assert_eq!(label("My_Laptop.example.org"), "my-laptop");
        assert_eq!(label("-x-"), "x");
    }
}
