//! `knot-sim explain`.

use clap::Args;
use comfy_table::Cell;
use serde_json::json;

use super::arguments::{Picked, RunOf};
use super::output::{number, print, print_json, table, text_of};
use super::{CliError, Exit};
use crate::explanation::{Event, Explanation};
use crate::scenario::words::millis;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim explain region-lost
  knot-sim explain 17                 what a seed stands for
  knot-sim explain mine.toml --json";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    run: RunOf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &ExplainArgs) -> Result<Exit, CliError> {
    let picked = args.run.pick()?;
    let explanation = Explanation::of(&picked.scenario);
    if args.json {
        let Picked { name, about, .. } = &picked;
        print_json(&json!({ "name": name, "about": about, "explanation": explanation }))?;
    } else {
        print(text(&picked, &explanation))?;
    }
    Ok(Exit::Held)
}

fn text(picked: &Picked, explanation: &Explanation) -> String {
    let title = match &picked.about {
        Some(about) => format!("{}: {about}", picked.name),
        None => picked.name.clone(),
    };
    let events: Vec<String> = explanation.events.iter().map(sentence).collect();
    let events = if events.is_empty() { "  Nothing goes wrong.".to_owned() } else { events.join("\n") };
    let mut parts = vec![title, servers(explanation)];
    if explanation.zones.len() > 1 {
        parts.push(latencies(explanation));
    }
    parts.push(paragraph("CONDITIONS", &explanation.conditions));
    parts.push(paragraph("CLIENTS", &explanation.clients));
    parts.push(format!("WHAT GOES WRONG\n{events}"));
    parts.push(paragraph("WHAT MUST HOLD", &explanation.promises));
    parts.join("\n\n")
}

fn paragraph(title: &str, sentences: &[String]) -> String {
    let lines: Vec<String> = sentences.iter().map(|sentence| format!("  {sentence}")).collect();
    format!("{title}\n{}", lines.join("\n"))
}

fn servers(explanation: &Explanation) -> String {
    let mut table = table(&["ZONE", "SERVERS"]);
    for zone in &explanation.zones {
        table.add_row([zone.zone.as_str(), &zone.servers.join(" ")]);
    }
    text_of(table)
}

fn latencies(explanation: &Explanation) -> String {
    let names: Vec<&str> = explanation.zones.iter().map(|zone| zone.zone.as_str()).collect();
    let header: Vec<&str> = std::iter::once("ONE WAY, MS").chain(names.iter().copied()).collect();
    let mut table = table(&header);
    for (zone, row) in names.iter().zip(&explanation.latencies_ms) {
        table.add_row(std::iter::once(Cell::new(zone)).chain(row.iter().map(|time| number(format!("{time:.1}")))));
    }
    text_of(table)
}

fn sentence(event: &Event) -> String {
    let lasting = match event.for_ms {
        Some(lasting) => format!(" for {}", millis(lasting)),
        None => String::new(),
    };
    format!("  {:>9}{lasting}: {}", format!("At {}", millis(event.at_ms)), event.text)
}
