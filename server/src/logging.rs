//! Logs go to stderr, as text or as one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogFormat;

/// The variable that says what is logged, in `tracing`'s form: `info`, `knot_server=debug,warn`.
pub const FILTER_VARIABLE: &str = "KNOT_LOG_FILTER";

/// What is logged unless that says otherwise. Automerge opens spans of its own at `info` for every change, which would be
/// formatted and never shown.
const FILTER_DEFAULT: &str = "info,automerge=warn";

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The filter is not understood.
    #[error("variable {FILTER_VARIABLE}: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was started before in this process.
    #[error(transparent)]
    Started(#[from] TryInitError),
}

/// Starts logging for the whole process. Without a filter, everything from `info` up.
///
/// # Errors
/// When the filter is not understood, or logging runs already.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter.unwrap_or(FILTER_DEFAULT))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => builder.finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
