//! `knot-sim shrink`.

use std::path::PathBuf;

use clap::Args;
use knot_engine::Faults;

use super::arguments::{ShapeArgs, planted_by_name, read_scenario};
use super::output::print_scenario;
use crate::scenario::Scenario;
use crate::shrink::shrink;

#[derive(Debug, Args)]
pub(super) struct ShrinkArgs {
    /// Which seed.
    #[arg(long, required_unless_present = "scenario")]
    seed: Option<u64>,
    /// A scenario from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Plant a bug, by its flag's name.
    #[arg(long, value_parser = planted_by_name)]
    plant: Option<Faults>,
    /// Stop after this many runs.
    #[arg(long, default_value_t = 200)]
    replays: usize,
}

pub(super) fn perform(args: &ShrinkArgs) -> Result<bool, String> {
    let scenario = match (&args.scenario, args.seed) {
        (Some(path), _) => read_scenario(path)?,
        (None, seed) => Scenario::generate(seed.unwrap_or_default(), &args.shape.shape()),
    };
    let progress = |replays: usize, events: usize| {
        if replays.is_multiple_of(20) {
            eprintln!("{replays} runs, {events} events left");
        }
    };
    let Some(shrunk) = shrink(scenario, args.plant.unwrap_or_default(), args.replays, &progress) else {
        eprintln!("nothing fails in it");
        return Ok(false);
    };
    eprintln!("{} events on {} servers after {} runs", shrunk.events(), shrunk.scenario.nodes.len(), shrunk.replays);
    println!("# {}", shrunk.violation.to_string().replace('\n', "\n# "));
    print_scenario(&shrunk.scenario)?;
    Ok(true)
}
