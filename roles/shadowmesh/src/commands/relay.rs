//! Asking the relay on this host.

use relay::{AdminClient, AdminClientError, Drained};

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
    } else {
        for Drained { network, .. } in drained.iter().filter(|one| one.sent) {
            line(format_args!("{network}: its devices use other relays."));
        }
    }
    match drained.iter().find(|one| !one.sent) {
        Some(one) => {
            let text = format!(
                "the devices of {} stay: no other relay, or no controller, is there",
                one.network
            );
            Err(Failure::new(Exit::Refused, text))
        }
        None => Ok(()),
    }
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let text = error.to_string();
        match error {
            AdminClientError::NotRunning { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                let text = format!("{text}; use the user who runs the relay, or root");
                Self::new(Exit::Refused, text)
            }
            AdminClientError::NotRunning { .. } => {
                Self::new(Exit::NotRunning, format!("{text}; is this the relay's host?"))
            }
            AdminClientError::Refused(never) => match never {},
            AdminClientError::Timeout => Self::new(Exit::Timeout, text),
            AdminClientError::Failed(_) | AdminClientError::Protocol | _ => {
                Self::new(Exit::Other, text)
            }
        }
    }
}
