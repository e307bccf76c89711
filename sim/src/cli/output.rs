//! What commands print.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{CliError, account};
use crate::Sink;
use crate::report::Report;
use crate::scenario::Scenario;

/// Prints a line, or several.
pub(super) fn print(line: impl Display) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|source| CliError::Write { what: "to stdout".to_owned(), source })
}

pub(super) fn print_scenario(scenario: &Scenario) -> Result<(), CliError> {
    print(scenario.to_toml()?.trim_end())
}

pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    print(serde_json::to_string_pretty(value)?)
}

/// Prints each line of a run's log. Lines that nobody reads any more are dropped: the run goes on to its verdict.
pub(super) fn printing_log() -> Sink {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut is_read = true;
    Box::new(move |line| is_read = is_read && writeln!(out, "{line}").is_ok())
}

/// A table in columns, without lines, that no terminal width breaks.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header);
    }
    table
}

/// The table as text, without the blanks that end its lines.
pub(super) fn text_of(mut table: Table) -> String {
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A cell for a number.
pub(super) fn number(text: impl Display) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Writes a file, and the folders that it is in.
pub(super) fn write_file(path: &Path, content: &str) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all);
    let written = made.and_then(|()| std::fs::write(path, content));
    written.map_err(|source| CliError::Write { what: path.display().to_string(), source })
}

pub(super) fn print_report(name: &str, report: &Report) -> Result<(), CliError> {
    let verdict = if report.violations.is_empty() { "ok" } else { "FAILED" };
    let trace = if report.trace.is_empty() { String::new() } else { format!(", trace {}", report.trace) };
    let mut lines = vec![format!("{name}: {verdict}, {} servers{trace}", report.nodes)];
    lines.extend(report.violations.iter().map(|violation| format!("  {violation}")));
    let counts = &report.counts;
    let counts: Vec<String> = [
        (counts.events, "events"),
        (counts.datagrams, "datagrams"),
        (counts.frames, "frames"),
        (counts.changes, "changes"),
        (counts.acknowledged, "edits acknowledged"),
        (counts.refused, "refused"),
        (counts.unknown, "unknown"),
        (counts.faults, "faults"),
        (counts.crashes, "crashes"),
        (counts.repairs, "repairs"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    lines.push(format!("  {}", counts.join(", ")));
    lines.extend(account::lines(&report.account, 8).into_iter().map(|line| format!("  {line}")));
    let left =
        report.left_behind.iter().map(|folder| format!("  what the servers left behind is in {}", folder.display()));
    lines.extend(left);
    print(lines.join("\n"))
}
