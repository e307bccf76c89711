//! What is left of a run that failed: a page, and the lines to go on with.

use std::path::{Path, PathBuf};

use super::CliError;
use super::arguments::Picked;
use super::output::write_file;
use crate::level::Level;
use crate::page::Page;
use crate::recording::{Recording, record};
use crate::report::Report;

/// Where pages go when nobody says.
pub(super) fn usual_folder() -> PathBuf {
    std::env::temp_dir().join("knot-sim-failures")
}

/// Where the page of a run goes; none for whole servers, of which no page shows the inside.
pub(super) fn page_path(picked: &Picked, folder: &Path) -> Option<PathBuf> {
    let name = format!("knot-sim-{}.html", picked.scenario.seed);
    (picked.level == Level::Engines).then(|| folder.join(name))
}

/// Runs it again, this time with a recorder, and writes what happened to a page in `folder`, if it has one.
pub(super) fn write_page(picked: &Picked, folder: &Path) -> Result<Option<PathBuf>, CliError> {
    let Some(path) = page_path(picked, folder) else { return Ok(None) };
    let (report, recording) = record(picked.scenario.clone(), picked.planted, None, None, false);
    draw(picked, &report, &recording, &path)?;
    Ok(Some(path))
}

/// Writes a recorded run to a page.
pub(super) fn draw(picked: &Picked, report: &Report, recording: &Recording, path: &Path) -> Result<(), CliError> {
    let (replay, shrink) = (picked.line("replay"), picked.line("shrink"));
    let page = Page {
        name: &picked.name,
        scenario: &picked.scenario,
        planted: picked.planted,
        report,
        recording,
        replay: &replay,
        shrink: (!report.violations.is_empty()).then_some(&shrink),
    };
    write_file(path, &page.html())
}

/// A failure in lines.
pub(super) fn lines(picked: &Picked, report: &Report, page: Result<Option<PathBuf>, CliError>) -> String {
    let mut lines = vec![format!("{} FAILED", picked.name)];
    lines.extend(report.violations.iter().map(|violation| format!("  {violation}")));
    match page {
        Ok(Some(path)) => lines.push(format!("  page:   {}", path.display())),
        Ok(None) => {}
        Err(error) => lines.push(format!("  page:   {error}")),
    }
    lines.extend(report.left_behind.iter().map(|folder| format!("  left:   {}", folder.display())));
    lines.push(format!("  replay: {}", picked.line("replay")));
    lines.push(format!("  shrink: {}", picked.line("shrink")));
    lines.join("\n")
}
