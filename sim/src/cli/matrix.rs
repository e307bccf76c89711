//! `knot-sim matrix`.

use clap::Args;
use knot_engine::{Area, Fault};

use super::arguments::{fault_by_name, jobs};
use super::output::{print, print_json};
use super::{CliError, Exit};
use crate::matrix::{Detection, EVENTS_FEW, Least, Totals, detect, least};
use crate::scenario::Length;
use crate::shrink::REPLAYS_MAX;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim matrix
  knot-sim matrix --area deletes --shrink
  knot-sim matrix --only scope_ignored --json";

#[derive(Debug, Args)]
pub(super) struct MatrixArgs {
    /// Give up on a bug after this many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds_max: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this bug
    #[arg(long, value_parser = fault_by_name)]
    only: Option<Fault>,
    /// Only bugs in this part of the engine
    #[arg(long, value_parser = area_by_name)]
    area: Option<Area>,
    /// How long faults go on; each seed chooses otherwise
    #[arg(long, value_enum)]
    length: Option<Length>,
    /// Make each failure small as well, in at most 200 runs
    #[arg(long)]
    shrink: bool,
    /// How many runs at once; as many as there are processors otherwise
    #[arg(long)]
    jobs: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Matrix {
    bugs: Vec<Detection>,
    totals: Totals,
}

fn area_by_name(name: &str) -> Result<Area, String> {
    Area::ALL.into_iter().find(|area| area.name() == name).ok_or_else(|| {
        let names = Area::ALL.map(Area::name);
        format!("no such part; there are {}", names.join(", "))
    })
}

pub(super) fn perform(args: &MatrixArgs) -> Result<Exit, CliError> {
    // A bug that makes the engine panic is found; the report says so.
    std::panic::set_hook(Box::new(|_| {}));
    let wanted = |fault: &Fault| {
        args.only.is_none_or(|only| only == *fault) && args.area.is_none_or(|area| area == fault.area())
    };
    let mut bugs: Vec<Detection> = Vec::new();
    for fault in Fault::ALL.iter().copied().filter(wanted) {
        let mut detection = detect(fault, args.length, args.first, args.seeds_max, jobs(args.jobs));
        if let Some(seed) = detection.seed.filter(|_| args.shrink) {
            detection.least = least(fault, args.length, seed, REPLAYS_MAX);
        }
        if !args.json {
            print(detection_text(&detection))?;
        }
        bugs.push(detection);
    }
    let totals = Totals::of(&bugs);
    let all_found = totals.found == totals.planted;
    if args.json {
        print_json(&Matrix { bugs, totals })?;
    } else {
        print(totals_text(&totals, args))?;
    }
    Ok(Exit::held(all_found))
}

fn detection_text(detection: &Detection) -> String {
    let Detection { area, name, .. } = detection;
    let least = detection.least.map_or(String::new(), |Least { events, servers, replays }| {
        format!("; {events} events on {servers} servers after {replays} runs")
    });
    match (detection.seeds, &detection.invariant) {
        (Some(seeds), Some(invariant)) => format!("{area:<13} {name:<24} {seeds:>6}  {invariant}{least}"),
        _ => format!("{area:<13} {name:<24}      -  not found"),
    }
}

fn totals_text(totals: &Totals, args: &MatrixArgs) -> String {
    let Totals { planted, found, median, p95, small } = totals;
    let seeds = |seeds: &Option<u64>| seeds.map_or("-".to_owned(), |seeds| seeds.to_string());
    let (most, median, p95) = (args.seeds_max, seeds(median), seeds(p95));
    let mut text = format!("{found} of {planted} found within {most} seeds: median {median}, p95 {p95}");
    if args.shrink {
        text.push_str(&format!("\n{small} of {found} come down to {EVENTS_FEW} events or fewer"));
    }
    text
}
