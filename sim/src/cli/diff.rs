//! `knot-sim diff`.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use clap::Args;
use knot_engine::Faults;
use serde::Serialize;

use super::arguments::{How, Picked, ShapeArgs, pick, planted_by_name};
use super::output::{print, print_json};
use super::{CliError, Exit};
use crate::Sink;
use crate::campaign::run_watched;
use crate::watch::Watch;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim diff 17 17                                 a seed is a run: nothing differs
  knot-sim diff 3 --plant window_truncated            where a bug first shows
  knot-sim diff before.toml after.toml --context 20

Lines that begin with a bar are events that only the trace's hash covers. The exit code is 1 where the runs differ.";

/// Lines of a run that are ahead of the other's.
const LINES_AHEAD: usize = 4_096;

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// One run: a seed, a scenario of `knot-sim list`, or a scenario's file
    #[arg(value_name = "A")]
    one: String,
    /// The other; the same where it is left out
    #[arg(value_name = "B", required_unless_present_any = ["plant_a", "plant_b"])]
    other: Option<String>,
    /// Plant a bug in the first, by its flag's name
    #[arg(long, value_name = "BUG", value_parser = planted_by_name)]
    plant_a: Option<Faults>,
    /// Plant a bug in the second
    #[arg(long = "plant", value_name = "BUG", value_parser = planted_by_name, visible_alias = "plant-b")]
    plant_b: Option<Faults>,
    /// How many lines to show around the first that differs
    #[arg(long, value_name = "LINES", default_value_t = 6)]
    context: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// Where two runs part.
#[derive(Debug, Serialize)]
struct Parting {
    /// Which event is the first that differs, counted from 1; none when none does.
    event: Option<u64>,
    /// How many are alike.
    alike: u64,
    /// The last that are alike.
    before: VecDeque<String>,
    /// The first of one run that is not in the other, and what follows; empty when the run is over.
    one: Vec<String>,
    /// And of the other.
    other: Vec<String>,
}

pub(super) fn perform(args: &DiffArgs) -> Result<Exit, CliError> {
    let shape = args.shape.shape();
    let engines = |planted: Option<Faults>| How { planted: planted.unwrap_or_default(), ..How::default() };
    let one = pick(Some(&args.one), None, &shape, engines(args.plant_a))?;
    let other = pick(Some(args.other.as_deref().unwrap_or(&args.one)), None, &shape, engines(args.plant_b))?;
    let names = [one.line("replay"), other.line("replay")];
    let parting = part(one, other, args.context);
    if args.json {
        print_json(&parting)?;
    } else {
        print(text(&parting, &names))?;
    }
    Ok(Exit::held(parting.event.is_none()))
}

/// Runs both at once, a few lines apart, and stops listening where they part.
fn part(one: Picked, other: Picked, context: usize) -> Parting {
    let (lines_one, lines_other) = (lines_of(one), lines_of(other));
    let mut parting = Parting { event: None, alike: 0, before: VecDeque::new(), one: Vec::new(), other: Vec::new() };
    loop {
        let (first, second) = (lines_one.recv().ok(), lines_other.recv().ok());
        if first != second {
            parting.event = Some(parting.alike + 1);
            parting.one = first.into_iter().chain(lines_one.iter().take(context)).collect();
            parting.other = second.into_iter().chain(lines_other.iter().take(context)).collect();
            return parting;
        }
        let Some(line) = first else {
            return parting;
        };
        parting.alike += 1;
        parting.before.push_back(line);
        if parting.before.len() > context {
            parting.before.pop_front();
        }
    }
}

/// The lines of a run, which goes on in a thread of its own for as long as they are wanted.
fn lines_of(picked: Picked) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let report = run_watched(picked.scenario, picked.planted, watch(sender.clone()));
        for violation in report.violations {
            // Nobody listens any more: the runs have parted before.
            let _ = sender.send(format!("BROKEN {violation}"));
        }
    });
    receiver
}

fn watch(sender: SyncSender<String>) -> Watch {
    let log: Sink = Box::new(move |line| {
        let _ = sender.send(line.to_owned());
    });
    Watch { log: Some(log), every_event: true, ..Watch::default() }
}

fn text(parting: &Parting, names: &[String; 2]) -> String {
    let Some(event) = parting.event else {
        return format!("alike in all {} lines", parting.alike);
    };
    let mut lines = vec![format!("alike for {} lines; line {event} differs", parting.alike), String::new()];
    lines.extend(parting.before.iter().map(|line| format!("  {line}")));
    for (mark, name, after) in [('-', &names[0], &parting.one), ('+', &names[1], &parting.other)] {
        lines.push(format!("{mark}{mark}{mark} {name}"));
        lines.extend(after.iter().map(|line| format!("{mark} {line}")));
        if after.is_empty() {
            lines.push(format!("{mark} (over)"));
        }
    }
    lines.join("\n")
}
