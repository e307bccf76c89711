//! The command line. Data goes to stdout and everything else to stderr.

mod account;
mod arguments;
mod diff;
mod explain;
mod failure;
mod list;
mod matrix;
mod output;
mod plan;
mod progress;
mod replay;
mod run;
mod scale;
mod scenario;
mod shrink;
mod trace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use self::output::print;
use crate::level::NotRun;
use crate::scenario::ScenarioError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// All promises held.
    Held = 0,
    /// One did not, or what was looked for was not found.
    Broke = 1,
    /// The command line is wrong, or a file.
    Usage = 2,
    /// This machine cannot run what was asked for, or could not go on.
    Unready = 3,
}

impl Exit {
    fn held(held: bool) -> Self {
        if held { Self::Held } else { Self::Broke }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no such scenario.
    #[error("no scenario is called {what}, and as a file it cannot be read: {source}")]
    NoScenario { what: String, source: std::io::Error },
    /// A file is no scenario.
    #[error("{what} is no scenario: {source}")]
    BadScenario { what: String, source: ScenarioError },
    /// Writing failed.
    #[error("cannot write {what}: {source}")]
    Write { what: String, source: std::io::Error },
    /// The scenario cannot be written as a file.
    #[error("cannot write the scenario as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
    /// A scenario has what its level cannot play.
    #[error("{what} cannot be played: {why}")]
    NotPlayed { what: String, why: NotRun },
    /// A run could not be made, or not to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
    /// A result cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoScenario { what, .. } => Some(match arguments::like(what) {
                Some(name) => format!("did you mean {name}? `knot-sim list` shows every name"),
                None => "`knot-sim list` shows every name; a seed is a number".to_owned(),
            }),
            Self::BadScenario { .. } => {
                Some("`knot-sim scenario 1` prints a whole one, docs/scenarios.md says what each key means".to_owned())
            }
            Self::Write { .. } => Some("choose a place that can be written with --out or --page".to_owned()),
            Self::NotPlayed { why, .. } | Self::NotRun(why) => Some(why.hint()),
            Self::Usage(_) | Self::Toml(_) | Self::Json(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        if matches!(self, Self::NotRun(why) if why.is_unready()) { Exit::Unready } else { Exit::Usage }
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim run --seeds 0..1000               a thousand clusters, faults as each seed draws them
  knot-sim replay 17 --page 17.html          one of them again, as a page for a browser
  knot-sim list                              scenarios that have a name
  knot-sim explain region-lost               one of them in words
  knot-sim plan --scenario region-lost       what a topology would do: latencies, traffic, detection
  knot-sim shrink 17 > small.toml            the least of a failing seed that fails the same way

EXIT CODES:
  0  all promises held   1  one did not   2  the command line or a file is wrong   3  level 3 cannot run here";

/// Simulates knot clusters under faults and checks what they promise.
#[derive(Debug, Parser)]
#[command(name = "knot-sim", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds and check every promise
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Run one again: look at a moment of it, at every event, or draw it
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Find the first event in which two runs differ
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::DiffArgs),
    /// Find the smallest scenario that fails as this one does, and print it as TOML
    #[command(after_help = shrink::EXAMPLES)]
    Shrink(shrink::ShrinkArgs),
    /// List the scenarios that have a name
    #[command(after_help = list::EXAMPLES)]
    List(list::ListArgs),
    /// Say in words what a scenario is
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Measure what a topology would do: convergence, traffic, failure detection
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::PlanArgs),
    /// Measure what clusters of 10 to 10,000 servers cost
    #[command(after_help = scale::EXAMPLES)]
    Scale(scale::ScaleArgs),
    /// Print a scenario as TOML
    #[command(after_help = scenario::EXAMPLES)]
    Scenario(scenario::ScenarioArgs),
    /// Print the hash of all that happens in a run
    #[command(after_help = trace::EXAMPLES)]
    Trace(trace::TraceArgs),
    /// Plant each known bug and count the seeds until it is found
    #[command(after_help = matrix::EXAMPLES)]
    Matrix(matrix::MatrixArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const COMPLETIONS_EXAMPLES: &str = "EXAMPLES:
  source <(knot-sim completions bash)
  knot-sim completions fish > ~/.config/fish/completions/knot-sim.fish";

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and clap knows which stream each goes to.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Held };
            let _ = error.print();
            return exit.into();
        }
    };
    match perform(cli.command) {
        Ok(exit) => exit.into(),
        // The reader of a pipe that has seen enough is no failure.
        Err(CliError::Write { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Exit::Held.into(),
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            error.exit().into()
        }
    }
}

fn perform(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Run(args) => run::perform(&args),
        Command::Replay(args) => replay::perform(&args),
        Command::Diff(args) => diff::perform(&args),
        Command::Shrink(args) => shrink::perform(&args),
        Command::List(args) => list::perform(&args),
        Command::Explain(args) => explain::perform(&args),
        Command::Plan(args) => plan::perform(&args),
        Command::Scale(args) => scale::perform(&args),
        Command::Scenario(args) => scenario::perform(&args),
        Command::Trace(args) => trace::perform(&args),
        Command::Matrix(args) => matrix::perform(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "knot-sim", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())?;
            Ok(Exit::Held)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
