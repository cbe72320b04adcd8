//! What the controller has written down: security events and administrative changes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use controller::AdminClient;
use controller::store::Page;
use serde_json::Value;

use crate::cli::LogCommand;
use crate::exit::Failure;
use crate::output::{json, line, rough, table};

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
            let rows = events.into_iter().map(|row| {
                let reporter = row.entry.reporter;
                let reporter =
                    reporter.map_or_else(|| "controller".to_owned(), |device| device.to_string());
                described(row.sequence, row.entry.at, reporter, &row.entry.event)
            });
            table(
                &["NUMBER", "WHEN", "REPORTED BY", "EVENT", "DETAILS"],
                &rows.collect::<Vec<_>>(),
            );
        }
        LogCommand::Audit { limit } => {
            let entries = client.audit(Page { before: None, limit }).await?;
            if as_json {
                json(&entries);
                return Ok(());
            }
            let rows = entries.into_iter().map(|row| {
                let (actor, _) = kind_and_details(&row.entry.actor);
                described(row.sequence, row.entry.at, actor, &row.entry.action)
            });
            table(&["NUMBER", "WHEN", "BY", "CHANGE", "DETAILS"], &rows.collect::<Vec<_>>());
        }
        LogCommand::Verify => {
            client.verify_logs().await?;
            line("Both logs are whole: every row follows from the one before.");
        }
    }
    Ok(())
}

fn described(sequence: u64, at: u64, who: String, what: &impl serde::Serialize) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let when = format!("{} ago", rough(Duration::from_secs(now.saturating_sub(at))));
    let (kind, details) = kind_and_details(what);
    vec![sequence.to_string(), when, who, kind, details]
}

/// The kind that a logged value is tagged with, and its other fields.
fn kind_and_details(what: &impl serde::Serialize) -> (String, String) {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(what) else {
        return Default::default();
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    let kind = fields.remove("kind").map(text).unwrap_or_default();
    let details: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
    (kind, details.join(", "))
}

#[cfg(test)]
mod tests {
    use control_proto::SecurityEvent;

    use super::*;

    #[test]
    fn an_event_is_shown_by_its_kind_and_its_fields() {
        let event =
            SecurityEvent::ForgedCertificate { reason: "the certificate is not good".into() };
        assert_eq!(
            kind_and_details(&event),
            ("forged-certificate".into(), "reason: the certificate is not good".into())
        );
    }
}
