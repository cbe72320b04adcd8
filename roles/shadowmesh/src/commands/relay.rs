//! Asking the relay on this host.

use relay::{AdminClient, AdminClientError, Drained, Whereabouts};

use crate::exit::{Exit, Failure};
use crate::output::{json, line};

/// `relay drain`.
pub(crate) async fn drain(client: &AdminClient, undo: bool, as_json: bool) -> Result<(), Failure> {
    if undo {
        client.undo_drain().await?;
        line("Devices may use this relay again.");
        return Ok(());
    }
    let drained = client.drain().await?;
    if as_json {
        json(&drained);
    }
    let mut failed = Ok(());
    for Drained { network, devices } in drained {
        let failure = match devices {
            Whereabouts::Elsewhere if as_json => continue,
            Whereabouts::Elsewhere => {
                line(format_args!("{network}: its devices use other relays."));
                continue;
            }
            Whereabouts::Leaving => Failure::new(
                Exit::Timeout,
                format!("{network}: something still passes; ask again before you stop the relay"),
            ),
            Whereabouts::Here => Failure::new(
                Exit::Refused,
                format!(
                    "{network}: its devices stay, since no other relay or no controller is there; add a relay with `shadowmesh invite create --relay`"
                ),
            ),
        };
        failed = failed.and(Err(failure));
    }
    failed
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let advice = "is this the relay's host?";
        Self::of_request(&error, ("relay", advice), |never| match *never {})
    }
}
