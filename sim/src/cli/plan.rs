//! `knot-sim plan`.

use std::path::PathBuf;

use clap::Args;
use comfy_table::Cell;

use super::arguments::{How, Picked, ShapeArgs, jobs, pick};
use super::output::{number, print, print_json, table, text_of};
use super::{CliError, Exit, failure};
use crate::plan::{Plan, Times, Traffic, plan};
use crate::recording::record;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim plan --scenario region-lost
  knot-sim plan --scenario mine.toml --seeds 100 --json
  knot-sim plan --scenario mine.toml --page mine.html      the first run, drawn

Latencies, losses and faults are the scenario's; seeds vary what it leaves to chance. Bytes are those of frames and
datagrams before compression, without headers of TCP, UDP and IP.";

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// A scenario by its name or file, or a seed
    #[arg(long, value_name = "SCENARIO|FILE")]
    scenario: String,
    /// How many seeds to run it with, from its own on
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many runs at once; as many as there are processors otherwise
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Draw the first run into this file, for any browser
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

pub(super) fn perform(args: &PlanArgs) -> Result<Exit, CliError> {
    let picked = pick(Some(&args.scenario), None, &args.shape.shape(), How::default())?;
    let plan = plan(&picked.scenario, args.seeds, jobs(args.jobs));
    if let Some(path) = &args.page {
        let (report, recording) = record(picked.scenario.clone(), picked.planted, None, None, false);
        failure::draw(&picked, &report, &recording, path)?;
        eprintln!("drawn into {}", path.display());
    }
    if args.json {
        print_json(&plan)?;
    } else {
        print(text(&picked, &plan))?;
    }
    Ok(Exit::held(plan.broken.is_empty()))
}

fn text(picked: &Picked, plan: &Plan) -> String {
    let title = format!(
        "{}: {} servers, {} runs, {:.0} s simulated",
        picked.name,
        picked.scenario.nodes.len(),
        plan.runs,
        plan.simulated_s
    );
    let mut parts = vec![title, times(plan), traffic(plan)];
    let broken: Vec<String> =
        plan.broken.iter().map(|(seed, violation)| format!("seed {seed} FAILED\n  {violation}")).collect();
    if !broken.is_empty() {
        parts.push(broken.join("\n"));
    }
    parts.join("\n\n")
}

fn times(plan: &Plan) -> String {
    let mut table = table(&["TIMES, MS", "COUNT", "P50", "P95", "P99", "MAX", ""]);
    let mut row = |name: String, times: &Times, note: String| {
        let cell = |time: f64| if times.count == 0 { number("-") } else { number(millis(time)) };
        let Times { count, p50, p95, p99, max } = *times;
        let numbers = [number(count), cell(p50), cell(p95), cell(p99), cell(max)];
        table.add_row(std::iter::once(Cell::new(name)).chain(numbers).chain([Cell::new(note)]));
    };
    for convergence in &plan.convergence {
        let never = if convergence.never > 0 { format!("{} never", convergence.never) } else { String::new() };
        let zone = &convergence.writer_zone;
        row(format!("write in {zone} on most servers"), &convergence.most_ms, String::new());
        row(format!("write in {zone} on all servers"), &convergence.all_ms, never);
    }
    let detection = &plan.detection;
    let back = detection.back_first;
    let note = if back > 0 { format!("{back} of {} back before", detection.crashes) } else { String::new() };
    row("crash noticed by the first".to_owned(), &detection.first_ms, note);
    row("crash noticed by the last".to_owned(), &detection.last_ms, String::new());
    row("settled after the last fault".to_owned(), &plan.settled_ms, String::new());
    text_of(table)
}

/// A time with about three digits.
fn millis(time: f64) -> String {
    if time < 10.0 {
        format!("{time:.2}")
    } else if time < 100.0 {
        format!("{time:.1}")
    } else {
        format!("{time:.0}")
    }
}

fn traffic(plan: &Plan) -> String {
    let mut table = table(&["TRAFFIC", "KB A RUN", "B/S", "PEAK B/S", "OF IT DOCUMENTS"]);
    let mut row = |name: String, traffic: &Traffic| {
        let documents = (traffic.document_bytes * 100).checked_div(traffic.bytes).unwrap_or_default();
        let numbers = [
            number(traffic.bytes.div_ceil(1_000)),
            number(traffic.bytes_per_s),
            number(traffic.peak_bytes_per_s),
            number(format!("{documents} %")),
        ];
        table.add_row(std::iter::once(Cell::new(name)).chain(numbers));
    };
    for zone in &plan.zones {
        let name = if zone.from == zone.to {
            format!("within {}", zone.from)
        } else {
            format!("{} to {}", zone.from, zone.to)
        };
        row(name, zone);
    }
    if let Some(busiest) = &plan.busiest {
        row(format!("busiest link: {} to {}", busiest.from, busiest.to), busiest);
    }
    text_of(table)
}
