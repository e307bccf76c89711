//! `knot-sim`: runs simulated clusters.

use std::process::ExitCode;

/// Automerge allocates much and briefly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    knot_sim::cli::main()
}
