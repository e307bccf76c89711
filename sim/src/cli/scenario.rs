//! `knot-sim scenario`.

use clap::Args;

use super::arguments::RunOf;
use super::output::{print_json, print_scenario};
use super::{CliError, Exit};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim scenario 17 > a.toml        what a seed stands for, to be changed and replayed
  knot-sim scenario region-lost        a scenario of the list, with all that its file leaves out";

#[derive(Debug, Args)]
pub(super) struct ScenarioArgs {
    #[command(flatten)]
    run: RunOf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &ScenarioArgs) -> Result<Exit, CliError> {
    let picked = args.run.pick()?;
    if args.json {
        print_json(&picked.scenario)?;
    } else {
        print_scenario(&picked.scenario)?;
    }
    Ok(Exit::Held)
}
