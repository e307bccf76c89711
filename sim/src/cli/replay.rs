//! `knot-sim replay`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::arguments::{Moment, Picked, RunOf};
use super::output::{number, print, print_json, print_report, printing_log, table, text_of};
use super::{CliError, Exit, failure};
use crate::level::Level;
use crate::recording::record;
use crate::report::Report;
use crate::state::{Disagreement, MemberState, NodeState, ProcessState, disagreements};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim replay 17                            its verdict and its numbers
  knot-sim replay 17 --log                      what happens, line by line
  knot-sim replay 17 --trace | less             and every event that its hash covers
  knot-sim replay 17 --until 12.5s              how each server stands at that moment
  knot-sim replay region-lost --seed 5 --page out.html
  knot-sim replay 17 --level 2                  whole servers; its seeds are not those of level 1
  knot-sim replay 3 --plant scope_ignored --page broken.html";

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    run: RunOf,
    /// Stop here, such as 12.5s or 350ms, and show how each server stands
    #[arg(long, value_name = "T")]
    until: Option<Moment>,
    /// Print what happens, line by line
    #[arg(long)]
    log: bool,
    /// Print every event, those that only the trace's hash covers too; their lines begin with a bar
    #[arg(long)]
    trace: bool,
    /// Draw the run into this file, for any browser
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["log", "trace"])]
    json: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// How the servers stood where it was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Stopped<'a>>,
}

#[derive(Serialize)]
struct Stopped<'a> {
    nodes: &'a [NodeState],
    /// Documents that servers show in different states.
    different: std::collections::BTreeMap<String, Disagreement>,
}

pub(super) fn perform(args: &ReplayArgs) -> Result<Exit, CliError> {
    let picked = args.run.pick()?;
    if picked.level != Level::Engines {
        return servers(args, picked);
    }
    let until = args.until.map(|moment| moment.0);
    let log = (args.log || args.trace).then(printing_log);
    let (report, recording) = record(picked.scenario.clone(), picked.planted, until, log, args.trace);
    if let Some(path) = &args.page {
        failure::draw(&picked, &report, &recording, path)?;
        eprintln!("drawn into {}", path.display());
    }
    let stopped = args.until.is_some();
    if args.json {
        let nodes = recording.state();
        let state = stopped.then(|| Stopped { nodes, different: disagreements(nodes) });
        print_json(&Outcome { report: &report, state })?;
    } else {
        if stopped {
            print(text(&report, recording.state()))?;
        }
        print_report(&picked.name, &report)?;
    }
    Ok(Exit::held(report.violations.is_empty()))
}

/// Whole servers, into which nobody looks.
fn servers(args: &ReplayArgs, picked: Picked) -> Result<Exit, CliError> {
    if args.until.is_some() || args.log || args.trace || args.page.is_some() {
        let all = "--until, --log, --trace and --page look into engines: leave them out, or leave out --level";
        return Err(CliError::Usage(all.to_owned()));
    }
    let report = picked.level.run(picked.scenario, picked.planted)?;
    if args.json {
        print_json(&Outcome { report: &report, state: None })?;
    } else {
        print_report(&picked.name, &report)?;
    }
    Ok(Exit::held(report.violations.is_empty()))
}

/// How the servers stand, as tables.
fn text(report: &Report, nodes: &[NodeState]) -> String {
    let at = knot_engine::Instant::from_micros(report.simulated_us);
    let mut parts = vec![format!("at {at}"), scopes(nodes)];
    let beliefs = beliefs(nodes);
    parts.push(if beliefs.is_empty() { "every server sees every other alive".to_owned() } else { beliefs });
    let different = disagreements(nodes);
    if !different.is_empty() {
        parts.push(documents(&different));
    }
    let queues = queues(nodes);
    parts.push(if queues.is_empty() { "all queues are empty".to_owned() } else { queues });
    parts.join("\n\n")
}

fn scopes(nodes: &[NodeState]) -> String {
    let mut table = table(&["SERVER", "ZONE", "PROCESS", "SCOPE", "DOCUMENTS", "DELETED", "ROOT"]);
    for node in nodes {
        let process = match node.process {
            ProcessState::Running => "running",
            ProcessState::Paused => "paused",
            ProcessState::Down => "down",
        };
        let own = [node.name.as_str(), node.zone.as_str(), process];
        if node.scopes.is_empty() {
            table.add_row(own);
        }
        for (index, scope) in node.scopes.iter().enumerate() {
            let mut row: Vec<comfy_table::Cell> =
                own.iter().map(|cell| comfy_table::Cell::new(if index == 0 { cell } else { "" })).collect();
            row.push(comfy_table::Cell::new(&scope.scope));
            row.extend([number(scope.documents), number(scope.deleted)]);
            row.push(comfy_table::Cell::new(scope.root.chars().take(12).collect::<String>()));
            table.add_row(row);
        }
    }
    text_of(table)
}

/// Whoever is not seen alive, by whom.
fn beliefs(nodes: &[NodeState]) -> String {
    let mut table = table(&["SERVER", "SEES", "AS", "INCARNATION", "FOR"]);
    let seconds =
        |member: &MemberState| format!("{:.1} s", std::time::Duration::from_millis(member.for_ms).as_secs_f64());
    let mut is_empty = true;
    for node in nodes.iter().filter(|node| node.process != ProcessState::Down) {
        let known = |other: &&NodeState| !node.members.iter().any(|member| member.name == other.name);
        for member in node.members.iter().filter(|member| member.status != "alive") {
            let cells = [&node.name, &member.name, member.status, &member.incarnation];
            let mut row: Vec<comfy_table::Cell> = cells.into_iter().map(comfy_table::Cell::new).collect();
            row.push(number(seconds(member)));
            table.add_row(row);
            is_empty = false;
        }
        for unknown in nodes.iter().filter(known) {
            table.add_row([node.name.as_str(), unknown.name.as_str(), "unknown", "", ""]);
            is_empty = false;
        }
    }
    if is_empty { String::new() } else { text_of(table) }
}

/// Lines that list documents.
const DOCUMENTS_MAX: usize = 20;

fn documents(different: &std::collections::BTreeMap<String, Disagreement>) -> String {
    let mut table = table(&["DIFFERENT DOCUMENT", "STATE", "ON"]);
    for (document, states) in different.iter().take(DOCUMENTS_MAX) {
        for (index, (etag, servers)) in states.iter().enumerate() {
            let document = if index == 0 { document.as_str() } else { "" };
            let etag: String = etag.chars().take(12).collect();
            table.add_row([document, &etag, &servers.join(" ")]);
        }
    }
    let more = different.len().saturating_sub(DOCUMENTS_MAX);
    let rest = if more > 0 { format!("\nand {more} more documents") } else { String::new() };
    text_of(table) + &rest
}

fn queues(nodes: &[NodeState]) -> String {
    let mut table = table(&["SERVER", "QUEUE", "DEPTH", "LIMIT"]);
    let mut is_empty = true;
    for node in nodes {
        for queue in &node.queues {
            let name = [comfy_table::Cell::new(&node.name), comfy_table::Cell::new(queue.name)];
            table.add_row(name.into_iter().chain([number(queue.depth), number(queue.limit)]));
            is_empty = false;
        }
    }
    if is_empty { String::new() } else { text_of(table) }
}
