//! `knot-sim`: runs simulated clusters.

use std::process::ExitCode;

fn main() -> ExitCode {
    knot_sim::cli::main()
}
