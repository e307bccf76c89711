//! `knot-sim trace`.

use clap::Args;
use knot_engine::Faults;

use super::arguments::ShapeArgs;
use crate::campaign::run_seed;

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    shape: ShapeArgs,
}

pub(super) fn perform(args: &TraceArgs) -> bool {
    let report = run_seed(args.seed, &args.shape.shape(), Faults::default(), None);
    println!("{}", report.trace);
    report.violations.is_empty()
}
