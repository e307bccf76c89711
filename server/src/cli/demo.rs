//! `knot demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::CliError;
use crate::config::parse_duration;

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot demo                          three servers until Ctrl-C
  knot demo --for 30s                ends by itself
  knot demo --nodes 5 --dir ./demo   keeps the data";

/// The arguments of `knot demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// End by itself after this long, such as 30s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub lasting: Option<Duration>,
    /// How many servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub nodes: u16,
    /// Keep the data here
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
}

/// Starts the servers, shows a document travel, and waits.
///
/// # Errors
/// When a server cannot be started or does not join.
pub fn main(args: &DemoArgs) -> Result<(), CliError> {
    run(args)
}

// SEAM: replace the body with the demonstration.
fn run(_args: &DemoArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not wired".to_owned()))
}
