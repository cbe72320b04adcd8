//! Logs go to standard error.

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::exit::{Exit, Failure};

/// Starts logging, with a filter such as `info` or `info,engine=debug`.
pub(crate) fn start(filter: Option<&str>, format: LogFormat) -> Result<(), Failure> {
    let filter = filter.unwrap_or("info");
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| Failure::new(Exit::Usage, format!("log filter {filter:?}: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(anstream::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
