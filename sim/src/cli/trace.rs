//! `knot-sim trace`.

use clap::Args;

use super::arguments::RunOf;
use super::output::{print, print_json};
use super::{CliError, Exit};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim trace 17
  knot-sim trace region-lost --seed 5";

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    #[command(flatten)]
    run: RunOf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &TraceArgs) -> Result<Exit, CliError> {
    let picked = args.run.pick()?;
    let report = picked.level.run(picked.scenario, picked.planted)?;
    if args.json {
        print_json(&serde_json::json!({ "trace": report.trace, "events": report.counts.events }))?;
    } else {
        print(&report.trace)?;
    }
    Ok(Exit::held(report.violations.is_empty()))
}
