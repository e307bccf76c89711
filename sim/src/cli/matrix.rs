//! `knot-sim matrix`.

use clap::Args;
use knot_engine::{Area, Fault};

use super::arguments::{fault_by_name, jobs};
use super::output::{print, print_json};
use super::{CliError, Exit};
use crate::matrix::{Detection, Totals, detect};
use crate::scenario::Length;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim matrix
  knot-sim matrix --area deletes
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
        let detection = detect(fault, args.length, args.first, args.seeds_max, jobs(args.jobs));
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
        print(totals_text(&totals, args.seeds_max))?;
    }
    Ok(Exit::held(all_found))
}

fn detection_text(detection: &Detection) -> String {
    let Detection { area, name, .. } = detection;
    match (detection.seeds, &detection.invariant) {
        (Some(seeds), Some(invariant)) => format!("{area:<13} {name:<24} {seeds:>6}  {invariant}"),
        _ => format!("{area:<13} {name:<24}      -  not found"),
    }
}

fn totals_text(totals: &Totals, seeds_max: u64) -> String {
    let Totals { planted, found, median, p95 } = totals;
    let seeds = |seeds: &Option<u64>| seeds.map_or("-".to_owned(), |seeds| seeds.to_string());
    format!("{found} of {planted} found within {seeds_max} seeds: median {}, p95 {}", seeds(median), seeds(p95))
}
