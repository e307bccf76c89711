//! `knot-sim scenario`.

use clap::Args;

use super::arguments::ShapeArgs;
use super::output::print_scenario;
use crate::scenario::Scenario;

#[derive(Debug, Args)]
pub(super) struct ScenarioArgs {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    shape: ShapeArgs,
}

pub(super) fn perform(args: &ScenarioArgs) -> Result<bool, String> {
    print_scenario(&Scenario::generate(args.seed, &args.shape.shape()))?;
    Ok(true)
}
