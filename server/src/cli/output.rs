//! What goes to stdout.

use std::fmt::Display;
use std::io::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use knot_engine::Wall;
use serde_json::Value;

use super::CliError;
use crate::api::rfc3339;

/// Prints a line.
pub(super) fn print(line: impl Display) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| CliError::Io { what: "cannot write".to_owned(), source })
}

/// Prints JSON for people to read.
pub(super) fn print_pretty(value: &Value) -> Result<(), CliError> {
    print(format_args!("{value:#}"))
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

/// Prints a table without the blanks that end its lines.
pub(super) fn print_table(mut table: Table) -> Result<(), CliError> {
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    print(table.trim_fmt())
}

/// A cell for a number.
pub(super) fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A member of an answer, as people read it; `-` where it is absent.
pub(super) fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(other) => other.to_string(),
    }
}

/// When a change was made, as its author's clock says.
pub(super) fn time(row: &Value) -> String {
    row.get("time").and_then(Value::as_i64).map_or_else(|| "-".to_owned(), |ms| rfc3339(Wall(ms)))
}

/// Text that came over the network, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The beginning of `text`, at most `characters` of it.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
