//! The command line. Data goes to stdout and everything else to stderr.

mod arguments;
mod matrix;
mod output;
mod run;
mod scenario;
mod shrink;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates knot clusters under faults and checks what they promise.
#[derive(Debug, Parser)]
#[command(name = "knot-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  knot-sim run --seeds 0..1000               a thousand clusters, faults as each seed draws them
  knot-sim run --seed 17 --log               one of them again, event by event
  knot-sim run --seeds 0..50 --document automerge --nodes 10
  knot-sim matrix                            how many seeds each planted bug takes
  knot-sim trace --seed 17                   the hash of all that happens in a run
  knot-sim scenario --seed 17 > a.toml       what a seed stands for, as a file
  knot-sim run --scenario a.toml --log       what such a file stands for
  knot-sim shrink --seed 17 > a.toml         the least of it that fails the same way

Exit codes: 0 all promises held, 1 one did not, 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds and check every promise.
    #[command(after_help = EXAMPLES)]
    Run(run::RunArgs),
    /// Plant each known bug and count the seeds until it is found.
    Matrix(matrix::MatrixArgs),
    /// Print the hash of all that happens in a run.
    Trace(trace::TraceArgs),
    /// Print a seed's scenario as TOML.
    Scenario(scenario::ScenarioArgs),
    /// Find the smallest scenario that fails as a seed or a file does, and print it as TOML.
    Shrink(shrink::ShrinkArgs),
}

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well; an error is a wrong command line.
fn perform(command: Command) -> Result<bool, String> {
    match command {
        Command::Run(args) => run::perform(&args),
        Command::Matrix(args) => Ok(matrix::perform(&args)),
        Command::Trace(args) => Ok(trace::perform(&args)),
        Command::Scenario(args) => scenario::perform(&args),
        Command::Shrink(args) => shrink::perform(&args),
    }
}
