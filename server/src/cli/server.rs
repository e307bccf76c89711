//! `knot server`.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::config::{Config, LogFormat, SETTINGS};
use crate::logging;
use crate::start::start;

/// The arguments of `knot server`.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The configuration [env: KNOT_CONFIG] [default: knot.toml in ., ~, ~/.config/knot or /etc/knot]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log JSON, whatever the configuration says
    #[arg(long)]
    pub json: bool,
}

/// Examples, and every setting with the variable that overrides it.
pub(super) fn after_help() -> String {
    let mut text = String::from(
        "EXAMPLES:
  knot server                        on 127.0.0.1:3000, data in ./knot-data
  knot server --config knot.toml
  KNOT_LISTEN=0.0.0.0:3000 KNOT_ZONE=au knot server

SETTINGS of knot.toml, the variable that overrides each, and its default:
",
    );
    let mut shown = "";
    for setting in SETTINGS {
        let (section, key) = setting.path.rsplit_once('.').unwrap_or(("", setting.path));
        if section != shown {
            text.push_str(&format!("[{section}]\n"));
            shown = section;
        }
        text.push_str(&format!("  {key:<17} {:<30} {}\n", setting.variable, setting.help));
    }
    text.push_str("\nKNOT_LOG_FILTER says what is logged: info, or knot_server=debug,warn");
    text
}

/// Loads the configuration, starts logging and runs the server until it is told to stop.
///
/// # Errors
/// When the configuration is wrong, or the server cannot start or has to stop.
pub fn main(args: &ServerArgs) -> Result<(), CliError> {
    let mut loaded = Config::load(args.config.as_deref())?;
    if args.json {
        loaded.config.log = LogFormat::Json;
    }
    logging::start(loaded.config.log, std::env::var(logging::FILTER_VARIABLE).ok().as_deref())?;
    match &loaded.source {
        Some(path) => tracing::info!(file = %path.display(), "read the configuration"),
        None => tracing::info!("no knot.toml found: a server of its own"),
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config_file = args.config.clone();
    let stop = start(loaded.config, move || Config::load(config_file.as_deref()).map(|loaded| loaded.config))?;
    tracing::info!(?stop, "stopped");
    Ok(())
}
