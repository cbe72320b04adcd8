//! What the controller has written down: security events and administrative changes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control_proto::DeviceView;
use controller::AdminClient;
use controller::store::Page;
use serde::Serialize;
use serde_json::Value;

use super::admin::{devices, short};
use crate::cli::LogCommand;
use crate::exit::Failure;
use crate::output::{json, line, printable, rough, table};

pub(crate) async fn log(
    client: &AdminClient,
    command: LogCommand,
    as_json: bool,
) -> Result<(), Failure> {
    match command {
        LogCommand::Events { limit } => {
            let events = client.events(Page { before: None, limit }).await?;
            if as_json {
                json(&events);
                return Ok(());
            }
            let names = Names(devices(client).await?);
            let rows: Vec<_> = events
                .iter()
                .map(|row| {
                    let reporter = row.entry.reporter.map(|id| names.of(&id.to_string()));
                    let reporter = reporter.unwrap_or_else(|| "controller".to_owned());
                    names.row((row.sequence, row.entry.at), reporter, &row.entry.event)
                })
                .collect();
            table(&["NUMBER", "AGO", "NOTICED BY", "WHAT", "DETAILS"], &rows);
        }
        LogCommand::Audit { limit } => {
            let entries = client.audit(Page { before: None, limit }).await?;
            if as_json {
                json(&entries);
                return Ok(());
            }
            let names = Names(devices(client).await?);
            let rows: Vec<_> = entries
                .iter()
                .map(|row| {
                    let (kind, details) = names.described(&row.entry.actor);
                    let actor = if details.is_empty() { kind } else { details };
                    names.row((row.sequence, row.entry.at), actor, &row.entry.action)
                })
                .collect();
            table(&["NUMBER", "AGO", "BY", "WHAT", "DETAILS"], &rows);
        }
        LogCommand::Verify => {
            client.verify_logs().await?;
            if as_json {
                json(&serde_json::json!({ "whole": true }));
                return Ok(());
            }
            line("Both logs are whole: every row follows from the one before.");
        }
    }
    Ok(())
}

/// Who is who, as far as the network still knows.
struct Names(Vec<DeviceView>);

impl Names {
    fn of(&self, id: &str) -> String {
        let device = self.0.iter().find(|device| device.id.to_string() == id);
        device.map_or_else(|| short(id), |device| device.name.to_string())
    }

    fn row(&self, (number, at): (u64, u64), who: String, what: &impl Serialize) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let ago = rough(Duration::from_secs(now.saturating_sub(at)));
        let (kind, details) = self.described(what);
        vec![number.to_string(), ago, who, kind, details]
    }

    /// The kind of something logged, and its fields.
    fn described(&self, what: &impl Serialize) -> (String, String) {
        let mut kind = String::new();
        let mut details = Vec::new();
        let value = serde_json::to_value(what).unwrap_or_default();
        for (field, value) in value.as_object().into_iter().flatten() {
            match (field.as_str(), value.as_str()) {
                ("kind", Some(value)) => value.clone_into(&mut kind),
                ("device", Some(id)) => details.push(format!("device {}", self.of(id))),
                (field, Some(text)) => {
                    details.push(format!("{field} {}", printable(text)));
                }
                (_, None) if *value == Value::Null => {}
                (field, None) => details.push(format!("{field} {value}")),
            }
        }
        (kind, details.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use control_proto::SecurityEvent;

    use super::*;

    #[test]
    fn an_event_is_shown_by_its_kind_and_its_fields_without_what_steers_a_terminal() {
        let event = SecurityEvent::ForgedCertificate { reason: "not\u{1b}[2J good".into() };
        assert_eq!(
            Names(Vec::new()).described(&event),
            ("forged-certificate".into(), "reason not[2J good".into())
        );
    }
}
