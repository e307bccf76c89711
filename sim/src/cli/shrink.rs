//! `knot-sim shrink`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::RunOf;
use super::output::{print, print_scenario, write_file};
use super::{CliError, Exit};
use crate::level::Level;
use crate::page::Page;
use crate::recording::record;
use crate::shrink::{REPLAYS_MAX, Shrunk, shrink_with};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim shrink 17 > small.toml
  knot-sim shrink mine.toml --page small.html
  knot-sim shrink 0 --plant window_truncated";

#[derive(Debug, Args)]
pub(super) struct ShrinkArgs {
    #[command(flatten)]
    run: RunOf,
    /// Stop after this many runs
    #[arg(long, default_value_t = REPLAYS_MAX)]
    replays: usize,
    /// Draw what is left into this file, for any browser
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

pub(super) fn perform(args: &ShrinkArgs) -> Result<Exit, CliError> {
    let picked = args.run.pick()?;
    if args.page.is_some() && picked.level != Level::Engines {
        return Err(CliError::Usage("--page draws engines alone: leave it out, or leave out --level".to_owned()));
    }
    let progress = |replays: usize, events: usize| {
        if replays.is_multiple_of(20) {
            eprintln!("{replays} runs, {events} events left");
        }
    };
    let run = |scenario| picked.level.run(scenario, picked.planted);
    let Some(shrunk) = shrink_with(picked.scenario.clone(), &run, args.replays, &progress)? else {
        eprintln!("nothing fails in {}", picked.name);
        return Ok(Exit::Broke);
    };
    eprintln!("{} events on {} servers after {} runs", shrunk.events(), shrunk.scenario.nodes.len(), shrunk.replays);
    if let Some(folder) = &shrunk.left_behind {
        eprintln!("what its servers left behind is in {}", folder.display());
    }
    if let Some(path) = &args.page {
        let (report, recording) = record(shrunk.scenario.clone(), picked.planted, None, None, false);
        let page = Page {
            name: &format!("{}, shrunk", picked.name),
            scenario: &shrunk.scenario,
            planted: picked.planted,
            report: &report,
            recording: &recording,
            replay: &format!("{} > small.toml; knot-sim replay small.toml", picked.line("shrink")),
            shrink: None,
        };
        write_file(path, &page.html())?;
        eprintln!("drawn into {}", path.display());
    }
    print(comment(&shrunk))?;
    print_scenario(&shrunk.scenario)?;
    Ok(Exit::Held)
}

fn comment(shrunk: &Shrunk) -> String {
    format!("# {}", shrunk.violation.to_string().replace('\n', "\n# "))
}
